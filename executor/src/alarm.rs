//! Waiting for a time of the log's clock.

use std::time::Duration;

use convergio_domain::time::Timestamp;
use convergio_eventstore::Clock;

/// Longest sleep without a look at the clock: it may be led back to the machine's meanwhile, and
/// the runtime's timers stand still while the machine sleeps.
const LOOK_INTERVAL: Duration = Duration::from_secs(60);

/// Waits until a time has come; for ever if there is none.
pub(crate) async fn sleep_until(due: Option<Timestamp>, clock: &dyn Clock) {
    let Some(due) = due else { return std::future::pending().await };
    while let Some(pause) = next_look(due, clock.now()) {
        tokio::time::sleep(pause).await;
    }
}

/// How long to sleep before the clock is looked at again; `None` once the time has come.
fn next_look(due: Timestamp, now: Timestamp) -> Option<Duration> {
    let left_ms = due.since(now).0;
    (left_ms > 0).then(|| Duration::from_millis(left_ms).min(LOOK_INTERVAL))
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use convergio_domain::time::Timestamp;

    use super::{LOOK_INTERVAL, next_look};

    #[test]
    fn it_looks_at_the_clock_again_and_again() {
        let look = |due, now| next_look(Timestamp(due), Timestamp(now));
        assert_eq!(look(5000, 1000), Some(Duration::from_secs(4)));
        assert_eq!(look(3_600_000, 0), Some(LOOK_INTERVAL), "an hour is not slept at once");
        assert_eq!(look(5000, 5000), None);
        assert_eq!(look(5000, 6000), None, "what is over is not waited for");
    }
}
