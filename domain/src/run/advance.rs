//! Turns an executor's report into one commit: outcomes first, then the steps that they made ready,
//! then the intents of the steps that start, then the end of the run.

use std::collections::BTreeSet;

use super::advance_command::{
    AdvanceRun, CallReport, ChildIntent, RunOutcome, StepIntent, StepOutcome, StepResult,
    StepStart, TurnUpdate,
};
use super::event::{
    ApprovalRequested, BranchDecided, BudgetExhausted, BudgetHold, ChildIntended, MapExpanded,
    ModelCallCompleted, ModelCallFailed, ModelCallIntended, RunCompleted, RunEvent, RunFailed,
    SignalAwaited, StepAsked, StepCompleted, StepFailed, StepRetried, StepScheduled, StepSkipped,
    StepStarted, StepUnknown, TimerFired, TimerSet, ToolCallIntended, UsageRecorded,
};
use super::fallback::Fallback;
use super::rejection::RunRejection;
use super::state::{BudgetUsage, RunPhase, RunState};
use super::step::StepStatus;
use crate::decider::DecisionContext;
use crate::failure::{FailureReport, PlatformText};
use crate::id::{ExecutorId, StepId};
use crate::money::Money;
use crate::payload::PayloadRef;
use crate::platform_text;
use crate::stream::Seq;
use crate::time::Timestamp;

/// Decides what an executor's report records.
pub(super) fn decide_advance(
    state: &RunState,
    command: AdvanceRun,
    context: &DecisionContext,
    next: Seq,
) -> Result<Vec<RunEvent>, RunRejection> {
    match state.phase {
        RunPhase::New => return Err(RunRejection::NotFound),
        RunPhase::Running => {}
        ended => return settle_calls_after_end(state, command, ended, context.now),
    }
    check_each_step_once(&command)?;
    if state.paused && !(command.starts.is_empty() && command.instant_outcomes.is_empty()) {
        return Err(RunRejection::Paused);
    }
    let now = context.now;
    let mut commit =
        CommitBuilder { state, events: Vec::new(), usage: state.spent, first_seq: next, now };
    // Results before intents: what a tool or model returned must be recorded before anything that
    // builds on it.
    for update in &command.turn_updates {
        commit.push_update(update)?;
    }
    for outcome in command.outcomes {
        commit.push_outcome(outcome)?;
    }
    // These steps have no effect, so they need no start event; only their attempt is checked.
    for StepOutcome { step, attempt, result, skipped, .. } in command.instant_outcomes {
        commit.check_next_attempt(&step, attempt, context)?;
        commit.push_step_result(step, attempt, result, skipped, None);
    }
    if let Some(end) = command.end {
        commit.finish_run(end);
        return Ok(commit.events);
    }
    // After the outcomes, so that work done in time is recorded even if the deadline has passed.
    if state.earliest_deadline().is_some_and(|deadline| deadline <= context.now) {
        commit.finish_run(RunOutcome::Failed {
            step: None,
            error: deadline_failure(state, context.now),
        });
        return Ok(commit.events);
    }
    commit.schedule_steps(command.ready_steps, &command.starts)?;
    for update in command.turn_updates {
        if !commit.begin_intents(command.executor, update) {
            return Ok(commit.events);
        }
    }
    commit.start_steps(command.executor, command.starts, context)?;
    Ok(commit.events)
}

/// Rejects a report that names a step twice, except that a step may have a turn update and an
/// outcome.
fn check_each_step_once(command: &AdvanceRun) -> Result<(), RunRejection> {
    let outcomes =
        command.outcomes.iter().chain(&command.instant_outcomes).map(|outcome| &outcome.step);
    let mut updated = BTreeSet::new();
    for TurnUpdate { step, .. } in &command.turn_updates {
        if !updated.insert(step) {
            return Err(RunRejection::ReportedTwice(step.clone()));
        }
    }
    let mut seen = BTreeSet::new();
    for step in outcomes.chain(command.starts.iter().map(|start| &start.step)) {
        if !seen.insert(step) {
            return Err(RunRejection::ReportedTwice(step.clone()));
        }
    }
    Ok(())
}

/// Records the model calls that were in flight when the run ended: their cost is real.
fn settle_calls_after_end(
    state: &RunState,
    command: AdvanceRun,
    ended: RunPhase,
    now: Timestamp,
) -> Result<Vec<RunEvent>, RunRejection> {
    let mut commit = CommitBuilder {
        state,
        events: Vec::new(),
        usage: state.spent,
        first_seq: state.seq.offset_by(1),
        now,
    };
    for outcome in command.outcomes {
        // `call` is taken once the call is settled, so a second report of it records nothing.
        let under_way = state.steps.get(&outcome.step).is_some_and(|step| step.call.is_some());
        if let (true, Some(call)) = (under_way, outcome.call) {
            commit.push_model_call(&outcome.step, outcome.attempt, call, &outcome.result);
        }
    }
    if commit.events.is_empty() { Err(RunRejection::Ended(ended)) } else { Ok(commit.events) }
}

/// Returns the failure of a run whose deadline has passed, with the limit that it exceeded.
fn deadline_failure(state: &RunState, now: Timestamp) -> FailureReport {
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
pub(super) struct CommitBuilder<'a> {
    pub(super) state: &'a RunState,
    pub(super) events: Vec<RunEvent>,
    pub(super) usage: BudgetUsage,
    pub(super) first_seq: Seq,
    now: Timestamp,
}

impl CommitBuilder<'_> {
    /// Pushes the events of an attempt's outcome.
    fn push_outcome(&mut self, outcome: StepOutcome) -> Result<(), RunRejection> {
        let StepOutcome { step, attempt, result, call, skipped } = outcome;
        let was_sleeping = self.check_under_way(&step, attempt)?;
        // A sleep has no effect, so its end is the outcome of the step.
        if was_sleeping {
            self.events.push(RunEvent::TimerFired(TimerFired { step: step.clone() }));
        }
        if matches!(result, StepResult::Unknown { .. } | StepResult::UnknownAsking) {
            self.events.push(RunEvent::StepUnknown(StepUnknown { step: step.clone(), attempt }));
        }
        let fallback = call.as_ref().and_then(|call| call.fallback.clone());
        if let Some(call) = call {
            self.push_model_call(&step, attempt, call, &result);
        }
        self.push_step_result(step, attempt, result, skipped, fallback);
        Ok(())
    }

    /// Returns whether the step is a sleep.
    ///
    /// # Errors
    /// This attempt of the step is not under way.
    pub(super) fn check_under_way(
        &self,
        step: &StepId,
        attempt: u32,
    ) -> Result<bool, RunRejection> {
        let not_under_way = || RunRejection::NotUnderWay(step.clone());
        let step_state = self.state.steps.get(step).ok_or_else(not_under_way)?;
        if !step_state.is_under_way() {
            return Err(not_under_way());
        }
        if step_state.attempt != attempt {
            let (step, current) = (step.clone(), step_state.attempt);
            return Err(RunRejection::StaleAttempt { step, reported: attempt, current });
        }
        Ok(matches!(step_state.status, StepStatus::Sleeping { .. }))
    }

    /// Pushes the end of a model call, and its usage.
    fn push_model_call(
        &mut self,
        step: &StepId,
        attempt: u32,
        call: CallReport,
        result: &StepResult,
    ) {
        if let StepResult::Failed { error, .. } | StepResult::FailedAsking { error } = result {
            let error = error.clone().into_failure(self.first_seq);
            let (step, turn) = (step.clone(), self.pending_call_turn(step));
            let failed = ModelCallFailed { step, attempt, turn, error };
            self.events.push(RunEvent::ModelCallFailed(failed));
        } else {
            self.push_completed_call(step, attempt, &call, None);
        }
        self.push_usage(step, attempt, &call, result.is_unknown());
    }

    /// Returns the agent turn of the model call in flight; 0 if there is none.
    fn pending_call_turn(&self, step: &StepId) -> u32 {
        let call = self.state.steps.get(step).and_then(|step| step.call.as_ref());
        call.map_or(0, |call| call.turn)
    }

    /// Pushes the completion of a model call, unless the call failed.
    pub(super) fn push_completed_call(
        &mut self,
        step: &StepId,
        attempt: u32,
        call: &CallReport,
        answer: Option<PayloadRef>,
    ) {
        let Some(finish) = call.finish.clone() else { return };
        self.events.push(RunEvent::ModelCallCompleted(ModelCallCompleted {
            step: step.clone(),
            attempt,
            turn: self.pending_call_turn(step),
            model: call.model.clone(),
            finish,
            duration_ms: call.duration_ms,
            first_token_ms: call.first_token_ms,
            answer,
        }));
    }

    /// Pushes the usage of a call and releases its budget hold. If the usage or the cost is
    /// unknown, the hold counts as spent, so that the budget stays an upper bound.
    pub(super) fn push_usage(
        &mut self,
        step: &StepId,
        attempt: u32,
        call: &CallReport,
        is_lost: bool,
    ) {
        let pending_call = self.state.steps.get(step).and_then(|step| step.call.as_ref());
        if let Some(pending_call) = pending_call {
            self.usage.release_call(pending_call);
        }
        let Some(usage) = &call.usage else { return };
        let hold = pending_call.map(|held| BudgetHold {
            // A lost call may have used anything up to its hold; a confirmed one without a price
            // may have cost anything up to it.
            tokens: if is_lost { held.reserved_tokens } else { 0 },
            cost: if is_lost || call.charge.is_none() { held.reserved_cost } else { Money::ZERO },
        });
        let recorded = UsageRecorded {
            step: step.clone(),
            attempt,
            turn: self.pending_call_turn(step),
            provider: call.provider.clone(),
            model: call.model.clone(),
            usage: usage.clone(),
            confirmed: call.confirmed,
            hold: hold.filter(|hold| *hold != BudgetHold::default()),
            service_tier: call.service_tier.clone(),
            charge: call.charge.clone(),
            provider_cost: call.provider_cost,
        };
        self.usage.add_usage(&recorded);
        self.events.push(RunEvent::UsageRecorded(recorded));
    }

    /// Pushes the outcome of an attempt, and the retry or question that follows it.
    fn push_step_result(
        &mut self,
        step: StepId,
        attempt: u32,
        result: StepResult,
        skipped: Vec<crate::id::NodeId>,
        fallback: Option<Fallback>,
    ) {
        // `Some(true)` asks about an unknown outcome, `Some(false)` about a failure.
        let asks_if_unknown = match result {
            StepResult::FailedAsking { .. } => Some(false),
            StepResult::UnknownAsking => Some(true),
            _ => None,
        };
        let (error, retry_at) = match result {
            StepResult::Completed { output, case } => {
                if let Some(case) = case {
                    let decided = BranchDecided { node: step.node.clone(), case };
                    self.events.push(RunEvent::BranchDecided(decided));
                }
                let output = output.map(|slot| slot.to_payload_ref(self.first_seq));
                let completed = StepCompleted { step, attempt, output, skipped };
                return self.events.push(RunEvent::StepCompleted(completed));
            }
            StepResult::Yielded { output } => {
                let completed = StepCompleted { step, attempt, output, skipped };
                return self.events.push(RunEvent::StepCompleted(completed));
            }
            StepResult::Failed { error, retry_at } => (Some(error), retry_at),
            StepResult::Unknown { retry_at: None } => (Some(unknown_outcome_failure()), None),
            StepResult::Unknown { retry_at } => (None, retry_at),
            StepResult::FailedAsking { error } => (Some(error), None),
            StepResult::UnknownAsking => (None, None),
            StepResult::Retried => (None, Some(self.now)),
            StepResult::Skipped => {
                let skip = StepSkipped { step, attempt, skipped };
                return self.events.push(RunEvent::StepSkipped(skip));
            }
        };
        if let Some(error) = error {
            let (step, last, error) =
                (step.clone(), retry_at.is_none(), error.into_failure(self.first_seq));
            let failed = StepFailed { step, attempt, error, last, skipped };
            self.events.push(RunEvent::StepFailed(failed));
        }
        if let Some(due) = retry_at {
            let retried = StepRetried { step, attempt: attempt + 1, due, fallback };
            self.events.push(RunEvent::StepRetried(retried));
        } else if let Some(unknown) = asks_if_unknown {
            let asked = StepAsked { step, attempt, unknown };
            self.events.push(RunEvent::StepAsked(asked));
        }
    }

    /// Pushes `run.step.scheduled.v1` for steps that became ready. Steps that start in this commit
    /// need none, since the start implies it.
    fn schedule_steps(
        &mut self,
        ready: Vec<StepId>,
        starts: &[StepStart],
    ) -> Result<(), RunRejection> {
        for step in ready {
            if self.state.steps.contains_key(&step) {
                return Err(RunRejection::ScheduledBefore(step));
            }
            if !starts.iter().any(|start| start.step == step) {
                self.events.push(RunEvent::StepScheduled(StepScheduled { step }));
            }
        }
        Ok(())
    }

    /// Starts steps in order, until one could exceed the budget: that one ends the run.
    fn start_steps(
        &mut self,
        executor: ExecutorId,
        starts: Vec<StepStart>,
        context: &DecisionContext,
    ) -> Result<(), RunRejection> {
        for start in starts {
            let attempt = self.next_attempt(&start.step, context)?;
            if let Some(limit) = self.find_exceeded_limit(&start.intent) {
                self.fail_over_budget(start.step, limit);
                return Ok(());
            }
            self.push_step_start(executor, start, attempt);
        }
        Ok(())
    }

    /// Checks that `reported` is the attempt that may start now.
    fn check_next_attempt(
        &self,
        step: &StepId,
        reported: u32,
        context: &DecisionContext,
    ) -> Result<(), RunRejection> {
        let current = self.next_attempt(step, context)?;
        if current == reported {
            return Ok(());
        }
        Err(RunRejection::StaleAttempt { step: step.clone(), reported, current })
    }

    /// Returns the number of the attempt that may start now.
    fn next_attempt(&self, step: &StepId, context: &DecisionContext) -> Result<u32, RunRejection> {
        let Some(step_state) = self.state.steps.get(step) else {
            return Ok(1);
        };
        match step_state.status {
            StepStatus::Scheduled { due } if due.is_none_or(|due| due <= context.now) => {
                Ok(step_state.attempt + 1)
            }
            _ => Err(RunRejection::NotScheduled(step.clone())),
        }
    }

    /// Describes the budget limit that the intent could exceed; `None` if the budget suffices.
    pub(super) fn find_exceeded_limit(&self, intent: &StepIntent) -> Option<PlatformText> {
        let (subject, more_tokens, more_cost): (&'static str, u64, Money) = match intent {
            StepIntent::CallModel { reserved_tokens, reserved_cost, .. } => {
                ("the call", *reserved_tokens, reserved_cost.unwrap_or_default())
            }
            StepIntent::CreateChild(ChildIntent { budget, .. }) => {
                ("the run within", budget.tokens.unwrap_or(0), budget.cost.unwrap_or_default())
            }
            StepIntent::ReopenChild(reopening) => {
                let (tokens, cost) = self.state.child_hold(reopening.child, reopening.budget);
                ("the run within", tokens, cost)
            }
            _ => return None,
        };
        let (budget, spent) = (self.state.budget, self.usage);
        // Without a price there is no upper bound of the cost, so a cost limit forbids the call.
        if let (Some(limit), StepIntent::CallModel { reserved_cost: None, .. }) =
            (budget.cost, intent)
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
                subject,
                more_tokens
            ));
        }
        let cost = spent.cost + spent.reserved_cost;
        let limit = budget.cost.filter(|limit| cost + more_cost > *limit)?;
        Some(platform_text!(
            "budget.cost is {}: {} are spent or held, and {} could cost {}",
            limit,
            cost,
            subject,
            more_cost
        ))
    }

    /// Ends the run because its budget cannot cover the step.
    pub(super) fn fail_over_budget(&mut self, step: StepId, limit: PlatformText) {
        let exhausted = BudgetExhausted { step: step.clone(), limit: limit.clone() };
        self.events.push(RunEvent::BudgetExhausted(exhausted));
        let error = FailureReport::new("budget.exceeded", limit);
        self.finish_run(RunOutcome::Failed { step: Some(step), error });
    }

    /// Pushes the start of a step with its intent.
    fn push_step_start(&mut self, executor: ExecutorId, start: StepStart, attempt: u32) {
        let StepStart { step, intent } = start;
        let started = StepStarted { step: step.clone(), attempt, executor };
        self.events.push(RunEvent::StepStarted(started));
        self.push_intent(&step, attempt, intent);
    }

    /// Pushes the intent of a step and holds the budget that it needs.
    pub(super) fn push_intent(&mut self, step: &StepId, attempt: u32, intent: StepIntent) {
        let step = step.clone();
        match intent {
            StepIntent::Compute => {}
            StepIntent::CallModel {
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
                self.usage.reserved_tokens += reserved_tokens;
                self.usage.reserved_cost += reserved_cost.unwrap_or_default();
                let prompt = prompt.to_payload_ref(self.first_seq);
                let routing = routing.map(|it| Box::new(it.into_event_form(self.first_seq)));
                self.events.push(RunEvent::ModelCallIntended(ModelCallIntended {
                    step,
                    attempt,
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
                }));
            }
            StepIntent::CallTool { tool_call: at, name } => {
                let intended = ToolCallIntended { step, attempt, tool_call: at, name };
                self.events.push(RunEvent::ToolCallIntended(intended));
            }
            StepIntent::RunTool(tool) => self.push_tool_intent(step, attempt, tool),
            StepIntent::CreateChild(child) => self.push_child_intent(step, attempt, child),
            StepIntent::ReopenChild(reopening) => self.push_child_reopening(step, reopening),
            StepIntent::ExpandMap { width, max_parallel } => {
                let expanded = MapExpanded { node: step.node, width, max_parallel };
                self.events.push(RunEvent::MapExpanded(expanded));
            }
            StepIntent::Sleep { due } => {
                self.events.push(RunEvent::TimerSet(TimerSet { step, due }));
            }
            StepIntent::AwaitSignal { signal, expires } => {
                let awaited = SignalAwaited { step, signal, expires };
                self.events.push(RunEvent::SignalAwaited(awaited));
            }
            StepIntent::RequestApproval { approval, role, content, content_hash, expires } => {
                let content = content.to_payload_ref(self.first_seq);
                let requested =
                    ApprovalRequested { approval, step, role, content, content_hash, expires };
                self.events.push(RunEvent::ApprovalRequested(requested));
            }
        }
    }

    /// Pushes the intent of a child run and holds the child's whole budget.
    fn push_child_intent(&mut self, step: StepId, attempt: u32, child: ChildIntent) {
        self.usage.hold_tokens(child.budget.tokens.unwrap_or(0));
        self.usage.reserved_cost += child.budget.cost.unwrap_or_default();
        self.events.push(RunEvent::ChildIntended(ChildIntended {
            step,
            attempt,
            tool_call: child.tool_call,
            child: child.child,
            graph: child.graph,
            version: child.version,
            input: child.input.to_payload_ref(self.first_seq),
            manifest: child.manifest.map(|slot| slot.to_payload_ref(self.first_seq)),
            budget: child.budget,
            privacy: child.privacy,
            agent: child.agent,
        }));
    }

    /// Pushes the end of the run.
    fn finish_run(&mut self, end: RunOutcome) {
        self.events.push(match end {
            RunOutcome::Completed { output } => {
                let output = output.map(|slot| slot.to_payload_ref(self.first_seq));
                RunEvent::RunCompleted(RunCompleted { output })
            }
            RunOutcome::Failed { step, error } => {
                let error = error.into_failure(self.first_seq);
                RunEvent::RunFailed(RunFailed { step, error })
            }
        });
    }
}

/// Returns the failure of a step whose executor died and that is not attempted again.
fn unknown_outcome_failure() -> FailureReport {
    let message =
        platform_text!("the executor died during the step, and no further try is allowed");
    FailureReport::new("step.unknown", message)
}
