//! Turns an executor's report into one commit: outcomes first, then the steps that they made ready,
//! then the intents of the steps that start, then the end of the run.

use std::collections::BTreeSet;

use super::command::{Advance, CallReport, ChildIntent, End, Intent, Outcome, Start, StepResult};
use super::fallback::Fallback;
use super::moves::Move;
use super::rejection::Rejection;
use super::state::{Phase, RunState, Spent, StepStatus};
use crate::decider::Context;
use crate::event::{Event, lifecycle, run, turn};
use crate::failure::{FailureReport, PlatformText};
use crate::id::{ExecutorId, StepId};
use crate::money::Money;
use crate::payload::PayloadRef;
use crate::platform_text;
use crate::stream::Seq;
use crate::time::Timestamp;

/// Decides what an executor's report records.
pub(super) fn advance(
    state: &RunState,
    command: Advance,
    context: &Context,
    next: Seq,
) -> Result<Vec<Event>, Rejection> {
    match state.phase {
        Phase::New => return Err(Rejection::NotFound),
        Phase::Running => {}
        ended => return settle_after_the_end(state, command, ended, context.now),
    }
    told_once(&command)?;
    if state.paused && !(command.starts.is_empty() && command.instant.is_empty()) {
        return Err(Rejection::Paused);
    }
    let now = context.now;
    let mut commit = Building { state, events: Vec::new(), spent: state.spent, next, now };
    // Results before intents: what a tool or model returned must be recorded before anything that
    // builds on it.
    for moved in &command.moves {
        commit.told(moved)?;
    }
    for outcome in command.outcomes {
        commit.outcome(outcome)?;
    }
    // These steps have no effect, so they need no start event; only their attempt is checked.
    for Outcome { step, attempt, result, skipped, .. } in command.instant {
        commit.check_next(&step, attempt, context)?;
        commit.result(step, attempt, result, skipped, None);
    }
    if let Some(end) = command.end {
        commit.end(end);
        return Ok(commit.events);
    }
    // After the outcomes, so that work done in time is recorded even if the deadline has passed.
    if state.deadline().is_some_and(|deadline| deadline <= context.now) {
        commit.end(End::Failed { step: None, error: too_late(state, context.now) });
        return Ok(commit.events);
    }
    commit.ready(command.ready, &command.starts)?;
    for moved in command.moves {
        if !commit.begin(command.executor, moved) {
            return Ok(commit.events);
        }
    }
    commit.starts(command.executor, command.starts, context)?;
    Ok(commit.events)
}

/// Rejects a report that names a step twice, except that a step may have a turn update and an
/// outcome.
fn told_once(command: &Advance) -> Result<(), Rejection> {
    let outcomes = command.outcomes.iter().chain(&command.instant).map(|outcome| &outcome.step);
    let mut moved = BTreeSet::new();
    for Move { step, .. } in &command.moves {
        if !moved.insert(step) {
            return Err(Rejection::ToldTwice(step.clone()));
        }
    }
    let mut seen = BTreeSet::new();
    for step in outcomes.chain(command.starts.iter().map(|start| &start.step)) {
        if !seen.insert(step) {
            return Err(Rejection::ToldTwice(step.clone()));
        }
    }
    Ok(())
}

/// Records the model calls that were in flight when the run ended: their cost is real.
fn settle_after_the_end(
    state: &RunState,
    command: Advance,
    ended: Phase,
    now: Timestamp,
) -> Result<Vec<Event>, Rejection> {
    let mut commit =
        Building { state, events: Vec::new(), spent: state.spent, next: state.seq.plus(1), now };
    for outcome in command.outcomes {
        // `call` is taken once the call is settled, so a second report of it records nothing.
        let under_way = state.steps.get(&outcome.step).is_some_and(|step| step.call.is_some());
        if let (true, Some(call)) = (under_way, outcome.call) {
            commit.call(&outcome.step, outcome.attempt, call, &outcome.result);
        }
    }
    if commit.events.is_empty() { Err(Rejection::Ended(ended)) } else { Ok(commit.events) }
}

/// Returns the failure of a run whose deadline has passed, with the limit that it exceeded.
fn too_late(state: &RunState, now: Timestamp) -> FailureReport {
    let is_calendar = state.calendar_deadline().is_some_and(|deadline| deadline <= now);
    let message = if is_calendar {
        let limit = state.budget.deadline.unwrap_or_default();
        platform_text!("the run is older than its budget of {}: raise budget.deadline", limit)
    } else {
        let limit = state.budget.wall.unwrap_or_default();
        platform_text!("the run took longer than its budget of {}: raise budget.wall", limit)
    };
    FailureReport::new("budget.exceeded", message)
}

/// A commit under construction. `usage` is kept up to date with the events, so that each intent is
/// checked against everything held before it in the same commit.
pub(super) struct Building<'a> {
    pub(super) state: &'a RunState,
    pub(super) events: Vec<Event>,
    pub(super) spent: Spent,
    pub(super) next: Seq,
    now: Timestamp,
}

impl Building<'_> {
    /// Pushes the events of an attempt's outcome.
    fn outcome(&mut self, outcome: Outcome) -> Result<(), Rejection> {
        let Outcome { step, attempt, result, call, skipped } = outcome;
        let was_sleeping = self.under_way(&step, attempt)?;
        // A sleep has no effect, so its end is the outcome of the step.
        if was_sleeping {
            self.events.push(Event::TimerFired(run::TimerFired { step: step.clone() }));
        }
        if matches!(result, StepResult::Unknown { .. } | StepResult::UnknownAsking) {
            self.events.push(Event::StepUnknown(run::StepUnknown { step: step.clone(), attempt }));
        }
        let fallback = call.as_ref().and_then(|call| call.fallback.clone());
        if let Some(call) = call {
            self.call(&step, attempt, call, &result);
        }
        self.result(step, attempt, result, skipped, fallback);
        Ok(())
    }

    /// Returns whether the step is a sleep.
    ///
    /// # Errors
    /// This attempt of the step is not under way.
    pub(super) fn under_way(&self, step: &StepId, attempt: u32) -> Result<bool, Rejection> {
        let not_under_way = || Rejection::NotUnderWay(step.clone());
        let known = self.state.steps.get(step).ok_or_else(not_under_way)?;
        if !known.is_under_way() {
            return Err(not_under_way());
        }
        if known.attempt != attempt {
            let (step, current) = (step.clone(), known.attempt);
            return Err(Rejection::StaleAttempt { step, told: attempt, current });
        }
        Ok(matches!(known.status, StepStatus::Sleeping { .. }))
    }

    /// Pushes the end of a model call, and its usage.
    fn call(&mut self, step: &StepId, attempt: u32, call: CallReport, result: &StepResult) {
        if let StepResult::Failed { error, .. } | StepResult::FailedAsking { error } = result {
            let error = error.clone().at(self.next);
            let (step, turn) = (step.clone(), self.turn_of(step));
            let failed = run::ModelCallFailed { step, attempt, turn, error };
            self.events.push(Event::ModelCallFailed(failed));
        } else {
            self.completed_call(step, attempt, &call, None);
        }
        self.record_usage(step, attempt, &call, result.is_unknown());
    }

    /// Returns the agent turn of the model call in flight; 0 if there is none.
    fn turn_of(&self, step: &StepId) -> u32 {
        let call = self.state.steps.get(step).and_then(|step| step.call.as_ref());
        call.map_or(0, |call| call.turn)
    }

    /// Pushes the completion of a model call, unless the call failed.
    pub(super) fn completed_call(
        &mut self,
        step: &StepId,
        attempt: u32,
        call: &CallReport,
        answer: Option<PayloadRef>,
    ) {
        let Some(finish) = call.finish.clone() else { return };
        self.events.push(Event::ModelCallCompleted(run::ModelCallCompleted {
            step: step.clone(),
            attempt,
            turn: self.turn_of(step),
            model: call.model.clone(),
            finish,
            duration_ms: call.duration_ms,
            first_token_ms: call.first_token_ms,
            answer,
        }));
    }

    /// Pushes the usage of a call and releases its budget hold. If the usage or the cost is
    /// unknown, the hold counts as spent, so that the budget stays an upper bound.
    pub(super) fn record_usage(
        &mut self,
        step: &StepId,
        attempt: u32,
        call: &CallReport,
        is_lost: bool,
    ) {
        let held = self.state.steps.get(step).and_then(|step| step.call.as_ref());
        if let Some(held) = held {
            self.spent.release(held);
        }
        let Some(usage) = &call.usage else { return };
        let hold = held.map(|held| run::BudgetHold {
            // A lost call may have used anything up to its hold; a confirmed one without a price
            // may have cost anything up to it.
            tokens: if is_lost { held.reserved_tokens } else { 0 },
            cost: if is_lost || call.charge.is_none() { held.reserved_cost } else { Money::ZERO },
        });
        let recorded = run::UsageRecorded {
            step: step.clone(),
            attempt,
            turn: self.turn_of(step),
            provider: call.provider.clone(),
            model: call.model.clone(),
            usage: usage.clone(),
            confirmed: call.confirmed,
            hold: hold.filter(|hold| *hold != run::BudgetHold::default()),
            service_tier: call.service_tier.clone(),
            charge: call.charge.clone(),
            provider_cost: call.provider_cost,
        };
        self.spent.spend(&recorded);
        self.events.push(Event::UsageRecorded(recorded));
    }

    /// Pushes the outcome of an attempt, and the retry or question that follows it.
    fn result(
        &mut self,
        step: StepId,
        attempt: u32,
        result: StepResult,
        skipped: Vec<crate::id::NodeId>,
        fallback: Option<Fallback>,
    ) {
        // `Some(true)` asks about an unknown outcome, `Some(false)` about a failure.
        let asks = match result {
            StepResult::FailedAsking { .. } => Some(false),
            StepResult::UnknownAsking => Some(true),
            _ => None,
        };
        let (error, retry_at) = match result {
            StepResult::Completed { output, case } => {
                if let Some(case) = case {
                    let decided = run::BranchDecided { node: step.node.clone(), case };
                    self.events.push(Event::BranchDecided(decided));
                }
                let output = output.map(|slot| slot.at(self.next));
                let completed = run::StepCompleted { step, attempt, output, skipped };
                return self.events.push(Event::StepCompleted(completed));
            }
            StepResult::Yielded { output } => {
                let completed = run::StepCompleted { step, attempt, output, skipped };
                return self.events.push(Event::StepCompleted(completed));
            }
            StepResult::Failed { error, retry_at } => (Some(error), retry_at),
            StepResult::Unknown { retry_at: None } => (Some(unknown_outcome()), None),
            StepResult::Unknown { retry_at } => (None, retry_at),
            StepResult::FailedAsking { error } => (Some(error), None),
            StepResult::UnknownAsking => (None, None),
            StepResult::Retried => (None, Some(self.now)),
            StepResult::Skipped => {
                let skip = lifecycle::StepSkipped { step, attempt, skipped };
                return self.events.push(Event::StepSkipped(skip));
            }
        };
        if let Some(error) = error {
            let (step, last, error) = (step.clone(), retry_at.is_none(), error.at(self.next));
            let failed = run::StepFailed { step, attempt, error, last, skipped };
            self.events.push(Event::StepFailed(failed));
        }
        if let Some(due) = retry_at {
            let retried = run::StepRetried { step, attempt: attempt + 1, due, fallback };
            self.events.push(Event::StepRetried(retried));
        } else if let Some(unknown) = asks {
            let asked = lifecycle::StepAsked { step, attempt, unknown };
            self.events.push(Event::StepAsked(asked));
        }
    }

    /// Pushes `run.step.scheduled.v1` for steps that became ready. Steps that start in this commit
    /// need none, since the start implies it.
    fn ready(&mut self, ready: Vec<StepId>, starts: &[Start]) -> Result<(), Rejection> {
        for step in ready {
            if self.state.steps.contains_key(&step) {
                return Err(Rejection::ScheduledBefore(step));
            }
            if !starts.iter().any(|start| start.step == step) {
                self.events.push(Event::StepScheduled(run::StepScheduled { step }));
            }
        }
        Ok(())
    }

    /// Starts steps in order, until one could exceed the budget: that one ends the run.
    fn starts(
        &mut self,
        executor: ExecutorId,
        starts: Vec<Start>,
        context: &Context,
    ) -> Result<(), Rejection> {
        for start in starts {
            let attempt = self.next_attempt(&start.step, context)?;
            if let Some(limit) = self.over_budget(&start.intent) {
                self.exhausted(start.step, limit);
                return Ok(());
            }
            self.start(executor, start, attempt);
        }
        Ok(())
    }

    /// Checks that `reported` is the attempt that may start now.
    fn check_next(&self, step: &StepId, told: u32, context: &Context) -> Result<(), Rejection> {
        let current = self.next_attempt(step, context)?;
        if current == told {
            return Ok(());
        }
        Err(Rejection::StaleAttempt { step: step.clone(), told, current })
    }

    /// Returns the number of the attempt that may start now.
    fn next_attempt(&self, step: &StepId, context: &Context) -> Result<u32, Rejection> {
        let Some(known) = self.state.steps.get(step) else {
            return Ok(1);
        };
        match known.status {
            StepStatus::Scheduled { due } if due.is_none_or(|due| due <= context.now) => {
                Ok(known.attempt + 1)
            }
            _ => Err(Rejection::NotScheduled(step.clone())),
        }
    }

    /// Describes the budget limit that the intent could exceed; `None` if the budget suffices.
    pub(super) fn over_budget(&self, intent: &Intent) -> Option<PlatformText> {
        let (what, more_tokens, more): (&'static str, u64, Money) = match intent {
            Intent::CallModel { reserved_tokens, reserved_cost, .. } => {
                ("the call", *reserved_tokens, reserved_cost.unwrap_or_default())
            }
            Intent::Child(ChildIntent { budget, .. }) => {
                ("the run within", budget.tokens.unwrap_or(0), budget.cost.unwrap_or_default())
            }
            Intent::ReopenChild(reopening) => {
                let (tokens, cost) = self.state.child_hold(reopening.child, reopening.budget);
                ("the run within", tokens, cost)
            }
            _ => return None,
        };
        let (budget, spent) = (self.state.budget, self.spent);
        // Without a price there is no upper bound of the cost, so a cost limit forbids the call.
        if let (Some(limit), Intent::CallModel { reserved_cost: None, .. }) = (budget.cost, intent)
        {
            return Some(platform_text!(
                "budget.cost is {}, and what the call could cost is not known: the model has no \
                 price (an operator gives it one in prices.json)",
                limit
            ));
        }
        let tokens = spent.tokens.saturating_add(spent.reserved_tokens);
        if let Some(limit) =
            budget.tokens.filter(|limit| tokens.saturating_add(more_tokens) > *limit)
        {
            return Some(platform_text!(
                "budget.tokens is {}: {} are spent or held, and {} could need {}",
                limit,
                tokens,
                what,
                more_tokens
            ));
        }
        let cost = spent.cost + spent.reserved_cost;
        let limit = budget.cost.filter(|limit| cost + more > *limit)?;
        Some(platform_text!(
            "budget.cost is {}: {} are spent or held, and {} could cost {}",
            limit,
            cost,
            what,
            more
        ))
    }

    /// Ends the run because its budget cannot cover the step.
    pub(super) fn exhausted(&mut self, step: StepId, limit: PlatformText) {
        let exhausted = run::BudgetExhausted { step: step.clone(), limit: limit.clone() };
        self.events.push(Event::BudgetExhausted(exhausted));
        let error = FailureReport::new("budget.exceeded", limit);
        self.end(End::Failed { step: Some(step), error });
    }

    /// Pushes the start of a step with its intent.
    fn start(&mut self, executor: ExecutorId, start: Start, attempt: u32) {
        let Start { step, intent } = start;
        let started = run::StepStarted { step: step.clone(), attempt, executor };
        self.events.push(Event::StepStarted(started));
        self.intend(&step, attempt, intent);
    }

    /// Pushes the intent of a step and holds the budget that it needs.
    pub(super) fn intend(&mut self, step: &StepId, attempt: u32, intent: Intent) {
        let step = step.clone();
        match intent {
            Intent::Compute => {}
            Intent::CallModel {
                turn,
                provider,
                model,
                route,
                routing,
                key,
                left_out,
                prompt,
                reserved_tokens,
                reserved_cost,
                estimated_tokens,
                estimated_meter,
                output_limit,
                idempotency_key,
            } => {
                self.spent.reserved_tokens += reserved_tokens;
                self.spent.reserved_cost += reserved_cost.unwrap_or_default();
                let prompt = prompt.at(self.next);
                self.events.push(Event::ModelCallIntended(run::ModelCallIntended {
                    step,
                    attempt,
                    turn,
                    provider,
                    model,
                    route,
                    routing: routing.map(|routing| Box::new(routing.at(self.next))),
                    key,
                    left_out,
                    prompt,
                    reserved_tokens,
                    reserved_cost,
                    estimated_tokens,
                    estimated_meter,
                    output_limit,
                    idempotency_key,
                }));
            }
            Intent::CallTool { at, name } => {
                let intended = turn::ToolCallIntended { step, attempt, at, name };
                self.events.push(Event::ToolCallIntended(intended));
            }
            Intent::Child(child) => self.child(step, attempt, child),
            Intent::ReopenChild(reopening) => self.reopen_child(step, reopening),
            Intent::Expand { width, max_parallel } => {
                let expanded = run::MapExpanded { node: step.node, width, max_parallel };
                self.events.push(Event::MapExpanded(expanded));
            }
            Intent::Sleep { due } => self.events.push(Event::TimerSet(run::TimerSet { step, due })),
            Intent::Await { signal, expires } => {
                let awaited = lifecycle::SignalAwaited { step, signal, expires };
                self.events.push(Event::SignalAwaited(awaited));
            }
            Intent::Ask { approval, role, content, content_hash, expires } => {
                let content = content.at(self.next);
                self.events.push(Event::ApprovalRequested(run::ApprovalRequested {
                    approval,
                    step,
                    role,
                    content,
                    content_hash,
                    expires,
                }));
            }
        }
    }

    /// Pushes the intent of a child run and holds the child's whole budget.
    fn child(&mut self, step: StepId, attempt: u32, child: ChildIntent) {
        self.spent.hold_tokens(child.budget.tokens.unwrap_or(0));
        self.spent.reserved_cost += child.budget.cost.unwrap_or_default();
        self.events.push(Event::ChildIntended(turn::ChildIntended {
            step,
            attempt,
            at: child.at,
            child: child.child,
            graph: child.graph,
            version: child.version,
            input: child.input.at(self.next),
            manifest: child.manifest.map(|slot| slot.at(self.next)),
            budget: child.budget,
            privacy: child.privacy,
            agent: child.agent,
        }));
    }

    /// Pushes the end of the run.
    fn end(&mut self, end: End) {
        self.events.push(match end {
            End::Completed { output } => {
                let output = output.map(|slot| slot.at(self.next));
                Event::RunCompleted(run::Completed { output })
            }
            End::Failed { step, error } => {
                let error = error.at(self.next);
                Event::RunFailed(run::Failed { step, error })
            }
        });
    }
}

/// Returns the failure of a step whose executor died and that is not attempted again.
fn unknown_outcome() -> FailureReport {
    let message =
        platform_text!("the executor died during the step, and no further try is allowed");
    FailureReport::new("step.unknown", message)
}
