//! Graphs.

use serde::{Deserialize, Serialize};
use utoipa::ToSchema;

use super::MistakeView;

/// A version that was registered.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct GraphAccepted {
    /// The graph's id: the same name, the same id.
    pub id: String,
    /// Name of the graph, unique in the tenant.
    pub name: String,
    /// Version: the hash of the canonical manifest.
    pub version: String,
    /// What is allowed and probably not meant.
    #[serde(default)]
    pub warnings: Vec<MistakeView>,
}

/// A version in a listing.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct GraphSummary {
    /// Id of the graph, a UUID.
    pub id: String,
    /// Name of the graph, unique in the tenant.
    pub name: String,
    /// Version: the hash of the canonical manifest.
    pub version: String,
    /// How many nodes it has.
    pub nodes: u64,
    /// When it was registered, RFC 3339.
    pub registered_at: String,
}

/// A graph with its versions, the newest first.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct GraphView {
    /// Id of the graph, a UUID.
    pub id: String,
    /// Name of the graph, unique in the tenant.
    pub name: String,
    /// Versions of the graph, with their summaries.
    pub versions: Vec<GraphSummary>,
}
