//! The bridge to the kernel's scheduler: rebuilding its state from a folded run.

use std::sync::Arc;

use convergio_domain::event::run::Failure;
use convergio_domain::id::StepId;
use convergio_domain::run::{RunState, Step, StepStatus};
use convergio_kernel_c::{Delta, MapState, NodeState, NodeStatus, Scheduler};

use crate::graphs::CompiledGraph;

/// The scheduler as it stands after the run's events. The delta holds what is ready and was not
/// scheduled yet: the first nodes of a new run.
pub(crate) fn restore(
    graph: &CompiledGraph,
    state: &RunState,
) -> Result<(Scheduler, Delta), Failure> {
    let nodes: Vec<NodeState> =
        graph.graph.nodes.iter().map(|node| node_state(state, &StepId::node(node.id.clone()))).collect();
    Scheduler::restore(&graph.kernel, &nodes).map_err(|error| Failure {
        code: "internal".into(),
        message: format!("the kernel refuses the run's state: {error}"),
        retryable: false,
    })
}

fn node_state(state: &RunState, id: &StepId) -> NodeState {
    let Some(step) = state.steps.get(id) else {
        return NodeState { status: NodeStatus::Pending, choice: None, map: None };
    };
    let status = match step.status {
        StepStatus::Completed => NodeStatus::Done,
        StepStatus::Failed => NodeStatus::Failed,
        StepStatus::Skipped => NodeStatus::Skipped,
        _ => NodeStatus::Ready,
    };
    NodeState { status, choice: step.case, map: map_state(state, id, step) }
}

fn map_state(state: &RunState, id: &StepId, step: &Step) -> Option<MapState> {
    let (width, max_parallel) = step.map?;
    let item = |index| state.steps.get(&StepId::item(id.node.clone(), index));
    let emitted = (0..width).filter(|index| item(*index).is_some()).count();
    let is_done = |step: &Step| step.status == StepStatus::Completed;
    let done = (0..width).map(|index| item(index).is_some_and(is_done)).collect();
    Some(MapState { width, max_parallel, emitted: u32::try_from(emitted).unwrap_or(width), done })
}

/// The step of a kernel's answer.
pub(crate) fn steps(graph: &Arc<CompiledGraph>, delta: &Delta) -> Vec<StepId> {
    delta.ready.iter().map(|ready| graph.step(ready.node, ready.item)).collect()
}
