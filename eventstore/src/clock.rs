//! Clocks: the trait that callers depend on, and [`SteadyClock`], which no jump of the machine's
//! clock moves.

use std::sync::{Mutex, PoisonError};
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use convergio_domain::time::{Span, Timestamp};

use crate::error::LogError;
use crate::log::EventLog;
use crate::record::Position;

/// Source of timestamps, replaceable in tests.
pub trait WallClock: Send + Sync + 'static {
    /// Returns the current time in milliseconds since the Unix epoch.
    fn now(&self) -> Timestamp;
}

/// The machine's clock, including all its jumps.
#[derive(Debug, Clone, Copy, Default)]
pub struct SystemClock;

impl WallClock for SystemClock {
    fn now(&self) -> Timestamp {
        let since = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
        Timestamp(i64::try_from(since.as_millis()).unwrap_or(i64::MAX))
    }
}

/// Inputs of a [`SteadyClock`]: the time of day, which people and programs may set, and the
/// monotonic time, which nobody sets.
pub trait TimeSource: Send + Sync + 'static {
    /// Returns the machine's time of day.
    fn wall_time(&self) -> Timestamp;
    /// Returns the time since an arbitrary start, including the time that the machine was
    /// suspended.
    fn elapsed_time(&self) -> Duration;
}

/// Time of day and monotonic time of this machine.
#[derive(Debug, Clone, Copy, Default)]
pub struct SystemTimeSource;

impl TimeSource for SystemTimeSource {
    fn wall_time(&self) -> Timestamp {
        SystemClock.now()
    }

    #[cfg(target_os = "linux")]
    fn elapsed_time(&self) -> Duration {
        // `Instant` stops during suspend on Linux (CLOCK_MONOTONIC); waits of hours must not.
        let time = rustix::time::clock_gettime(rustix::time::ClockId::Boottime);
        let seconds = u64::try_from(time.tv_sec).unwrap_or_default();
        Duration::new(seconds, u32::try_from(time.tv_nsec).unwrap_or_default())
    }

    #[cfg(not(target_os = "linux"))]
    fn elapsed(&self) -> Duration {
        static START: std::sync::LazyLock<std::time::Instant> =
            std::sync::LazyLock::new(std::time::Instant::now);
        START.elapsed()
    }
}

/// Maximum slew: the clock runs at most one part in this many faster or slower than real time while
/// it approaches the machine's time of day.
pub const SLEW_DIVISOR: u32 = 20;
/// Maximum lead of the log's last record over the machine's clock that is taken for real. A larger
/// lead means that the machine which wrote it had a wrong clock.
pub const LEAD_LIMIT: Span = Span::from_seconds(24 * 3600);
/// Difference from the machine's clock that is logged as a jump.
const JUMP_NANOS: i128 = 2_000_000_000;
const NANOS_PER_MS: i128 = 1_000_000;

/// A clock that starts at the machine's time of day and then counts monotonic time. After a jump of
/// the machine's clock it approaches the new time of day at most one part in [`SLEW_DIVISOR`]
/// faster or slower than real time: timeouts keep their length, and no timestamp is lower than one
/// before.
#[derive(Debug)]
pub struct SteadyClock<S = SystemTimeSource> {
    source: S,
    reading: Mutex<ClockReading>,
}

/// Last value of the clock, and the source's values at that moment.
#[derive(Debug, Clone, Copy)]
struct ClockReading {
    /// Value of the clock in nanoseconds since the Unix epoch.
    time_nanos: i128,
    /// Monotonic time of the source at that moment.
    source_elapsed: Duration,
    /// True while the machine's time of day is known to differ by more than [`JUMP_NANOS`].
    is_diverged: bool,
}

impl SteadyClock {
    /// Creates the clock of a process that continues a log: never earlier than the log's last
    /// record, unless that is more than [`LEAD_LIMIT`] ahead of the machine's clock.
    ///
    /// # Errors
    /// The log cannot be read.
    pub async fn from_log(log: &dyn EventLog) -> Result<Self, LogError> {
        Ok(Self::new(SystemTimeSource, last_record_time(log).await?))
    }
}

impl<S: TimeSource> SteadyClock<S> {
    /// Creates a clock that starts at the source's time of day, or at `earliest` if that is later.
    pub fn new(source: S, earliest: Option<Timestamp>) -> Self {
        let wall = source.wall_time();
        let lead = earliest.map_or(Span(0), |earliest| earliest.span_since(wall));
        let is_believed = lead <= LEAD_LIMIT;
        if lead > Span(0) {
            let lead_ms = lead.0;
            tracing::warn!(lead_ms, is_believed, "the log's last record is ahead of the clock");
        }
        let start = if is_believed { wall.add_span(lead) } else { wall };
        let nanos = i128::from(start.0) * NANOS_PER_MS;
        let reading = ClockReading {
            time_nanos: nanos,
            source_elapsed: source.elapsed_time(),
            is_diverged: false,
        };
        Self { source, reading: Mutex::new(reading) }
    }
}

impl<S: TimeSource> WallClock for SteadyClock<S> {
    fn now(&self) -> Timestamp {
        let mut reading = self.reading.lock().unwrap_or_else(PoisonError::into_inner);
        reading.advance_to(self.source.elapsed_time(), self.source.wall_time());
        let ms = reading.time_nanos.div_euclid(NANOS_PER_MS);
        Timestamp(i64::try_from(ms).unwrap_or(i64::MAX))
    }
}

impl ClockReading {
    /// Adds the monotonic time that has passed, and closes a part of the gap to the time of day.
    fn advance_to(&mut self, elapsed: Duration, wall: Timestamp) {
        let passed = elapsed.saturating_sub(self.source_elapsed);
        let slew = as_nanos(passed / SLEW_DIVISOR);
        let counted = self.time_nanos + as_nanos(passed);
        let gap = i128::from(wall.0) * NANOS_PER_MS - counted;
        self.time_nanos = counted + gap.clamp(-slew, slew);
        // Two threads may sample the source in one order and lock the clock in the other.
        self.source_elapsed = self.source_elapsed.max(elapsed);
        self.warn_of_jump(gap);
    }

    /// Logs each jump of the machine's clock once.
    fn warn_of_jump(&mut self, gap_nanos: i128) {
        let is_apart = gap_nanos.abs() > JUMP_NANOS;
        if is_apart && !self.is_diverged {
            let gap_ms = i64::try_from(gap_nanos / NANOS_PER_MS).unwrap_or(i64::MAX);
            tracing::warn!(gap_ms, "the machine's clock jumped: it is followed slowly");
        }
        self.is_diverged = is_apart;
    }
}

fn as_nanos(duration: Duration) -> i128 {
    i128::try_from(duration.as_nanos()).unwrap_or(i128::MAX)
}

/// Returns the time of the log's last record.
async fn last_record_time(log: &dyn EventLog) -> Result<Option<Timestamp>, LogError> {
    let tail = log.read_all(Position::START, 0).await?.tail;
    let page = log.read_all(Position(tail.0.saturating_sub(1)), 1).await?;
    Ok(page.records.last().map(|record| record.body.time))
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;
    use std::sync::atomic::{AtomicI64, AtomicU64, Ordering};
    use std::time::Duration;

    use convergio_domain::decider::DecisionContext;
    use convergio_domain::request::{RequestCommand, RequestNoun};
    use convergio_domain::stream::StreamKey;
    use convergio_domain::time::{Span, Timestamp};

    use super::{LEAD_LIMIT, SteadyClock, SystemClock, TimeSource, WallClock};
    use crate::log::LogWriter;
    use crate::providers::memory::MemoryLog;
    use crate::repository::Repository;

    /// A source that is set by hand.
    #[derive(Clone, Default)]
    struct Dial {
        wall: Arc<AtomicI64>,
        elapsed: Arc<AtomicU64>,
    }

    impl TimeSource for Dial {
        fn wall_time(&self) -> Timestamp {
            Timestamp(self.wall.load(Ordering::Relaxed))
        }

        fn elapsed_time(&self) -> Duration {
            Duration::from_millis(self.elapsed.load(Ordering::Relaxed))
        }
    }

    impl Dial {
        fn at(wall: i64) -> Self {
            let dial = Self::default();
            dial.jump(wall);
            dial
        }

        /// Time passes; the time of day with it.
        fn pass(&self, ms: u64) {
            self.elapsed.fetch_add(ms, Ordering::Relaxed);
            self.wall.fetch_add(i64::try_from(ms).unwrap(), Ordering::Relaxed);
        }

        /// Somebody sets the time of day.
        fn jump(&self, ms: i64) {
            self.wall.fetch_add(ms, Ordering::Relaxed);
        }
    }

    const NOON: i64 = 1_000_000_000;

    fn clock(dial: &Dial, earliest: Option<i64>) -> SteadyClock<Dial> {
        SteadyClock::new(dial.clone(), earliest.map(Timestamp))
    }

    #[test]
    fn without_jumps_it_is_the_machines() {
        let dial = Dial::at(NOON);
        let clock = clock(&dial, Some(NOON - 5000));
        for _ in 0..1000 {
            dial.pass(7);
            assert_eq!(clock.now(), dial.wall_time());
        }
    }

    #[test]
    fn a_jump_moves_a_length_of_time_by_a_twentieth_at_most() {
        for jump in [-3_600_000, -60_000, -1, 1, 60_000, 7_200_000] {
            for step in [1, 50, 4000] {
                let dial = Dial::at(NOON);
                let clock = clock(&dial, None);
                let begun = clock.now();
                dial.jump(jump);
                for _ in 0..4000 / step {
                    dial.pass(step);
                    clock.now();
                }
                let took = clock.now().span_since(begun).0;
                assert!((3800..=4200).contains(&took), "{jump} in steps of {step}: {took}");
            }
        }
    }

    #[test]
    fn it_comes_back_to_the_machines_clock_and_never_goes_back_itself() {
        for jump in [-60_000, 60_000] {
            let dial = Dial::at(NOON);
            let clock = clock(&dial, None);
            dial.jump(jump);
            let mut last = clock.now();
            for _ in 0..1300 {
                dial.pass(1000);
                assert!(clock.now() >= last, "no time comes twice");
                last = clock.now();
            }
            assert_eq!(last, dial.wall_time(), "a minute is made up for in twenty");
        }
    }

    #[test]
    fn a_new_process_is_not_earlier_than_the_log() {
        let dial = Dial::at(NOON);
        assert_eq!(clock(&dial, Some(NOON + 60_000)).now().0, NOON + 60_000);
        assert_eq!(clock(&dial, Some(NOON - 60_000)).now().0, NOON);
        let far = Timestamp(NOON).add_span(LEAD_LIMIT).add_span(Span(1));
        assert_eq!(clock(&dial, Some(far.0)).now().0, NOON, "a clock that was wrong by days");
    }

    #[tokio::test]
    async fn a_log_is_gone_on_with_where_its_last_record_stands() {
        let log: Arc<dyn LogWriter> = Arc::new(MemoryLog::new());
        let begun = SteadyClock::from_log(&*log).await.unwrap().now();
        assert!(begun <= SystemClock.now(), "an empty log has no time");
        let ahead = SystemClock.now().add_span(Span::from_seconds(3600));
        let repository = Repository::new(Arc::clone(&log), Arc::new(SystemClock));
        let stream = StreamKey::for_request("default".parse().unwrap(), uuid::Uuid::now_v7());
        let context = DecisionContext { now: ahead, actor: "tester".parse().unwrap() };
        let accept =
            |_: &_, _| (RequestCommand::Accept { request_hash: "hash".into() }, Vec::new());
        repository.execute::<RequestNoun>(&stream, &context, accept).await.unwrap();
        assert!(SteadyClock::from_log(&*log).await.unwrap().now() >= ahead);
    }

    #[test]
    fn the_machines_source_goes_forward() {
        let source = super::SystemTimeSource;
        let (begun, wall) = (source.elapsed_time(), source.wall_time());
        assert!(source.elapsed_time() >= begun && wall.0 > 0);
    }
}
