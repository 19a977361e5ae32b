//! Whether a provider can be counted on just now: what failed lately is left alone for a while, and
//! what asked to be left alone is. One key, one breaker.

use std::time::{Duration, Instant};

use super::error::{ModelError, QUOTA_EXCEEDED, is_money};

/// How long a provider is left alone that does not say how long.
const PAUSE: Duration = Duration::from_secs(10);
/// Failures in a row after which others are asked in its place, if there are any.
const SHUNNED: u32 = 2;
/// A pause that is waited for though others would do.
const SHORT: Duration = Duration::from_secs(2);
/// Failures in a row after which it is not even tried.
const FAILURES: u32 = 5;
/// Longest time that a call waits for the end of a pause that the provider asked for.
pub(super) const PATIENCE: Duration = Duration::from_secs(10);
/// How long a key is parked whose account has no money left.
const PARKED: Duration = Duration::from_secs(3600);
/// How long a key is left alone that was refused: its owner may have changed its rights.
const REFUSED: Duration = Duration::from_secs(60);

/// What is known from the calls so far.
#[derive(Debug, Default)]
pub(super) struct Health {
    /// Until when it is left alone.
    until: Option<Instant>,
    why: Why,
    failures: u32,
}

/// Why a provider is left alone.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
enum Why {
    /// It failed: others are better, but it may be tried.
    #[default]
    Failing,
    /// It has too many calls and does not say for how long: it may be tried, but others first.
    Crowded,
    /// It asked to wait.
    Rate,
    /// Its account has no money left.
    Money,
    /// It refused the key.
    Key,
}

impl Health {
    /// How much longer it is left alone.
    fn left(&self) -> Option<Duration> {
        let left = self.until?.saturating_duration_since(Instant::now());
        (!left.is_zero()).then_some(left)
    }

    /// Whether a call is in good hands with it. One failure may be an accident: the same one is
    /// asked again. After the second, and when it asks to be left alone for long, others are asked.
    pub(super) fn is_good(&self) -> bool {
        let Some(left) = self.left() else { return true };
        match self.why {
            Why::Failing => self.failures < SHUNNED,
            Why::Rate => left <= SHORT,
            Why::Crowded | Why::Money | Why::Key => false,
        }
    }

    /// A call was answered. A pause that the provider asked for lasts nevertheless.
    pub(super) fn note_success(&mut self) {
        match self.why {
            Why::Rate if self.left().is_some() => self.failures = 0,
            _ => *self = Self::default(),
        }
    }

    /// A call failed. Errors that are the request's own say nothing about the provider. `failures`
    /// is how many failures it counts as.
    pub(super) fn note_failure(&mut self, error: &ModelError, failures: u32) {
        if !is_own(error.code) {
            return;
        }
        let (why, pause) = match error.retry_after {
            _ if error.code.starts_with("byok.") => (Why::Key, REFUSED),
            _ if is_money(error) => (Why::Money, PARKED),
            Some(pause) => (Why::Rate, pause),
            None if error.code == "provider.rate_limited" => (Why::Crowded, PAUSE),
            None => (Why::Failing, PAUSE),
        };
        let until = Instant::now().checked_add(pause);
        // Who refuses a call because it has too many does not cut a pause short that it asked for.
        let until = match self.why {
            Why::Rate if why == Why::Crowded && self.left().is_some() => return,
            Why::Rate if why == Why::Rate => self.until.max(until),
            _ => until,
        };
        let failures = self.failures.saturating_add(failures);
        *self = Self { until, why, failures };
    }

    /// Why the provider `name` is not asked now, if it is not: by a call that lasts at most
    /// `timeout`, and that would wait for the end of a short pause.
    pub(super) fn check(&self, name: &str, timeout: Duration) -> Result<(), ModelError> {
        let Some(left) = self.left() else { return Ok(()) };
        let seconds = left.as_secs() + 1;
        let (code, retryable, why) = match self.why {
            Why::Crowded => return Ok(()),
            Why::Failing if self.failures < FAILURES => return Ok(()),
            Why::Rate if left <= PATIENCE && left < timeout => return Ok(()),
            Why::Failing => ("provider.unavailable", true, "failed again and again"),
            Why::Rate => ("provider.rate_limited", true, "asked to be left alone"),
            Why::Money => (QUOTA_EXCEEDED, false, "said that its account may not spend"),
            Why::Key => ("byok.bad_key", false, "refused its key"),
        };
        let message = format!("{name} {why}: it is not asked for {seconds} s");
        // Other pauses are our own guess: no try need be put off until they end.
        let retry_after = Some(left).filter(|_| self.why == Why::Rate);
        Err(ModelError { retry_after, ..ModelError::new(code, retryable, message) })
    }

    /// The same, for a call that is sent if it may be. A provider that failed again and again is
    /// tried by one call at a time.
    pub(super) fn admit(&mut self, name: &str, timeout: Duration) -> Result<(), ModelError> {
        self.check(name, timeout)?;
        if self.left().is_none() && self.failures >= FAILURES {
            self.until = Instant::now().checked_add(PAUSE);
        }
        Ok(())
    }
}

/// Whether an error is the provider's or the key's own, and not the request's.
pub(super) fn is_own(code: &str) -> bool {
    code.starts_with("byok.")
        || ["provider.unavailable", "provider.timeout", "provider.rate_limited", QUOTA_EXCEEDED]
            .contains(&code)
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::{FAILURES, Health};
    use crate::model::ModelError;

    const LONG: Duration = Duration::from_secs(60);

    fn limited(retry_after: Option<u64>) -> ModelError {
        let retry_after = retry_after.map(Duration::from_secs);
        ModelError { retry_after, ..ModelError::new("provider.rate_limited", true, "slow down") }
    }

    #[test]
    fn a_hint_outlives_an_answer_and_a_refusal_without_one() {
        let mut health = Health::default();
        health.note_failure(&limited(Some(30)), 0);
        health.note_success();
        health.note_failure(&limited(None), 0);
        health.note_failure(&limited(Some(1)), 0);
        let error = health.check("p", LONG).unwrap_err();
        let left = error.retry_after.unwrap();
        assert!(left > Duration::from_secs(28) && error.retryable, "{error:?}");
        assert!(!health.is_good());
    }

    #[test]
    fn refusals_because_of_too_many_calls_do_not_open_the_breaker() {
        let mut health = Health::default();
        for _ in 0..FAILURES * 2 {
            health.note_failure(&limited(None), 0);
            assert_eq!(health.admit("p", LONG), Ok(()));
        }
        assert!(!health.is_good(), "others are better");
        health.note_success();
        assert!(health.is_good());
    }

    #[test]
    fn looking_at_the_breaker_does_not_take_the_one_try() {
        let down = ModelError::unavailable("down");
        let mut health = Health::default();
        for _ in 0..FAILURES {
            health.note_failure(&down, 1);
        }
        assert!(health.check("p", LONG).is_err());
        health.until = None;
        assert_eq!(health.check("p", LONG), Ok(()));
        assert_eq!(health.admit("p", LONG), Ok(()), "the one that is let through");
        assert!(health.admit("p", LONG).is_err());
    }
}
