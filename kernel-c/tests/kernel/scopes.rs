//! Sub-graphs and loops: one scheduler over a graph with scopes does what nested schedulers over
//! its levels do, and survives being saved and loaded at every step.

use std::collections::BTreeMap;
use std::sync::Arc;

use convergio_kernel_c::{
    EdgeSpec, KernelGraph, NodeAnswer, NodeOutcome, NodeSpec, NodeStatus, OnErrorSpec, ReadyNode,
    RunResult, ScheduleDelta, Scheduler, ScopeSpec,
};
use proptest::prelude::*;

/// Numbers that look random and repeat for the same seed.
struct Dice(u64);

impl Dice {
    fn below(&mut self, limit: u32) -> u32 {
        self.0 =
            self.0.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
        (self.0 >> 33) as u32 % limit
    }
}

/// The nodes of one scope, or of the run itself.
struct Level {
    graph: Arc<KernelGraph>,
    nodes: Vec<NodeSpec>,
    edges: Vec<EdgeSpec>,
    /// Of each node its place in the whole graph.
    places: Vec<u32>,
    bodies: BTreeMap<u32, (Arc<Level>, u32)>,
}

fn level(dice: &mut Dice, depth: u32, next: &mut u32) -> Level {
    let count = 1 + dice.below(5);
    let mut nodes = vec![NodeSpec::default(); count as usize];
    let (mut places, mut bodies, mut edges) = (Vec::new(), BTreeMap::new(), Vec::new());
    for node in 0..count {
        places.push(*next);
        *next += 1;
        if depth > 0 && dice.below(3) == 0 {
            let iterations = 1 + dice.below(3);
            bodies.insert(node, (Arc::new(level(dice, depth - 1, next)), iterations));
        }
        for to in node + 1..count {
            if dice.below(3) == 0 {
                let port = (dice.below(4) == 0).then(|| dice.below(2));
                edges.push(EdgeSpec { from: node, to, port });
            }
        }
        nodes[node as usize].on_error = match dice.below(5) {
            0 | 1 => OnErrorSpec::Skip,
            2 => OnErrorSpec::Ask,
            3 if node + 1 < count => OnErrorSpec::Fallback(node + 1),
            _ => OnErrorSpec::Fail,
        };
    }
    let graph = match KernelGraph::compile_graph(&nodes, &edges) {
        Ok(graph) => graph,
        // A node that waits for its own fallback.
        Err(_) => {
            let falls = |node: &mut NodeSpec| node.on_error = OnErrorSpec::Skip;
            nodes.iter_mut().for_each(falls);
            KernelGraph::compile_graph(&nodes, &edges).expect("edges lead forward")
        }
    };
    Level { graph: Arc::new(graph), nodes, edges, places, bodies }
}

impl Level {
    /// The whole graph in one piece.
    fn flatten(
        &self,
        nodes: &mut Vec<NodeSpec>,
        edges: &mut Vec<EdgeSpec>,
        out: &mut Vec<ScopeSpec>,
    ) {
        let place = |node: u32| self.places[node as usize];
        for (node, spec) in (0_u32..).zip(&self.nodes) {
            let on_error = match spec.on_error {
                OnErrorSpec::Fallback(to) => OnErrorSpec::Fallback(place(to)),
                other => other,
            };
            assert_eq!(nodes.len(), place(node) as usize);
            nodes.push(NodeSpec { join: spec.join, on_error });
            if let Some((body, max_iterations)) = self.bodies.get(&node) {
                body.flatten(nodes, edges, out);
                let body = u32::try_from(nodes.len()).expect("small") - place(node) - 1;
                out.push(ScopeSpec { node: place(node), body, max_iterations: *max_iterations });
            }
        }
        let moved = |edge: &EdgeSpec| EdgeSpec {
            from: place(edge.from),
            to: place(edge.to),
            port: edge.port,
        };
        edges.extend(self.edges.iter().map(moved));
    }
}

/// A scheduler a level; those of bodies live while their iteration does.
struct Nested {
    level: Arc<Level>,
    scheduler: Scheduler,
    bodies: BTreeMap<u32, Nested>,
    iterations: BTreeMap<u32, u32>,
}

/// What happens to a node.
#[derive(Debug, Clone, Copy)]
enum Action {
    End(NodeOutcome),
    Iterate,
    Answer(NodeAnswer),
}

impl Nested {
    fn start(level: &Arc<Level>) -> (Self, ScheduleDelta) {
        let (scheduler, delta) = Scheduler::start(&level.graph).expect("memory");
        let nested = Self {
            level: Arc::clone(level),
            scheduler,
            bodies: BTreeMap::new(),
            iterations: BTreeMap::new(),
        };
        let delta = nested.placed(delta);
        (nested, delta)
    }

    fn place(&self, node: u32) -> u32 {
        self.level.places[node as usize]
    }

    fn placed(&self, delta: ScheduleDelta) -> ScheduleDelta {
        let ready = |ready: ReadyNode| ReadyNode { node: self.place(ready.node), item: ready.item };
        ScheduleDelta {
            ready: delta.ready.into_iter().map(ready).collect(),
            skipped: delta.skipped.into_iter().map(|node| self.place(node)).collect(),
            cancelled: vec![],
            asking: delta.asking.map(|node| self.place(node)),
            result: delta.result,
        }
    }

    /// All nodes in flight, by place, and what can happen to each.
    fn in_flight(&self, found: &mut Vec<(u32, Vec<Action>)>) {
        let done = |choice| Action::End(NodeOutcome::Done { choice });
        let failed = Action::End(NodeOutcome::Failed);
        for node in 0..self.scheduler.compiled_graph().node_count() {
            let body = self.level.bodies.get(&node);
            let iterations = self.iterations.get(&node).copied().unwrap_or(0);
            let actions = match self.scheduler.node_status(node).expect("a node") {
                NodeStatus::Asking => [NodeAnswer::Retry, NodeAnswer::Skip, NodeAnswer::Fail]
                    .map(Action::Answer)
                    .to_vec(),
                NodeStatus::Ready if self.bodies.contains_key(&node) => vec![failed],
                NodeStatus::Ready => match body {
                    Some((_, limit)) if iterations < *limit => {
                        vec![Action::Iterate, Action::Iterate, done(None), failed]
                    }
                    _ => vec![done(None), done(Some(0)), done(Some(1)), failed],
                },
                _ => continue,
            };
            found.push((self.place(node), actions));
            if let Some(body) = self.bodies.get(&node) {
                body.in_flight(found);
            }
        }
    }

    fn act(&mut self, place: u32, action: Action) -> ScheduleDelta {
        if let Some(node) = (0_u32..).zip(&self.level.places).find(|(_, p)| **p == place) {
            return self.act_here(node.0, action);
        }
        let below = self.level.places.iter().rposition(|first| *first < place).expect("a scope");
        let node = u32::try_from(below).expect("small");
        let delta = self.bodies.get_mut(&node).expect("an iteration").act(place, action);
        match delta.result {
            RunResult::Running => ScheduleDelta { result: self.scheduler.run_result(), ..delta },
            RunResult::Succeeded => {
                self.bodies.remove(&node);
                let over =
                    ReadyNode { node: self.place(node), item: Some(self.iterations[&node] - 1) };
                let mut ready = delta.ready;
                ready.push(over);
                ready.sort();
                ScheduleDelta { ready, result: self.scheduler.run_result(), ..delta }
            }
            _ => {
                let mut above = self.act_here(node, Action::End(NodeOutcome::Failed));
                above.cancelled.extend(delta.cancelled);
                above.cancelled.sort_unstable();
                above
            }
        }
    }

    fn act_here(&mut self, node: u32, action: Action) -> ScheduleDelta {
        let mut cancelled = Vec::new();
        let delta = match action {
            Action::End(outcome) => {
                if let Some(body) = self.bodies.remove(&node) {
                    let mut found = Vec::new();
                    body.in_flight(&mut found);
                    cancelled.extend(found.into_iter().map(|(place, _)| place));
                }
                self.scheduler.complete_node(node, outcome).expect("in flight")
            }
            Action::Answer(answer) => {
                self.iterations.remove(&node);
                self.scheduler.answer_node(node, answer).expect("it asks")
            }
            Action::Iterate => {
                *self.iterations.entry(node).or_default() += 1;
                let (body, started) = Self::start(&self.level.bodies[&node].0);
                self.bodies.insert(node, body);
                return ScheduleDelta { result: RunResult::Running, ..started };
            }
        };
        ScheduleDelta { cancelled, ..self.placed(delta) }
    }
}

fn perform(scheduler: &mut Scheduler, node: u32, action: Action) -> ScheduleDelta {
    let delta = match action {
        Action::End(outcome) => scheduler.complete_node(node, outcome),
        Action::Iterate => scheduler.iterate_scope(node),
        Action::Answer(answer) => scheduler.answer_node(node, answer),
    };
    delta.expect("the action fits the node")
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(2000))]

    #[test]
    fn scopes_are_nested_schedulers(seed in any::<u64>()) {
        let mut dice = Dice(seed);
        let top = Arc::new(level(&mut dice, 3, &mut 0));
        let (mut nodes, mut edges, mut scopes) = (Vec::new(), Vec::new(), Vec::new());
        top.flatten(&mut nodes, &mut edges, &mut scopes);
        let graph = KernelGraph::compile_scoped(&nodes, &edges, &scopes);
        let graph = Arc::new(graph.expect("each level compiles"));
        let (mut nested, wanted) = Nested::start(&top);
        let (mut scheduler, started) = Scheduler::start(&graph).expect("memory");
        prop_assert_eq!(started, wanted);
        for _ in 0..200 {
            if scheduler.run_result() != RunResult::Running {
                return Ok(());
            }
            let mut found = Vec::new();
            nested.in_flight(&mut found);
            prop_assert!(!found.is_empty(), "a run that goes on has something in flight");
            if dice.below(50) == 0 {
                let places: Vec<u32> = found.into_iter().map(|(place, _)| place).collect();
                let delta = scheduler.cancel_run().expect("it runs");
                prop_assert_eq!((delta.cancelled, delta.result), (places, RunResult::Cancelled));
                let bytes = scheduler.save().expect("saved");
                prop_assert!(Scheduler::load(&graph, &bytes).is_ok());
                return Ok(());
            }
            let (place, actions) = &found[dice.below(found.len() as u32) as usize];
            let action = actions[dice.below(actions.len() as u32) as usize];
            let wanted = nested.act(*place, action);
            let delta = perform(&mut scheduler, *place, action);
            prop_assert_eq!(delta, wanted, "{} {:?}", place, action);
            let bytes = scheduler.save().expect("saved");
            let loaded = Scheduler::load(&graph, &bytes).expect("what was saved can be loaded");
            prop_assert_eq!(loaded.hash(), scheduler.hash());
            scheduler = loaded;
        }
    }
}
