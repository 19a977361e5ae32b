//! Conclusion of steps within the commit in preparation: results become outcomes, and the scheduler
//! answers them.

use std::sync::Arc;

use convergio_domain::graph::manifest::GraphNode;
use convergio_domain::id::{NodeId, StepId};
use convergio_domain::payload::PayloadPurpose;
use convergio_domain::run::{
    CallReport, RunState, StepOutcome, StepResult, next_attempt_after_crash, next_attempt_at,
};
use convergio_eventstore::LogLimits;
use convergio_kernel_c::{NodeOutcome as Verdict, NodeStatus};

use super::commit_plan::CommitPlan;
use super::outcome::{EffectOutcome, EffectResult, oversized_step_failure};
use crate::graphs::CompiledGraph;

impl CommitPlan {
    /// Adds a result of an effect, a wait or a person.
    pub(crate) fn add_result(
        &mut self,
        graph: &CompiledGraph,
        state: &RunState,
        result: &EffectResult,
    ) {
        let attempt = result.attempt;
        self.conclude_step(graph, state, result, attempt, false);
    }

    /// Concludes an attempt: adds the outcome of the step, and that of its map after the last item.
    pub(crate) fn conclude_step(
        &mut self,
        graph: &CompiledGraph,
        state: &RunState,
        effect_result: &EffectResult,
        attempt: u32,
        is_instant: bool,
    ) {
        let Some(node) = graph.find_node(&effect_result.step.node) else { return };
        let failures = state.steps.get(&effect_result.step).map_or(0, |step| step.failures);
        let mut result = self.step_result(node, effect_result, failures, attempt);
        let (skipped, map) =
            match (kernel_outcome(&result), self.kernel_answer(graph, effect_result)) {
                // A decided step is answered to the kernel, which waits for it, instead of being
                // completed again.
                (_, Some(answer)) => {
                    (self.answer_kernel(graph, state, effect_result, answer, &mut result), None)
                }
                (Some(verdict), None) => {
                    self.complete_in_scheduler(graph, state, &effect_result.step, verdict, &result)
                }
                (None, None) => (Vec::new(), None),
            };
        let result = self.asking_or_failed_result(graph, &effect_result.step, result);
        let step = effect_result.step.clone();
        let outcome =
            StepOutcome { step, attempt, result, call: effect_result.call_report.clone(), skipped };
        if is_instant {
            self.size.add_instant(&outcome.skipped);
            self.advance.instant_outcomes.push(outcome);
        } else {
            self.size.add_outcome(&outcome.skipped);
            self.advance.outcomes.push(outcome);
        }
        // The map follows its last item, so that a reader sees all items before it.
        if let Some(outcome) = map {
            self.size.add_outcome(&outcome.skipped);
            self.advance.outcomes.push(outcome);
        }
    }

    /// Translates a result to what the domain records, and stores its payloads.
    fn step_result(
        &mut self,
        node: &GraphNode,
        result: &EffectResult,
        failures: u32,
        attempt: u32,
    ) -> StepResult {
        match &result.outcome {
            EffectOutcome::Completed(value) => {
                let savepoint = self.take_savepoint();
                let output =
                    value.as_ref().map(|value| self.store_value(value, PayloadPurpose::Output));
                // Too large for the log: the step fails instead of the whole commit.
                let bytes = self.largest_payload_since(&savepoint);
                if bytes > LogLimits::PAYLOAD_BYTES {
                    self.rollback_to(savepoint);
                    self.uncommitted.record_outcome(result.step.clone(), "failed", None);
                    let error = self.seal_failure(oversized_step_failure(&result.step, bytes));
                    return StepResult::Failed { error, retry_at: None };
                }
                self.uncommitted.record_outcome(result.step.clone(), "completed", value.clone());
                StepResult::Completed { output, case: None }
            }
            EffectOutcome::BranchTaken(case) => {
                self.uncommitted.record_outcome(result.step.clone(), "completed", None);
                StepResult::Completed { output: None, case: Some(*case) }
            }
            EffectOutcome::Failed(error) => {
                let jitter = draw_jitter();
                let is_fallback_due =
                    result.call_report.as_ref().is_some_and(|call| call.fallback.is_some());
                // A fallback goes to another model, so there is no reason to wait.
                let retry_at = match is_fallback_due {
                    true => Some(self.now),
                    false => next_attempt_at(&node.retry, failures + 1, error, self.now, jitter)
                        .map(|due| result.delay_to_hint(due, self.now)),
                };
                if retry_at.is_none() {
                    self.uncommitted.record_outcome(result.step.clone(), "failed", None);
                }
                StepResult::Failed { error: self.seal_failure(error.clone()), retry_at }
            }
            EffectOutcome::Resolved(resolution, value) => {
                self.resolution_result(result, *resolution, value)
            }
            EffectOutcome::Interrupted if !self.can_retry_unknown => StepResult::UnknownAsking,
            EffectOutcome::ChildOutputLoaded(yielded) => {
                let value = yielded.as_ref().map(|(_, value)| Arc::clone(value));
                self.uncommitted.record_outcome(result.step.clone(), "completed", value);
                StepResult::Yielded { output: yielded.as_ref().map(|(reference, _)| *reference) }
            }
            EffectOutcome::ChildYielded(output) => {
                self.uncommitted.record_outcome(result.step.clone(), "completed", None);
                StepResult::Yielded { output: *output }
            }
            EffectOutcome::Interrupted
            | EffectOutcome::TurnAnswered(_)
            | EffectOutcome::ToolsAnswered
            | EffectOutcome::ChildCreated => {
                StepResult::Unknown { retry_at: next_attempt_after_crash(attempt, self.now) }
            }
        }
    }

    /// Reports an outcome to the scheduler and adopts its delta. Returns the skipped nodes and,
    /// after the last item of a map, the map's outcome.
    fn complete_in_scheduler(
        &mut self,
        graph: &CompiledGraph,
        state: &RunState,
        step: &StepId,
        kernel_outcome: Verdict,
        result: &StepResult,
    ) -> (Vec<NodeId>, Option<StepOutcome>) {
        let Some(number) = graph.node_number(&step.node) else { return (Vec::new(), None) };
        let completion = match step.item {
            Some(item) => self.scheduler.complete_item(number, item, kernel_outcome),
            None => self.scheduler.complete_node(number, kernel_outcome),
        };
        // The kernel rejects outcomes of items whose map has failed already: they are only
        // recorded.
        let Ok(delta) = completion else { return (Vec::new(), None) };
        let skipped = self.apply_delta(graph, &delta);
        if step.item.is_none() {
            return (skipped, None);
        }
        match self.scheduler.node_status(number) {
            Ok(NodeStatus::Done) => {
                let completed = StepResult::Completed { output: None, case: None };
                (Vec::new(), self.map_outcome(state, step, completed, skipped))
            }
            Ok(NodeStatus::Failed) => {
                (Vec::new(), self.map_outcome(state, step, result.clone(), skipped))
            }
            _ => (skipped, None),
        }
    }

    /// Builds the outcome of a map whose last item concluded.
    fn map_outcome(
        &mut self,
        state: &RunState,
        item: &StepId,
        result: StepResult,
        skipped: Vec<NodeId>,
    ) -> Option<StepOutcome> {
        let step = StepId::for_node(item.node.clone());
        let attempt = state.steps.get(&step)?.attempt;
        let status =
            if kernel_outcome(&result) == Some(Verdict::Failed) { "failed" } else { "completed" };
        self.uncommitted.record_outcome(step.clone(), status, None);
        Some(StepOutcome { step, attempt, result, call: None::<CallReport>, skipped })
    }
}

/// Translates a result to the scheduler's outcome; `None` while another attempt follows.
fn kernel_outcome(result: &StepResult) -> Option<Verdict> {
    match result {
        StepResult::Completed { case, .. } => Some(Verdict::Done { choice: *case }),
        StepResult::Yielded { .. } => Some(Verdict::Done { choice: None }),
        StepResult::Failed { retry_at: None, .. } | StepResult::Unknown { retry_at: None } => {
            Some(Verdict::Failed)
        }
        _ => None,
    }
}

/// Draws the jitter of a retry, in thousandths. It is drawn once per failed attempt, and the log
/// keeps the resulting due time, so replay does not draw again.
fn draw_jitter() -> u16 {
    let mut bytes = [0; 2];
    // Without randomness the back-off must do alone.
    let is_drawn = getrandom::fill(&mut bytes).is_ok();
    if is_drawn { u16::from_le_bytes(bytes) % 1001 } else { 0 }
}
