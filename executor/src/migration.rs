//! Decides whether a run in progress can be moved to another version of its graph.

use convergio_domain::graph::manifest::{Graph, Work};
use convergio_domain::run::RunState;

use crate::graphs::CompiledGraph;
use crate::scheduler;

/// Returns the reason that prevents a run from going on with graph `other`; `None` if it can.
///
/// Ended steps keep their outcome, so their nodes may be gone or changed. The node of an open step
/// must exist and be of the same kind, an open map must iterate over the same expression, and the
/// kernel must accept the states in the new graph.
pub fn obstacle(own: &Graph, other: &Graph, state: &RunState) -> Option<String> {
    // A different graph might pass the checks below by accident.
    if own.name != other.name {
        return Some(format!("the graph is `{}`, the run is of `{}`", other.name, own.name));
    }
    for (id, step) in &state.steps {
        let (before, now) = (own.node(&id.node), other.node(&id.node));
        let Some(now) = now else {
            if step.is_ended() {
                continue;
            }
            return Some(format!("step {id} is under way, and the new version has no such node"));
        };
        // The node is missing from the run's own version if the step had ended when an earlier
        // migration dropped it.
        let Some(before) = before else { continue };
        let (was, is) = (kind(&before.work), kind(&now.work));
        if was != is {
            return Some(format!("step {id} was begun as {was}, and is {is} in the new version"));
        }
        if let (Work::Map(before), Work::Map(now), false) =
            (&before.work, &now.work, step.is_ended())
            && before.over != now.over
        {
            return Some(format!("map {id} is under way, and runs over another list"));
        }
    }
    // The last check is the kernel's: joins and edges may make the set of states impossible.
    let compiled = match CompiledGraph::compile(other.clone()) {
        Ok(compiled) => compiled,
        Err(error) => return Some(error.full_text().to_owned()),
    };
    scheduler::restore(&compiled, state).err().map(|error| error.full_text().to_owned())
}

/// Names the kind of a node's work for a message.
fn kind(work: &Work) -> &'static str {
    match work {
        Work::Agent(_) => "an agent",
        Work::Tool(_) => "a tool",
        Work::Branch(_) => "a branch",
        Work::Map(_) => "a map",
        Work::Approval(_) => "an approval",
        Work::Sleep(_) => "a sleep",
        Work::Graph(_) => "a sub-graph",
        Work::Plan(_) => "a plan",
        Work::Signal(_) => "a signal",
    }
}
