//! Commands that spread between parent and child runs. Pause, resumption and cancellation of a run
//! reach all its descendants. A run that continues after a failure takes along the children that
//! the failure ended.

use serde::{Deserialize, Serialize};

use super::advance::Building;
use super::children::Child;
use super::fingerprint::Part;
use super::rejection::Rejection;
use super::state::{Budget, Phase, RunState, Spent, Step, StepStatus};
use super::turns::ToolState;
use crate::event::{Event, lifecycle, run, turn};
use crate::failure::PlatformText;
use crate::id::{GraphVersion, RunId, StepId};
use crate::money::Money;
use crate::payload::PayloadRef;
use crate::platform_text;
use crate::time::{SPAN_LIMIT, Span, Timestamp};

/// Causes of a pause. A run continues only once both are gone.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct PauseCauses {
    /// True if a person paused this run.
    pub own: bool,
    /// True if the parent run is paused.
    pub inherited: bool,
}

/// Command that a run passes on to its child runs.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum FamilyCommand {
    /// End, because the parent has ended.
    Cancel,
    /// Start no further step, because the parent is paused.
    Pause,
    /// End the inherited pause.
    Resume,
}

/// Usage of a child run that this run has booked so far. A child reports totals, so that only the
/// difference to the account is new.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
pub(super) struct ChildAccount {
    /// Idle time of this run when the child began, in milliseconds.
    idle_at_begin_ms: u64,
    /// Tokens booked so far.
    tokens: u64,
    /// Cost booked so far, in the currency of the prices.
    cost: Money,
    /// Active time booked so far, in milliseconds.
    active_ms: u64,
}

/// Intent to reopen a child run that had ended.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ChildReopening {
    /// Id of the child run.
    pub child: RunId,
    /// Graph version with which it continues, if it changes.
    pub version: Option<GraphVersion>,
    /// Total budget of the child run, including what it has spent.
    pub budget: Budget,
}

/// Command content: reopens an ended child run, because its parent continues.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ReopenRun {
    /// Number of reopenings that the run will have had. A run that has had as many ignores the
    /// command.
    pub reopenings: u32,
    /// Failed steps that ended the run, by its graph.
    pub steps: Vec<StepId>,
    /// Total budget of the run, including what it has spent.
    pub budget: Budget,
    /// Graph version with which the run continues.
    pub version: GraphVersion,
}

/// Decides a command passed on by the parent. It has no effect on a run that has ended.
pub(super) fn inherit(
    state: &RunState,
    command: FamilyCommand,
    now: Timestamp,
) -> Result<Vec<Event>, Rejection> {
    if state.phase.is_ended() {
        return Ok(Vec::new());
    }
    match command {
        FamilyCommand::Cancel => {
            let reason = platform_text!("the run that it belongs to has ended");
            cancel(state, (Some(reason), None), true)
        }
        FamilyCommand::Pause => pause(state, (None, None), true),
        FamilyCommand::Resume => resume(state, true, now),
    }
}

/// Decides a pause; `inherited` tells whether the parent or a person causes it.
pub(super) fn pause(
    state: &RunState,
    (reason, reason_at): (Option<PlatformText>, Option<PayloadRef>),
    inherited: bool,
) -> Result<Vec<Event>, Rejection> {
    match state.phase {
        Phase::New => return Err(Rejection::NotFound),
        Phase::Running => {}
        ended => return Err(Rejection::Ended(ended)),
    }
    let is_known = if inherited { state.pause.inherited } else { state.pause.own };
    let paused = || Event::RunPaused(lifecycle::Paused { reason, reason_at, inherited });
    Ok(if is_known { Vec::new() } else { vec![paused()] })
}

/// Decides a resumption; it ends one cause, and the run stays paused for the other.
pub(super) fn resume(
    state: &RunState,
    inherited: bool,
    now: Timestamp,
) -> Result<Vec<Event>, Rejection> {
    match state.phase {
        Phase::New => return Err(Rejection::NotFound),
        Phase::Running => {}
        ended => return Err(Rejection::NotResumable(ended)),
    }
    let PauseCauses { own, inherited: by_parent } = state.pause;
    let (is_known, is_other) = if inherited { (by_parent, own) } else { (own, by_parent) };
    if !is_known {
        // A person cannot resume a run whose parent is paused; the parent's own resumption,
        // repeated, has no effect.
        let is_waiting = is_other && !inherited;
        return if is_waiting { Err(Rejection::PausedAbove) } else { Ok(Vec::new()) };
    }
    let stood = (!is_other).then(|| state.standing_time(now));
    let stays_paused = is_other;
    Ok(vec![Event::RunResumed(lifecycle::Resumed { inherited, stays_paused, stood })])
}

/// Decides a cancellation; a cancelled run ignores it.
pub(super) fn cancel(
    state: &RunState,
    (reason, reason_at): (Option<PlatformText>, Option<PayloadRef>),
    inherited: bool,
) -> Result<Vec<Event>, Rejection> {
    match state.phase {
        Phase::New => Err(Rejection::NotFound),
        Phase::Running => {
            let cancelled = run::Cancelled { reason, reason_at, inherited };
            Ok(vec![Event::RunCancelled(cancelled)])
        }
        Phase::Cancelled => Ok(Vec::new()),
        ended => Err(Rejection::Ended(ended)),
    }
}

/// Decides the reopening of a child run by its parent. A person's cancellation and a completion are
/// final.
pub(super) fn reopen_within(
    state: &RunState,
    command: ReopenRun,
    now: Timestamp,
) -> Result<Vec<Event>, Rejection> {
    // A repeated command must not reopen a run that has ended again meanwhile.
    if state.reopenings >= command.reopenings && state.phase != Phase::New {
        return Ok(Vec::new());
    }
    match state.phase {
        Phase::New => return Err(Rejection::NotFound),
        Phase::Running => return Ok(Vec::new()),
        Phase::Cancelled if !state.is_cancel_inherited => {
            return Err(Rejection::Ended(state.phase));
        }
        Phase::Completed => return Err(Rejection::Ended(state.phase)),
        Phase::Failed | Phase::Cancelled => {}
    }
    let ReopenRun { reopenings, steps, budget, version } = command;
    let mut reopened = state.reopening(steps, now);
    reopened.reopenings = reopenings.max(reopened.reopenings);
    reopened.budget = Some(budget);
    let mut events = vec![Event::RunReopened(reopened)];
    events.extend(migration(state, version));
    events.extend(state.reopened_children(budget));
    Ok(events)
}

/// Returns the migration to another graph version; `None` if the run has that version.
pub(super) fn migration(state: &RunState, to: GraphVersion) -> Option<Event> {
    let (_, from) = state.graph.as_ref()?;
    (*from != to).then(|| Event::RunMigrated(run::Migrated { from: from.clone(), to }))
}

impl RunState {
    /// Returns how long the run has been paused or ended until `now`, at most [`SPAN_LIMIT`], since
    /// an event cannot hold a longer span.
    fn standing_time(&self, now: Timestamp) -> Span {
        let stood = self.stopped.map_or(Span(0), |since| now.since(since));
        stood.min(SPAN_LIMIT)
    }

    /// Builds the event that reopens the run, with a new series of attempts for `steps` and for the
    /// steps whose child run a person cancelled.
    pub(super) fn reopening(&self, mut steps: Vec<StepId>, now: Timestamp) -> lifecycle::Reopened {
        for (_, child) in self.ended_children(false) {
            if child.at.is_none() && !steps.contains(&child.step) {
                steps.push(child.step.clone());
            }
        }
        let (reopenings, stood) = (self.reopenings + 1, Some(self.standing_time(now)));
        lifecycle::Reopened { steps, reopenings, stood, restarts_wall: false, budget: None }
    }

    /// True if the run's failure cancelled child runs that can continue.
    pub(super) fn has_ended_children(&self) -> bool {
        self.ended_children(true).next().is_some()
    }

    /// Returns the child runs that were cancelled while a step waited for them: because this run
    /// ended (`is_inherited`), or by a person.
    fn ended_children(&self, is_inherited: bool) -> impl Iterator<Item = (&RunId, &Child)> {
        self.children.iter().filter(move |(run, child)| {
            let ended = child.ended.as_ref();
            let is_cancelled = ended.is_some_and(|ended| {
                ended.error.as_ref().is_some_and(|error| error.code == "run.cancelled")
                    && ended.inherited == is_inherited
            });
            is_cancelled && self.is_awaited(**run, child)
        })
    }

    /// True if a started step still waits for the outcome of this child run.
    fn is_awaited(&self, run: RunId, child: &Child) -> bool {
        let Some(step) = self.steps.get(&child.step) else { return false };
        matches!(step.status, StepStatus::Started { .. })
            && match child.at {
                None => step.child == Some(run),
                Some(at) => {
                    let call = step.turns.as_deref().and_then(|turns| turns.call(at));
                    call == Some(ToolState::Child(run))
                }
            }
    }

    /// Builds the events that reopen child runs cancelled only because this run ended, as far as
    /// the budget suffices for them.
    pub(super) fn reopened_children(&self, budget: Budget) -> Vec<Event> {
        // Holds of the children reopened so far, so that together they stay within the budget.
        let mut spent = self.spent;
        let ended = self.ended_children(true);
        let events = ended.map(|(run, child)| {
            let used = self.account(*run);
            let left = left_of(budget, spent);
            let budget = Budget {
                // The child keeps its budget, but gets no more than this run can still hold beyond
                // the usage booked.
                tokens: at_most(child.budget.tokens, left.tokens.map(|left| used.tokens + left)),
                cost: at_most(child.budget.cost, left.cost.map(|left| used.cost + left)),
                ..child.budget
            };
            spent.hold_tokens(beyond(budget.tokens, used.tokens));
            spent.reserved_cost += beyond_cost(budget.cost, used.cost);
            Event::ChildReopened(turn::ChildReopened {
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
    pub(super) fn reopened_late(&self, ended: &turn::ChildEnded) -> Option<Event> {
        let child = self.children.get(&ended.child)?;
        let is_due =
            ended.inherited && self.phase == Phase::Running && self.is_awaited(ended.child, child);
        is_due.then(|| {
            Event::ChildReopened(turn::ChildReopened {
                step: child.step.clone(),
                child: ended.child,
                reopenings: ended.reopenings.max(child.reopenings) + 1,
                version: None,
                budget: child.budget,
            })
        })
    }

    /// Builds the events that reopen this run when a child completes whose failure had ended it.
    pub(super) fn revived_by(&self, ended: &turn::ChildEnded, now: Timestamp) -> Vec<Event> {
        // Only the failure of the step that consists of this child is undone; other failures
        // remain.
        let failed = self.failed_step.as_ref().filter(|_| self.phase == Phase::Failed);
        let is_cause = |id: &&StepId| {
            let is_its =
                |step: &Step| step.status == StepStatus::Failed && step.child == Some(ended.child);
            ended.error.is_none() && self.steps.get(*id).is_some_and(is_its)
        };
        let Some(id) = failed.filter(is_cause) else { return Vec::new() };
        let reopened = Event::RunReopened(self.reopening(vec![id.clone()], now));
        [reopened].into_iter().chain(self.reopened_children(self.budget)).collect()
    }

    /// Returns the account of a child run; zero for an unknown one.
    fn account(&self, run: RunId) -> ChildAccount {
        self.accounts.get(&run).copied().unwrap_or_default()
    }

    /// Returns the tokens and cost that a child run has reported so far.
    pub fn heard_use(&self, child: RunId) -> (u64, Money) {
        let account = self.account(child);
        (account.tokens, account.cost)
    }

    /// Returns the tokens and cost held for a child run: its budget beyond what is booked already.
    pub(super) fn child_hold(&self, child: RunId, budget: Budget) -> (u64, Money) {
        let account = self.account(child);
        (beyond(budget.tokens, account.tokens), beyond_cost(budget.cost, account.cost))
    }

    /// Notes the idle time at which a child run begins or continues.
    pub(super) fn open_account(&mut self, child: RunId) {
        let idle_at_begin_ms = self.clock.idle_ms;
        self.accounts.entry(child).or_default().idle_at_begin_ms = idle_at_begin_ms;
    }

    /// Books the usage of a child run beyond its earlier reports.
    pub(super) fn charge_child(&mut self, event: &turn::ChildEnded) {
        let before = self.account(event.child);
        let tokens = event.tokens.saturating_sub(before.tokens);
        let cost = event.cost.scaled().saturating_sub(before.cost.scaled());
        self.spent.tokens = self.spent.tokens.saturating_add(tokens);
        self.spent.cost += Money::from_scaled(cost);
        let active_ms = event.active_ms.unwrap_or(before.active_ms);
        let worked_ms = active_ms.saturating_sub(before.active_ms);
        self.charge_time(worked_ms, before.idle_at_begin_ms);
        // Reports are totals: the account keeps the last one, and a late smaller one does not lower
        // the tokens.
        let (tokens, cost) = (event.tokens.max(before.tokens), event.cost);
        self.accounts.insert(event.child, ChildAccount { tokens, cost, active_ms, ..before });
    }

    pub(super) fn reopen_child(&mut self, event: &turn::ChildReopened, now: Timestamp) {
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
        self.changed.insert(Part::Child(event.child));
        self.spent.hold_tokens(tokens);
        self.spent.reserved_cost += cost;
        self.open_account(event.child);
        self.change(&event.step, |step| {
            step.awaits.insert(event.child);
            if is_whole_step {
                step.child = Some(event.child);
            }
        });
    }

    pub(super) fn take_pause(&mut self, event: &lifecycle::Paused, now: Timestamp) {
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

    pub(super) fn take_resumption(&mut self, event: &lifecycle::Resumed, now: Timestamp) {
        if event.inherited {
            self.pause.inherited = false;
        } else {
            self.pause.own = false;
        }
        if self.pause.own || self.pause.inherited {
            return;
        }
        self.go_on(now);
        if let Some(stood) = event.stood {
            self.shift_waits(stood);
            self.look_after_children(now);
        }
    }

    /// Schedules a check of all open child runs now: they are paused with this run, and an executor
    /// must resume them.
    fn look_after_children(&mut self, now: Timestamp) {
        let open: Vec<RunId> = self.open_children().map(|(run, _)| *run).collect();
        for run in open {
            if let Some(child) = self.children.get_mut(&run) {
                child.look = Some(now);
                self.changed.insert(Part::Child(run));
            }
        }
    }

    pub(super) fn reopen(&mut self, event: &lifecycle::Reopened, now: Timestamp) {
        self.go_on(now);
        self.pause = PauseCauses::default();
        (self.phase, self.error, self.failed_step) = (Phase::Running, None, None);
        self.is_cancel_inherited = false;
        if let Some(budget) = event.budget {
            self.budget = budget;
        }
        // Events of older versions have no number and did not shift waits; folding them must not
        // change.
        if event.reopenings > 0 {
            // The parent has to learn of the next end as well.
            (self.reopenings, self.told) = (event.reopenings, false);
            self.shift_waits(event.stood.unwrap_or_default());
        }
        if event.restarts_wall {
            self.restart_wall(now);
        }
        let restarts_turns = event.reopenings > 0;
        for id in &event.steps {
            self.change(id, |step| begin_tries(step, restarts_turns.then_some(now)));
        }
    }
}

/// Resets a step for a new series of attempts. `turns_began` restarts the time limit of its agent.
fn begin_tries(step: &mut Step, turns_began: Option<Timestamp>) {
    step.failures = 0;
    step.status = match step.map {
        Some(_) => StepStatus::Expanded,
        None => StepStatus::Scheduled { due: None },
    };
    if let (Some(began), Some(turns)) = (turns_began, step.turns.as_deref_mut()) {
        turns.began = began;
    }
}

impl Building<'_> {
    /// Pushes the intent to reopen a child run and holds the rest of its budget.
    pub(super) fn reopen_child(&mut self, step: StepId, reopening: ChildReopening) {
        let ChildReopening { child, version, budget } = reopening;
        let (tokens, cost) = self.state.child_hold(child, budget);
        self.spent.hold_tokens(tokens);
        self.spent.reserved_cost += cost;
        let known = self.state.children.get(&child);
        let reopenings = known.map_or(0, |known| known.reopenings) + 1;
        let reopened = turn::ChildReopened { step, child, reopenings, version, budget };
        self.events.push(Event::ChildReopened(reopened));
    }
}

/// Returns the rest of a budget when `spent` is spent and held.
fn left_of(budget: Budget, spent: Spent) -> Budget {
    let used = spent.tokens.saturating_add(spent.reserved_tokens);
    let used_cost = (spent.cost + spent.reserved_cost).scaled();
    let money = |limit: Money| Money::from_scaled((limit.scaled() - used_cost).max(0));
    Budget {
        tokens: budget.tokens.map(|limit| limit.saturating_sub(used)),
        cost: budget.cost.map(money),
        ..Budget::UNBOUND
    }
}

/// Returns the lower of two limits; `None` does not bind.
fn at_most<T: Ord>(limit: Option<T>, other: Option<T>) -> Option<T> {
    match (limit, other) {
        (Some(limit), Some(other)) => Some(limit.min(other)),
        (limit, other) => limit.or(other),
    }
}

/// Returns the tokens of a limit that are not yet used; 0 without a limit.
fn beyond(limit: Option<u64>, used: u64) -> u64 {
    limit.unwrap_or(0).saturating_sub(used)
}

/// Returns the cost of a limit that is not yet used; zero without a limit.
fn beyond_cost(limit: Option<Money>, used: Money) -> Money {
    let limit = limit.unwrap_or_default().scaled();
    Money::from_scaled(limit.saturating_sub(used.scaled()).max(0))
}
