//! State of a run, to which its events fold. Fields that the wire form or the fingerprint includes
//! keep their names for ever.

use std::collections::{BTreeMap, BTreeSet, VecDeque};

use serde::{Deserialize, Serialize};
use uuid::Uuid;

use super::children::{RunChild, RunOrigin, WIDTH_LIMIT};
use super::clock::RunClock;
use super::compact_steps;
use super::control::Resolution;
use super::fallback::Fallback;
use super::family::{ChildAccount, PauseCauses};
use super::fingerprint::FingerprintPart;
use super::lineage::Ancestor;
use super::turns::AgentTurns;
use crate::chat::Privacy;
use crate::decider::Wake;
use crate::failure::{Failure, PlatformText};
use crate::id::{
    AgentId, ApprovalId, ExecutorId, GraphId, GraphVersion, NodeId, RunId, SignalName, StepId,
};
use crate::idempotency::AppliedRequests;
use crate::metering::Meter;
use crate::money::Money;
use crate::payload::PayloadRef;
use crate::stream::Seq;
use crate::time::{Span, Timestamp};

/// Limits on what a run may spend, including its child runs. A missing limit does not bind.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct Budget {
    /// Maximum tokens, input and output together.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub tokens: Option<u64>,
    /// Maximum cost, in the currency of the prices.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub cost: Option<Money>,
    /// Maximum active time. Pauses do not count, nor does time in which all of the run waits for
    /// people, signals or timers.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub wall: Option<Span>,
    /// Maximum time from creation to end, without interruption.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub deadline: Option<Span>,
}

impl Budget {
    /// A budget without limits.
    pub const UNBOUND: Self = Self { tokens: None, cost: None, wall: None, deadline: None };

    /// Returns the lower of each pair of limits.
    #[must_use]
    pub fn narrowed_by(self, other: Self) -> Self {
        fn min_limit<T: Ord>(one: Option<T>, other: Option<T>) -> Option<T> {
            match (one, other) {
                (Some(one), Some(other)) => Some(one.min(other)),
                (one, other) => one.or(other),
            }
        }
        Self {
            tokens: min_limit(self.tokens, other.tokens),
            cost: min_limit(self.cost, other.cost),
            wall: min_limit(self.wall, other.wall),
            deadline: min_limit(self.deadline, other.deadline),
        }
    }
}

impl Default for Budget {
    fn default() -> Self {
        Self {
            tokens: Some(100_000),
            cost: None,
            wall: Some(Span::from_seconds(600)),
            deadline: None,
        }
    }
}

/// Phase of a run's life.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum RunPhase {
    /// No event has been recorded.
    #[default]
    New,
    /// The run is under way, perhaps paused or waiting.
    Running,
    /// The run ended successfully.
    Completed,
    /// The run ended by a failure; it can be reopened.
    Failed,
    /// The run was ended by a person or its parent.
    Cancelled,
}

impl RunPhase {
    /// True if the run has ended. A failed or inherited end can still be undone by a reopening.
    pub fn is_ended(self) -> bool {
        matches!(self, Self::Completed | Self::Failed | Self::Cancelled)
    }
}

/// Status of a step.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub enum StepStatus {
    /// Ready to start, but not before `due`.
    Scheduled {
        /// Earliest start; `None` means at once.
        due: Option<Timestamp>,
    },
    /// An executor performs the step; its intent is committed.
    Started {
        /// Executor process that performs it.
        executor: ExecutorId,
        /// Time at which the attempt began.
        at: Timestamp,
    },
    /// The executor died; the outcome is unknown.
    Unknown,
    /// Sleeps until a time.
    Sleeping {
        /// Time at which the sleep ends.
        due: Timestamp,
    },
    /// Waits for a person's approval.
    Asking {
        /// Id of the approval request.
        approval: ApprovalId,
    },
    /// Waits for an external event.
    Awaiting {
        /// Name of the awaited event.
        signal: SignalName,
        /// Time at which the step gives up waiting and fails.
        expires: Option<Timestamp>,
        /// Content of the event, once it has arrived.
        received: Option<PayloadRef>,
    },
    /// Waits for a person's decision after a failure or a lost attempt.
    Undecided {
        /// True if the attempt's outcome is unknown, false if it failed.
        unknown: bool,
        /// Decision, and the output that goes with it, once there is one.
        decision: Option<(Resolution, Option<PayloadRef>)>,
    },
    /// A map node whose items run.
    Expanded,
    /// The step succeeded, or counts as such by decision.
    Completed,
    /// The step failed and no attempt follows.
    Failed,
    /// The step will never run.
    Skipped,
}

/// State of a step.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct RunStep {
    /// Current status of the step.
    pub status: StepStatus,
    /// Number of the last attempt; 0 before the first.
    pub attempt: u32,
    /// Output of the step, in the run's history.
    pub output: Option<PayloadRef>,
    /// Index of the case that a branch took.
    pub case: Option<u32>,
    /// Width and maximum parallelism of an expanded map.
    pub map: Option<(u32, u32)>,
    /// Model call in flight, with its budget hold.
    pub call: Option<PendingModelCall>,
    /// Number of failed attempts; attempts of unknown outcome do not count.
    pub failures: u32,
    /// Failure of the last attempt.
    pub error: Option<Failure>,
    /// Models that the step must not call again, with the reasons.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub avoid: Vec<Fallback>,
    /// Turns of an agent with tools.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub turns: Option<Box<AgentTurns>>,
    /// Child run that the last attempt consists of.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub child: Option<RunId>,
    /// Child runs that the step waits for.
    #[serde(default, skip_serializing_if = "BTreeSet::is_empty")]
    pub awaits: BTreeSet<RunId>,
    /// Idempotency key of a lost model call, which the next attempt repeats.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub lost_call: Option<String>,
    /// Hash of this part, as last added to the run's fingerprint.
    #[serde(skip)]
    pub(super) fingerprint: u64,
}

/// A model call in flight, with its budget hold.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct PendingModelCall {
    /// Turn of the agent, from 1; 0 for an agent without tools.
    #[serde(default, skip_serializing_if = "is_zero")]
    pub turn: u32,
    /// Configured name of the provider.
    pub provider: String,
    /// Model id in the provider's spelling.
    pub model: String,
    /// Worst case of tokens, held against the budget.
    pub reserved_tokens: u64,
    /// Worst case of cost, held against the budget; zero without a price.
    pub reserved_cost: Money,
    /// Estimated input tokens of the request.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub estimated_tokens: Option<u64>,
    /// Meter of the estimate for calls that are no chat; fresh input tokens if absent.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub estimated_meter: Option<Meter>,
    /// Key by which the provider recognises a repeated call.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub idempotency_key: Option<String>,
}

impl RunStep {
    pub(super) fn new(status: StepStatus) -> Self {
        Self {
            status,
            attempt: 0,
            output: None,
            case: None,
            map: None,
            call: None,
            failures: 0,
            error: None,
            avoid: Vec::new(),
            turns: None,
            child: None,
            awaits: BTreeSet::new(),
            lost_call: None,
            fingerprint: 0,
        }
    }

    /// True if an executor can work on the step right now.
    pub(super) fn is_runnable(&self) -> bool {
        use StepStatus::{Scheduled, Started, Unknown};
        match self.status {
            Scheduled { due: None } | Unknown => true,
            Started { .. } => !self.is_parked(),
            _ => false,
        }
    }

    /// True if an attempt is under way. The log then accepts its outcome and nothing else.
    pub fn is_under_way(&self) -> bool {
        use StepStatus::{Asking, Awaiting, Expanded, Sleeping, Started, Undecided, Unknown};
        matches!(
            self.status,
            Started { .. }
                | Unknown
                | Asking { .. }
                | Awaiting { .. }
                | Undecided { .. }
                | Expanded
                | Sleeping { .. }
        )
    }

    /// True if the step completed, failed or was skipped.
    pub fn is_ended(&self) -> bool {
        use StepStatus::{Completed, Failed, Skipped};
        matches!(self.status, Completed | Failed | Skipped)
    }
}

/// Answer to an approval request so far.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum ApprovalState {
    /// Nobody has answered yet.
    Open,
    /// Answered with yes: the step completes.
    Granted,
    /// Answered with no: the step fails.
    Denied,
}

/// State of an approval request.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct RunApproval {
    /// Step that waits for the answer.
    pub step: StepId,
    /// Role that may answer; `owner` may always.
    pub role: String,
    /// SHA-256 of the content to approve.
    pub content_hash: String,
    /// Time after which no answer is accepted.
    pub expires: Option<Timestamp>,
    /// Answer, or that none has come yet.
    pub state: ApprovalState,
    /// Reason of the answer in platform text; in events of older versions, the person's own words.
    pub reason: Option<PlatformText>,
    /// Reason in the person's words, as a sealed payload.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub reason_at: Option<PayloadRef>,
    /// Hash of this part, as last added to the run's fingerprint.
    #[serde(skip)]
    pub(super) fingerprint: u64,
}

/// Amounts that are spent, and amounts that are held for calls and child runs in flight.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct BudgetUsage {
    /// Tokens of settled calls and of child runs.
    pub tokens: u64,
    /// Tokens held for calls and child runs in flight.
    pub reserved_tokens: u64,
    /// Cost of settled calls and of child runs.
    pub cost: Money,
    /// Cost held for calls and child runs in flight.
    pub reserved_cost: Money,
}

/// State of a run. Serialised, it is the content of a snapshot, except for the steps with a compact
/// form.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct RunState {
    /// Sequence number of the last folded event.
    pub seq: Seq,
    /// Phase of the run's life.
    pub phase: RunPhase,
    /// Time of creation; of a fork, time of the fork.
    pub created: Timestamp,
    /// Graph and the version to which the run is pinned.
    pub graph: Option<(GraphId, GraphVersion)>,
    /// Inputs of the run, in its history.
    pub input: Option<PayloadRef>,
    /// BLAKE3 of the request that created the run.
    pub request_hash: String,
    /// Budget, including later amendments.
    pub budget: Budget,
    /// Farthest that the run's conversations may travel.
    pub privacy: Privacy,
    /// Usage and holds counted against the budget.
    pub spent: BudgetUsage,
    /// All steps that any event has named.
    #[serde(serialize_with = "compact_steps::serialize_other_steps")]
    pub steps: BTreeMap<StepId, RunStep>,
    /// Number of runnable steps, kept so that no commit has to visit every step.
    #[serde(skip)]
    pub(super) runnable_steps: u32,
    /// Number of tool calls queued for a child run, kept for the same reason.
    #[serde(skip)]
    pub(super) queued_calls: u32,
    /// Number of steps that can proceed without an external event. The run is idle while it is
    /// zero.
    #[serde(skip)]
    pub(super) active_steps: u32,
    /// All approval requests, answered ones included.
    pub approvals: BTreeMap<ApprovalId, RunApproval>,
    /// Output of the run, in its history.
    pub output: Option<PayloadRef>,
    /// Failure that ended the run.
    pub error: Option<Failure>,
    /// Step whose failure ended the run, if one did.
    pub failed_step: Option<StepId>,
    /// Parent run, if this is a child run.
    pub origin: Option<RunOrigin>,
    /// Agent that the run executes, if any.
    pub agent: Option<AgentId>,
    /// Child runs, ended ones included.
    pub children: BTreeMap<RunId, RunChild>,
    /// True if the parent run has recorded this run's end.
    pub told: bool,
    /// Number of times the run has been reopened.
    pub reopenings: u32,
    /// True if the run was cancelled only because its parent run ended.
    pub is_cancel_inherited: bool,
    /// Usage that child runs have reported so far.
    pub(super) accounts: BTreeMap<RunId, ChildAccount>,
    /// True if no step may start.
    pub paused: bool,
    /// Causes of the pause.
    pub pause: PauseCauses,
    /// Times besides creation and pauses.
    pub(super) clock: RunClock,
    /// Begin of the current pause, or time of the failure; `None` while the run runs.
    pub(super) stopped: Option<Timestamp>,
    /// Total length of earlier pauses, which does not count against the budget.
    pub(super) stood: Span,
    /// External events that no step has consumed yet, the oldest first.
    pub signals: BTreeMap<SignalName, VecDeque<PayloadRef>>,
    /// Ids of all external events received, by which repeated ones are recognised.
    pub(super) signals_seen: BTreeSet<Uuid>,
    /// Ancestors whose history the run inherits, the oldest first.
    pub lineage: Vec<Ancestor>,
    /// Candidate tables of recent model calls, the most recently used last; at most 4.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub tables: Vec<PayloadRef>,
    /// True if the run was imported from a file and is read-only.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub is_imported: bool,
    /// Requests under an idempotency key that have taken effect.
    #[serde(default, skip_serializing_if = "AppliedRequests::is_empty")]
    pub requests: AppliedRequests,
    /// Parts that changed since the fingerprint was last computed.
    #[serde(skip)]
    pub(super) changed_parts: BTreeSet<FingerprintPart>,
    /// Wrapping sum of the hashes of all parts.
    #[serde(skip)]
    pub(super) fingerprint_sum: u64,
}

impl RunState {
    /// Returns the step of a whole node.
    pub fn node_step(&self, node: &NodeId) -> Option<&RunStep> {
        self.steps.get(&StepId::for_node(node.clone()))
    }

    /// True if the run ended before the step did. Nothing comes of the step then, unless the run is
    /// reopened.
    pub fn is_abandoned(&self, step: &RunStep) -> bool {
        self.phase.is_ended() && !step.is_ended()
    }

    /// Updates one step, and the counters that depend on it. The only way to change a step.
    pub(super) fn update_step(&mut self, id: &StepId, change: impl FnOnce(&mut RunStep)) {
        // Events of unknown steps fold too: until its status is set, such a step counts as skipped.
        let new_step = || RunStep::new(StepStatus::Skipped);
        self.changed_parts.insert(FingerprintPart::Step(id.clone()));
        let step = self.steps.entry(id.clone()).or_insert_with(new_step);
        // Differences keep the counters exact without visiting the other steps.
        let (was_runnable, was_active) = (step.is_runnable(), step.is_active());
        let queued_calls = step.queued_call_count();
        change(step);
        self.runnable_steps =
            self.runnable_steps + u32::from(step.is_runnable()) - u32::from(was_runnable);
        self.active_steps = self.active_steps + u32::from(step.is_active()) - u32::from(was_active);
        self.queued_calls = self.queued_calls + step.queued_call_count() - queued_calls;
    }

    /// Returns when an executor must look at the run next.
    pub fn next_wake(&self) -> Wake {
        if self.is_imported {
            return Wake::Done;
        }
        if self.phase != RunPhase::Running {
            // A call in flight at the end is still to be settled: its cost is real.
            let is_due = self.spent.reserved_tokens > 0 || self.has_open_obligations();
            return if is_due { Wake::Now } else { Wake::Done };
        }
        // No deadline applies during a pause, and a resumption wakes the run anyway.
        if self.paused {
            return Wake::Parked;
        }
        // The steps that a fork makes ready by its own graph are not in its first event, so an
        // executor must schedule them.
        let is_new_fork = self.seq == Seq(1) && !self.lineage.is_empty();
        if self.runnable_steps > 0
            || self.steps.is_empty()
            || is_new_fork
            || self.can_start_queued_call()
        {
            return Wake::Now;
        }
        // The deadline wakes the run even if no step does: an executor must then end it.
        let mut due = self.earliest_deadline().into_iter().chain(self.next_existence_check()).min();
        for step in self.steps.values() {
            match self.step_wake(step) {
                Wake::Now => return Wake::Now,
                Wake::At(time) => due = Some(due.map_or(time, |other| other.min(time))),
                Wake::Parked | Wake::Done => {}
            }
        }
        due.map_or(Wake::Parked, Wake::At)
    }

    /// True if a queued tool call can start its child run now.
    fn can_start_queued_call(&self) -> bool {
        self.queued_calls > 0 && self.open_children().count() < WIDTH_LIMIT
    }

    /// Returns when a step needs attention; [`Wake::Done`] if never by itself.
    fn step_wake(&self, step: &RunStep) -> Wake {
        match &step.status {
            StepStatus::Scheduled { due: Some(due) } | StepStatus::Sleeping { due } => {
                Wake::At(*due)
            }
            StepStatus::Asking { approval } => self.approval_wake(*approval),
            StepStatus::Awaiting { received: Some(_), .. }
            | StepStatus::Undecided { decision: Some(_), .. } => Wake::Now,
            StepStatus::Awaiting { expires: Some(expires), .. } => Wake::At(*expires),
            _ => Wake::Done,
        }
    }

    /// Returns when an approval needs attention: at its expiry while it is open, at once when it is
    /// answered.
    fn approval_wake(&self, approval: ApprovalId) -> Wake {
        match self.approvals.get(&approval) {
            Some(RunApproval { state: ApprovalState::Open, expires, .. }) => {
                expires.map_or(Wake::Parked, Wake::At)
            }
            _ => Wake::Now,
        }
    }
}

#[expect(clippy::trivially_copy_pass_by_ref, reason = "serde hands out references")]
fn is_zero(turn: &u32) -> bool {
    *turn == 0
}
