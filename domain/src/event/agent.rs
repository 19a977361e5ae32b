//! Payloads of agent events, version 1.

use serde::{Deserialize, Serialize};

use crate::id::{AgentId, GraphId, GraphVersion};
use crate::payload::PayloadRef;

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

/// `agent.spawned.v1`: the run executes an agent. Recorded in the run's stream.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct AgentSpawned {
    /// Agent that the run executes.
    pub agent: AgentId,
}

/// `agent.terminated.v1`: the agent starts no further runs.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct AgentTerminated {}
