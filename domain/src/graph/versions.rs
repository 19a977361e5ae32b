//! The rules of a graph's stream: versions are immutable and content-addressed.

use std::collections::BTreeMap;

use super::event::{GraphEvent, GraphRegistered};
use super::manifest::Graph;
use crate::decider::{Decider, DecisionContext, RecordedEvent, Wake};
use crate::id::{GraphId, GraphVersion, TenantId, derive_uuid};
use crate::idempotency::{AppliedRequests, HasAppliedRequests};
use crate::json::canonical_json;
use crate::payload::{PayloadRef, PayloadSlot};
use crate::request::event::RequestApplied;
use crate::stream::Seq;

/// Decider of the graph stream, which has one event a registered version.
#[derive(Debug, Clone, Copy)]
pub struct GraphNoun;

/// State of a graph: its registered versions.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct GraphState {
    /// Unique within the tenant; the graph's id is derived from it.
    pub name: String,
    /// The canonical manifest of each version.
    pub versions: BTreeMap<GraphVersion, PayloadRef>,
    /// The version registered last.
    pub latest: Option<GraphVersion>,
    /// Idempotent requests that registered versions here.
    pub requests: AppliedRequests,
}

/// Command that registers a version; registering the latest version again changes nothing.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct RegisterGraph {
    /// Name of the graph, which its id is derived from.
    pub name: String,
    /// Hash of the canonical manifest, see [`Graph::compute_version`].
    pub version: GraphVersion,
    /// Number of nodes, for listings.
    pub nodes: u32,
    /// Canonical manifest, stored as a payload.
    pub manifest: PayloadSlot,
    /// True for the manifest of a fork or an amended run: it does not become the latest version.
    pub is_derived: bool,
}

/// Rejection of a graph command; never constructed, since a valid manifest is always accepted.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("a graph refuses nothing")]
pub struct GraphRejection;

/// Derives the id of a graph from tenant and name: the same name is the same graph.
pub fn graph_id(tenant: &TenantId, name: &str) -> GraphId {
    GraphId(derive_uuid(&["graph/v1", tenant.as_str(), name]))
}

impl Graph {
    /// Serialises the manifest by RFC 8785, except that whole numbers beyond 2^53 are not rounded.
    ///
    /// # Panics
    /// Never: a graph has text keys and finite numbers only.
    pub fn canonical_manifest(&self) -> Vec<u8> {
        let value = serde_json::to_value(self).expect("a graph has text keys and finite numbers");
        canonical_json(&value)
    }

    /// Computes the version: the hash of [`Graph::canonical_manifest`].
    pub fn compute_version(&self) -> GraphVersion {
        GraphVersion::from_manifest(&self.canonical_manifest())
    }
}

impl HasAppliedRequests for GraphState {
    fn applied_requests(&self) -> &AppliedRequests {
        &self.requests
    }
}

impl Decider for GraphNoun {
    type State = GraphState;
    type Command = RegisterGraph;
    type Event = GraphEvent;
    type Rejection = GraphRejection;

    fn decide(
        state: &GraphState,
        command: RegisterGraph,
        _context: &DecisionContext,
        next: Seq,
    ) -> Result<Vec<GraphEvent>, GraphRejection> {
        // A derived version is known if it was ever registered. Any other one is repeated only if
        // it is the latest: registering an older version again makes it the latest.
        let is_known = match command.is_derived {
            true => state.versions.contains_key(&command.version),
            false => state.latest.as_ref() == Some(&command.version),
        };
        if is_known {
            return Ok(Vec::new());
        }
        Ok(vec![GraphEvent::GraphRegistered(GraphRegistered {
            name: command.name,
            version: command.version,
            nodes: command.nodes,
            manifest: command.manifest.to_payload_ref(next),
            is_derived: command.is_derived,
        })])
    }

    fn evolve(state: &mut GraphState, recorded: RecordedEvent<'_, GraphEvent>) {
        let GraphEvent::GraphRegistered(registered) = recorded.event;
        state.name.clone_from(&registered.name);
        state.versions.insert(registered.version.clone(), registered.manifest);
        if !registered.is_derived {
            state.latest = Some(registered.version.clone());
        }
    }

    fn evolve_request(state: &mut GraphState, applied: RecordedEvent<'_, RequestApplied>) {
        state.requests.insert(applied.event.request, applied.seq);
    }

    fn next_wake(_state: &GraphState) -> Wake {
        Wake::Done
    }
}
