//! Finds nodes that need two exclusive sides of one branch, and so never run.
//!
//! Each side of each branch is a bit. A node carries the set of sides that are excluded once it
//! runs. The sets grow along the edges, so the work is edges times bits.

use super::manifest::{Graph, Join, NodeWork};
use super::topology::Edge;

/// Bit ranges of the branches: the first bit of each and its number of sides; `None` for other
/// nodes.
struct BranchSides {
    bit_ranges: Vec<Option<(usize, usize)>>,
    word_count: usize,
}

/// Returns the nodes that need all inputs and have some on different sides of one branch. Of a
/// chain of such nodes only the first is returned. The graph must have no cycles.
pub(super) fn nodes_on_exclusive_sides(graph: &Graph, edges: &[Edge]) -> Vec<usize> {
    let sides = BranchSides::from_graph(graph);
    let mut excluded: Vec<Vec<u64>> = vec![vec![0; sides.word_count]; graph.nodes.len()];
    let inputs = group_by_target(graph.nodes.len(), edges);
    let mut conflicting = Vec::new();
    for node in topological_order(&inputs, graph.nodes.len()) {
        // With another join a node runs on either side, and excludes nothing for those after it.
        if graph.nodes[node].join != Join::All {
            continue;
        }
        let mut set = vec![0; sides.word_count];
        for edge in &inputs[node] {
            for (word, from) in set.iter_mut().zip(&excluded[edge.from]) {
                *word |= from;
            }
        }
        sides.exclude_untaken_ports(&inputs[node], &mut set);
        if sides.excludes_whole_branch(&set) {
            conflicting.push(node);
        } else {
            excluded[node] = set;
        }
    }
    conflicting.sort_unstable();
    conflicting
}

impl BranchSides {
    fn from_graph(graph: &Graph) -> Self {
        let mut bits = 0;
        let mut range = |node: &super::manifest::GraphNode| {
            let NodeWork::Branch(branch) = &node.work else { return None };
            // One more for `else`, even if the manifest gives no node for it.
            let count = branch.cases.len() + 1;
            bits += count;
            Some((bits - count, count))
        };
        let ranges = graph.nodes.iter().map(&mut range).collect();
        Self { bit_ranges: ranges, word_count: bits.div_ceil(64) }
    }

    /// Excludes the sides of each branch with an edge to this node that have no such edge.
    fn exclude_untaken_ports(&self, inputs: &[Edge], set: &mut [u64]) {
        for edge in inputs {
            let Some((begin, count)) = self.bit_ranges[edge.from] else { continue };
            if edge.port.is_none() {
                continue;
            }
            for port in 0..count {
                let leads = |other: &Edge| {
                    other.from == edge.from && other.port.is_some_and(|p| p as usize == port)
                };
                if !inputs.iter().any(leads) {
                    set[(begin + port) / 64] |= 1 << ((begin + port) % 64);
                }
            }
        }
    }

    /// True if every side of some branch is excluded.
    fn excludes_whole_branch(&self, set: &[u64]) -> bool {
        let is_excluded = |bit: usize| set[bit / 64] >> (bit % 64) & 1 == 1;
        let mut ranges = self.bit_ranges.iter().flatten();
        ranges.any(|(begin, count)| (*begin..begin + count).all(is_excluded))
    }
}

fn group_by_target(nodes: usize, edges: &[Edge]) -> Vec<Vec<Edge>> {
    let mut inputs = vec![Vec::new(); nodes];
    for edge in edges {
        inputs[edge.to].push(*edge);
    }
    inputs
}

/// The nodes in topological order (Kahn's algorithm).
fn topological_order(inputs: &[Vec<Edge>], nodes: usize) -> Vec<usize> {
    let mut waits: Vec<usize> = inputs.iter().map(Vec::len).collect();
    let mut follow = vec![Vec::new(); nodes];
    for edge in inputs.iter().flatten() {
        follow[edge.from].push(edge.to);
    }
    let mut order: Vec<usize> = (0..nodes).filter(|node| waits[*node] == 0).collect();
    let mut next = 0;
    while let Some(node) = order.get(next).copied() {
        next += 1;
        for to in &follow[node] {
            waits[*to] -= 1;
            if waits[*to] == 0 {
                order.push(*to);
            }
        }
    }
    order
}
