//! Circuit breaker of a provider: whether it may be called now, by the outcome of recent calls.
//! There is one breaker for each provider and key.

use std::time::{Duration, Instant};

use crate::provider::ModelError;
use crate::provider::error::{QUOTA_EXCEEDED, is_quota_exceeded};

/// Pause after failures when the provider named no time to wait.
const DEFAULT_PAUSE: Duration = Duration::from_secs(10);
/// Consecutive failures after which other providers are preferred.
const AVOIDANCE_FAILURES: u32 = 2;
/// Longest remaining pause for which a provider is still preferred over others.
const SHORT_PAUSE: Duration = Duration::from_secs(2);
/// Consecutive failures after which the breaker opens and calls fail without being sent.
const BREAKER_FAILURES: u32 = 5;
/// Longest pause requested by a provider that a call waits out; for a longer one it fails at once.
pub(super) const PAUSE_WAIT_LIMIT: Duration = Duration::from_secs(10);
/// Pause of a key whose account is out of quota or credit.
const QUOTA_PAUSE: Duration = Duration::from_secs(3600);
/// Pause of a rejected key: its owner may have changed its permissions meanwhile.
const REJECTED_KEY_PAUSE: Duration = Duration::from_secs(60);

/// State of one circuit breaker.
#[derive(Debug, Default)]
pub(super) struct ProviderHealth {
    /// End of the current pause; absent or past when there is none.
    paused_until: Option<Instant>,
    /// Cause of the current pause.
    reason: PauseReason,
    /// Consecutive failures since the last success.
    failures: u32,
}

/// Cause of a pause; decides whether calls are refused, delayed or only sent elsewhere first.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
enum PauseReason {
    /// The provider failed: others are preferred, but it may be called below `BREAKER_FAILURES`.
    #[default]
    Failing,
    /// The provider is overloaded and named no time to wait: it may be called, others come first.
    Crowded,
    /// The provider asked for a pause, as by `Retry-After`.
    Rate,
    /// The account behind the key is out of quota or credit.
    Money,
    /// The provider rejected the key.
    Key,
}

impl ProviderHealth {
    /// Returns the rest of the current pause, if there is one.
    fn remaining_pause(&self) -> Option<Duration> {
        let remaining = self.paused_until?.saturating_duration_since(Instant::now());
        (!remaining.is_zero()).then_some(remaining)
    }

    /// Returns whether calls should go here rather than to other providers. A single failure may be
    /// an accident and does not count; a second one, or a long pause, does.
    pub(super) fn is_preferred(&self) -> bool {
        let Some(left) = self.remaining_pause() else { return true };
        match self.reason {
            PauseReason::Failing => self.failures < AVOIDANCE_FAILURES,
            PauseReason::Rate => left <= SHORT_PAUSE,
            PauseReason::Crowded | PauseReason::Money | PauseReason::Key => false,
        }
    }

    /// Records an answered call. A pause that the provider asked for stays in force.
    pub(super) fn note_success(&mut self) {
        match self.reason {
            // Calls that were in flight before the pause began may still succeed.
            PauseReason::Rate if self.remaining_pause().is_some() => self.failures = 0,
            _ => *self = Self::default(),
        }
    }

    /// Records a failed call, which counts as `failures` consecutive failures. Errors caused by the
    /// request itself say nothing about the provider and are ignored.
    pub(super) fn note_failure(&mut self, error: &ModelError, failures: u32) {
        if !is_provider_fault(error.code) {
            return;
        }
        let (reason, pause) = match error.retry_after {
            // The key first: an error of it may carry a retry hint, which means nothing then.
            _ if error.code.starts_with("byok.") => (PauseReason::Key, REJECTED_KEY_PAUSE),
            _ if is_quota_exceeded(error) => (PauseReason::Money, QUOTA_PAUSE),
            Some(pause) => (PauseReason::Rate, pause),
            // Overload without a hint: the concurrency limit reacts to it, so the breaker stays
            // closed.
            None if error.code == "provider.rate_limited" => (PauseReason::Crowded, DEFAULT_PAUSE),
            None => (PauseReason::Failing, DEFAULT_PAUSE),
        };
        let until = Instant::now().checked_add(pause);
        // A later refusal without a hint must not shorten a pause that the provider asked for.
        let until = match self.reason {
            PauseReason::Rate
                if reason == PauseReason::Crowded && self.remaining_pause().is_some() =>
            {
                return;
            }
            PauseReason::Rate if reason == PauseReason::Rate => self.paused_until.max(until),
            _ => until,
        };
        let failures = self.failures.saturating_add(failures);
        *self = Self { paused_until: until, reason, failures };
    }

    /// Checks whether the provider `name` may be called now. A call of at most `timeout` waits out
    /// a short requested pause, so such a pause is no error.
    ///
    /// # Errors
    /// The reason why calls are refused, with `retry_after` if the provider named a time.
    pub(super) fn check_available(&self, name: &str, timeout: Duration) -> Result<(), ModelError> {
        let Some(left) = self.remaining_pause() else { return Ok(()) };
        let seconds = left.as_secs() + 1;
        let (code, retryable, why) = match self.reason {
            // The call queue holds calls back already.
            PauseReason::Crowded => return Ok(()),
            PauseReason::Failing if self.failures < BREAKER_FAILURES => return Ok(()),
            PauseReason::Rate if left <= PAUSE_WAIT_LIMIT && left < timeout => return Ok(()),
            PauseReason::Failing => ("provider.unavailable", true, "failed again and again"),
            PauseReason::Rate => ("provider.rate_limited", true, "asked to be left alone"),
            PauseReason::Money => (QUOTA_EXCEEDED, false, "said that its account may not spend"),
            PauseReason::Key => ("byok.bad_key", false, "refused its key"),
        };
        let message = format!("{name} {why}: it is not asked for {seconds} s");
        // Other pauses are guesses of this platform: a retry need not be delayed until they end.
        let retry_after = Some(left).filter(|_| self.reason == PauseReason::Rate);
        Err(ModelError { retry_after, ..ModelError::new(code, retryable, message) })
    }

    /// Like [`ProviderHealth::check_available`], for a call that is sent next. After a pause of the
    /// open breaker only one trial call is admitted at a time.
    pub(super) fn admit_call(&mut self, name: &str, timeout: Duration) -> Result<(), ModelError> {
        self.check_available(name, timeout)?;
        // Half-open: renewing the pause here keeps further calls out until the trial call reports.
        if self.remaining_pause().is_none() && self.failures >= BREAKER_FAILURES {
            self.paused_until = Instant::now().checked_add(DEFAULT_PAUSE);
        }
        Ok(())
    }
}

/// Returns whether an error code blames the provider or the key rather than the request.
pub(super) fn is_provider_fault(code: &str) -> bool {
    code.starts_with("byok.")
        || ["provider.unavailable", "provider.timeout", "provider.rate_limited", QUOTA_EXCEEDED]
            .contains(&code)
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::{BREAKER_FAILURES, ProviderHealth};
    use crate::provider::ModelError;

    const LONG: Duration = Duration::from_secs(60);

    fn limited(retry_after: Option<u64>) -> ModelError {
        let retry_after = retry_after.map(Duration::from_secs);
        ModelError { retry_after, ..ModelError::new("provider.rate_limited", true, "slow down") }
    }

    #[test]
    fn a_hint_outlives_an_answer_and_a_refusal_without_one() {
        let mut health = ProviderHealth::default();
        health.note_failure(&limited(Some(30)), 0);
        health.note_success();
        health.note_failure(&limited(None), 0);
        health.note_failure(&limited(Some(1)), 0);
        let error = health.check_available("p", LONG).unwrap_err();
        let left = error.retry_after.unwrap();
        assert!(left > Duration::from_secs(28) && error.retryable, "{error:?}");
        assert!(!health.is_preferred());
    }

    #[test]
    fn refusals_because_of_too_many_calls_do_not_open_the_breaker() {
        let mut health = ProviderHealth::default();
        for _ in 0..BREAKER_FAILURES * 2 {
            health.note_failure(&limited(None), 0);
            assert_eq!(health.admit_call("p", LONG), Ok(()));
        }
        assert!(!health.is_preferred(), "others are better");
        health.note_success();
        assert!(health.is_preferred());
    }

    #[test]
    fn looking_at_the_breaker_does_not_take_the_one_try() {
        let down = ModelError::provider_unavailable("down");
        let mut health = ProviderHealth::default();
        for _ in 0..BREAKER_FAILURES {
            health.note_failure(&down, 1);
        }
        assert!(health.check_available("p", LONG).is_err());
        health.paused_until = None;
        assert_eq!(health.check_available("p", LONG), Ok(()));
        assert_eq!(health.admit_call("p", LONG), Ok(()), "the one that is let through");
        assert!(health.admit_call("p", LONG).is_err());
    }
}
