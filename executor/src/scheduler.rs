//! The bridge to the kernel's scheduler: rebuilding its state from a folded run.

use convergio_domain::event::run::Failure;
use convergio_domain::id::StepId;
use convergio_domain::run::{RunState, StepStatus};
use convergio_kernel_c::{Delta, ItemState, NodeState, Scheduler};

use crate::graphs::CompiledGraph;

/// The scheduler as it stands after the run's events. The delta holds what is ready and was not
/// scheduled yet: the first nodes of a new run.
pub(crate) fn restore(
    graph: &CompiledGraph,
    state: &RunState,
) -> Result<(Scheduler, Delta), Failure> {
    let nodes: Vec<NodeState> = graph
        .graph
        .nodes
        .iter()
        .map(|node| node_state(state, &StepId::node(node.id.clone())))
        .collect();
    Scheduler::restore(&graph.kernel, &nodes).map_err(|error| Failure {
        code: "internal".into(),
        message: format!("the kernel refuses the run's state: {error}"),
        retryable: false,
    })
}

fn node_state(state: &RunState, id: &StepId) -> NodeState {
    let Some(step) = state.steps.get(id) else { return NodeState::Pending };
    match (&step.status, step.map) {
        (StepStatus::Completed, _) => NodeState::Done { choice: step.case },
        (StepStatus::Failed, _) => NodeState::Failed,
        (StepStatus::Skipped, _) => NodeState::Skipped,
        (StepStatus::Undecided { unknown: false, .. }, _) => NodeState::Asking,
        (_, Some((width, max_parallel))) => {
            let items = (0..width).map(|item| item_state(state, id, item)).collect();
            NodeState::Map { max_parallel, items }
        }
        (_, None) => NodeState::Ready,
    }
}

fn item_state(state: &RunState, map: &StepId, item: u32) -> ItemState {
    match state.steps.get(&StepId::item(map.node.clone(), item)) {
        None => ItemState::Waiting,
        Some(step) if step.status == StepStatus::Completed => ItemState::Done,
        Some(_) => ItemState::Ready,
    }
}

/// The step of a kernel's answer.
pub(crate) fn steps(graph: &CompiledGraph, delta: &Delta) -> Vec<StepId> {
    delta.ready.iter().map(|ready| graph.step(ready.node, ready.item)).collect()
}
