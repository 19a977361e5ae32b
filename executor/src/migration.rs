//! Decides whether a run in progress can be moved to another version of its graph.

use convergio_domain::graph::manifest::{Graph, NodeWork};
use convergio_domain::run::RunState;

use crate::graphs::CompiledGraph;
use crate::scheduler;

/// Returns the reason that prevents a run from going on with graph `other`; `None` if it can.
///
/// Ended steps keep their outcome, so their nodes may be gone or changed. The node of an open step
/// must exist and be of the same kind, an open map must iterate over the same expression, and the
/// kernel must accept the states in the new graph.
pub fn find_migration_obstacle(own: &Graph, other: &Graph, state: &RunState) -> Option<String> {
    // A different graph might pass the checks below by accident.
    if own.name != other.name {
        return Some(format!("the graph is `{}`, the run is of `{}`", other.name, own.name));
    }
    for (id, step) in &state.steps {
        let (own_node, other_node) = (own.find_node(&id.node), other.find_node(&id.node));
        let Some(now) = other_node else {
            if step.is_ended() {
                continue;
            }
            return Some(format!("step {id} is under way, and the new version has no such node"));
        };
        // The node is missing from the run's own version if the step had ended when an earlier
        // migration dropped it.
        let Some(before) = own_node else { continue };
        let (own_kind, other_kind) = (work_kind_name(&before.work), work_kind_name(&now.work));
        if own_kind != other_kind {
            return Some(format!(
                "step {id} was begun as {own_kind}, and is {other_kind} in the new version"
            ));
        }
        if let (NodeWork::Map(before), NodeWork::Map(now), false) =
            (&before.work, &now.work, step.is_ended())
            && before.over != now.over
        {
            return Some(format!("map {id} is under way, and runs over another list"));
        }
    }
    // The last check is the kernel's: joins and edges may make the set of states impossible.
    let compiled = match CompiledGraph::from_manifest(other.clone()) {
        Ok(compiled) => compiled,
        Err(error) => return Some(error.full_text().to_owned()),
    };
    scheduler::restore_scheduler(&compiled, state).err().map(|error| error.full_text().to_owned())
}

/// Names the kind of a node's work for a message.
fn work_kind_name(work: &NodeWork) -> &'static str {
    match work {
        NodeWork::Agent(_) => "an agent",
        NodeWork::Tool(_) => "a tool",
        NodeWork::Branch(_) => "a branch",
        NodeWork::Map(_) => "a map",
        NodeWork::Approval(_) => "an approval",
        NodeWork::Sleep(_) => "a sleep",
        NodeWork::Graph(_) => "a sub-graph",
        NodeWork::Plan(_) => "a plan",
        NodeWork::Signal(_) => "a signal",
    }
}
