//! Random graphs, and the property that exactly those with a cycle are refused.

use convergio_kernel_c::{EdgeSpec, KernelError, KernelGraph, NodeSpec, OnErrorSpec};
use proptest::prelude::*;

#[derive(Debug, Clone)]
pub(crate) struct Source {
    pub(crate) nodes: Vec<NodeSpec>,
    pub(crate) edges: Vec<EdgeSpec>,
}

/// Numbers that become a node once the graph around it is known.
type Seed = (u32, u32, u32);

const PORTS: u32 = 3;

/// Graphs that compile, of up to `max_nodes` nodes.
pub(crate) fn acyclic(max_nodes: usize) -> impl Strategy<Value = Source> {
    any_graph(max_nodes, true).prop_map(|mut source| {
        // The edges lead forward, so only fallbacks can close a cycle.
        let mut nodes = 0..source.nodes.len();
        while has_cycle(&source) {
            let node = nodes.next().expect("without fallbacks there is no cycle");
            source.drop_fallback(node);
        }
        source
    })
}

impl Source {
    fn drop_fallback(&mut self, node: usize) {
        let OnErrorSpec::Fallback(fallback) = self.nodes[node].on_error else { return };
        self.nodes[node].on_error = OnErrorSpec::Skip;
        let join = &mut self.nodes[fallback as usize].join;
        *join = join.saturating_sub(1);
    }
}

/// Graphs of up to `max_nodes` nodes. With `forward`, edges and fallbacks lead from a rank to a
/// higher one, where ranks are a random order of the nodes.
fn any_graph(max_nodes: usize, forward: bool) -> impl Strategy<Value = Source> {
    (1..=max_nodes).prop_flat_map(move |node_count| {
        let order = Just((0..node_count as u32).collect::<Vec<_>>()).prop_shuffle();
        let nodes = prop::collection::vec(any::<Seed>(), node_count);
        let edges = prop::collection::vec(any::<Seed>(), 0..=2 * node_count);
        (order, nodes, edges)
            .prop_map(move |(order, nodes, edges)| build(&order, &nodes, &edges, forward))
    })
}

fn build(order: &[u32], nodes: &[Seed], edges: &[Seed], forward: bool) -> Source {
    let count = order.len() as u32;
    let target = |from: u32, seed: u32| {
        let rank = if forward { from + 1 + seed % (count - from - 1).max(1) } else { seed % count };
        order.get(rank as usize).copied()
    };
    let mut built: Vec<EdgeSpec> = Vec::new();
    for (from, to, port) in edges {
        let from = from % count;
        let Some(to) = target(from, *to) else { continue };
        let port = (port % (PORTS + 5)).checked_sub(5);
        let edge = EdgeSpec { from: order[from as usize], to, port };
        if !built.contains(&edge) {
            built.push(edge);
        }
    }
    let mut specs = vec![NodeSpec::default(); nodes.len()];
    for (rank, (policy, fallback, _)) in (0u32..).zip(nodes) {
        let node = order[rank as usize];
        let fallback = target(rank, *fallback).filter(|fallback| *fallback != node);
        specs[node as usize].on_error = match (policy % 8, fallback) {
            (0, _) => OnErrorSpec::Fail,
            (1..4, Some(fallback)) => OnErrorSpec::Fallback(fallback),
            _ => OnErrorSpec::Skip,
        };
    }
    set_joins(&mut specs, &built, nodes);
    Source { nodes: specs, edges: built }
}

fn set_joins(specs: &mut [NodeSpec], edges: &[EdgeSpec], seeds: &[Seed]) {
    let mut in_degrees = vec![0; specs.len()];
    for edge in edges {
        in_degrees[edge.to as usize] += 1;
    }
    for spec in specs.iter() {
        if let OnErrorSpec::Fallback(fallback) = spec.on_error {
            in_degrees[fallback as usize] += 1;
        }
    }
    for ((spec, in_degree), (_, _, join)) in specs.iter_mut().zip(in_degrees).zip(seeds) {
        spec.join = join % (in_degree + 1);
    }
}

/// Whether some event of a run would have to happen before itself: a node starts after its edges
/// are resolved and the nodes that fall back to it have ended; its edges are resolved after it has
/// started and those of its fallback are.
fn has_cycle(source: &Source) -> bool {
    let (start, settle) = (|node: u32| 2 * node as usize, |node: u32| 2 * node as usize + 1);
    let mut before: Vec<(usize, usize)> = Vec::new();
    for (node, spec) in (0u32..).zip(&source.nodes) {
        before.push((start(node), settle(node)));
        if let OnErrorSpec::Fallback(fallback) = spec.on_error {
            before.push((start(node), start(fallback)));
            before.push((settle(fallback), settle(node)));
        }
    }
    before.extend(source.edges.iter().map(|edge| (settle(edge.from), start(edge.to))));
    let mut waiting: Vec<usize> = (0..2 * source.nodes.len()).collect();
    loop {
        let blocked = |event: &usize| {
            before.iter().any(|(first, then)| then == event && waiting.contains(first))
        };
        let left: Vec<usize> = waiting.iter().copied().filter(blocked).collect();
        if left.len() == waiting.len() {
            return !left.is_empty();
        }
        waiting = left;
    }
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(2000))]

    #[test]
    fn exactly_graphs_with_a_cycle_are_refused(
        source in prop_oneof![any_graph(8, false), any_graph(8, true)],
    ) {
        match KernelGraph::compile_graph(&source.nodes, &source.edges) {
            Ok(_) => prop_assert!(!has_cycle(&source)),
            Err(error) => {
                prop_assert_eq!(error.kind, KernelError::Cycle);
                prop_assert!(error.node.is_some_and(|node| (node as usize) < source.nodes.len()));
                prop_assert!(has_cycle(&source));
            }
        }
    }
}
