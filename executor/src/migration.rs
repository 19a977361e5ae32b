//! Whether a run under way can go on by another version of its graph.

use convergio_domain::graph::manifest::{Graph, Work};
use convergio_domain::run::RunState;

use crate::graphs::CompiledGraph;
use crate::scheduler;

/// Why a run as it stands cannot go on by another version; `None` if it can.
///
/// What has ended keeps its outcome, so a node may be gone or changed when its step has ended; what
/// has not must be of the same kind, and the kernel must find the states possible in the new graph.
pub fn obstacle(own: &Graph, other: &Graph, state: &RunState) -> Option<String> {
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
    let compiled = match CompiledGraph::compile(other.clone()) {
        Ok(compiled) => compiled,
        Err(error) => return Some(error.full_text().to_owned()),
    };
    scheduler::restore(&compiled, state).err().map(|error| error.full_text().to_owned())
}

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
