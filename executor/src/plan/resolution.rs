//! Decisions of people about failed or unknown steps, applied to the commit in preparation.

use std::sync::Arc;

use convergio_domain::failure::FailureReport;
use convergio_domain::id::{NodeId, StepId};
use convergio_domain::payload::PayloadPurpose;
use convergio_domain::platform_text;
use convergio_domain::policy::reopening::fatal_steps;
use convergio_domain::run::{Resolution, RunState, StepResult};
use convergio_kernel_c::{NodeAnswer, NodeStatus};
use serde_json::Value;

use super::commit_plan::CommitPlan;
use super::outcome::{EffectOutcome, EffectResult};
use crate::graphs::CompiledGraph;

impl CommitPlan {
    /// Translates a decision about a step to the result that the domain records.
    pub(crate) fn resolution_result(
        &mut self,
        effect_result: &EffectResult,
        resolution: Resolution,
        value: &Option<Arc<Value>>,
    ) -> StepResult {
        match resolution {
            Resolution::Retry => StepResult::Retried,
            Resolution::Skip => StepResult::Skipped,
            Resolution::Failed => StepResult::Failed { error: given_up_failure(), retry_at: None },
            Resolution::Completed => {
                self.uncommitted.record_outcome(
                    effect_result.step.clone(),
                    "completed",
                    value.clone(),
                );
                let output =
                    value.as_ref().map(|value| self.store_value(value, PayloadPurpose::Output));
                StepResult::Completed { output, case: None }
            }
        }
    }

    /// Returns the answer to the kernel, if it waits for one about the step.
    pub(crate) fn kernel_answer(
        &self,
        graph: &CompiledGraph,
        effect_result: &EffectResult,
    ) -> Option<NodeAnswer> {
        let EffectOutcome::Resolved(resolution, _) = &effect_result.outcome else { return None };
        let number = graph.node_number(&effect_result.step.node)?;
        if self.scheduler.node_status(number) != Ok(NodeStatus::Asking) {
            return None;
        }
        Some(match resolution {
            Resolution::Retry => NodeAnswer::Retry,
            Resolution::Skip => NodeAnswer::Skip,
            Resolution::Failed | Resolution::Completed => NodeAnswer::Fail,
        })
    }

    /// Answers the kernel about a step; returns the other nodes that will never run.
    pub(crate) fn answer_kernel(
        &mut self,
        graph: &CompiledGraph,
        state: &RunState,
        effect_result: &EffectResult,
        answer: NodeAnswer,
        result: &mut StepResult,
    ) -> Vec<NodeId> {
        let Some(number) = graph.node_number(&effect_result.step.node) else { return Vec::new() };
        if let (StepResult::Failed { error, .. }, Some(step)) =
            (result, state.steps.get(&effect_result.step))
        {
            // The failure that led to the question is kept as the reason.
            let recorded_error = step.error.as_ref();
            *error =
                recorded_error.map_or_else(given_up_failure, |error| state.repeated_failure(error));
        }
        // The kernel has asked, so it accepts the answer.
        let Ok(delta) = self.scheduler.answer_node(number, answer) else { return Vec::new() };
        let mut skipped = self.apply_delta(graph, &delta);
        skipped.retain(|node| *node != effect_result.step.node);
        // Another attempt waits for its time like any other.
        self.unrecorded_ready.retain(|step| *step != effect_result.step);
        skipped
    }

    /// Returns a failure as one that a person must decide about, if the kernel asks; else it
    /// decides the run.
    pub(crate) fn asking_or_failed_result(
        &mut self,
        graph: &CompiledGraph,
        step: &StepId,
        result: StepResult,
    ) -> StepResult {
        if let StepResult::Unknown { retry_at: None } = result {
            self.deciding_failure = Some((step.clone(), unknown_outcome_failure()));
        }
        let StepResult::Failed { error, retry_at: None } = result else { return result };
        let number = graph.node_number(&step.node).filter(|_| step.item.is_none());
        let status = number.and_then(|number| self.scheduler.node_status(number).ok());
        if status == Some(NodeStatus::Asking) {
            return StepResult::FailedAsking { error };
        }
        self.deciding_failure = Some((step.clone(), error.clone()));
        StepResult::Failed { error, retry_at: None }
    }
}

/// Finds a failed step that ends the run, as the log has it.
pub(crate) fn find_fatal_failure(
    graph: &CompiledGraph,
    state: &RunState,
) -> Option<(StepId, FailureReport)> {
    let step = fatal_steps(state, &graph.graph).into_iter().next()?;
    let error = state.repeated_failure(state.steps.get(&step)?.error.as_ref()?);
    Some((step, error))
}

fn unknown_outcome_failure() -> FailureReport {
    let message = platform_text!(
        "executors died during every try of the step, and no further one is allowed"
    );
    FailureReport::new("step.unknown", message)
}

fn given_up_failure() -> FailureReport {
    let message = platform_text!("somebody decided that the step has failed");
    FailureReport::new("step.given_up", message)
}
