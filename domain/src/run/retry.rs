//! Times at which a failed step is attempted again.

use crate::failure::Failure;
use crate::graph::manifest::{BACKOFF_LIMIT, RetryPolicy};
use crate::time::{Span, Timestamp};

/// Returns the start of the attempt after `attempt` failed; `None` if there is none. The wait
/// doubles with each attempt. `jitter` (0 to 1000) adds up to half of it, so that steps that failed
/// together do not retry together.
pub fn next_attempt_at<D>(
    policy: &RetryPolicy,
    attempt: u32,
    error: &Failure<D>,
    now: Timestamp,
    jitter: u16,
) -> Option<Timestamp> {
    let is_listed =
        policy.on.is_empty() || policy.on.iter().any(|code| error.code == code.as_str());
    if !error.retryable || !is_listed || attempt >= policy.max {
        return None;
    }
    // The clamp keeps the shift within 64 bits; `BACKOFF_LIMIT` is reached long before.
    let doubled = policy.backoff.0.saturating_mul(1 << (attempt.clamp(1, 32) - 1));
    let wait = doubled.min(BACKOFF_LIMIT.0);
    let stretch = wait / 2 * u64::from(jitter.min(1000)) / 1000;
    Some(now.add_span(Span(wait + stretch)))
}

/// Postpones the next attempt to the end of the wait that a provider asked for at `now`; `hint` is
/// its length.
pub fn apply_retry_hint(due: Timestamp, now: Timestamp, hint: Option<Span>) -> Timestamp {
    due.max(now.add_span(hint.unwrap_or_default()))
}

/// Number of attempts after which a step is given up even if only its executors died.
const CRASHED_TRIES: u32 = 100;
/// Wait in milliseconds after the second attempt in a row whose executor died; it doubles from
/// there.
const CRASH_BACKOFF_MS: u64 = 10;
/// Maximum of that wait, in milliseconds.
const CRASH_BACKOFF_LIMIT_MS: u64 = 10_000;

/// Returns the start of the attempt after the executor of `attempt` died; `None` if there is none.
/// The first repetition starts at once. Later ones wait, so that of several executors that take
/// each other for dead one has time to finish.
pub fn next_attempt_after_crash(attempt: u32, now: Timestamp) -> Option<Timestamp> {
    let wait_ms = match attempt {
        0 | 1 => 0,
        more => (CRASH_BACKOFF_MS << (more - 2).min(16)).min(CRASH_BACKOFF_LIMIT_MS),
    };
    (attempt < CRASHED_TRIES).then(|| now.add_span(Span(wait_ms)))
}

#[cfg(test)]
mod tests {
    use super::{apply_retry_hint, next_attempt_after_crash, next_attempt_at};
    use crate::failure::Failure;
    use crate::graph::manifest::RetryPolicy;
    use crate::platform_text;
    use crate::time::{Span, Timestamp};

    fn failure(code: &'static str, retryable: bool) -> Failure {
        Failure { retryable, ..Failure::new(code, platform_text!("m")) }
    }

    fn policy(max: u32) -> RetryPolicy {
        RetryPolicy { max, backoff: Span::from_seconds(1), on: Vec::new() }
    }

    #[test]
    fn waits_double_and_are_bounded() {
        let error = failure("provider.timeout", true);
        let at =
            |attempt| next_attempt_at(&policy(99), attempt, &error, Timestamp(0), 0).unwrap().0;
        assert_eq!([at(1), at(2), at(3), at(7), at(90)], [1000, 2000, 4000, 60_000, 60_000]);
    }

    #[test]
    fn jitter_stretches_by_at_most_a_half() {
        let error = failure("provider.timeout", true);
        let at = |jitter| next_attempt_at(&policy(3), 1, &error, Timestamp(0), jitter).unwrap().0;
        assert_eq!([at(0), at(500), at(1000), at(u16::MAX)], [1000, 1250, 1500, 1500]);
    }

    #[test]
    fn a_hint_puts_the_next_try_off_and_never_brings_it_forward() {
        let at = |hint| apply_retry_hint(Timestamp(1500), Timestamp(1000), hint).0;
        assert_eq!(at(None), 1500);
        assert_eq!(at(Some(Span(200))), 1500);
        assert_eq!(at(Some(Span::from_seconds(60))), 61_000);
        assert_eq!(at(Some(Span(u64::MAX))), i64::MAX);
    }

    #[test]
    fn ends_with_the_last_try_and_with_what_cannot_get_better() {
        let timeout = failure("provider.timeout", true);
        assert_eq!(next_attempt_at(&policy(3), 3, &timeout, Timestamp(0), 0), None);
        let bad = failure("tool.invalid", false);
        assert_eq!(next_attempt_at(&policy(3), 1, &bad, Timestamp(0), 0), None);
        let only = RetryPolicy { on: vec!["provider.rate_limited".into()], ..policy(3) };
        assert_eq!(next_attempt_at(&only, 1, &timeout, Timestamp(0), 0), None);
    }

    #[test]
    fn crashes_in_a_row_are_further_and_further_apart() {
        let at = |attempt| next_attempt_after_crash(attempt, Timestamp(0)).map(|due| due.0);
        assert_eq!([at(1), at(2), at(3)], [Some(0), Some(10), Some(20)]);
        assert_eq!([at(99), at(100)], [Some(10_000), None]);
    }
}
