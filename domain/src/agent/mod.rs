//! The agent noun: a named definition that is run again and again, until it is terminated. Its
//! events are in [`event`], its rules here.

pub mod event;

use event::{AgentDefined, AgentEvent, AgentTerminated};

use crate::decider::{Decider, DecisionContext, RecordedEvent, Wake};
use crate::id::{AgentId, GraphId, GraphVersion, TenantId, derive_uuid};
use crate::idempotency::{AppliedRequests, HasAppliedRequests};
use crate::payload::{PayloadRef, PayloadSlot};
use crate::request::event::RequestApplied;
use crate::stream::Seq;

/// Longest name in characters: its graph is named `agent-NAME`, which must be a graph's name.
pub const AGENT_NAME_LIMIT: usize = 34;

/// Decider of the agent stream.
#[derive(Debug, Clone, Copy)]
pub struct AgentNoun;

/// State of an agent.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct AgentState {
    /// Unique within the tenant; the agent's id is derived from it.
    pub name: String,
    /// Graph of one node that its runs execute; absent before the first event.
    pub graph: Option<(GraphId, GraphVersion)>,
    /// Definition as the caller gave it.
    pub definition: Option<PayloadRef>,
    /// True if no new run may start.
    pub is_terminated: bool,
    /// Idempotent requests that defined or terminated the agent.
    pub requests: AppliedRequests,
}

impl AgentState {
    /// Returns the agent's graph if new runs may start.
    pub fn runnable_graph(&self) -> Option<&(GraphId, GraphVersion)> {
        self.graph.as_ref().filter(|_| !self.is_terminated)
    }
}

/// Commands of the agent stream.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum AgentCommand {
    /// Creates or replaces the definition; a terminated agent comes back.
    Define {
        /// Name of the agent.
        name: String,
        /// Graph that its runs execute.
        graph: GraphId,
        /// Pinned version of that graph.
        version: GraphVersion,
        /// Definition, stored as a payload.
        definition: PayloadSlot,
    },
    /// Ends the agent. Runs in progress continue.
    Terminate,
}

/// Rejection of a command to an agent that was never defined.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("there is no such agent")]
pub struct AgentNotFound;

/// Derives the id of an agent from tenant and name: the same name is the same agent.
pub fn agent_id(tenant: &TenantId, name: &str) -> AgentId {
    AgentId(derive_uuid(&["agent/v1", tenant.as_str(), name]))
}

impl HasAppliedRequests for AgentState {
    fn applied_requests(&self) -> &AppliedRequests {
        &self.requests
    }
}

impl Decider for AgentNoun {
    type State = AgentState;
    type Command = AgentCommand;
    type Event = AgentEvent;
    type Rejection = AgentNotFound;

    fn decide(
        state: &AgentState,
        command: AgentCommand,
        _context: &DecisionContext,
        next: Seq,
    ) -> Result<Vec<AgentEvent>, AgentNotFound> {
        match command {
            AgentCommand::Define { name, graph, version, definition } => {
                // A terminated agent has no runnable graph: defining it again brings it back.
                let is_same = state.runnable_graph().is_some_and(|(_, known)| *known == version);
                if is_same {
                    return Ok(Vec::new());
                }
                let definition = definition.to_payload_ref(next);
                let defined = AgentDefined { name, graph, version, definition };
                Ok(vec![match state.runnable_graph() {
                    Some(_) => AgentEvent::AgentUpdated(defined),
                    None => AgentEvent::AgentCreated(defined),
                }])
            }
            AgentCommand::Terminate if state.graph.is_none() => Err(AgentNotFound),
            AgentCommand::Terminate if state.is_terminated => Ok(Vec::new()),
            AgentCommand::Terminate => Ok(vec![AgentEvent::AgentTerminated(AgentTerminated {})]),
        }
    }

    fn evolve(state: &mut AgentState, recorded: RecordedEvent<'_, AgentEvent>) {
        match recorded.event {
            AgentEvent::AgentCreated(defined) | AgentEvent::AgentUpdated(defined) => {
                state.name.clone_from(&defined.name);
                state.graph = Some((defined.graph, defined.version.clone()));
                state.definition = Some(defined.definition);
                state.is_terminated = false;
            }
            AgentEvent::AgentTerminated(_) => state.is_terminated = true,
        }
    }

    fn evolve_request(state: &mut AgentState, applied: RecordedEvent<'_, RequestApplied>) {
        state.requests.insert(applied.event.request, applied.seq);
    }

    fn next_wake(_state: &AgentState) -> Wake {
        Wake::Done
    }
}
