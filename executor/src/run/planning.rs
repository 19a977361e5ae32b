//! Planning of the next commit: results first, then steps that may start, then the end of the run.
//! What exceeds the commit's size goes into the next one.

use std::collections::VecDeque;

use convergio_domain::failure::FailureReport;
use convergio_domain::id::StepId;
use convergio_domain::payload::PayloadPurpose;
use convergio_domain::platform_text;
use convergio_domain::run::{RunOutcome, StepOutcome, StepResult, StepStart};
use convergio_eventstore::LogLimits;
use convergio_kernel_c::RunResult;
use serde_json::Value;

use super::actor::RunActor;
use crate::error::ActorError;
use crate::outputs::OutputError;
use crate::plan::{
    CapacityKind, CommitPlan, EffectOutcome, EffectResult, PlanStart, PreparedStep, ToolCallAt,
    find_fatal_failure, new_failure, oversized_step_failure,
};

impl RunActor {
    /// Describes to a new plan what the run may still do.
    fn plan_start(&self) -> PlanStart {
        PlanStart {
            executor: self.shared.config.id,
            now: self.shared.current_time(),
            scheduler: self.schedule.scheduler.clone(),
            unrecorded_ready: self.schedule.unrecorded_ready.clone(),
            limits: self.schedule.commit_limits,
            capacity: self.free_capacity(),
            can_start_steps: self.can_start_steps(),
        }
    }

    /// Plans the costs that remain to be recorded of a run that has ended.
    pub(super) fn build_settlement_plan(&mut self) -> CommitPlan {
        let mut plan = CommitPlan::new(self.plan_start(), &self.run.state);
        for done in self.inbox.results.iter().take(plan.size.limits.results.max(1)) {
            plan.result_count += 1;
            let (step, attempt) = (done.step.clone(), done.attempt);
            let result = StepResult::Unknown { retry_at: None };
            let (call, skipped) = (done.call_report.clone(), Vec::new());
            plan.advance.outcomes.push(StepOutcome { step, attempt, result, call, skipped });
        }
        plan
    }

    /// Plans the next commit. It is empty if nothing can be done now: steps without capacity or
    /// before their time stay where they are.
    pub(super) async fn build_plan(&mut self) -> Result<CommitPlan, ActorError> {
        let mut plan = CommitPlan::new(self.plan_start(), &self.run.state);
        plan.deciding_failure = self
            .schedule
            .deciding_failure
            .clone()
            .map(|(step, error)| (step, error.into_repeated()));
        self.add_results(&mut plan).await?;
        if plan.can_start_steps {
            self.begin_queued_calls(&mut plan).await?;
            self.start_steps(&mut plan).await?;
        }
        if plan.is_run_over() {
            plan.advance.end = self.plan_run_end(&mut plan).await?;
            // The run ends in this commit: nothing may start in it any more.
            plan.advance.starts.clear();
            plan.launches.clear();
            plan.pending_turns.values_mut().for_each(|moving| moving.update.intents.clear());
        }
        self.schedule.waiting_steps.extend(plan.postponed_turns.drain(..));
        let pending_turns = std::mem::take(&mut plan.pending_turns);
        plan.advance.turn_updates =
            pending_turns.into_values().map(|moving| moving.update).collect();
        self.record_ready_steps(&mut plan);
        Ok(plan)
    }

    /// Adds as many results as the commit has room for.
    async fn add_results(&mut self, plan: &mut CommitPlan) -> Result<(), ActorError> {
        let mut next = 0;
        while let Some(done) = self.inbox.results.get(next).cloned() {
            if next >= plan.size.limits.results || plan.is_full_for(&done) {
                break;
            }
            plan.can_retry_unknown = self.can_retry_unknown(&done);
            self.borrow_planner().apply_result(plan, done).await?;
            next += 1;
        }
        Ok(())
    }

    /// Begins the child runs of queued calls, as far as there is capacity.
    async fn begin_queued_calls(&mut self, plan: &mut CommitPlan) -> Result<(), ActorError> {
        for (step, call) in self.schedule.queued_calls.clone() {
            if plan.is_run_over()
                || plan.size.is_full()
                || !plan.capacity.has_capacity(CapacityKind::ChildRun)
            {
                break;
            }
            // A step that an earlier result of this commit concluded needs its calls no more.
            let is_concluded = plan.advance.outcomes.iter().any(|outcome| outcome.step == step);
            let attempt = self.run.state.steps.get(&step).map(|known| known.attempt);
            if let Some(attempt) = attempt.filter(|_| !is_concluded) {
                self.borrow_planner()
                    .begin_queued_call(plan, ToolCallAt { step, attempt, call })
                    .await?;
            }
        }
        Ok(())
    }

    /// Records steps that are ready but do not start, as far as there is room; later commits record
    /// the rest.
    fn record_ready_steps(&self, plan: &mut CommitPlan) {
        let is_recorded = |step: &StepId| self.run.state.steps.contains_key(step);
        // Steps in the state were scheduled by an earlier commit.
        plan.unrecorded_ready.retain(|step| !is_recorded(step));
        let count = plan.size.remaining_ready_steps().min(plan.unrecorded_ready.len());
        plan.advance.ready_steps = plan.unrecorded_ready.drain(..count).collect();
    }

    /// Starts the steps that may start and have capacity. Steps without an effect are concluded at
    /// once.
    async fn start_steps(&mut self, plan: &mut CommitPlan) -> Result<(), ActorError> {
        let mut waiting = VecDeque::new();
        while !plan.is_run_over() && !plan.size.is_full() {
            let Some(step) = self.take_next_step(plan, &mut waiting) else { break };
            self.begin_step(plan, step).await?;
            // A step with an expensive evaluation goes alone: if the commit is rejected, only that
            // one evaluation is repeated.
            if self.caches.evaluations.has_used() {
                break;
            }
        }
        waiting.append(&mut plan.unrecorded_ready);
        plan.unrecorded_ready = waiting;
        Ok(())
    }

    /// Takes the next step that has capacity: first of those that the log has scheduled, then of
    /// those that the kernel has just made ready, in their order.
    fn take_next_step(
        &mut self,
        plan: &mut CommitPlan,
        waiting: &mut VecDeque<StepId>,
    ) -> Option<StepId> {
        if let Some((_, step)) = self.schedule.ready_steps.pop_first(&plan.capacity) {
            return Some(step);
        }
        while let Some(step) = plan.unrecorded_ready.pop_front() {
            let has_place = plan.capacity.has_capacity(CapacityKind::for_step(&self.graph, &step));
            if has_place && !self.is_of_new_map(&step) {
                // Steps without capacity keep their order for the next commit.
                return Some(step);
            }
            waiting.push_back(step);
        }
        None
    }

    /// Returns whether the map of an item is new in this commit. Items start one commit later,
    /// because the domain must find their map expanded.
    fn is_of_new_map(&self, step: &StepId) -> bool {
        let map = |_| self.run.state.node_step(&step.node).is_none_or(|node| node.map.is_none());
        step.item.is_some_and(map)
    }

    async fn begin_step(&mut self, plan: &mut CommitPlan, step: StepId) -> Result<(), ActorError> {
        let attempt = self.run.state.steps.get(&step).map_or(0, |step| step.attempt) + 1;
        if let Some(error) = self.schedule.oversized_steps.remove(&step) {
            self.conclude_instantly(plan, step, attempt, EffectOutcome::Failed(error));
            return Ok(());
        }
        let savepoint = plan.take_savepoint();
        // Moved out for the call: `prepare_step` needs it beside the whole plan.
        let uncommitted = std::mem::take(&mut plan.uncommitted);
        let prepared = self.borrow_planner().prepare_step(plan, &step, attempt, &uncommitted).await;
        plan.uncommitted = uncommitted;
        let prepared = match prepared {
            Ok(_) if plan.largest_payload_since(&savepoint) > LogLimits::PAYLOAD_BYTES => {
                let bytes = plan.largest_payload_since(&savepoint);
                plan.rollback_to(savepoint);
                Err(OutputError::Failure(oversized_step_failure(&step, bytes)))
            }
            prepared => prepared,
        };
        match prepared {
            Ok(PreparedStep::Start { intent, launches }) => {
                launches.into_iter().for_each(|launch| plan.add_launch(launch));
                plan.add_start(StepStart { step, intent });
            }
            Ok(PreparedStep::Expand { width, max_parallel, intent }) => {
                let number = self.graph.node_number(&step.node).unwrap_or(u32::MAX);
                let delta = plan.scheduler.expand_node(number, width, max_parallel);
                let refused =
                    || new_failure("internal", platform_text!("the kernel refuses the map"));
                let delta =
                    delta.map_err(|error| ActorError::Failure(refused().with_cause(error)))?;
                plan.apply_delta(&self.graph, &delta);
                plan.add_start(StepStart { step, intent });
            }
            Ok(PreparedStep::Instant(result)) => {
                self.conclude_instantly(plan, step, attempt, result);
            }
            Err(OutputError::Failure(error)) => {
                self.conclude_instantly(plan, step, attempt, EffectOutcome::Failed(error));
            }
            Err(error @ (OutputError::Log(_) | OutputError::Evaluation(_))) => {
                return Err(error.into());
            }
        }
        Ok(())
    }

    /// Concludes a step that starts and ends in the same commit.
    fn conclude_instantly(
        &self,
        plan: &mut CommitPlan,
        step: StepId,
        attempt: u32,
        result: EffectOutcome,
    ) {
        let effect_result =
            EffectResult { step, attempt, tool_call: None, outcome: result, call_report: None };
        plan.conclude_step(&self.graph, &self.run.state, &effect_result, attempt, true);
    }

    /// Plans the end of the run; `None` if this commit has no room for it.
    async fn plan_run_end(
        &mut self,
        plan: &mut CommitPlan,
    ) -> Result<Option<RunOutcome>, ActorError> {
        // In a commit narrowed to a single outcome the end must wait, since its output may be what
        // the log refuses.
        let is_alone = plan.advance.outcomes.is_empty() && plan.advance.instant_outcomes.is_empty();
        if plan.size.limits.starts == 0 && !is_alone {
            return Ok(None);
        }
        if plan.run_result == RunResult::Failed {
            let message = platform_text!("the run failed without a failed step");
            let unknown = || (None, FailureReport::new("internal", message));
            let deciding_failure = plan
                .deciding_failure
                .take()
                .or_else(|| find_fatal_failure(&self.graph, &self.run.state));
            let end_failure = deciding_failure.map(|(step, error)| (Some(step), error));
            let (step, error) = end_failure.unwrap_or_else(unknown);
            return Ok(Some(RunOutcome::Failed { step, error }));
        }
        match self.borrow_planner().run_output(plan).await {
            Ok(None) => Ok(Some(RunOutcome::Completed { output: None })),
            Ok(Some(value)) => Ok(end_with_output(plan, value)),
            Err(OutputError::Failure(error)) => {
                let error = plan.seal_failure(error);
                Ok(Some(RunOutcome::Failed { step: None, error }))
            }
            Err(error) => Err(error.into()),
        }
    }
}

/// Ends a run with its output; `None` if the output needs a commit of its own.
fn end_with_output(plan: &mut CommitPlan, value: Value) -> Option<RunOutcome> {
    // Usually the output is what the last step yielded, and stored already.
    let stored_output = plan.values.iter().find(|(_, stored)| **stored == value);
    if let Some((slot, _)) = stored_output {
        return Some(RunOutcome::Completed { output: Some(*slot) });
    }
    // Serialising a JSON value cannot fail: its keys are strings.
    let bytes = serde_json::to_vec(&value).unwrap_or_default();
    let (count, limit) = (bytes.len(), LogLimits::PAYLOAD_BYTES);
    if count > limit {
        let message = platform_text!(
            "the run's output has {} bytes: at most {}; let `output` yield less",
            count,
            limit
        );
        let error = FailureReport::new("request.too_large", message);
        return Some(RunOutcome::Failed { step: None, error });
    }
    if plan.size.exceeds_payload_bytes(count) {
        return None;
    }
    let output = plan.store_payload(bytes, "application/json", PayloadPurpose::Result);
    Some(RunOutcome::Completed { output: Some(output) })
}
