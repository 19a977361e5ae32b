//! Graphs.

use serde::{Deserialize, Serialize};
use utoipa::ToSchema;

use super::MistakeView;

/// A version that was registered.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct GraphAccepted {
    /// The graph's id: the same name, the same id.
    pub id: String,
    /// The graph's name.
    pub name: String,
    /// The content-addressed version.
    pub version: String,
    /// What is allowed and probably not meant.
    #[serde(default)]
    pub warnings: Vec<MistakeView>,
}

/// A version in a listing.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct GraphSummary {
    /// The graph's id.
    pub id: String,
    /// The graph's name.
    pub name: String,
    /// The version.
    pub version: String,
    /// How many nodes it has.
    pub nodes: u64,
    /// When it was registered, RFC 3339.
    pub registered_at: String,
}

/// A graph with its versions, the newest first.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct GraphView {
    /// The graph's id.
    pub id: String,
    /// The graph's name.
    pub name: String,
    /// Its versions.
    pub versions: Vec<GraphSummary>,
}
