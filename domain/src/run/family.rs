//! Commands that spread between parent and child runs. Pause, resumption and cancellation of a run
//! reach all its descendants. A run that continues after a failure takes along the children that
//! the failure ended.

use super::advance::CommitBuilder;
use super::advance_command::ChildReopening;
use super::child_state::{ChildAccount, RunChild};
use super::command::{FamilyCommand, ReopenRun};
use super::event::{
    ChildEnded, ChildReopened, RunCancelled, RunEvent, RunMigrated, RunPaused, RunReopened,
    RunResumed,
};
use super::rejection::RunRejection;
use super::state::{BudgetUsage, FingerprintPart, PauseCauses, RunPhase, RunState};
use super::step::{RunStep, StepStatus};
use super::turns::ToolCallState;
use super::values::Budget;
use crate::failure::PlatformText;
use crate::id::{GraphVersion, RunId, StepId};
use crate::money::Money;
use crate::payload::PayloadRef;
use crate::platform_text;
use crate::time::{SPAN_LIMIT, Span, Timestamp};

/// Decides a command passed on by the parent. It has no effect on a run that has ended.
pub(super) fn decide_inherit(
    state: &RunState,
    command: FamilyCommand,
    now: Timestamp,
) -> Result<Vec<RunEvent>, RunRejection> {
    if state.phase.is_ended() {
        return Ok(Vec::new());
    }
    match command {
        FamilyCommand::Cancel => {
            let reason = platform_text!("the run that it belongs to has ended");
            decide_cancel(state, (Some(reason), None), true)
        }
        FamilyCommand::Pause => decide_pause(state, (None, None), true),
        FamilyCommand::Resume => decide_resume(state, true, now),
    }
}

/// Decides a pause; `inherited` tells whether the parent or a person causes it.
pub(super) fn decide_pause(
    state: &RunState,
    (reason, reason_at): (Option<PlatformText>, Option<PayloadRef>),
    inherited: bool,
) -> Result<Vec<RunEvent>, RunRejection> {
    match state.phase {
        RunPhase::New => return Err(RunRejection::NotFound),
        RunPhase::Running => {}
        ended => return Err(RunRejection::Ended(ended)),
    }
    let is_paused_already = if inherited { state.pause.inherited } else { state.pause.own };
    let paused = || RunEvent::RunPaused(RunPaused { reason, reason_at, inherited });
    Ok(if is_paused_already { Vec::new() } else { vec![paused()] })
}

/// Decides a resumption; it ends one cause, and the run stays paused for the other.
pub(super) fn decide_resume(
    state: &RunState,
    inherited: bool,
    now: Timestamp,
) -> Result<Vec<RunEvent>, RunRejection> {
    match state.phase {
        RunPhase::New => return Err(RunRejection::NotFound),
        RunPhase::Running => {}
        ended => return Err(RunRejection::NotResumable(ended)),
    }
    let PauseCauses { own, inherited: by_parent } = state.pause;
    let (is_paused_by_cause, stays_paused_by_other) =
        if inherited { (by_parent, own) } else { (own, by_parent) };
    if !is_paused_by_cause {
        // A person cannot resume a run whose parent is paused; the parent's own resumption,
        // repeated, has no effect.
        let is_waiting = stays_paused_by_other && !inherited;
        return if is_waiting { Err(RunRejection::ParentPaused) } else { Ok(Vec::new()) };
    }
    let stood = (!stays_paused_by_other).then(|| state.current_pause_time(now));
    let stays_paused = stays_paused_by_other;
    Ok(vec![RunEvent::RunResumed(RunResumed { inherited, stays_paused, stood })])
}

/// Decides a cancellation; a cancelled run ignores it.
pub(super) fn decide_cancel(
    state: &RunState,
    (reason, reason_at): (Option<PlatformText>, Option<PayloadRef>),
    inherited: bool,
) -> Result<Vec<RunEvent>, RunRejection> {
    match state.phase {
        RunPhase::New => Err(RunRejection::NotFound),
        RunPhase::Running => {
            let cancelled = RunCancelled { reason, reason_at, inherited };
            Ok(vec![RunEvent::RunCancelled(cancelled)])
        }
        RunPhase::Cancelled => Ok(Vec::new()),
        ended => Err(RunRejection::Ended(ended)),
    }
}

/// Decides the reopening of a child run by its parent. A person's cancellation and a completion are
/// final.
pub(super) fn decide_reopen(
    state: &RunState,
    command: ReopenRun,
    now: Timestamp,
) -> Result<Vec<RunEvent>, RunRejection> {
    // A repeated command must not reopen a run that has ended again meanwhile.
    if state.reopenings >= command.reopenings && state.phase != RunPhase::New {
        return Ok(Vec::new());
    }
    match state.phase {
        RunPhase::New => return Err(RunRejection::NotFound),
        RunPhase::Running => return Ok(Vec::new()),
        RunPhase::Cancelled if !state.is_cancel_inherited => {
            return Err(RunRejection::Ended(state.phase));
        }
        RunPhase::Completed => return Err(RunRejection::Ended(state.phase)),
        RunPhase::Failed | RunPhase::Cancelled => {}
    }
    let ReopenRun { reopenings, steps, budget, version } = command;
    let mut reopened = state.reopening_event(steps, now);
    reopened.reopenings = reopenings.max(reopened.reopenings);
    reopened.budget = Some(budget);
    let mut events = vec![RunEvent::RunReopened(reopened)];
    events.extend(migration_event(state, version));
    events.extend(state.child_reopening_events(budget));
    Ok(events)
}

/// Returns the migration to another graph version; `None` if the run has that version.
pub(super) fn migration_event(state: &RunState, to: GraphVersion) -> Option<RunEvent> {
    let (_, from) = state.graph.as_ref()?;
    (*from != to).then(|| RunEvent::RunMigrated(RunMigrated { from: from.clone(), to }))
}

impl RunState {
    /// Returns how long the run has been paused or ended until `now`, at most [`SPAN_LIMIT`], since
    /// an event cannot hold a longer span.
    fn current_pause_time(&self, now: Timestamp) -> Span {
        let stood = self.stopped.map_or(Span(0), |since| now.span_since(since));
        stood.min(SPAN_LIMIT)
    }

    /// Builds the event that reopens the run, with a new series of attempts for `steps` and for the
    /// steps whose child run a person cancelled.
    pub(super) fn reopening_event(&self, mut steps: Vec<StepId>, now: Timestamp) -> RunReopened {
        for (_, child) in self.cancelled_children(false) {
            if child.at.is_none() && !steps.contains(&child.step) {
                steps.push(child.step.clone());
            }
        }
        let (reopenings, stood) = (self.reopenings + 1, Some(self.current_pause_time(now)));
        RunReopened { steps, reopenings, stood, restarts_wall: false, budget: None }
    }

    /// True if the run's failure cancelled child runs that can continue.
    pub(super) fn has_cancelled_children(&self) -> bool {
        self.cancelled_children(true).next().is_some()
    }

    /// Returns the child runs that were cancelled while a step waited for them: because this run
    /// ended (`is_inherited`), or by a person.
    fn cancelled_children(&self, is_inherited: bool) -> impl Iterator<Item = (&RunId, &RunChild)> {
        self.children.iter().filter(move |(run, child)| {
            let ended = child.ended.as_ref();
            let is_cancelled = ended.is_some_and(|ended| {
                ended.error.as_ref().is_some_and(|error| error.code == "run.cancelled")
                    && ended.inherited == is_inherited
            });
            is_cancelled && self.is_awaited_by_step(**run, child)
        })
    }

    /// True if a started step still waits for the outcome of this child run.
    fn is_awaited_by_step(&self, run: RunId, child: &RunChild) -> bool {
        let Some(step) = self.steps.get(&child.step) else { return false };
        matches!(step.status, StepStatus::Started { .. })
            && match child.at {
                None => step.child == Some(run),
                Some(at) => {
                    let call = step.turns.as_deref().and_then(|turns| turns.find_call(at));
                    call == Some(ToolCallState::Child(run))
                }
            }
    }

    /// Builds the events that reopen child runs cancelled only because this run ended, as far as
    /// the budget suffices for them.
    pub(super) fn child_reopening_events(&self, budget: Budget) -> Vec<RunEvent> {
        // Holds of the children reopened so far, so that together they stay within the budget.
        let mut spent = self.spent;
        let ended = self.cancelled_children(true);
        let events = ended.map(|(run, child)| {
            let used = self.child_account(*run);
            let left = remaining_budget(budget, spent);
            let budget = Budget {
                // The child keeps its budget, but gets no more than this run can still hold beyond
                // the usage booked.
                tokens: tighter_limit(
                    child.budget.tokens,
                    left.tokens.map(|left| used.tokens + left),
                ),
                cost: tighter_limit(child.budget.cost, left.cost.map(|left| used.cost + left)),
                ..child.budget
            };
            spent.hold_tokens(unused_tokens(budget.tokens, used.tokens));
            spent.reserved_cost += unused_cost(budget.cost, used.cost);
            RunEvent::ChildReopened(ChildReopened {
                step: child.step.clone(),
                child: *run,
                reopenings: child.reopenings + 1,
                version: None,
                budget,
            })
        });
        events.collect()
    }

    /// Builds the event that reopens a child whose inherited cancellation is reported only after
    /// this run continued.
    pub(super) fn late_child_reopening(&self, ended: &ChildEnded) -> Option<RunEvent> {
        let child = self.children.get(&ended.child)?;
        let is_due = ended.inherited
            && self.phase == RunPhase::Running
            && self.is_awaited_by_step(ended.child, child);
        is_due.then(|| {
            RunEvent::ChildReopened(ChildReopened {
                step: child.step.clone(),
                child: ended.child,
                reopenings: ended.reopenings.max(child.reopenings) + 1,
                version: None,
                budget: child.budget,
            })
        })
    }

    /// Builds the events that reopen this run when a child completes whose failure had ended it.
    pub(super) fn reopening_after_child(
        &self,
        ended: &ChildEnded,
        now: Timestamp,
    ) -> Vec<RunEvent> {
        // Only the failure of the step that consists of this child is undone; other failures
        // remain.
        let failed = self.failed_step.as_ref().filter(|_| self.phase == RunPhase::Failed);
        let is_cause = |id: &&StepId| {
            let is_its = |step: &RunStep| {
                step.status == StepStatus::Failed && step.child == Some(ended.child)
            };
            ended.error.is_none() && self.steps.get(*id).is_some_and(is_its)
        };
        let Some(id) = failed.filter(is_cause) else { return Vec::new() };
        let reopened = RunEvent::RunReopened(self.reopening_event(vec![id.clone()], now));
        [reopened].into_iter().chain(self.child_reopening_events(self.budget)).collect()
    }

    /// Returns the account of a child run; zero for an unknown one.
    fn child_account(&self, run: RunId) -> ChildAccount {
        self.accounts.get(&run).copied().unwrap_or_default()
    }

    /// Returns the tokens and cost that a child run has reported so far.
    pub fn reported_child_usage(&self, child: RunId) -> (u64, Money) {
        let account = self.child_account(child);
        (account.tokens, account.cost)
    }

    /// Returns the tokens and cost held for a child run: its budget beyond what is booked already.
    pub(super) fn child_hold(&self, child: RunId, budget: Budget) -> (u64, Money) {
        let account = self.child_account(child);
        (unused_tokens(budget.tokens, account.tokens), unused_cost(budget.cost, account.cost))
    }

    /// Notes the idle time at which a child run begins or continues.
    pub(super) fn open_child_account(&mut self, child: RunId) {
        let idle_at_begin_ms = self.clock.idle_ms;
        self.accounts.entry(child).or_default().idle_at_begin_ms = idle_at_begin_ms;
    }

    /// Books the usage of a child run beyond its earlier reports.
    pub(super) fn charge_child_usage(&mut self, event: &ChildEnded) {
        let before = self.child_account(event.child);
        let tokens = event.tokens.saturating_sub(before.tokens);
        let cost = event.cost.as_scaled().saturating_sub(before.cost.as_scaled());
        self.spent.tokens = self.spent.tokens.saturating_add(tokens);
        self.spent.cost += Money::from_scaled(cost);
        let active_ms = event.active_ms.unwrap_or(before.active_ms);
        let worked_ms = active_ms.saturating_sub(before.active_ms);
        self.deduct_child_time(worked_ms, before.idle_at_begin_ms);
        // Reports are totals: the account keeps the last one, and a late smaller one does not lower
        // the tokens.
        let (tokens, cost) = (event.tokens.max(before.tokens), event.cost);
        self.accounts.insert(event.child, ChildAccount { tokens, cost, active_ms, ..before });
    }

    pub(super) fn apply_child_reopened(&mut self, event: &ChildReopened, now: Timestamp) {
        let (tokens, cost) = self.child_hold(event.child, event.budget);
        let Some(child) = self.children.get_mut(&event.child) else { return };
        // An open child holds its budget already; holding it again would count it twice.
        if child.ended.take().is_none() {
            return;
        }
        child.reopenings = event.reopenings;
        child.budget = event.budget;
        child.look = Some(now);
        child.reopened_version.clone_from(&event.version);
        let is_whole_step = child.at.is_none();
        self.changed_parts.insert(FingerprintPart::Child(event.child));
        self.spent.hold_tokens(tokens);
        self.spent.reserved_cost += cost;
        self.open_child_account(event.child);
        self.update_step(&event.step, |step| {
            step.awaits.insert(event.child);
            if is_whole_step {
                step.child = Some(event.child);
            }
        });
    }

    pub(super) fn apply_paused(&mut self, event: &RunPaused, now: Timestamp) {
        if !self.paused {
            self.stopped = Some(now);
        }
        self.paused = true;
        if event.inherited {
            self.pause.inherited = true;
        } else {
            self.pause.own = true;
        }
    }

    pub(super) fn apply_resumed(&mut self, event: &RunResumed, now: Timestamp) {
        if event.inherited {
            self.pause.inherited = false;
        } else {
            self.pause.own = false;
        }
        if self.pause.own || self.pause.inherited {
            return;
        }
        self.end_pause(now);
        if let Some(stood) = event.stood {
            self.extend_waits(stood);
            self.schedule_existence_checks(now);
        }
    }

    /// Schedules a check of all open child runs now: they are paused with this run, and an executor
    /// must resume them.
    fn schedule_existence_checks(&mut self, now: Timestamp) {
        let open: Vec<RunId> = self.open_children().map(|(run, _)| *run).collect();
        for run in open {
            if let Some(child) = self.children.get_mut(&run) {
                child.look = Some(now);
                self.changed_parts.insert(FingerprintPart::Child(run));
            }
        }
    }

    pub(super) fn apply_reopened(&mut self, event: &RunReopened, now: Timestamp) {
        self.end_pause(now);
        self.pause = PauseCauses::default();
        (self.phase, self.error, self.failed_step) = (RunPhase::Running, None, None);
        self.is_cancel_inherited = false;
        if let Some(budget) = event.budget {
            self.budget = budget;
        }
        // Events of older versions have no number and did not shift waits; folding them must not
        // change.
        if event.reopenings > 0 {
            // The parent has to learn of the next end as well.
            (self.reopenings, self.told) = (event.reopenings, false);
            self.extend_waits(event.stood.unwrap_or_default());
        }
        if event.restarts_wall {
            self.restart_wall_budget(now);
        }
        let restarts_turns = event.reopenings > 0;
        for id in &event.steps {
            self.update_step(id, |step| restart_attempts(step, restarts_turns.then_some(now)));
        }
    }
}

/// Resets a step for a new series of attempts. `turns_began` restarts the time limit of its agent.
fn restart_attempts(step: &mut RunStep, turns_began: Option<Timestamp>) {
    step.failures = 0;
    step.status = match step.map {
        Some(_) => StepStatus::Expanded,
        None => StepStatus::Scheduled { due: None },
    };
    if let (Some(began), Some(turns)) = (turns_began, step.turns.as_deref_mut()) {
        turns.began = began;
    }
}

impl CommitBuilder<'_> {
    /// Pushes the intent to reopen a child run and holds the rest of its budget.
    pub(super) fn push_child_reopening(&mut self, step: StepId, reopening: ChildReopening) {
        let ChildReopening { child, version, budget } = reopening;
        let (tokens, cost) = self.state.child_hold(child, budget);
        self.usage.hold_tokens(tokens);
        self.usage.reserved_cost += cost;
        let child_state = self.state.children.get(&child);
        let reopenings = child_state.map_or(0, |known| known.reopenings) + 1;
        let reopened = ChildReopened { step, child, reopenings, version, budget };
        self.events.push(RunEvent::ChildReopened(reopened));
    }
}

/// Returns the rest of a budget when `spent` is spent and held.
fn remaining_budget(budget: Budget, spent: BudgetUsage) -> Budget {
    let used = spent.tokens.saturating_add(spent.reserved_tokens);
    let used_cost = (spent.cost + spent.reserved_cost).as_scaled();
    let money = |limit: Money| Money::from_scaled((limit.as_scaled() - used_cost).max(0));
    Budget {
        tokens: budget.tokens.map(|limit| limit.saturating_sub(used)),
        cost: budget.cost.map(money),
        ..Budget::UNBOUND
    }
}

/// Returns the lower of two limits; `None` does not bind.
fn tighter_limit<T: Ord>(limit: Option<T>, other: Option<T>) -> Option<T> {
    match (limit, other) {
        (Some(limit), Some(other)) => Some(limit.min(other)),
        (limit, other) => limit.or(other),
    }
}

/// Returns the tokens of a limit that are not yet used; 0 without a limit.
fn unused_tokens(limit: Option<u64>, used: u64) -> u64 {
    limit.unwrap_or(0).saturating_sub(used)
}

/// Returns the cost of a limit that is not yet used; zero without a limit.
fn unused_cost(limit: Option<Money>, used: Money) -> Money {
    let limit = limit.unwrap_or_default().as_scaled();
    Money::from_scaled(limit.saturating_sub(used.as_scaled()).max(0))
}
