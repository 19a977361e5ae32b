//! Which failed steps end a run, and are opened again by its retry.

use crate::graph::manifest::{Graph, OnError};
use crate::id::StepId;
use crate::run::{RunState, StepStatus};

/// Returns the failed steps that end the run by its graph, which excludes those whose failure the
/// graph tolerates.
pub fn fatal_steps(state: &RunState, graph: &Graph) -> Vec<StepId> {
    let is_fatal = |id: &StepId| {
        let node = graph.find_node(&id.node);
        node.is_some_and(|node| matches!(node.on_error, OnError::Fail | OnError::Ask))
    };
    let failed = state.steps.iter().filter(|(_, step)| step.status == StepStatus::Failed);
    failed.map(|(id, _)| id.clone()).filter(is_fatal).collect()
}
