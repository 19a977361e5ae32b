//! The edges of a graph as the kernel's scheduler takes them.

use std::collections::{BTreeMap, BTreeSet};

use super::manifest::{Graph, NodeWork, OnError};
use crate::id::NodeId;

/// A dependency between two nodes. `port` is the case of a branch that makes it live; `None` means
/// always.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub struct Edge {
    /// Index of the node that must end first.
    pub from: usize,
    /// Index of the node that depends on it.
    pub to: usize,
    /// Index of the branch's case; `else` comes after all cases.
    pub port: Option<u32>,
}

/// Returns the edges in deterministic order. A branch's target does not wait for that branch a
/// second time by `needs`, nor a fallback for the node that it replaces: the kernel has that edge
/// already.
pub fn graph_edges(graph: &Graph) -> Vec<Edge> {
    let numbers: BTreeMap<&NodeId, usize> =
        graph.nodes.iter().enumerate().map(|(number, node)| (&node.id, number)).collect();
    let mut edges = BTreeSet::new();
    let mut targets = BTreeSet::new();
    for (from, node) in graph.nodes.iter().enumerate() {
        let NodeWork::Branch(branch) = &node.work else { continue };
        // `else` gets the port after the last case: the executor numbers choices in the same way.
        let ways = branch.cases.iter().map(|case| &case.to).chain([&branch.otherwise]);
        for (port, ids) in (0_u32..).zip(ways) {
            for to in ids.iter().filter_map(|id| numbers.get(id)) {
                edges.insert(Edge { from, to: *to, port: Some(port) });
                targets.insert((from, *to));
            }
        }
    }
    for (to, node) in graph.nodes.iter().enumerate() {
        for need in &node.needs {
            let Some(from) = numbers.get(need).copied() else { continue };
            let replaces = graph.nodes[from].on_error == OnError::Fallback(node.id.clone());
            if !targets.contains(&(from, to)) && !replaces {
                edges.insert(Edge { from, to, port: None });
            }
        }
    }
    edges.into_iter().collect()
}
