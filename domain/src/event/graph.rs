//! Events of a graph, version 1.

use serde::{Deserialize, Serialize};

use crate::id::GraphVersion;
use crate::payload::PayloadRef;

/// `graph.registered.v1`: a version of a graph may be executed from now on.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Registered {
    /// The graph's name.
    pub name: String,
    /// The content-addressed version.
    pub version: GraphVersion,
    /// How many nodes it has.
    pub nodes: u32,
    /// The canonical manifest.
    pub manifest: PayloadRef,
    /// Made for a fork from another version: it is not the graph's latest, and not listed.
    #[serde(default, skip_serializing_if = "is_false")]
    pub is_derived: bool,
}

#[expect(clippy::trivially_copy_pass_by_ref, reason = "serde gives a reference")]
fn is_false(flag: &bool) -> bool {
    !flag
}
