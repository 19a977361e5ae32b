//! The scheduler beside petgraph on one random graph of a million nodes: compiling it (petgraph:
//! building and sorting it) and completing every node (petgraph: counting in-edges down). A table,
//! or JSON lines with `--json`.

use std::env;
use std::hint::black_box;
use std::sync::Arc;
use std::time::Instant;

use convergio_kernel_c::{EdgeSpec, KernelGraph, NodeOutcome, NodeSpec, Scheduler};
use petgraph::Direction;
use petgraph::algo::toposort;
use petgraph::graph::{DiGraph, NodeIndex};

const NODES: u32 = 1_000_000;
const EDGES: usize = 3_000_000;
const ROUNDS: usize = 3;

/// Different edges between random nodes, from the lower to the higher, in random order.
fn random_edges() -> Vec<(u32, u32)> {
    let mut state = 1_u64;
    let mut below = |limit: u64| {
        state =
            state.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
        u32::try_from(((state >> 32) * limit) >> 32).expect("32 bits")
    };
    let mut edges: Vec<(u32, u32)> = (0..EDGES)
        .map(|_| (below(u64::from(NODES)), below(u64::from(NODES))))
        .filter(|(a, b)| a != b)
        .map(|(a, b)| (a.min(b), a.max(b)))
        .collect();
    edges.sort_unstable();
    edges.dedup();
    for at in (1..edges.len()).rev() {
        let other = below(at as u64 + 1) as usize;
        edges.swap(at, other);
    }
    edges
}

/// Milliseconds of the quickest of some rounds, and what the last one made.
fn quickest<T>(mut work: impl FnMut() -> T) -> (f64, T) {
    let mut best = f64::MAX;
    let mut round = || {
        let started = Instant::now();
        let made = black_box(work());
        best = best.min(started.elapsed().as_secs_f64() * 1e3);
        made
    };
    let mut made = round();
    for _ in 1..ROUNDS {
        made = round();
    }
    (best, made)
}

/// Completes all nodes in the order in which they become ready; returns how many there were.
fn run_kernel(graph: &Arc<KernelGraph>) -> usize {
    let (mut scheduler, started) = Scheduler::start(graph).expect("memory");
    let mut queue: Vec<u32> = started.ready.iter().map(|ready| ready.node).collect();
    let mut at = 0;
    while let Some(node) = queue.get(at).copied() {
        let delta =
            scheduler.complete_node(node, NodeOutcome::Done { choice: None }).expect("in flight");
        queue.extend(delta.ready.iter().map(|ready| ready.node));
        at += 1;
    }
    at
}

fn run_petgraph(graph: &DiGraph<(), (), u32>) -> usize {
    let in_degree = |node| graph.neighbors_directed(node, Direction::Incoming).count();
    let mut waits: Vec<usize> = graph.node_indices().map(in_degree).collect();
    let mut queue: Vec<NodeIndex<u32>> =
        graph.node_indices().filter(|node| waits[node.index()] == 0).collect();
    let mut at = 0;
    while let Some(node) = queue.get(at).copied() {
        for next in graph.neighbors(node) {
            waits[next.index()] -= 1;
            if waits[next.index()] == 0 {
                queue.push(next);
            }
        }
        at += 1;
    }
    at
}

fn report(name: &str, milliseconds: f64) {
    if env::args().any(|argument| argument == "--json") {
        println!(r#"{{"name":"{name}","value":{milliseconds:.1},"unit":"ms"}}"#);
    } else {
        println!("{name:<44} {milliseconds:>10.1} ms");
    }
}

fn main() {
    let edges = random_edges();
    let specs: Vec<EdgeSpec> =
        edges.iter().map(|(from, to)| EdgeSpec { from: *from, to: *to, port: None }).collect();
    let nodes = vec![NodeSpec::default(); NODES as usize];
    let (took, graph) =
        quickest(|| KernelGraph::compile_graph(&nodes, &specs).expect("edges lead forward"));
    report("kernel: compile", took);
    let graph = Arc::new(graph);
    let (took, completed) = quickest(|| run_kernel(&graph));
    assert_eq!(completed, NODES as usize);
    report("kernel: complete all, through the wrapper", took);

    let build = || {
        let mut graph = DiGraph::<(), (), u32>::with_capacity(NODES as usize, edges.len());
        for _ in 0..NODES {
            graph.add_node(());
        }
        for (from, to) in &edges {
            graph.add_edge(NodeIndex::new(*from as usize), NodeIndex::new(*to as usize), ());
        }
        let sorted = toposort(&graph, None).expect("edges lead forward");
        assert_eq!(sorted.len(), NODES as usize);
        graph
    };
    let (took, graph) = quickest(build);
    report("petgraph: build and sort", took);
    let (took, completed) = quickest(|| run_petgraph(&graph));
    assert_eq!(completed, NODES as usize);
    report("petgraph: count in-edges down", took);
}
