//! The bridge to the kernel's scheduler: rebuilding its state from a folded run.

use convergio_domain::failure::UnsealedFailure;
use convergio_domain::id::StepId;
use convergio_domain::platform_text;
use convergio_domain::run::{RunState, StepStatus};
use convergio_kernel_c::{Delta, ItemState, NodeState, Scheduler};

use crate::graphs::CompiledGraph;

/// The scheduler as it stands after the run's events. The delta holds what is ready and was not
/// scheduled yet: the first nodes of a new run.
pub(crate) fn restore(
    graph: &CompiledGraph,
    state: &RunState,
) -> Result<(Scheduler, Delta), UnsealedFailure> {
    let nodes: Vec<NodeState> = graph
        .graph
        .nodes
        .iter()
        .map(|node| node_state(state, &StepId::node(node.id.clone())))
        .collect();
    Scheduler::restore(&graph.kernel, &nodes).map_err(|error| {
        let message = platform_text!("the kernel refuses the run's state");
        UnsealedFailure::new("internal", message).with_cause(error)
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
            NodeState::Map { max_parallel, items: item_states(state, id, width) }
        }
        (_, None) => NodeState::Ready,
    }
}

/// The items of a map. Those that the state does not have were not started.
fn item_states(state: &RunState, map: &StepId, width: u32) -> Vec<ItemState> {
    let mut states = vec![ItemState::Waiting; width as usize];
    let first = StepId::item(map.node.clone(), 0);
    let known = state.steps.range(first..).take_while(|(id, _)| id.node == map.node);
    for (id, step) in known {
        let Some(item_state) = id.item.and_then(|item| states.get_mut(item as usize)) else {
            continue;
        };
        let is_done = step.status == StepStatus::Completed;
        *item_state = if is_done { ItemState::Done } else { ItemState::Ready };
    }
    states
}

/// The step of a kernel's answer.
pub(crate) fn steps(graph: &CompiledGraph, delta: &Delta) -> Vec<StepId> {
    delta.ready.iter().map(|ready| graph.step(ready.node, ready.item)).collect()
}
