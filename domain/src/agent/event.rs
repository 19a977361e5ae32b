//! Payloads of agent events, version 1.

use serde::{Deserialize, Serialize};
use serde_json::{Value, json};

use crate::event::noun_events::noun_events;
use crate::id::{GraphId, GraphVersion};
use crate::payload::PayloadRef;

noun_events! {
    /// Events of agent streams.
    pub enum AgentEvent {
        AgentCreated(AgentDefined) = "agent.created.v1",
        AgentUpdated(AgentDefined) = "agent.updated.v1",
        AgentTerminated(AgentTerminated) = "agent.terminated.v1",
    }
}

impl AgentEvent {
    /// Returns the content of the event that an auditor sees; `None` for bookkeeping.
    pub(crate) fn audit_summary(&self) -> Option<Value> {
        Some(match self {
            Self::AgentCreated(e) | Self::AgentUpdated(e) => {
                json!({"agent": e.name, "version": e.version})
            }
            Self::AgentTerminated(_) => json!({}),
        })
    }
}

/// `agent.created.v1` and `agent.updated.v1`: the agent's definition from now on.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct AgentDefined {
    /// Name of the agent, unique in its tenant.
    pub name: String,
    /// Graph of one node that all runs of the agent execute.
    pub graph: GraphId,
    /// Version of that graph.
    pub version: GraphVersion,
    /// Definition as the caller sent it, a JSON object.
    pub definition: PayloadRef,
}

/// `agent.terminated.v1`: the agent starts no further runs.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct AgentTerminated {}
