//! Child runs: runs that a step or tool call of this run started. Their creation, and the effect of
//! their end.

use super::child_state::{ChildOutcome, RunChild};
use super::command::ChildReport;
use super::event::{ChildCreated, ChildEnded, ChildIntended, ParentTold, RunEvent};
use super::rejection::RunRejection;
use super::state::{BudgetUsage, FingerprintPart, RunPhase, RunState};
use super::turns::ToolCallState;
use super::values::{Budget, ToolCallNumber};
use crate::billing::allot_share;
use crate::id::{RunId, StepId, derive_uuid};
use crate::stream::Seq;
use crate::time::{Span, Timestamp};

/// Time after which an executor checks that a child run exists, unless the child run has ended
/// before.
const EXISTENCE_CHECK_DELAY: Span = Span::from_seconds(10);

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
        let wall = self.remaining_wall_time(now);
        let deadline = self.calendar_deadline().map(|deadline| deadline.span_since(now));
        allot_share(Budget { wall, deadline, ..self.budget }, spent, shares)
    }

    /// Returns the earliest time at which an executor must check that a child run exists.
    pub fn next_existence_check(&self) -> Option<Timestamp> {
        self.open_children().filter_map(|(_, child)| child.look).min()
    }

    pub(super) fn apply_child_created(&mut self, event: &ChildCreated) {
        if let Some(child) = self.children.get_mut(&event.child) {
            child.look = None;
            self.changed_parts.insert(FingerprintPart::Child(event.child));
        }
    }

    /// Folds `run.child.intended.v1`: holds the child's budget and lets the step wait.
    pub(super) fn apply_child_intended(&mut self, event: &ChildIntended, recorded_at: Timestamp) {
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
    pub(super) fn apply_child_ended(&mut self, event: &ChildEnded) {
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
    fn new(event: &ChildIntended, recorded_at: Timestamp) -> Self {
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
) -> Result<Vec<RunEvent>, RunRejection> {
    if state.phase == RunPhase::New {
        return Err(RunRejection::NotFound);
    }
    let child = state.children.get(&report.child).ok_or(RunRejection::NoSuchChild(report.child))?;
    if !child.accepts_end(report.reopenings) {
        return Ok(Vec::new());
    }
    let ended = ChildEnded {
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
    Ok([RunEvent::ChildEnded(ended)].into_iter().chain(reopened).chain(revived).collect())
}

/// Decides which child runs are recorded as created: those whose existence is still to be checked.
pub(super) fn decide_children_created(state: &RunState, children: &[RunId]) -> Vec<RunEvent> {
    let is_news =
        |child: &&RunId| state.children.get(child).is_some_and(|known| known.look.is_some());
    let created = |child: &RunId| RunEvent::ChildCreated(ChildCreated { child: *child });
    children.iter().filter(is_news).map(created).collect()
}

/// Decides that the parent has recorded the end of this run.
pub(super) fn decide_parent_told(state: &RunState) -> Result<Vec<RunEvent>, RunRejection> {
    if !state.phase.is_ended() {
        return Err(RunRejection::NotEnded);
    }
    let must_record = state.origin.is_some() && !state.told;
    Ok(must_record.then_some(RunEvent::ParentTold(ParentTold {})).into_iter().collect())
}
