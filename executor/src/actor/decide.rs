//! Decisions of people about failed or unknown steps, applied to the commit in preparation.

use std::sync::Arc;

use convergio_domain::failure::FailureReport;
use convergio_domain::graph::manifest::OnError;
use convergio_domain::id::{NodeId, StepId};
use convergio_domain::payload::Purpose;
use convergio_domain::platform_text;
use convergio_domain::run::{Resolution, RunState, Step, StepResult, StepStatus};
use convergio_kernel_c::{Answer, NodeStatus};
use serde_json::Value;

use super::Actor;
use super::effect::{Done, DoneResult};
use super::plan::Plan;
use crate::graphs::CompiledGraph;

impl Plan {
    /// Translates a decision about a step to the result that the domain records.
    pub(super) fn decided(
        &mut self,
        done: &Done,
        resolution: Resolution,
        value: &Option<Arc<Value>>,
    ) -> StepResult {
        match resolution {
            Resolution::Retry => StepResult::Retried,
            Resolution::Skip => StepResult::Skipped,
            Resolution::Failed => StepResult::Failed { error: given_up(), retry_at: None },
            Resolution::Completed => {
                self.extra.note(done.step.clone(), "completed", value.clone());
                let output = value.as_ref().map(|value| self.store_value(value, Purpose::Output));
                StepResult::Completed { output, case: None }
            }
        }
    }

    /// Returns the answer to the kernel, if it waits for one about the step.
    pub(super) fn answer_to_question(&self, graph: &CompiledGraph, done: &Done) -> Option<Answer> {
        let DoneResult::Decided(resolution, _) = &done.result else { return None };
        let number = graph.number(&done.step.node)?;
        if self.scheduler.status(number) != Ok(NodeStatus::Asking) {
            return None;
        }
        Some(match resolution {
            Resolution::Retry => Answer::Retry,
            Resolution::Skip => Answer::Skip,
            Resolution::Failed | Resolution::Completed => Answer::Fail,
        })
    }

    /// Answers the kernel about a step; returns the other nodes that will never run.
    pub(super) fn answer(
        &mut self,
        graph: &CompiledGraph,
        state: &RunState,
        done: &Done,
        answer: Answer,
        result: &mut StepResult,
    ) -> Vec<NodeId> {
        let Some(number) = graph.number(&done.step.node) else { return Vec::new() };
        if let (StepResult::Failed { error, .. }, Some(step)) =
            (result, state.steps.get(&done.step))
        {
            // The failure that led to the question is kept as the reason.
            let known = step.error.as_ref();
            *error = known.map_or_else(given_up, |error| state.failure_again(error));
        }
        // The kernel has asked, so it accepts the answer.
        let Ok(delta) = self.scheduler.answer(number, answer) else { return Vec::new() };
        let mut skipped = self.absorb(graph, &delta);
        skipped.retain(|node| *node != done.step.node);
        // Another attempt waits for its time like any other.
        self.fresh.retain(|step| *step != done.step);
        skipped
    }

    /// Returns a failure as one that a person must decide about, if the kernel asks; else it
    /// decides the run.
    pub(super) fn failed_or_asking(
        &mut self,
        graph: &CompiledGraph,
        step: &StepId,
        result: StepResult,
    ) -> StepResult {
        if let StepResult::Unknown { retry_at: None } = result {
            self.failed = Some((step.clone(), never_known()));
        }
        let StepResult::Failed { error, retry_at: None } = result else { return result };
        let number = graph.number(&step.node).filter(|_| step.item.is_none());
        let status = number.and_then(|number| self.scheduler.status(number).ok());
        if status == Some(NodeStatus::Asking) {
            return StepResult::FailedAsking { error };
        }
        self.failed = Some((step.clone(), error.clone()));
        StepResult::Failed { error, retry_at: None }
    }
}

impl Actor {
    /// Finds a failed step that ends the run, as the log has it.
    pub(super) fn known_failure(&self) -> Option<(StepId, FailureReport)> {
        let is_fatal = |id: &StepId| {
            let node = self.graph.find_node(&id.node);
            node.is_some_and(|node| matches!(node.on_error, OnError::Fail | OnError::Ask))
        };
        let mut steps = self.run.state.steps.iter();
        let is_failed = |step: &Step| step.status == StepStatus::Failed;
        let failed = steps.find(|(id, step)| is_failed(step) && is_fatal(id))?;
        let error = self.run.state.failure_again(failed.1.error.as_ref()?);
        Some((failed.0.clone(), error))
    }
}

fn never_known() -> FailureReport {
    let message = platform_text!(
        "executors died during every try of the step, and no further one is allowed"
    );
    FailureReport::new("step.unknown", message)
}

fn given_up() -> FailureReport {
    let message = platform_text!("somebody decided that the step has failed");
    FailureReport::new("step.given_up", message)
}
