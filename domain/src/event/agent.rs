//! Events of an agent, version 1.

use serde::{Deserialize, Serialize};

use crate::id::{AgentId, GraphId, GraphVersion};
use crate::payload::PayloadRef;

/// `agent.created.v1` and `agent.updated.v1`: what the agent is from now on.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Defined {
    /// The agent's name.
    pub name: String,
    /// The graph of one node that each of its runs is a run of.
    pub graph: GraphId,
    /// Its version.
    pub version: GraphVersion,
    /// The definition as it was given, a JSON object.
    pub definition: PayloadRef,
}

/// `agent.spawned.v1`: this run is a run of an agent. Stands in the run's stream.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Spawned {
    /// The agent.
    pub agent: AgentId,
}

/// `agent.terminated.v1`: the agent runs no more.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Terminated {}
