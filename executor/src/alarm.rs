//! Sleeping until a time of the log's clock, which may be set back or forward.

use std::time::Duration;

use convergio_domain::time::Timestamp;
use convergio_eventstore::WallClock;

/// Maximum sleep before the clock is read again: the log's clock may be corrected meanwhile, and
/// the runtime's timers stand still while the machine is suspended.
const CLOCK_CHECK_INTERVAL: Duration = Duration::from_secs(60);

/// Waits until `due` has come; forever if it is `None`.
pub(crate) async fn sleep_until(due: Option<Timestamp>, clock: &dyn WallClock) {
    let Some(due) = due else { return std::future::pending().await };
    while let Some(pause) = next_sleep(due, clock.now()) {
        tokio::time::sleep(pause).await;
    }
}

/// Returns the duration of the next sleep; `None` once the time has come.
fn next_sleep(due: Timestamp, now: Timestamp) -> Option<Duration> {
    let left_ms = due.span_since(now).0;
    (left_ms > 0).then(|| Duration::from_millis(left_ms).min(CLOCK_CHECK_INTERVAL))
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use convergio_domain::time::Timestamp;

    use super::{CLOCK_CHECK_INTERVAL, next_sleep};

    #[test]
    fn it_looks_at_the_clock_again_and_again() {
        let look = |due, now| next_sleep(Timestamp(due), Timestamp(now));
        assert_eq!(look(5000, 1000), Some(Duration::from_secs(4)));
        assert_eq!(look(3_600_000, 0), Some(CLOCK_CHECK_INTERVAL), "an hour is not slept at once");
        assert_eq!(look(5000, 5000), None);
        assert_eq!(look(5000, 6000), None, "what is over is not waited for");
    }
}
