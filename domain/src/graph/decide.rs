//! The rules of a graph: its versions are immutable and content-addressed.

use std::collections::BTreeMap;

use super::manifest::Graph;
use crate::decider::{Context, Decider, Recorded, Wake};
use crate::event::{Event, graph::Registered};
use crate::id::{GraphId, GraphVersion, TenantId};
use crate::json::canonical_json;
use crate::once::{AppliedRequests, RemembersRequests};
use crate::payload::{PayloadRef, PayloadSlot};
use crate::request::derived_uuid;
use crate::stream::Seq;

/// The graph noun.
#[derive(Debug, Clone, Copy)]
pub struct GraphNoun;

/// What is known of a graph.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct GraphState {
    /// The name.
    pub name: String,
    /// Manifests by version.
    pub versions: BTreeMap<GraphVersion, PayloadRef>,
    /// The version registered last.
    pub latest: Option<GraphVersion>,
    /// The requests under an idempotency key that registered versions.
    pub requests: AppliedRequests,
}

/// Registers a version.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Register {
    /// The graph's name.
    pub name: String,
    /// The version.
    pub version: GraphVersion,
    /// How many nodes it has.
    pub nodes: u32,
    /// The canonical manifest.
    pub manifest: PayloadSlot,
    /// Whether it is made for a fork from another version, and does not become the latest.
    pub is_derived: bool,
}

/// Nothing about a valid manifest can be refused.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("a graph refuses nothing")]
pub struct Never;

/// The id of a graph: the same name, the same graph.
pub fn graph_id(tenant: &TenantId, name: &str) -> GraphId {
    GraphId(derived_uuid(&["graph/v1", tenant.as_str(), name]))
}

impl Graph {
    /// The canonical manifest: RFC 8785, but for whole numbers beyond 2^53, which are not rounded.
    ///
    /// # Panics
    /// Never: a graph has text keys and finite numbers only.
    pub fn canonical(&self) -> Vec<u8> {
        let value = serde_json::to_value(self).expect("a graph has text keys and finite numbers");
        canonical_json(&value)
    }

    /// The version: the hash of the canonical manifest.
    pub fn version(&self) -> GraphVersion {
        GraphVersion::of(&self.canonical())
    }
}

impl RemembersRequests for GraphState {
    fn applied_requests(&self) -> &AppliedRequests {
        &self.requests
    }
}

impl Decider for GraphNoun {
    type State = GraphState;
    type Command = Register;
    type Rejection = Never;

    fn decide(
        state: &GraphState,
        command: Register,
        _context: &Context,
        next: Seq,
    ) -> Result<Vec<Event>, Never> {
        let is_known = match command.is_derived {
            true => state.versions.contains_key(&command.version),
            false => state.latest.as_ref() == Some(&command.version),
        };
        if is_known {
            return Ok(Vec::new());
        }
        Ok(vec![Event::GraphRegistered(Registered {
            name: command.name,
            version: command.version,
            nodes: command.nodes,
            manifest: command.manifest.at(next),
            is_derived: command.is_derived,
        })])
    }

    fn evolve(state: &mut GraphState, recorded: Recorded<'_>) {
        match recorded.event {
            Event::GraphRegistered(registered) => {
                state.name.clone_from(&registered.name);
                state.versions.insert(registered.version.clone(), registered.manifest);
                if !registered.is_derived {
                    state.latest = Some(registered.version.clone());
                }
            }
            Event::RequestApplied(event) => state.requests.insert(event.request, recorded.seq),
            _ => {}
        }
    }

    fn wake(_state: &GraphState) -> Wake {
        Wake::Done
    }
}
