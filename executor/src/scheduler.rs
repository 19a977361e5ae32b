//! The bridge to the kernel's scheduler: rebuilds its state from a folded run.

use convergio_domain::failure::UnsealedFailure;
use convergio_domain::id::StepId;
use convergio_domain::platform_text;
use convergio_domain::run::{RunState, StepStatus};
use convergio_kernel_c::{ItemState, NodeState, ScheduleDelta, Scheduler};

use crate::graphs::CompiledGraph;

/// Returns the scheduler as it stands after the run's events, and a delta with the steps that are
/// ready but not scheduled yet, such as the first nodes of a new run.
pub(crate) fn restore_scheduler(
    graph: &CompiledGraph,
    state: &RunState,
) -> Result<(Scheduler, ScheduleDelta), UnsealedFailure> {
    let nodes: Vec<NodeState> = graph
        .graph
        .nodes
        .iter()
        .map(|node| node_state(state, &StepId::for_node(node.id.clone())))
        .collect();
    Scheduler::restore_run(&graph.kernel_graph, &nodes).map_err(|error| {
        let message = platform_text!("the kernel refuses the run's state");
        UnsealedFailure::new("internal", message).with_cause(error)
    })
}

/// Translates a folded step to the kernel's state of its node.
fn node_state(state: &RunState, id: &StepId) -> NodeState {
    let Some(step) = state.steps.get(id) else { return NodeState::Pending };
    // A step that waits for a sleep, an approval or a signal is `Ready` to the kernel: it only
    // needs to know that the node has been given out and has no outcome.
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

/// Translates the items of a map. Items without a state were not started.
fn item_states(state: &RunState, map: &StepId, width: u32) -> Vec<ItemState> {
    // The kernel wants a state for each item, whether the log mentions it or not.
    let mut states = vec![ItemState::Waiting; width as usize];
    let first = StepId::for_map_item(map.node.clone(), 0);
    // Steps are ordered by node, then item, so the items of one map are adjacent.
    let item_steps = state.steps.range(first..).take_while(|(id, _)| id.node == map.node);
    for (id, step) in item_steps {
        let Some(item_state) = id.item.and_then(|item| states.get_mut(item as usize)) else {
            continue;
        };
        let is_done = step.status == StepStatus::Completed;
        *item_state = if is_done { ItemState::Done } else { ItemState::Ready };
    }
    states
}

/// Returns the step ids that a kernel delta makes ready.
pub(crate) fn ready_steps(graph: &CompiledGraph, delta: &ScheduleDelta) -> Vec<StepId> {
    delta.ready.iter().map(|ready| graph.step_id(ready.node, ready.item)).collect()
}
