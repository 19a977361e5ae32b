//! Runs within runs when somebody steers one of them: a pause, a resumption and a cancellation
//! reach the whole family, and a run that goes on after a failure takes along what the failure
//! ended.

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

/// By whose word a run is paused.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct PauseCauses {
    /// Somebody paused this run.
    pub own: bool,
    /// A run that it belongs to is paused.
    pub inherited: bool,
}

/// What reaches the runs within a run when it is told to that one.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum FamilyCommand {
    /// End before their time.
    Cancel,
    /// Start no further step.
    Pause,
    /// Go on after a pause.
    Resume,
}

/// What a run has heard of the use of one within it.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
pub(super) struct ChildAccount {
    /// For how long this run had been idle when that one began, in milliseconds.
    idle_at_begin_ms: u64,
    /// Tokens that are counted here already.
    tokens: u64,
    /// Money that is counted here already.
    cost: Money,
    /// Milliseconds of work that are counted here already.
    active_ms: u64,
}

/// How a run within goes on after its end.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ChildReopening {
    /// The run.
    pub child: RunId,
    /// The version of its graph, when that is to be another one.
    pub version: Option<GraphVersion>,
    /// What it may spend in all, what it used before included.
    pub budget: Budget,
}

/// What the run that it belongs to asks of a run that ended: to go on.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ReopenRun {
    /// How often it will have gone on after an end. One that has done so already changes nothing.
    pub reopenings: u32,
    /// Its failed steps that end a run, by its graph.
    pub steps: Vec<StepId>,
    /// What it may spend in all.
    pub budget: Budget,
    /// The version of its graph that it goes on by.
    pub version: GraphVersion,
}

/// The run does as one does that it belongs to. One that has ended has nothing to do.
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
        let is_waiting = is_other && !inherited;
        return if is_waiting { Err(Rejection::PausedAbove) } else { Ok(Vec::new()) };
    }
    let stood = (!is_other).then(|| state.standing_time(now));
    let stays_paused = is_other;
    Ok(vec![Event::RunResumed(lifecycle::Resumed { inherited, stays_paused, stood })])
}

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

/// A run goes on because the one that it belongs to does.
pub(super) fn reopen_within(
    state: &RunState,
    command: ReopenRun,
    now: Timestamp,
) -> Result<Vec<Event>, Rejection> {
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

/// The step to another version of the graph, if it is another one.
pub(super) fn migration(state: &RunState, to: GraphVersion) -> Option<Event> {
    let (_, from) = state.graph.as_ref()?;
    (*from != to).then(|| Event::RunMigrated(run::Migrated { from: from.clone(), to }))
}

impl RunState {
    /// How long the run stands still until now, as an event may say it.
    fn standing_time(&self, now: Timestamp) -> Span {
        let stood = self.stopped.map_or(Span(0), |since| now.since(since));
        stood.min(SPAN_LIMIT)
    }

    /// The event by which the run goes on: with another series of tries for `steps`, and for those
    /// whose run within was cancelled for good.
    pub(super) fn reopening(&self, mut steps: Vec<StepId>, now: Timestamp) -> lifecycle::Reopened {
        for (_, child) in self.ended_children(false) {
            if child.at.is_none() && !steps.contains(&child.step) {
                steps.push(child.step.clone());
            }
        }
        let (reopenings, stood) = (self.reopenings + 1, Some(self.standing_time(now)));
        lifecycle::Reopened { steps, reopenings, stood, restarts_wall: false, budget: None }
    }

    /// Whether the failure ended runs within that can go on.
    pub(super) fn has_ended_children(&self) -> bool {
        self.ended_children(true).next().is_some()
    }

    /// Runs within whose steps still wait for them although they were cancelled: because this run
    /// ended, or for good.
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

    /// Whether the step under way is one that takes what comes of the run.
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

    /// Runs within that were cancelled only because this one ended go on with it, as far as its
    /// budget goes.
    pub(super) fn reopened_children(&self, budget: Budget) -> Vec<Event> {
        let mut spent = self.spent;
        let ended = self.ended_children(true);
        let events = ended.map(|(run, child)| {
            let used = self.account(*run);
            let left = left_of(budget, spent);
            let budget = Budget {
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

    /// A run within that ended only because this one had is heard by one that goes on again.
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

    /// What follows when a run within completes after all whose failure ended this one: this one
    /// goes on, with what the failure ended besides.
    pub(super) fn revived_by(&self, ended: &turn::ChildEnded, now: Timestamp) -> Vec<Event> {
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

    fn account(&self, run: RunId) -> ChildAccount {
        self.accounts.get(&run).copied().unwrap_or_default()
    }

    /// What a run within used as far as this one has heard, in tokens and money.
    pub fn heard_use(&self, child: RunId) -> (u64, Money) {
        let account = self.account(child);
        (account.tokens, account.cost)
    }

    /// What is held for a run within: what it may spend beyond what is counted here already.
    pub(super) fn child_hold(&self, child: RunId, budget: Budget) -> (u64, Money) {
        let account = self.account(child);
        (beyond(budget.tokens, account.tokens), beyond_cost(budget.cost, account.cost))
    }

    pub(super) fn open_account(&mut self, child: RunId) {
        let idle_at_begin_ms = self.clock.idle_ms;
        self.accounts.entry(child).or_default().idle_at_begin_ms = idle_at_begin_ms;
    }

    /// Counts what a run within used beyond what was counted before.
    pub(super) fn charge_child(&mut self, event: &turn::ChildEnded) {
        let before = self.account(event.child);
        let tokens = event.tokens.saturating_sub(before.tokens);
        let cost = event.cost.scaled().saturating_sub(before.cost.scaled());
        self.spent.tokens = self.spent.tokens.saturating_add(tokens);
        self.spent.cost += Money::from_scaled(cost);
        let active_ms = event.active_ms.unwrap_or(before.active_ms);
        let worked_ms = active_ms.saturating_sub(before.active_ms);
        self.charge_time(worked_ms, before.idle_at_begin_ms);
        let (tokens, cost) = (event.tokens.max(before.tokens), event.cost);
        self.accounts.insert(event.child, ChildAccount { tokens, cost, active_ms, ..before });
    }

    pub(super) fn reopen_child(&mut self, event: &turn::ChildReopened, now: Timestamp) {
        let (tokens, cost) = self.child_hold(event.child, event.budget);
        let Some(child) = self.children.get_mut(&event.child) else { return };
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

    /// Runs within are paused with this one, and somebody must see to it that they go on with it.
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
        if event.reopenings > 0 {
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

/// Another series of tries; the time of an agent's turns begins anew where it is named.
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
    /// A run within goes on, and the step waits for it again.
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

/// What is left of a budget when so much is spent and held.
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

fn at_most<T: Ord>(limit: Option<T>, other: Option<T>) -> Option<T> {
    match (limit, other) {
        (Some(limit), Some(other)) => Some(limit.min(other)),
        (limit, other) => limit.or(other),
    }
}

fn beyond(limit: Option<u64>, used: u64) -> u64 {
    limit.unwrap_or(0).saturating_sub(used)
}

fn beyond_cost(limit: Option<Money>, used: Money) -> Money {
    let limit = limit.unwrap_or_default().scaled();
    Money::from_scaled(limit.saturating_sub(used.scaled()).max(0))
}
