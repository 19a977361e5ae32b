//! Child runs: runs that a step or tool call of this run started. Their state in the parent, and
//! the effect of their end.

use serde::{Deserialize, Serialize};

use super::fingerprint::FingerprintPart;
use super::rejection::RunRejection;
use super::state::{Budget, BudgetUsage, RunPhase, RunState};
use super::turns::{ToolCallNumber, ToolCallState};
use crate::chat::Privacy;
use crate::event::run::Failure;
use crate::event::{Event, turn};
use crate::failure::FailureReport;
use crate::id::{AgentId, GraphId, GraphVersion, RunId, StepId};
use crate::money::Money;
use crate::payload::{PayloadRef, PayloadSlot};
use crate::request::derive_uuid;
use crate::stream::Seq;
use crate::time::{Span, Timestamp};

/// Maximum nesting depth of child runs.
pub const DEPTH_LIMIT: u32 = 4;
/// Maximum number of open child runs of one run. Further tool calls are queued.
pub const WIDTH_LIMIT: usize = 64;

/// Time after which an executor checks that a child run exists, unless the child run has ended
/// before.
const EXISTENCE_CHECK_DELAY: Span = Span::from_seconds(10);

/// Link from a child run to its parent.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct RunOrigin {
    /// Id of the parent run.
    pub run: RunId,
    /// Step of the parent that waits for this run.
    pub step: StepId,
    /// Nesting depth of this run: 1 for a child, 2 for a grandchild.
    pub depth: u32,
}

/// Properties that a run takes over from its creator.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Provenance {
    /// Parent run, if this is a child run.
    pub origin: Option<RunOrigin>,
    /// Agent that the run executes, if any.
    pub agent: Option<AgentId>,
}

/// A child run as its parent knows it.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct RunChild {
    /// Step that waits for the child run.
    pub step: StepId,
    /// Attempt of that step.
    pub attempt: u32,
    /// Tool call that the child run answers; `None` if it is the whole step.
    pub at: Option<ToolCallNumber>,
    /// Graph that the child run executes.
    pub graph: GraphId,
    /// Graph version to which it was pinned at its creation.
    pub version: GraphVersion,
    /// Inputs of the child run, in the parent's history.
    pub input: PayloadRef,
    /// Canonical manifest, if the graph has to be registered first.
    pub manifest: Option<PayloadRef>,
    /// Total budget of the child run.
    pub budget: Budget,
    /// Farthest that its prompts may travel.
    pub privacy: Privacy,
    /// Agent that it executes, if any.
    pub agent: Option<AgentId>,
    /// Time of the next check that the child run exists, or runs again after a resumption; `None`
    /// once that is certain.
    pub look: Option<Timestamp>,
    /// Outcome of the child run; `None` while it is open.
    pub ended: Option<ChildOutcome>,
    /// Number of times the child run was reopened, as far as the parent knows.
    #[serde(default, skip_serializing_if = "is_zero")]
    pub reopenings: u32,
    /// Graph version with which it continues after its end, if it changes.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub reopened_version: Option<GraphVersion>,
    /// Hash of this part, as last added to the run's fingerprint.
    #[serde(skip)]
    pub(super) fingerprint: u64,
}

/// Outcome of a child run, as its parent knows it.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct ChildOutcome {
    /// Failure or cancellation; `None` if it completed.
    pub error: Option<Failure>,
    /// Output of the child run, in the parent's history.
    pub output: Option<PayloadRef>,
    /// True if it was cancelled only because this run or an ancestor ended.
    #[serde(default, skip_serializing_if = "is_false")]
    pub inherited: bool,
}

impl ChildOutcome {
    /// True if the child run may continue: it failed, or was cancelled only because this run ended.
    /// A cancellation by a person is final.
    pub fn is_reopenable(&self) -> bool {
        self.error.as_ref().is_some_and(|error| self.inherited || error.code != "run.cancelled")
    }
}

/// Command content: a child run reports its end to its parent.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ChildReport {
    /// Id of the child run.
    pub child: RunId,
    /// Failure or cancellation; `None` if it completed.
    pub error: Option<FailureReport>,
    /// Output of the child run, as a payload of the commit.
    pub output: Option<PayloadSlot>,
    /// Tokens used by the child run and its descendants, over all its reopenings.
    pub tokens: u64,
    /// Cost of the child run and its descendants, over all its reopenings.
    pub cost: Money,
    /// Number of times it had been reopened before this end.
    pub reopenings: u32,
    /// Active time of the child run, in milliseconds.
    pub active_ms: Option<u64>,
    /// True if it was cancelled only because an ancestor ended.
    pub inherited: bool,
}

/// Returns the id of a child run. The same step, attempt and tool call always give the same id, so
/// that an executor that repeats a creation finds the run.
pub fn child_run_id(
    run: RunId,
    step: &StepId,
    attempt: u32,
    tool_call: Option<ToolCallNumber>,
) -> RunId {
    let call = tool_call.map_or_else(String::new, |at| format!("{}.{}", at.turn, at.call));
    let parts = ["child/v1", &run.to_string(), &step.to_string(), &attempt.to_string(), &call];
    RunId(derive_uuid(&parts))
}

impl RunState {
    /// Returns the child runs that have not reported their end.
    pub fn open_children(&self) -> impl Iterator<Item = (&RunId, &RunChild)> {
        self.children.iter().filter(|(_, child)| child.ended.is_none())
    }

    /// Returns how many ancestors the run has; 0 for a run without a parent.
    pub fn nesting_depth(&self) -> u32 {
        self.origin.as_ref().map_or(0, |origin| origin.depth)
    }

    /// True if work for other runs remains: a child run is open, or the parent does not know that
    /// this run has ended.
    pub fn has_open_obligations(&self) -> bool {
        self.open_children().next().is_some()
            || (self.phase.is_ended() && self.origin.is_some() && !self.told)
    }

    /// Returns the budget of one of `shares` equal children, when `spent` is spent and held. Limits
    /// that this run does not have stay unset.
    pub fn child_budget(&self, spent: BudgetUsage, shares: u64, now: Timestamp) -> Budget {
        let shares = shares.max(1);
        let BudgetUsage { tokens, reserved_tokens, cost, reserved_cost } = spent;
        let used = tokens.saturating_add(reserved_tokens);
        let money = |limit: Money| {
            // Rounded down, so that the shares together never exceed what is left.
            let left = limit.as_scaled() - (cost + reserved_cost).as_scaled();
            Money::from_scaled(left.max(0) / i128::from(shares))
        };
        Budget {
            tokens: self.budget.tokens.map(|limit| limit.saturating_sub(used) / shares),
            cost: self.budget.cost.map(money),
            wall: self.remaining_wall_time(now),
            deadline: self.calendar_deadline().map(|deadline| deadline.span_since(now)),
        }
    }

    /// Returns the earliest time at which an executor must check that a child run exists.
    pub fn next_existence_check(&self) -> Option<Timestamp> {
        self.open_children().filter_map(|(_, child)| child.look).min()
    }

    pub(super) fn apply_child_created(&mut self, event: &turn::ChildCreated) {
        if let Some(child) = self.children.get_mut(&event.child) {
            child.look = None;
            self.changed_parts.insert(FingerprintPart::Child(event.child));
        }
    }

    /// Folds `run.child.intended.v1`: holds the child's budget and lets the step wait.
    pub(super) fn apply_child_intended(
        &mut self,
        event: &turn::ChildIntended,
        recorded_at: Timestamp,
    ) {
        // A second intent of the same child must not hold its budget twice.
        if self.children.contains_key(&event.child) {
            return;
        }
        self.spent.hold_tokens(event.budget.tokens.unwrap_or(0));
        self.spent.reserved_cost += event.budget.cost.unwrap_or_default();
        if let Some(at) = event.tool_call {
            self.set_tool_call(&event.step, at, ToolCallState::Child(event.child));
        }
        self.update_step(&event.step, |step| {
            step.awaits.insert(event.child);
            if event.tool_call.is_none() {
                step.child = Some(event.child);
            }
        });
        self.changed_parts.insert(FingerprintPart::Child(event.child));
        self.children.insert(event.child, RunChild::new(event, recorded_at));
        self.open_child_account(event.child);
    }

    /// Folds `run.child.ended.v1`: releases the hold and books the usage.
    pub(super) fn apply_child_ended(&mut self, event: &turn::ChildEnded) {
        let Some(child) = self.children.get(&event.child) else { return };
        if !child.accepts_end(event.reopenings) {
            return;
        }
        // An ended child holds nothing: only the usage beyond its earlier report is booked.
        let (step, budget, was_open) = (child.step.clone(), child.budget, child.ended.is_none());
        if was_open {
            let (tokens, cost) = self.child_hold(event.child, budget);
            self.spent.release_amounts(tokens, cost);
        }
        let (error, output, inherited) = (event.error.clone(), event.output, event.inherited);
        if let Some(child) = self.children.get_mut(&event.child) {
            child.ended = Some(ChildOutcome { error, output, inherited });
            child.reopenings = event.reopenings;
        }
        self.changed_parts.insert(FingerprintPart::Child(event.child));
        self.update_step(&step, |step| {
            step.awaits.remove(&event.child);
        });
        self.charge_child_usage(event);
    }
}

impl RunChild {
    /// Creates the state of a child run that was intended at `recorded_at`.
    fn new(event: &turn::ChildIntended, recorded_at: Timestamp) -> Self {
        Self {
            step: event.step.clone(),
            attempt: event.attempt,
            at: event.tool_call,
            graph: event.graph,
            version: event.version.clone(),
            input: event.input,
            manifest: event.manifest,
            budget: event.budget,
            privacy: event.privacy,
            agent: event.agent,
            // An executor may die between the intent and the creation; the check then creates the
            // run.
            look: Some(recorded_at.add_span(EXISTENCE_CHECK_DELAY)),
            ended: None,
            reopenings: 0,
            reopened_version: None,
            fingerprint: 0,
        }
    }

    /// True if a reported end is new: of an open child run, or of one reopened since its last end.
    fn accepts_end(&self, reopenings: u32) -> bool {
        match self.ended {
            Some(_) => reopenings > self.reopenings,
            None => reopenings >= self.reopenings,
        }
    }
}

/// Decides the report of a child's end. A repeated report has no effect. A child that completes
/// after all reopens this run, if the child's failure had ended it.
pub(super) fn decide_child_ended(
    state: &RunState,
    report: ChildReport,
    next: Seq,
    now: Timestamp,
) -> Result<Vec<Event>, RunRejection> {
    if state.phase == RunPhase::New {
        return Err(RunRejection::NotFound);
    }
    let child = state.children.get(&report.child).ok_or(RunRejection::NoSuchChild(report.child))?;
    if !child.accepts_end(report.reopenings) {
        return Ok(Vec::new());
    }
    let ended = turn::ChildEnded {
        child: report.child,
        error: report.error.map(|error| error.into_failure(next)),
        output: report.output.map(|slot| slot.to_payload_ref(next)),
        tokens: report.tokens,
        cost: report.cost,
        reopenings: report.reopenings,
        active_ms: report.active_ms,
        inherited: report.inherited,
    };
    // Both rules look at the state before this end is folded.
    let (reopened, revived) =
        (state.late_child_reopening(&ended), state.reopening_after_child(&ended, now));
    Ok([Event::ChildEnded(ended)].into_iter().chain(reopened).chain(revived).collect())
}

/// Decides which child runs are recorded as created: those whose existence is still to be checked.
pub(super) fn decide_children_created(state: &RunState, children: &[RunId]) -> Vec<Event> {
    let is_news =
        |child: &&RunId| state.children.get(child).is_some_and(|known| known.look.is_some());
    let created = |child: &RunId| Event::ChildCreated(turn::ChildCreated { child: *child });
    children.iter().filter(is_news).map(created).collect()
}

/// Decides that the parent has recorded the end of this run.
pub(super) fn decide_parent_told(state: &RunState) -> Result<Vec<Event>, RunRejection> {
    if !state.phase.is_ended() {
        return Err(RunRejection::NotEnded);
    }
    let must_record = state.origin.is_some() && !state.told;
    Ok(must_record.then_some(Event::ParentTold(turn::ParentTold {})).into_iter().collect())
}

#[expect(clippy::trivially_copy_pass_by_ref, reason = "serde hands out references")]
fn is_false(value: &bool) -> bool {
    !*value
}

#[expect(clippy::trivially_copy_pass_by_ref, reason = "serde hands out references")]
fn is_zero(number: &u32) -> bool {
    *number == 0
}
