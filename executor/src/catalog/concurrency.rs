//! The number of concurrent calls that a provider accepts, learnt from its refusals by additive
//! increase and multiplicative decrease (as TCP's congestion control). A state machine without
//! clock, randomness or IO.

use std::time::{Duration, Instant};

/// Pause after a refused call that was the only one in flight; doubles with each further one.
const FIRST_PAUSE: Duration = Duration::from_millis(500);
/// Longest such pause, without jitter.
const LONGEST_PAUSE: Duration = Duration::from_secs(8);
/// Longest time in which a provider may refuse single calls before all waiting calls fail. With the
/// retries that follow this is about the minute after which most rate limits are lifted.
const STALL_LIMIT: Duration = Duration::from_secs(30);

/// The calls in flight to one provider with one key, and their current limit.
#[derive(Debug)]
pub(super) struct ConcurrencyLimit {
    /// The configured limit of concurrent calls.
    maximum: u32,
    /// The learnt limit, from 1 to `maximum`.
    limit: u32,
    /// Number of calls in flight.
    in_flight: u32,
    /// Calls started so far; the next one has this number.
    start_count: u64,
    /// Number of the first call that started after the limit was last lowered. A refusal of an
    /// earlier call belongs to the burst that lowered the limit and does not lower it again.
    generation: u64,
    /// Accepted calls of this generation since the limit last changed.
    accepted_count: u32,
    /// No call starts before this instant.
    pause_end: Option<Instant>,
    /// Refusals in a row of calls that were alone; present while the provider accepts none.
    lone_refusals: Option<LoneRefusals>,
}

/// Consecutive refusals of calls that were the only ones in flight.
#[derive(Debug, Clone, Copy)]
struct LoneRefusals {
    since: Instant,
    count: u32,
}

/// A call in flight; returned by exactly one of [`ConcurrencyLimit::record_accepted`],
/// [`ConcurrencyLimit::record_refusal`] and [`ConcurrencyLimit::release_slot`].
#[derive(Debug)]
#[must_use]
pub(super) struct CallStart {
    number: u64,
    /// True if no other call was in flight when it started.
    is_alone: bool,
}

/// A provider's refusal of a call because it has too many.
#[derive(Debug, Clone, Copy)]
pub(super) struct LoadRefusal {
    /// The pause that the provider asked for.
    pub(super) hint: Option<Duration>,
    /// From 0 to 1000: lengthens a pause of this platform's own by up to a half.
    pub(super) jitter: u16,
}

/// The conclusion from a refusal.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum LoadPressure {
    /// The provider accepts fewer concurrent calls than there were.
    Crowded,
    /// The provider does not accept a single call now.
    Closed,
    /// The provider has not accepted a single call for `STALL_LIMIT`.
    Stalled,
}

impl ConcurrencyLimit {
    /// Creates a limit of `maximum` calls (at least 1) with none in flight.
    pub(super) fn new(maximum: u32) -> Self {
        let maximum = maximum.max(1);
        Self {
            maximum,
            limit: maximum,
            in_flight: 0,
            start_count: 0,
            generation: 0,
            accepted_count: 0,
            pause_end: None,
            lone_refusals: None,
        }
    }

    /// Returns the current limit, from 1 to the maximum.
    pub(super) fn current_limit(&self) -> u32 {
        self.limit
    }

    /// Returns whether one more call may start. A provider that refuses single calls is probed by
    /// one call at a time.
    pub(super) fn has_capacity(&self, now: Instant) -> bool {
        let limit = if self.lone_refusals.is_some() { 1 } else { self.limit };
        self.pause_end.is_none_or(|end| end <= now) && self.in_flight < limit
    }

    /// Starts a call if the limit and the pause allow it.
    pub(super) fn start_call(&mut self, now: Instant) -> Option<CallStart> {
        if !self.has_capacity(now) {
            return None;
        }
        let start = CallStart { number: self.start_count, is_alone: self.in_flight == 0 };
        self.start_count += 1;
        self.in_flight += 1;
        Some(start)
    }

    /// Returns the end of the last pause; it may be past.
    pub(super) fn pause_end(&self) -> Option<Instant> {
        self.pause_end
    }

    /// Records that the provider accepted the call. After as many accepted calls as the limit, the
    /// limit rises by one.
    pub(super) fn record_accepted(&mut self, start: CallStart) {
        // Any accepted call proves that the provider is open again.
        self.lone_refusals = None;
        if self.is_of_current_generation(&start) {
            self.accepted_count += 1;
        }
        if self.accepted_count >= self.limit && self.limit < self.maximum {
            self.limit += 1;
            self.accepted_count = 0;
        }
        self.release_slot(start);
    }

    /// Ends a call without learning anything from it.
    pub(super) fn release_slot(&mut self, start: CallStart) {
        let CallStart { number, .. } = start;
        debug_assert!(number < self.start_count, "it was started here");
        self.in_flight = self.in_flight.saturating_sub(1);
    }

    /// Records that the provider refused the call for overload. Lowers the limit once per burst,
    /// and begins a pause if the provider asked for one or refused a single call.
    pub(super) fn record_refusal(
        &mut self,
        start: CallStart,
        refusal: LoadRefusal,
        now: Instant,
    ) -> LoadPressure {
        // Alone means that no call was in flight at its start and none started since.
        let is_alone = start.is_alone && self.start_count == start.number + 1;
        if self.is_of_current_generation(&start) {
            self.halve_limit(is_alone);
        }
        self.release_slot(start);
        let (pressure, own_pause) = match is_alone {
            true => self.note_lone_refusal(refusal.jitter, now),
            false => (LoadPressure::Crowded, None),
        };
        // A hint of another call of the same burst may be longer: the latest end holds.
        let pause_end = own_pause.max(refusal.hint).and_then(|pause| now.checked_add(pause));
        self.pause_end = self.pause_end.max(pause_end);
        pressure
    }

    fn is_of_current_generation(&self, start: &CallStart) -> bool {
        start.number >= self.generation
    }

    /// Halves the limit, or the number of calls in flight if that is lower: a limit that was not
    /// reached says nothing. For a call that was alone the limit itself is halved.
    fn halve_limit(&mut self, is_alone: bool) {
        let reached = if is_alone { self.limit } else { self.limit.min(self.in_flight) };
        self.limit = (reached / 2).max(1);
        self.generation = self.start_count;
        self.accepted_count = 0;
    }

    /// Counts a refusal of a single call; returns the pressure and the pause before the next probe,
    /// doubled with each refusal.
    fn note_lone_refusal(&mut self, jitter: u16, now: Instant) -> (LoadPressure, Option<Duration>) {
        let previous = self.lone_refusals.unwrap_or(LoneRefusals { since: now, count: 0 });
        let LoneRefusals { since, count } = previous;
        self.lone_refusals = Some(LoneRefusals { since, count: count.saturating_add(1) });
        // The shift is bounded, since a provider may refuse for hours.
        let doubled = FIRST_PAUSE.saturating_mul(1 << count.min(16)).min(LONGEST_PAUSE);
        let pause = doubled + doubled / 2 * u32::from(jitter.min(1000)) / 1000;
        let is_stalled = now.saturating_duration_since(since) >= STALL_LIMIT;
        (if is_stalled { LoadPressure::Stalled } else { LoadPressure::Closed }, Some(pause))
    }
}

#[cfg(test)]
mod tests {
    use std::time::{Duration, Instant};

    use proptest::prelude::{
        Just, Strategy, any, prop_assert, prop_assert_eq, prop_oneof, proptest,
    };

    use super::{CallStart, ConcurrencyLimit, LoadPressure, LoadRefusal, STALL_LIMIT};

    const BARE: LoadRefusal = LoadRefusal { hint: None, jitter: 0 };

    fn start_all(limit: &mut ConcurrencyLimit, now: Instant) -> Vec<CallStart> {
        std::iter::from_fn(|| limit.start_call(now)).collect()
    }

    #[test]
    fn one_crowd_lowers_the_limit_once() {
        let (mut limit, now) = (ConcurrencyLimit::new(64), Instant::now());
        let starts: Vec<_> = (0..10).map(|_| limit.start_call(now).unwrap()).collect();
        for (number, start) in starts.into_iter().enumerate() {
            match number {
                0..3 => limit.release_slot(start),
                _ => assert_eq!(limit.record_refusal(start, BARE, now), LoadPressure::Crowded),
            }
        }
        assert_eq!(
            limit.current_limit(),
            3,
            "half of the seven that were under way at the first refusal"
        );
        assert!(limit.has_capacity(now), "there is no pause: others of it were let in");
    }

    #[test]
    fn the_limit_rises_by_one_after_as_many_passes_and_not_above_the_maximum() {
        let (mut limit, now) = (ConcurrencyLimit::new(4), Instant::now());
        for start in start_all(&mut limit, now) {
            limit.record_refusal(start, BARE, now);
        }
        let mut limits = Vec::new();
        for _ in 0..12 {
            let start = limit.start_call(now).unwrap();
            limit.record_accepted(start);
            limits.push(limit.current_limit());
        }
        assert_eq!(limits, [2, 3, 3, 3, 4, 4, 4, 4, 4, 4, 4, 4].map(|n| n.min(4)));
    }

    #[test]
    fn who_is_refused_alone_is_asked_one_at_a_time_and_later_and_later() {
        let (mut limit, mut now) = (ConcurrencyLimit::new(8), Instant::now());
        let mut pauses = Vec::new();
        for _ in 0..6 {
            let start = limit.start_call(now).unwrap();
            assert_eq!(limit.record_refusal(start, BARE, now), LoadPressure::Closed);
            assert!(limit.start_call(now).is_none(), "it is left alone");
            let end = limit.pause_end().unwrap();
            pauses.push((end - now).as_millis());
            now = end;
        }
        assert_eq!(pauses, [500, 1000, 2000, 4000, 8000, 8000]);
        let probe = limit.start_call(now).unwrap();
        assert!(limit.start_call(now).is_none(), "one at a time");
        limit.record_accepted(probe);
        assert!(limit.start_call(now).is_some());
    }

    #[test]
    fn jitter_stretches_a_pause_by_at_most_a_half() {
        for (jitter, expected) in [(0, 500), (500, 625), (1000, 750), (u16::MAX, 750)] {
            let (mut limit, now) = (ConcurrencyLimit::new(8), Instant::now());
            let start = limit.start_call(now).unwrap();
            limit.record_refusal(start, LoadRefusal { hint: None, jitter }, now);
            assert_eq!((limit.pause_end().unwrap() - now).as_millis(), expected);
        }
    }

    #[test]
    fn a_hint_is_kept_to_by_all_even_when_another_call_passes() {
        let (mut limit, now) = (ConcurrencyLimit::new(8), Instant::now());
        let (first, second) = (limit.start_call(now).unwrap(), limit.start_call(now).unwrap());
        let hint = Some(Duration::from_secs(3));
        assert_eq!(
            limit.record_refusal(first, LoadRefusal { hint, jitter: 0 }, now),
            LoadPressure::Crowded
        );
        limit.record_accepted(second);
        assert!(!limit.has_capacity(now + Duration::from_millis(2999)));
        assert!(limit.has_capacity(now + Duration::from_secs(3)));
    }

    #[test]
    fn a_provider_that_takes_no_call_for_a_minute_is_stalled_until_one_passes() {
        let (mut limit, begun) = (ConcurrencyLimit::new(8), Instant::now());
        let mut now = begun;
        let mut pressures = Vec::new();
        while now.duration_since(begun) < STALL_LIMIT * 2 {
            let start = limit.start_call(now).unwrap();
            pressures.push((now - begun, limit.record_refusal(start, BARE, now)));
            now = limit.pause_end().unwrap();
        }
        for (at, pressure) in pressures {
            let expected =
                if at < STALL_LIMIT { LoadPressure::Closed } else { LoadPressure::Stalled };
            assert_eq!(pressure, expected, "{at:?}");
        }
        let start = limit.start_call(now).unwrap();
        limit.record_accepted(start);
        let start = limit.start_call(now).unwrap();
        assert_eq!(limit.record_refusal(start, BARE, now), LoadPressure::Closed, "it began anew");
    }

    /// One event in the life of a limit.
    #[derive(Debug, Clone)]
    enum LimitHappening {
        Start,
        Pass(usize),
        Release(usize),
        Refuse(usize, Option<u64>),
        Later(u64),
    }

    fn happening() -> impl Strategy<Value = LimitHappening> {
        prop_oneof![
            4 => Just(LimitHappening::Start),
            2 => any::<usize>().prop_map(LimitHappening::Pass),
            1 => any::<usize>().prop_map(LimitHappening::Release),
            2 => (any::<usize>(), proptest::option::of(0..9000_u64))
                .prop_map(|(call, hint)| LimitHappening::Refuse(call, hint)),
            2 => (0..5000_u64).prop_map(LimitHappening::Later),
        ]
    }

    proptest! {
        /// Whatever happens, the limit stays from 1 to the maximum, no more calls start than it
        /// says, and once all calls are over and the pause is, the next one may start.
        #[test]
        fn the_limit_is_never_below_one_nor_above_the_maximum(
            maximum in 0..70_u32,
            happenings in proptest::collection::vec(happening(), 0..300),
        ) {
            let (mut limit, mut now) = (ConcurrencyLimit::new(maximum), Instant::now());
            let mut calls: Vec<CallStart> = Vec::new();
            for happening in happenings {
                let at = |call: usize, calls: &[CallStart]| call % calls.len();
                match happening {
                    LimitHappening::Start => if let Some(start) = limit.start_call(now) {
                        calls.push(start);
                        prop_assert!(calls.len() <= limit.current_limit() as usize);
                    },
                    LimitHappening::Later(ms) => now += Duration::from_millis(ms),
                    _ if calls.is_empty() => {}
                    LimitHappening::Pass(call) => {
                        limit.record_accepted(calls.remove(at(call, &calls)));
                    }
                    LimitHappening::Release(call) => {
                        limit.release_slot(calls.remove(at(call, &calls)));
                    }
                    LimitHappening::Refuse(call, hint) => {
                        let hint = hint.map(Duration::from_millis);
                        let start = calls.remove(at(call, &calls));
                        limit.record_refusal(start, LoadRefusal { hint, jitter: 0 }, now);
                        prop_assert!(hint.is_none_or(|h| h.is_zero() || !limit.has_capacity(now)));
                    }
                }
                prop_assert!((1..=maximum.max(1)).contains(&limit.current_limit()));
            }
            for call in calls {
                limit.release_slot(call);
            }
            let later = limit.pause_end().map_or(now, |end| end.max(now));
            prop_assert!(limit.start_call(later).is_some());
        }

        /// A provider that always takes `capacity` calls at once completes any number of calls,
        /// and refuses few of them on the way.
        #[test]
        fn all_calls_pass_at_a_provider_that_takes_some_at_once(
            capacity in 1..20_usize,
            maximum in 1..70_u32,
            total in 1..300_usize,
            latest_first: bool,
        ) {
            let (mut limit, now) = (ConcurrencyLimit::new(maximum), Instant::now());
            let (mut waiting, mut inside, mut refused) = (total, Vec::new(), 0);
            while waiting > 0 || !inside.is_empty() {
                let mut crowd = Vec::new();
                while waiting > 0 && let Some(start) = limit.start_call(now) {
                    waiting -= 1;
                    if inside.len() < capacity { inside.push(start) } else { crowd.push(start) }
                }
                for start in crowd {
                    prop_assert_eq!(limit.record_refusal(start, BARE, now), LoadPressure::Crowded);
                    waiting += 1;
                    refused += 1;
                }
                if !limit.has_capacity(now) || waiting == 0 {
                    prop_assert!(!inside.is_empty(), "nobody is inside and nobody may enter");
                    let start = if latest_first { inside.pop().unwrap() } else { inside.remove(0) };
                    limit.record_accepted(start);
                }
            }
            prop_assert!(refused <= 2 * total + 128, "{refused} refusals for {total} calls");
        }
    }
}
