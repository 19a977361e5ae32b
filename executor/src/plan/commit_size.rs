//! Size of the commit in preparation, and its limits. What exceeds them goes into the next commit,
//! so that the width of a graph is never the width of a commit.

use convergio_domain::id::NodeId;
use convergio_eventstore::LogLimits;

/// Maximum events of one outcome: a timer, an unknown attempt, two of the call, a branch, two of
/// the step, and those of its map.
const EVENTS_PER_OUTCOME: usize = 8;
/// Maximum events of a start: scheduled, started, intended.
const EVENTS_PER_START: usize = 3;
/// Maximum bytes of an event in the body, without the names of skipped nodes: ids, a message, and
/// the reason of a route.
const BYTES_PER_EVENT: usize = 1024;
/// Bytes of the body that are not planned with: the envelope and the payload descriptors.
const BODY_RESERVE_BYTES: usize = 64 << 10;

/// Limits of one commit.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct CommitLimits {
    /// Maximum results of effects and waits.
    pub(crate) results: usize,
    /// Maximum steps that start.
    pub(crate) starts: usize,
    /// Maximum steps that start and end in it.
    pub(crate) instants: usize,
    /// Maximum steps that are recorded as ready.
    pub(crate) ready: usize,
    /// Maximum events in the body.
    events: usize,
    /// Maximum bytes of the events.
    body_bytes: usize,
    /// Bytes of payloads beyond which nothing more is added.
    payload_bytes: usize,
    /// Number of payloads from which on nothing more starts.
    payloads: usize,
    /// Number of payloads from which on no turn is added, since it may bring many.
    turn_payloads: usize,
}

impl CommitLimits {
    /// The usual limits, well below those of the log.
    pub(crate) const WHOLE: Self = Self {
        results: 24,
        starts: 24,
        instants: 96,
        ready: 256,
        events: LogLimits::EVENTS - 64,
        body_bytes: LogLimits::BODY_BYTES - BODY_RESERVE_BYTES,
        payload_bytes: 8 << 20,
        payloads: LogLimits::PAYLOADS - 4,
        turn_payloads: 12,
    };

    /// A single outcome or start, up to the limits of the log itself.
    const LEAST: Self = Self {
        results: 1,
        starts: 0,
        instants: 0,
        ready: 0,
        events: LogLimits::EVENTS,
        body_bytes: LogLimits::BODY_BYTES,
        payload_bytes: 0,
        payloads: LogLimits::PAYLOADS,
        turn_payloads: LogLimits::PAYLOADS,
    };

    /// Limits of the commit after one that the log refused as too large: a single outcome, so that
    /// its costs are recorded whatever follows from it, or a single start.
    pub(crate) fn for_single_entry(has_outcomes: bool) -> Self {
        if has_outcomes {
            Self::LEAST
        } else {
            Self { results: 0, starts: 1, instants: 1, ready: 8, ..Self::LEAST }
        }
    }
}

/// Running totals of the commit in preparation.
#[derive(Debug, Clone, Copy)]
pub(crate) struct CommitSize {
    pub(crate) limits: CommitLimits,
    events: usize,
    body_bytes: usize,
    payload_bytes: usize,
    payloads: usize,
    starts: usize,
    instants: usize,
}

impl CommitSize {
    pub(crate) fn new(limits: CommitLimits) -> Self {
        let (payloads, starts, instants) = (0, 0, 0);
        Self { limits, events: 0, body_bytes: 0, payload_bytes: 0, payloads, starts, instants }
    }

    /// Adds an outcome and the nodes that it skips.
    pub(crate) fn add_outcome(&mut self, skipped: &[NodeId]) {
        self.add_events(EVENTS_PER_OUTCOME);
        self.body_bytes += skipped.iter().map(|node| node.as_str().len() + 3).sum::<usize>();
    }

    /// Adds a step that starts and ends at once.
    pub(crate) fn add_instant(&mut self, skipped: &[NodeId]) {
        self.instants += 1;
        self.add_outcome(skipped);
    }

    /// Adds a step that starts.
    pub(crate) fn add_start(&mut self) {
        self.starts += 1;
        self.add_events(EVENTS_PER_START);
    }

    /// Adds events of a step that goes on.
    pub(crate) fn add_events(&mut self, count: usize) {
        self.events += count;
        self.body_bytes += count * BYTES_PER_EVENT;
    }

    /// Adds a payload of `bytes` bytes.
    pub(crate) fn add_payload(&mut self, bytes: usize) {
        self.payloads += 1;
        self.payload_bytes += bytes;
    }

    /// Returns whether no further step may start in this commit.
    pub(crate) fn is_full(&self) -> bool {
        self.is_exhausted()
            || self.starts >= self.limits.starts
            || self.instants >= self.limits.instants
            || self.payloads >= self.limits.payloads
    }

    /// Returns whether the events or bytes are used up, so that nothing more may be concluded.
    pub(crate) fn is_exhausted(&self) -> bool {
        self.payload_bytes > self.limits.payload_bytes
            || self.events + EVENTS_PER_OUTCOME > self.limits.events
            || self.body_bytes + EVENTS_PER_OUTCOME * BYTES_PER_EVENT > self.limits.body_bytes
    }

    /// Returns whether a result must wait for the next commit.
    pub(crate) fn is_full_for_result(&self, is_turn: bool) -> bool {
        self.is_exhausted()
            || (is_turn && self.payloads >= self.limits.turn_payloads)
            || self.payloads >= self.limits.payloads
    }

    /// Returns the number of steps that may still be recorded as ready.
    pub(crate) fn remaining_ready_steps(&self) -> usize {
        let by_events = self.limits.events.saturating_sub(self.events);
        let by_bytes = self.limits.body_bytes.saturating_sub(self.body_bytes) / BYTES_PER_EVENT;
        self.limits.ready.min(by_events).min(by_bytes)
    }

    /// Returns whether `bytes` more exceed the commit. The first payload always fits, or a large
    /// one would never be written.
    pub(crate) fn exceeds_payload_bytes(&self, bytes: usize) -> bool {
        self.payloads > 0 && self.payload_bytes + bytes > self.limits.payload_bytes
    }
}
