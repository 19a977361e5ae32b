//! The agent noun: a named definition that is run again and again, until it is terminated.

use crate::decider::{Context, Decider, Recorded, Wake};
use crate::event::{Event, agent};
use crate::id::{AgentId, GraphId, GraphVersion, TenantId};
use crate::once::{AppliedRequests, RemembersRequests};
use crate::payload::{PayloadRef, PayloadSlot};
use crate::request::derived_uuid;
use crate::stream::Seq;

/// Longest name: its graph is named `agent-NAME`.
pub const NAME_LIMIT: usize = 34;

/// The rules of an agent.
#[derive(Debug, Clone, Copy)]
pub struct AgentNoun;

/// What is known of an agent.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct AgentState {
    /// The name.
    pub name: String,
    /// The graph of one node that each of its runs is a run of; absent before the first event.
    pub graph: Option<(GraphId, GraphVersion)>,
    /// The definition.
    pub definition: Option<PayloadRef>,
    /// Whether it runs no more.
    pub is_terminated: bool,
    /// The requests under an idempotency key that defined or terminated it.
    pub requests: AppliedRequests,
}

impl AgentState {
    /// The graph of an agent that may run.
    pub fn runnable(&self) -> Option<&(GraphId, GraphVersion)> {
        self.graph.as_ref().filter(|_| !self.is_terminated)
    }
}

/// What may be asked of an agent.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum AgentCommand {
    /// It is this from now on. A terminated agent comes back.
    Define {
        /// The name.
        name: String,
        /// The graph.
        graph: GraphId,
        /// Its version.
        version: GraphVersion,
        /// The definition.
        definition: PayloadSlot,
    },
    /// It runs no more. Runs that are under way go on.
    Terminate,
}

/// There is no such agent.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("there is no such agent")]
pub struct NoAgent;

/// The id of an agent: the same name, the same agent.
pub fn agent_id(tenant: &TenantId, name: &str) -> AgentId {
    AgentId(derived_uuid(&["agent/v1", tenant.as_str(), name]))
}

impl RemembersRequests for AgentState {
    fn applied_requests(&self) -> &AppliedRequests {
        &self.requests
    }
}

impl Decider for AgentNoun {
    type State = AgentState;
    type Command = AgentCommand;
    type Rejection = NoAgent;

    fn decide(
        state: &AgentState,
        command: AgentCommand,
        _context: &Context,
        next: Seq,
    ) -> Result<Vec<Event>, NoAgent> {
        match command {
            AgentCommand::Define { name, graph, version, definition } => {
                let is_same = state.runnable().is_some_and(|(_, known)| *known == version);
                if is_same {
                    return Ok(Vec::new());
                }
                let definition = definition.at(next);
                let defined = agent::Defined { name, graph, version, definition };
                Ok(vec![match state.runnable() {
                    Some(_) => Event::AgentUpdated(defined),
                    None => Event::AgentCreated(defined),
                }])
            }
            AgentCommand::Terminate if state.graph.is_none() => Err(NoAgent),
            AgentCommand::Terminate if state.is_terminated => Ok(Vec::new()),
            AgentCommand::Terminate => Ok(vec![Event::AgentTerminated(agent::Terminated {})]),
        }
    }

    fn evolve(state: &mut AgentState, recorded: Recorded<'_>) {
        match recorded.event {
            Event::AgentCreated(defined) | Event::AgentUpdated(defined) => {
                state.name.clone_from(&defined.name);
                state.graph = Some((defined.graph, defined.version.clone()));
                state.definition = Some(defined.definition);
                state.is_terminated = false;
            }
            Event::AgentTerminated(_) => state.is_terminated = true,
            Event::RequestApplied(event) => state.requests.insert(event.request, recorded.seq),
            _ => {}
        }
    }

    fn wake(_state: &AgentState) -> Wake {
        Wake::Done
    }
}
