//! Planning of the next commit: results first, then steps that may start, then the end of the run.
//! What exceeds the commit's size goes into the next one.

use std::collections::VecDeque;

use convergio_domain::failure::{FailureReport, UnsealedFailure};
use convergio_domain::id::StepId;
use convergio_domain::payload::Purpose;
use convergio_domain::platform_text;
use convergio_domain::run::{End, Outcome, Start, StepResult};
use convergio_eventstore::Limits;
use convergio_kernel_c::RunResult;
use serde_json::Value;

use super::effect::{Done, DoneResult, failure};
use super::plan::Plan;
use super::prepare::Prepared;
use super::{Actor, ActorError};
use crate::outputs::OutputError;

impl Actor {
    /// Plans the costs that remain to be recorded of a run that has ended.
    pub(super) fn settlement(&mut self) -> Plan {
        let mut plan = Plan::new(self);
        for done in self.done.iter().take(plan.room.limits.outcomes.max(1)) {
            plan.taken += 1;
            let (step, attempt) = (done.step.clone(), done.attempt);
            let result = StepResult::Unknown { retry_at: None };
            let (call, skipped) = (done.call.clone(), Vec::new());
            plan.advance.outcomes.push(Outcome { step, attempt, result, call, skipped });
        }
        plan
    }

    /// Plans the next commit. It is empty if nothing can be done now: steps without capacity or
    /// before their time stay where they are.
    pub(super) async fn plan(&mut self) -> Result<Plan, ActorError> {
        let mut plan = Plan::new(self);
        plan.failed = self.failed.clone().map(|(step, error)| (step, error.again()));
        self.take_outcomes(&mut plan).await?;
        if self.may_start() {
            self.begin_queued_calls(&mut plan).await?;
            self.start_steps(&mut plan).await?;
        }
        if plan.is_over() {
            plan.advance.end = self.end_in(&mut plan).await?;
            // The run ends in this commit: nothing may start in it any more.
            plan.advance.starts.clear();
            plan.launches.clear();
            plan.moving.values_mut().for_each(|moving| moving.moved.next.clear());
        }
        let moving = std::mem::take(&mut plan.moving);
        plan.advance.moves = moving.into_values().map(|moving| moving.moved).collect();
        self.note_ready(&mut plan);
        Ok(plan)
    }

    /// Adds as many results as the commit has room for.
    async fn take_outcomes(&mut self, plan: &mut Plan) -> Result<(), ActorError> {
        let mut next = 0;
        while let Some(done) = self.done.get(next).cloned() {
            if next >= plan.room.limits.outcomes || plan.has_no_room(&done) {
                break;
            }
            plan.may_repeat = self.may_repeat(&done);
            self.progress(plan, done).await?;
            next += 1;
        }
        Ok(())
    }

    /// Records steps that are ready but do not start, as far as there is room; later commits record
    /// the rest.
    fn note_ready(&self, plan: &mut Plan) {
        let known = |step: &StepId| self.run.state.steps.contains_key(step);
        // Steps in the state were scheduled by an earlier commit.
        plan.fresh.retain(|step| !known(step));
        let count = plan.room.ready_count().min(plan.fresh.len());
        plan.advance.ready = plan.fresh.drain(..count).collect();
    }

    /// Starts the steps that may start and have capacity. Steps without an effect are concluded at
    /// once.
    async fn start_steps(&mut self, plan: &mut Plan) -> Result<(), ActorError> {
        let mut waiting = VecDeque::new();
        while !plan.is_over() && !plan.room.is_full() {
            let Some(step) = self.next_step(plan, &mut waiting) else { break };
            self.begin(plan, step).await?;
            // A step with an expensive evaluation goes alone: if the commit is rejected, only that
            // one evaluation is repeated.
            if self.has_used_evaluation() {
                break;
            }
        }
        waiting.append(&mut plan.fresh);
        plan.fresh = waiting;
        Ok(())
    }

    /// Takes the next step that has capacity: first of those that the log has scheduled, then of
    /// those that the kernel has just made ready, in their order.
    fn next_step(&mut self, plan: &mut Plan, waiting: &mut VecDeque<StepId>) -> Option<StepId> {
        if let Some((_, step)) = self.ready.pop_first(&plan.places) {
            return Some(step);
        }
        while let Some(step) = plan.fresh.pop_front() {
            let has_place = plan.places.has_place(self.place_kind(&step));
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
        let map = |_| self.run.state.node(&step.node).is_none_or(|node| node.map.is_none());
        step.item.is_some_and(map)
    }

    async fn begin(&mut self, plan: &mut Plan, step: StepId) -> Result<(), ActorError> {
        let attempt = self.run.state.steps.get(&step).map_or(0, |step| step.attempt) + 1;
        if let Some(error) = self.oversized.remove(&step) {
            self.conclude_now(plan, step, attempt, DoneResult::Failed(error));
            return Ok(());
        }
        let before = plan.draft();
        // Moved out for the call: `prepare_step` needs it beside the whole plan.
        let extra = std::mem::take(&mut plan.extra);
        let prepared = self.prepare(plan, &step, attempt, &extra).await;
        plan.extra = extra;
        let prepared = match prepared {
            Ok(_) if plan.largest_payload_since(&before) > Limits::PAYLOAD_BYTES => {
                let bytes = plan.largest_payload_since(&before);
                plan.discard_since(before);
                Err(OutputError::Failure(too_large(&step, bytes)))
            }
            prepared => prepared,
        };
        match prepared {
            Ok(Prepared::Start { intent, launches }) => {
                launches.into_iter().for_each(|launch| plan.add_launch(launch));
                plan.add_start(Start { step, intent });
            }
            Ok(Prepared::Expand { width, max_parallel, intent }) => {
                let number = self.graph.number(&step.node).unwrap_or(u32::MAX);
                let delta = plan.scheduler.expand(number, width, max_parallel);
                let refused = || failure("internal", platform_text!("the kernel refuses the map"));
                let delta =
                    delta.map_err(|error| ActorError::Failure(refused().with_cause(error)))?;
                plan.absorb(&self.graph, &delta);
                plan.add_start(Start { step, intent });
            }
            Ok(Prepared::Instant(result)) => self.conclude_now(plan, step, attempt, result),
            Err(OutputError::Failure(error)) => {
                self.conclude_now(plan, step, attempt, DoneResult::Failed(error));
            }
            Err(error @ (OutputError::Log(_) | OutputError::Evaluation(_))) => {
                return Err(error.into());
            }
        }
        Ok(())
    }

    /// Concludes a step that starts and ends in the same commit.
    fn conclude_now(&self, plan: &mut Plan, step: StepId, attempt: u32, result: DoneResult) {
        let done = Done { step, attempt, at: None, result, call: None };
        plan.conclude(&self.graph, &self.run.state, &done, attempt, true);
    }

    /// Plans the end of the run; `None` if this commit has no room for it.
    async fn end_in(&mut self, plan: &mut Plan) -> Result<Option<End>, ActorError> {
        // In a commit narrowed to a single outcome the end must wait, since its output may be what
        // the log refuses.
        let is_alone = plan.advance.outcomes.is_empty() && plan.advance.instant.is_empty();
        if plan.room.limits.starts == 0 && !is_alone {
            return Ok(None);
        }
        if plan.result == RunResult::Failed {
            let message = platform_text!("the run failed without a failed step");
            let unknown = || (None, FailureReport::new("internal", message));
            let failed = plan.failed.take().or_else(|| self.known_failure());
            let failed = failed.map(|(step, error)| (Some(step), error));
            let (step, error) = failed.unwrap_or_else(unknown);
            return Ok(Some(End::Failed { step, error }));
        }
        match self.output(plan).await {
            Ok(None) => Ok(Some(End::Completed { output: None })),
            Ok(Some(value)) => Ok(yield_output(plan, value)),
            Err(OutputError::Failure(error)) => {
                let error = plan.seal_failure(error);
                Ok(Some(End::Failed { step: None, error }))
            }
            Err(error) => Err(error.into()),
        }
    }
}

/// Ends a run with its output; `None` if the output needs a commit of its own.
fn yield_output(plan: &mut Plan, value: Value) -> Option<End> {
    // Usually the output is what the last step yielded, and stored already.
    let stored = plan.values.iter().find(|(_, stored)| **stored == value);
    if let Some((slot, _)) = stored {
        return Some(End::Completed { output: Some(*slot) });
    }
    // Serialising a JSON value cannot fail: its keys are strings.
    let bytes = serde_json::to_vec(&value).unwrap_or_default();
    let (count, limit) = (bytes.len(), Limits::PAYLOAD_BYTES);
    if count > limit {
        let message = platform_text!(
            "the run's output has {} bytes: at most {}; let `output` yield less",
            count,
            limit
        );
        let error = FailureReport::new("request.too_large", message);
        return Some(End::Failed { step: None, error });
    }
    if plan.room.is_too_much(count) {
        return None;
    }
    let output = plan.store(bytes, "application/json", Purpose::Result);
    Some(End::Completed { output: Some(output) })
}

/// Builds the failure of a step that would write a larger payload than the log takes.
pub(super) fn too_large(step: &StepId, bytes: usize) -> UnsealedFailure {
    let limit = Limits::PAYLOAD_BYTES;
    let message = platform_text!("step {}: {} bytes in one piece: at most {}", step, bytes, limit);
    failure("request.too_large", message)
}
