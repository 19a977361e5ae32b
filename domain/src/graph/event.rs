//! Payloads of graph events, version 1.

use serde::{Deserialize, Serialize};
use serde_json::{Value, json};

use crate::event::noun_events::noun_events;
use crate::id::GraphVersion;
use crate::payload::PayloadRef;

noun_events! {
    /// Events of graph streams.
    pub enum GraphEvent {
        GraphRegistered(GraphRegistered) = "graph.registered.v1",
    }
}

impl GraphEvent {
    /// Returns the content of the event that an auditor sees; `None` for bookkeeping.
    pub(crate) fn audit_summary(&self) -> Option<Value> {
        match self {
            Self::GraphRegistered(e) => Some(json!({"graph": e.name, "version": e.version})),
        }
    }
}

/// `graph.registered.v1`: this version of the graph can be executed from now on.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct GraphRegistered {
    /// Name of the graph, unique in its tenant.
    pub name: String,
    /// Content address of the version.
    pub version: GraphVersion,
    /// Number of nodes in the manifest.
    pub nodes: u32,
    /// Canonical JSON form of the manifest.
    pub manifest: PayloadRef,
    /// True if the version was derived for a fork. It is neither the graph's latest version nor
    /// listed.
    #[serde(default, skip_serializing_if = "is_false")]
    pub is_derived: bool,
}

#[expect(clippy::trivially_copy_pass_by_ref, reason = "serde gives a reference")]
fn is_false(flag: &bool) -> bool {
    !flag
}
