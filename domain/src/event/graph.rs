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
}
