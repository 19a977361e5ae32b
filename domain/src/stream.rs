//! Streams: the history of one thing, its key and its coordinates.

use std::fmt;
use std::str::FromStr;

use serde::{Deserialize, Serialize};
use uuid::Uuid;

use crate::id::{AgentId, GraphId, RunId, TenantId};

/// What a stream is the history of.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum StreamKind {
    /// A run of a graph.
    Run,
    /// A graph and its versions.
    Graph,
    /// A request that carried an idempotency key.
    Request,
    /// An agent under its name.
    Agent,
    /// What is remembered of a subject.
    Memory,
    /// The tokens of a tenant.
    Token,
}

impl StreamKind {
    /// The written form, the first part of a stream's name.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Run => "run",
            Self::Graph => "graph",
            Self::Request => "request",
            Self::Agent => "agent",
            Self::Memory => "memory",
            Self::Token => "token",
        }
    }
}

/// The name of a stream within its tenant: `run/<uuid>`.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct StreamKey {
    /// The owner.
    pub tenant: TenantId,
    /// What kind of thing this is the history of.
    pub kind: StreamKind,
    /// Which one.
    pub id: Uuid,
}

impl StreamKey {
    /// The history of a run.
    pub fn run(tenant: TenantId, run: RunId) -> Self {
        Self { tenant, kind: StreamKind::Run, id: run.0 }
    }

    /// The history of a graph.
    pub fn graph(tenant: TenantId, graph: GraphId) -> Self {
        Self { tenant, kind: StreamKind::Graph, id: graph.0 }
    }

    /// The history of a request with an idempotency key.
    pub fn request(tenant: TenantId, id: Uuid) -> Self {
        Self { tenant, kind: StreamKind::Request, id }
    }

    /// The history of an agent.
    pub fn agent(tenant: TenantId, agent: AgentId) -> Self {
        Self { tenant, kind: StreamKind::Agent, id: agent.0 }
    }

    /// The name within the tenant: `run/<uuid>`.
    pub fn name(&self) -> String {
        format!("{}/{}", self.kind.as_str(), self.id)
    }

    /// Reads what [`StreamKey::name`] wrote.
    ///
    /// # Errors
    /// The name is not `KIND/UUID` with a known kind.
    pub fn parse(tenant: TenantId, name: &str) -> Result<Self, InvalidStream> {
        let invalid = || InvalidStream(name.chars().take(80).collect());
        let (kind, id) = name.split_once('/').ok_or_else(invalid)?;
        let kind = match kind {
            "run" => StreamKind::Run,
            "graph" => StreamKind::Graph,
            "request" => StreamKind::Request,
            "agent" => StreamKind::Agent,
            "memory" => StreamKind::Memory,
            "token" => StreamKind::Token,
            _ => return Err(invalid()),
        };
        let id = Uuid::from_str(id).map_err(|_| invalid())?;
        Ok(Self { tenant, kind, id })
    }
}

impl fmt::Display for StreamKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}:{}/{}", self.tenant, self.kind.as_str(), self.id)
    }
}

/// A text that is not the name of a stream.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error(
    "`{0}` is not a stream: use run/UUID, graph/UUID, agent/UUID, memory/UUID, token/UUID or \
    request/UUID"
)]
pub struct InvalidStream(String);

/// The number of an event in its stream, dense from 1. 0 stands before the first event.
#[derive(
    Debug, Clone, Copy, Default, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize,
)]
#[serde(transparent)]
pub struct Seq(pub u64);

impl Seq {
    /// The sequence number `n` events later.
    pub fn plus(self, n: u64) -> Self {
        Self(self.0 + n)
    }
}

impl fmt::Display for Seq {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.fmt(f)
    }
}
