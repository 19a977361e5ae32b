//! Streams: one append-only history for each run, graph, agent, memory subject, request and
//! tenant's tokens. Defines their keys and sequence numbers.

use std::fmt;
use std::str::FromStr;

use serde::{Deserialize, Serialize};
use uuid::Uuid;

use crate::id::{AgentId, GraphId, RunId, TenantId};

/// Declares the kinds of streams, each with its text form.
macro_rules! stream_kinds {
    ($($(#[$doc:meta])* $kind:ident = $name:literal,)*) => {
        /// Kind of thing that a stream is the history of.
        #[derive(
            Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize,
        )]
        pub enum StreamKind {
            $($(#[$doc])* #[serde(rename = $name)] $kind,)*
        }

        impl StreamKind {
            /// Returns the text form, which is the first part of a stream's name.
            pub fn as_str(self) -> &'static str {
                match self {
                    $(Self::$kind => $name,)*
                }
            }

            fn find_by_name(name: &str) -> Option<Self> {
                match name {
                    $($name => Some(Self::$kind),)*
                    _ => None,
                }
            }
        }
    };
}

stream_kinds! {
    /// One execution of a graph; see [`crate::run`].
    Run = "run",
    /// A graph and its versions; see [`crate::graph`].
    Graph = "graph",
    /// One HTTP request with an idempotency key; see [`crate::request`].
    Request = "request",
    /// A named agent definition; see [`crate::agent`].
    Agent = "agent",
    /// Memories of one subject; see [`crate::memory`].
    Memory = "memory",
    /// Access tokens of a tenant; see [`crate::token`].
    Token = "token",
}

/// Key of a stream. Its name within the tenant is `run/<uuid>`.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct StreamKey {
    /// Tenant that owns the stream.
    pub tenant: TenantId,
    /// Kind of the thing whose history this is.
    pub kind: StreamKind,
    /// Id of that thing; unique within tenant and kind.
    pub id: Uuid,
}

impl StreamKey {
    /// Returns the key of a run's stream.
    pub fn for_run(tenant: TenantId, run: RunId) -> Self {
        Self { tenant, kind: StreamKind::Run, id: run.0 }
    }

    /// Returns the key of a graph's stream.
    pub fn for_graph(tenant: TenantId, graph: GraphId) -> Self {
        Self { tenant, kind: StreamKind::Graph, id: graph.0 }
    }

    /// Returns the key of the stream of a request with an idempotency key.
    pub fn for_request(tenant: TenantId, id: Uuid) -> Self {
        Self { tenant, kind: StreamKind::Request, id }
    }

    /// Returns the key of an agent's stream.
    pub fn for_agent(tenant: TenantId, agent: AgentId) -> Self {
        Self { tenant, kind: StreamKind::Agent, id: agent.0 }
    }

    /// Returns the name within the tenant: `run/<uuid>`.
    pub fn stream_name(&self) -> String {
        format!("{}/{}", self.kind.as_str(), self.id)
    }

    /// Parses a name of [`StreamKey::stream_name`].
    ///
    /// # Errors
    /// The name is not `KIND/UUID` with a known kind.
    pub fn parse_name(tenant: TenantId, name: &str) -> Result<Self, InvalidStreamName> {
        let invalid = || InvalidStreamName(name.chars().take(80).collect());
        let (kind, id) = name.split_once('/').ok_or_else(invalid)?;
        let kind = StreamKind::find_by_name(kind).ok_or_else(invalid)?;
        let id = Uuid::from_str(id).map_err(|_| invalid())?;
        Ok(Self { tenant, kind, id })
    }
}

impl fmt::Display for StreamKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}:{}/{}", self.tenant, self.kind.as_str(), self.id)
    }
}

/// A text that is not the name of a stream. Quotes its first 80 characters.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error(
    "`{0}` is not a stream: use run/UUID, graph/UUID, agent/UUID, memory/UUID, token/UUID or \
    request/UUID"
)]
pub struct InvalidStreamName(String);

/// Sequence number of an event in its stream, dense from 1. 0 is the position before the first
/// event.
#[derive(
    Debug, Clone, Copy, Default, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize,
)]
#[serde(transparent)]
pub struct Seq(pub u64);

impl Seq {
    /// Returns the sequence number `count` events later.
    pub fn offset_by(self, count: u64) -> Self {
        Self(self.0 + count)
    }
}

impl fmt::Display for Seq {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.fmt(f)
    }
}
