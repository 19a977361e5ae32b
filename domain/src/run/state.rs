//! What is known of a run: the fold of its events.

use std::collections::{BTreeMap, BTreeSet, VecDeque};

use serde::{Deserialize, Serialize};
use uuid::Uuid;

use super::children::{Child, Origin, WIDTH_LIMIT};
use super::clock::Clock;
use super::fallback::Fallback;
use super::family::{ChildAccount, PauseCauses};
use super::fingerprint::Part;
use super::lineage::Ancestor;
use super::packed;
use super::steer::Resolution;
use super::turns::Turns;
use crate::chat::Privacy;
use crate::decider::Wake;
use crate::failure::{Failure, PlatformText};
use crate::id::{
    AgentId, ApprovalId, ExecutorId, GraphId, GraphVersion, NodeId, RunId, SignalName, StepId,
};
use crate::metering::Meter;
use crate::money::Money;
use crate::once::AppliedRequests;
use crate::payload::PayloadRef;
use crate::stream::Seq;
use crate::time::{Span, Timestamp};

/// What one run may spend. A missing limit does not bind.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct Budget {
    /// Most tokens in and out.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub tokens: Option<u64>,
    /// Most money, in the currency of the prices.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub cost: Option<Money>,
    /// Longest time that the run may work. Pauses, and times in which all of it waits for people,
    /// signals or time, do not count.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub wall: Option<Span>,
    /// Longest time from creation to end, whatever happens meanwhile.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub deadline: Option<Span>,
}

impl Budget {
    /// No limit.
    pub const UNBOUND: Self = Self { tokens: None, cost: None, wall: None, deadline: None };

    /// The narrower of two, limit by limit.
    #[must_use]
    pub fn within(self, other: Self) -> Self {
        fn least<T: Ord>(one: Option<T>, other: Option<T>) -> Option<T> {
            match (one, other) {
                (Some(one), Some(other)) => Some(one.min(other)),
                (one, other) => one.or(other),
            }
        }
        Self {
            tokens: least(self.tokens, other.tokens),
            cost: least(self.cost, other.cost),
            wall: least(self.wall, other.wall),
            deadline: least(self.deadline, other.deadline),
        }
    }
}

impl Default for Budget {
    fn default() -> Self {
        Self { tokens: Some(100_000), cost: None, wall: Some(Span::seconds(600)), deadline: None }
    }
}

/// Where a run stands.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Phase {
    /// No event yet.
    #[default]
    New,
    /// Under way.
    Running,
    /// Ended well.
    Completed,
    /// Ended by a failure.
    Failed,
    /// Ended by a person.
    Cancelled,
}

impl Phase {
    /// Whether nothing can happen any more.
    pub fn is_ended(self) -> bool {
        matches!(self, Self::Completed | Self::Failed | Self::Cancelled)
    }
}

/// Where a step stands.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub enum StepStatus {
    /// May be taken by an executor, not before `due`.
    Scheduled {
        /// Earliest start; `None` means at once.
        due: Option<Timestamp>,
    },
    /// An executor performs it; its intent is durable.
    Started {
        /// Who.
        executor: ExecutorId,
        /// When the try began.
        at: Timestamp,
    },
    /// Its executor died; the outcome is not known.
    Unknown,
    /// A sleep, until its time.
    Sleeping {
        /// Until when.
        due: Timestamp,
    },
    /// Waits for a person.
    Asking {
        /// The question.
        approval: ApprovalId,
    },
    /// Waits for an outside event.
    Awaiting {
        /// The name of the event.
        signal: SignalName,
        /// When it stops waiting.
        expires: Option<Timestamp>,
        /// What the event carried, once it has come.
        received: Option<PayloadRef>,
    },
    /// Somebody must decide what becomes of it.
    Undecided {
        /// Whether nobody knows what came of the try; else it failed.
        unknown: bool,
        /// The decision, and the output that goes with it, once there is one.
        decision: Option<(Resolution, Option<PayloadRef>)>,
    },
    /// A map whose items run.
    Expanded,
    /// Done.
    Completed,
    /// All tries failed.
    Failed,
    /// Will never run.
    Skipped,
}

/// What is known of a step.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Step {
    /// Where it stands.
    pub status: StepStatus,
    /// The number of the last try; 0 before the first.
    pub attempt: u32,
    /// What it yielded.
    pub output: Option<PayloadRef>,
    /// The case a branch took.
    pub case: Option<u32>,
    /// Width and parallelism of an expanded map.
    pub map: Option<(u32, u32)>,
    /// Tokens held for a model call that is under way, its provider and model.
    pub call: Option<Call>,
    /// Tries that failed; tries with unknown outcomes are not among them.
    pub failures: u32,
    /// Why the last try failed.
    pub error: Option<Failure>,
    /// Who is not asked again, and why.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub avoid: Vec<Fallback>,
    /// The turns of an agent with tools.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub turns: Option<Box<Turns>>,
    /// The run that the last try consists of.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub child: Option<RunId>,
    /// Runs that it waits for.
    #[serde(default, skip_serializing_if = "BTreeSet::is_empty")]
    pub awaits: BTreeSet<RunId>,
    /// How a lost call is recognised by its provider; the next try says the same.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub lost_call: Option<String>,
    /// Its part of the run's fingerprint, as last printed.
    #[serde(skip)]
    pub(super) print: u64,
}

/// A model call that is under way.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Call {
    /// The agent's turn, from 1; 0 for an agent without tools.
    #[serde(default, skip_serializing_if = "is_zero")]
    pub turn: u32,
    /// The provider's name.
    pub provider: String,
    /// The model.
    pub model: String,
    /// Worst case of tokens.
    pub reserved_tokens: u64,
    /// Worst case of money.
    pub reserved_cost: Money,
    /// Tokens that were sent, as estimated.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub estimated_tokens: Option<u64>,
    /// What the estimate counts, for a call that is no chat; fresh tokens when absent.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub estimated_meter: Option<Meter>,
    /// How the provider recognises the call, should it be sent again.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub idempotency_key: Option<String>,
}

impl Step {
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
            print: 0,
        }
    }

    /// Whether an executor can do something about the step right now.
    pub(super) fn is_runnable(&self) -> bool {
        use StepStatus::{Scheduled, Started, Unknown};
        match self.status {
            Scheduled { due: None } | Unknown => true,
            Started { .. } => !self.is_parked(),
            _ => false,
        }
    }

    /// Whether a try of the step is under way: the log takes its outcome, and nothing else.
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

    /// Whether the step has come to its end.
    pub fn is_ended(&self) -> bool {
        use StepStatus::{Completed, Failed, Skipped};
        matches!(self.status, Completed | Failed | Skipped)
    }
}

/// The answer to a question so far.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum ApprovalState {
    /// Not answered.
    Open,
    /// Answered with yes.
    Granted,
    /// Answered with no.
    Denied,
}

/// A question to a person.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Approval {
    /// The step that waits.
    pub step: StepId,
    /// Who may answer.
    pub role: String,
    /// SHA-256 of what is approved.
    pub content_hash: String,
    /// When the question lapses.
    pub expires: Option<Timestamp>,
    /// The answer.
    pub state: ApprovalState,
    /// The reason given with the answer: only of answers of before.
    pub reason: Option<PlatformText>,
    /// The same, sealed.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub reason_at: Option<PayloadRef>,
    /// Its part of the run's fingerprint, as last printed.
    #[serde(skip)]
    pub(super) print: u64,
}

/// What has been spent and is held.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Spent {
    /// Tokens of settled calls.
    pub tokens: u64,
    /// Tokens held for calls under way.
    pub reserved_tokens: u64,
    /// Money of settled calls.
    pub cost: Money,
    /// Money held for calls under way.
    pub reserved_cost: Money,
}

/// The fold of a run's events. Written down, it is the content of a checkpoint, but for the steps
/// that are packed.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct RunState {
    /// The last event folded.
    pub seq: Seq,
    /// Where the run stands.
    pub phase: Phase,
    /// When it was created.
    pub created: Timestamp,
    /// The pinned graph version.
    pub graph: Option<(GraphId, GraphVersion)>,
    /// The inputs.
    pub input: Option<PayloadRef>,
    /// BLAKE3 of the request that created it.
    pub request_hash: String,
    /// What it may spend.
    pub budget: Budget,
    /// Where its conversations may travel at most.
    pub privacy: Privacy,
    /// What it has spent.
    pub spent: Spent,
    /// Every step that has been heard of.
    #[serde(serialize_with = "packed::write_others")]
    pub steps: BTreeMap<StepId, Step>,
    /// How many of them an executor can do something about now: kept so that no commit has to look
    /// at every step.
    #[serde(skip)]
    pub(super) runnable: u32,
    /// How many tool calls wait for a place for their run; kept for the same reason.
    #[serde(skip)]
    pub(super) queued_calls: u32,
    /// How many of them could go on without anybody from outside: while there is none, the run is
    /// idle.
    #[serde(skip)]
    pub(super) active: u32,
    /// Every question asked.
    pub approvals: BTreeMap<ApprovalId, Approval>,
    /// What the run yielded.
    pub output: Option<PayloadRef>,
    /// Why it failed.
    pub error: Option<Failure>,
    /// The step that decided its failure, when one did.
    pub failed_step: Option<StepId>,
    /// The run that it belongs to.
    pub origin: Option<Origin>,
    /// The agent that it is a run of.
    pub agent: Option<AgentId>,
    /// Runs within it.
    pub children: BTreeMap<RunId, Child>,
    /// Whether the run that it belongs to knows of its end.
    pub told: bool,
    /// How often it went on after its end.
    pub reopenings: u32,
    /// Whether it was cancelled only because a run that it belongs to ended.
    pub is_cancel_inherited: bool,
    /// What was heard so far of the use of runs within it.
    pub(super) accounts: BTreeMap<RunId, ChildAccount>,
    /// Whether no step may start, by somebody's word.
    pub paused: bool,
    /// By whose word it is paused.
    pub pause: PauseCauses,
    /// Its time besides creation and pauses.
    pub(super) clock: Clock,
    /// Since when it is paused, or has failed.
    pub(super) stopped: Option<Timestamp>,
    /// How long it stood still, not counted against the budget.
    pub(super) stood: Span,
    /// Outside events that no step has taken yet, the oldest first.
    pub signals: BTreeMap<SignalName, VecDeque<PayloadRef>>,
    /// Every outside event that was taken in.
    pub(super) signals_seen: BTreeSet<Uuid>,
    /// The runs that its history begins in, the oldest first.
    pub lineage: Vec<Ancestor>,
    /// Tables that models were chosen from, the last used last: at most 4.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub tables: Vec<PayloadRef>,
    /// Whether it came as a file: it is history.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub is_imported: bool,
    /// The requests under an idempotency key that steered it.
    #[serde(default, skip_serializing_if = "AppliedRequests::is_empty")]
    pub requests: AppliedRequests,
    /// What changed since the last fingerprint.
    #[serde(skip)]
    pub(super) changed: BTreeSet<Part>,
    /// The sum of the prints of all parts.
    #[serde(skip)]
    pub(super) prints: u64,
}

impl RunState {
    /// The step of a whole node.
    pub fn node(&self, node: &NodeId) -> Option<&Step> {
        self.steps.get(&StepId::node(node.clone()))
    }

    /// Whether the run ended before a step of it did: nothing comes of the step any more, unless
    /// the run is reopened.
    pub fn is_abandoned(&self, step: &Step) -> bool {
        self.phase.is_ended() && !step.is_ended()
    }

    /// Changes one step, keeping the counts of runnable and active ones.
    pub(super) fn change(&mut self, id: &StepId, change: impl FnOnce(&mut Step)) {
        let unheard = || Step::new(StepStatus::Skipped);
        self.changed.insert(Part::Step(id.clone()));
        let step = self.steps.entry(id.clone()).or_insert_with(unheard);
        let (was_runnable, was_active) = (step.is_runnable(), step.is_active());
        let queued_calls = step.queued_call_count();
        change(step);
        self.runnable = self.runnable + u32::from(step.is_runnable()) - u32::from(was_runnable);
        self.active = self.active + u32::from(step.is_active()) - u32::from(was_active);
        self.queued_calls = self.queued_calls + step.queued_call_count() - queued_calls;
    }

    /// When somebody must look at the run next.
    pub fn wake(&self) -> Wake {
        if self.is_imported {
            return Wake::Done;
        }
        if self.phase != Phase::Running {
            // A call that was under way at the end is still to be settled: its cost is real.
            let is_due = self.spent.reserved_tokens > 0 || self.owes();
            return if is_due { Wake::Now } else { Wake::Done };
        }
        if self.paused {
            return Wake::Parked;
        }
        // What a fork makes ready, by a graph of its own, is not in its first event.
        let is_new_fork = self.seq == Seq(1) && !self.lineage.is_empty();
        if self.runnable > 0 || self.steps.is_empty() || is_new_fork || self.may_begin_queued() {
            return Wake::Now;
        }
        let mut due = self.deadline().into_iter().chain(self.next_look()).min();
        for step in self.steps.values() {
            match self.step_wake(step) {
                Wake::Now => return Wake::Now,
                Wake::At(time) => due = Some(due.map_or(time, |other| other.min(time))),
                Wake::Parked | Wake::Done => {}
            }
        }
        due.map_or(Wake::Parked, Wake::At)
    }

    /// Whether a tool call waits for a place for its run, and there is one.
    fn may_begin_queued(&self) -> bool {
        self.queued_calls > 0 && self.open_children().count() < WIDTH_LIMIT
    }

    fn step_wake(&self, step: &Step) -> Wake {
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

    fn approval_wake(&self, approval: ApprovalId) -> Wake {
        match self.approvals.get(&approval) {
            Some(Approval { state: ApprovalState::Open, expires, .. }) => {
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
