//! Graphs of up to 10,000 nodes: after each wave of outcomes all states are derived anew, pass by
//! pass over the whole graph, until nothing changes.

use std::sync::Arc;

use convergio_kernel_c::{
    EdgeSpec, KernelGraph, NodeOutcome, NodeSpec, NodeStatus, OnErrorSpec, RunResult, Scheduler,
};
use proptest::prelude::*;

struct Dice(u64);

impl Dice {
    fn below(&mut self, limit: u32) -> u32 {
        self.0 =
            self.0.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
        (self.0 >> 33) as u32 % limit
    }
}

struct Plain {
    nodes: Vec<NodeSpec>,
    in_edges: Vec<Vec<EdgeSpec>>,
    /// Of each node those that fall back to it.
    owners: Vec<Vec<u32>>,
    status: Vec<NodeStatus>,
    choice: Vec<Option<u32>>,
}

/// Whether something is so, is not so, or may still become so.
type Maybe = Option<bool>;

impl Plain {
    fn delivers(&self, node: u32) -> Maybe {
        match self.status[node as usize] {
            NodeStatus::Done => Some(true),
            NodeStatus::Skipped => Some(false),
            NodeStatus::Failed => match self.nodes[node as usize].on_error {
                OnErrorSpec::Fallback(fallback) => self.delivers(fallback),
                _ => Some(false),
            },
            _ => None,
        }
    }

    fn is_live(&self, edge: &EdgeSpec) -> Maybe {
        let delivers = self.delivers(edge.from)?;
        let is_done = self.status[edge.from as usize] == NodeStatus::Done;
        let chosen = if is_done { self.choice[edge.from as usize] } else { None };
        Some(delivers && (edge.port.is_none() || edge.port == chosen))
    }

    fn has_failed(&self, owner: u32) -> Maybe {
        match self.status[owner as usize] {
            NodeStatus::Failed => Some(true),
            NodeStatus::Done | NodeStatus::Skipped => Some(false),
            _ => None,
        }
    }

    fn decided(&self, node: usize) -> Option<NodeStatus> {
        let fates: Vec<Maybe> = (self.in_edges[node].iter().map(|edge| self.is_live(edge)))
            .chain(self.owners[node].iter().map(|owner| self.has_failed(*owner)))
            .collect();
        let count = |wanted: Maybe| fates.iter().filter(|fate| **fate == wanted).count();
        let need = match self.nodes[node].join {
            0 => fates.len(),
            join => join as usize,
        };
        if count(Some(true)) >= need {
            Some(NodeStatus::Ready)
        } else if count(Some(true)) + count(None) < need {
            Some(NodeStatus::Skipped)
        } else {
            None
        }
    }

    fn settle(&mut self) {
        let mut is_changed = true;
        while is_changed {
            is_changed = false;
            for node in 0..self.nodes.len() {
                if self.status[node] != NodeStatus::Pending {
                    continue;
                }
                if let Some(status) = self.decided(node) {
                    self.status[node] = status;
                    is_changed = true;
                }
            }
        }
    }
}

/// Edges and fallbacks lead to higher numbers, a node's edges beyond its fallback, and no fallback
/// has one of its own, so that nothing waits for itself.
fn random(dice: &mut Dice, count: u32) -> (Vec<NodeSpec>, Vec<EdgeSpec>) {
    let mut nodes = vec![NodeSpec { join: 0, on_error: OnErrorSpec::Skip }; count as usize];
    let mut edges = Vec::new();
    let reach = 2 + dice.below(40);
    for from in 0..count {
        let mut first = from + 1;
        let stands_in =
            from > 0 && matches!(nodes[from as usize - 1].on_error, OnErrorSpec::Fallback(_));
        if dice.below(8) == 0 && first < count && !stands_in {
            nodes[from as usize].on_error = OnErrorSpec::Fallback(first);
            first += 1;
        }
        let mut targets: Vec<u32> = (0..dice.below(4)).map(|_| first + dice.below(reach)).collect();
        targets.sort_unstable();
        targets.dedup();
        for to in targets.into_iter().filter(|to| *to < count) {
            let port = (dice.below(6) == 0).then(|| dice.below(2));
            edges.push(EdgeSpec { from, to, port });
        }
    }
    (nodes, edges)
}

fn plain(dice: &mut Dice, mut nodes: Vec<NodeSpec>, edges: &[EdgeSpec]) -> Plain {
    let count = nodes.len();
    let (mut in_edges, mut owners) = (vec![Vec::new(); count], vec![Vec::new(); count]);
    for edge in edges {
        in_edges[edge.to as usize].push(*edge);
    }
    for (owner, node) in (0..).zip(&nodes) {
        if let OnErrorSpec::Fallback(fallback) = node.on_error {
            owners[fallback as usize].push(owner);
        }
    }
    for (at, node) in nodes.iter_mut().enumerate() {
        let in_degree = u32::try_from(in_edges[at].len() + owners[at].len()).expect("small");
        node.join = dice.below(in_degree + 1);
    }
    let (status, choice) = (vec![NodeStatus::Pending; count], vec![None; count]);
    Plain { nodes, in_edges, owners, status, choice }
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(20))]

    #[test]
    fn large_graphs_run_like_the_model(seed in any::<u64>(), count in 1..=10_000u32) {
        let mut dice = Dice(seed);
        let (nodes, edges) = random(&mut dice, count);
        let mut model = plain(&mut dice, nodes, &edges);
        let graph = KernelGraph::compile_graph(&model.nodes, &edges);
        let graph = Arc::new(graph.expect("nothing waits for itself"));
        let (mut scheduler, started) = Scheduler::start(&graph).expect("memory");
        model.settle();
        let mut wave: Vec<u32> = started.ready.iter().map(|ready| ready.node).collect();
        while !wave.is_empty() {
            let mut next = Vec::new();
            for node in wave {
                let choice = (dice.below(3) > 0).then(|| dice.below(2));
                let is_done = dice.below(5) > 0;
                let (outcome, status) = if is_done {
                    (NodeOutcome::Done { choice }, NodeStatus::Done)
                } else {
                    (NodeOutcome::Failed, NodeStatus::Failed)
                };
                model.status[node as usize] = status;
                model.choice[node as usize] = choice;
                let delta = scheduler.complete_node(node, outcome).expect("in flight");
                next.extend(delta.ready.iter().map(|ready| ready.node));
            }
            model.settle();
            for node in 0..count {
                prop_assert_eq!(scheduler.node_status(node), Ok(model.status[node as usize]));
            }
            wave = next;
        }
        prop_assert_eq!(scheduler.run_result(), RunResult::Succeeded);
    }
}
