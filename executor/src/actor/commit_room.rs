//! How much one commit may hold. Whatever does not fit goes on in the next one, so that the width
//! of a graph is never the width of a commit.

use convergio_domain::id::NodeId;
use convergio_eventstore::Limits;

/// Events that one outcome leads to at most: a timer, an unknown try, the call's two, a branch, the
/// step's own two, and those of its map.
const OUTCOME_EVENTS: usize = 8;
/// Events of a start at most: scheduled, started, intended.
const START_EVENTS: usize = 3;
/// Bytes of an event in the body at most, without names of skipped nodes: ids, a message, the
/// words of a route.
const EVENT_BYTES: usize = 1024;
/// Bytes of the body that nobody plans with: the envelope and the descriptions of payloads.
const BODY_RESERVE: usize = 64 << 10;

/// What a commit may hold at most.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct CommitLimits {
    /// Outcomes of the actor.
    pub(super) outcomes: usize,
    /// Steps that start.
    pub(super) starts: usize,
    /// Steps that begin and end in it.
    pub(super) instants: usize,
    /// Steps that are noted as ready.
    pub(super) ready: usize,
    /// Events.
    events: usize,
    /// Bytes of the events.
    body_bytes: usize,
    /// Bytes of payloads after which nothing more is taken in.
    payload_bytes: usize,
    /// Payloads after which nothing more starts.
    payloads: usize,
    /// Payloads after which no turn is taken in: it may bring many.
    turn_payloads: usize,
}

impl CommitLimits {
    /// What a commit may hold that the log took so far.
    pub(super) const WHOLE: Self = Self {
        outcomes: 24,
        starts: 24,
        instants: 96,
        ready: 256,
        events: Limits::EVENTS - 64,
        body_bytes: Limits::BODY_BYTES - BODY_RESERVE,
        payload_bytes: 8 << 20,
        payloads: Limits::PAYLOADS - 4,
        turn_payloads: 12,
    };

    /// One outcome alone, or one start alone.
    const LEAST: Self = Self {
        outcomes: 1,
        starts: 0,
        instants: 0,
        ready: 0,
        events: Limits::EVENTS,
        body_bytes: Limits::BODY_BYTES,
        payload_bytes: 0,
        payloads: Limits::PAYLOADS,
        turn_payloads: Limits::PAYLOADS,
    };

    /// What the next commit may hold after the log found one too large: one outcome alone, so that
    /// what was paid stands whatever follows from it; or one start alone.
    pub(super) fn narrowest(has_outcomes: bool) -> Self {
        if has_outcomes {
            Self::LEAST
        } else {
            Self { outcomes: 0, starts: 1, instants: 1, ready: 8, ..Self::LEAST }
        }
    }
}

/// What a commit in the making holds so far.
#[derive(Debug, Clone, Copy)]
pub(super) struct CommitRoom {
    pub(super) limits: CommitLimits,
    events: usize,
    body_bytes: usize,
    payload_bytes: usize,
    payloads: usize,
    starts: usize,
    instants: usize,
}

impl CommitRoom {
    pub(super) fn new(limits: CommitLimits) -> Self {
        let (payloads, starts, instants) = (0, 0, 0);
        Self { limits, events: 0, body_bytes: 0, payload_bytes: 0, payloads, starts, instants }
    }

    /// Adds an outcome, and the nodes that will never run because of it.
    pub(super) fn add_outcome(&mut self, skipped: &[NodeId]) {
        self.add_events(OUTCOME_EVENTS);
        self.body_bytes += skipped.iter().map(|node| node.as_str().len() + 3).sum::<usize>();
    }

    /// Adds a step that begins and ends at once.
    pub(super) fn add_instant(&mut self, skipped: &[NodeId]) {
        self.instants += 1;
        self.add_outcome(skipped);
    }

    /// Adds a step that starts.
    pub(super) fn add_start(&mut self) {
        self.starts += 1;
        self.add_events(START_EVENTS);
    }

    /// Adds events of a step that goes on.
    pub(super) fn add_events(&mut self, count: usize) {
        self.events += count;
        self.body_bytes += count * EVENT_BYTES;
    }

    /// Adds a payload.
    pub(super) fn add_payload(&mut self, bytes: usize) {
        self.payloads += 1;
        self.payload_bytes += bytes;
    }

    /// Whether nothing more starts in this commit.
    pub(super) fn is_full(&self) -> bool {
        self.has_no_bytes()
            || self.starts >= self.limits.starts
            || self.instants >= self.limits.instants
            || self.payloads >= self.limits.payloads
    }

    /// Whether nothing more is concluded in this commit: its events or bytes are used up.
    pub(super) fn has_no_bytes(&self) -> bool {
        self.payload_bytes > self.limits.payload_bytes
            || self.events + OUTCOME_EVENTS > self.limits.events
            || self.body_bytes + OUTCOME_EVENTS * EVENT_BYTES > self.limits.body_bytes
    }

    /// Whether an outcome waits for the next commit.
    pub(super) fn has_no_room_for(&self, is_turn: bool) -> bool {
        self.has_no_bytes()
            || (is_turn && self.payloads >= self.limits.turn_payloads)
            || self.payloads >= self.limits.payloads
    }

    /// How many steps may still be noted as ready.
    pub(super) fn ready_count(&self) -> usize {
        let by_events = self.limits.events.saturating_sub(self.events);
        let by_bytes = self.limits.body_bytes.saturating_sub(self.body_bytes) / EVENT_BYTES;
        self.limits.ready.min(by_events).min(by_bytes)
    }

    /// Whether so many bytes more would be too many for this commit: they go into the next one.
    pub(super) fn is_too_much(&self, bytes: usize) -> bool {
        self.payloads > 0 && self.payload_bytes + bytes > self.limits.payload_bytes
    }
}
