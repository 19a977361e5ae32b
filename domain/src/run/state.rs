//! State of a run, to which its events fold. Fields that the wire form or the fingerprint includes
//! keep their names for ever.

use std::collections::{BTreeMap, BTreeSet, VecDeque};

use serde::{Deserialize, Serialize};
use uuid::Uuid;

use super::child_state::{ChildAccount, RunChild};
use super::compact_steps;
use super::step::{RunStep, StepStatus};
use super::values::{Budget, RunOrigin};
use crate::chat::Privacy;
use crate::decider::Wake;
use crate::failure::{Failure, PlatformText};
use crate::id::{AgentId, ApprovalId, GraphId, GraphVersion, NodeId, RunId, SignalName, StepId};
use crate::idempotency::AppliedRequests;
use crate::money::Money;
use crate::payload::PayloadRef;
use crate::policy::child_runs::WIDTH_LIMIT;
use crate::stream::Seq;
use crate::time::{Span, Timestamp};

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

/// Causes of a pause. A run continues only once both are gone.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct PauseCauses {
    /// True if a person paused this run.
    pub own: bool,
    /// True if the parent run is paused.
    pub inherited: bool,
}

/// Times of a run besides its creation and its pauses.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
pub(super) struct RunClock {
    /// Time of the last folded event.
    pub(super) last_event: Timestamp,
    /// Milliseconds in which nothing of the run could proceed, because all of it waited for people,
    /// signals, timers or child runs. The active time of child runs is deducted again.
    pub(super) idle_ms: u64,
}

/// A run from which a fork inherits history.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct Ancestor {
    /// Id of the ancestor.
    pub run: RunId,
    /// Number of events of the whole history in this ancestor and those before it.
    pub upto: Seq,
}

/// Part of the state that is hashed by itself.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub(super) enum FingerprintPart {
    Step(StepId),
    Approval(ApprovalId),
    Child(RunId),
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
