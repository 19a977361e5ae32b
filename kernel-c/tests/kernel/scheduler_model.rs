//! The scheduler's rules, written as plainly as possible: after each step everything is derived
//! again from the states of all nodes.

use convergio_kernel_c::{
    EdgeSpec, ItemState, NodeSpec, NodeState, OnErrorSpec, ReadyNode, RunResult, ScheduleDelta,
};

/// Something that happens to a run.
#[derive(Debug, Clone, Copy)]
pub(crate) enum Action {
    Done { node: u32, choice: Option<u32> },
    Failed { node: u32 },
    Expand { node: u32, width: u32, max_parallel: u32 },
    ItemDone { node: u32, item: u32 },
    ItemFailed { node: u32, item: u32 },
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Fate {
    Unresolved,
    Live,
    Dead,
}

/// A run: a graph, and the state of each node as a log would have it.
#[derive(Debug, Clone)]
pub(crate) struct Model {
    nodes: Vec<NodeSpec>,
    edges: Vec<EdgeSpec>,
    pub(crate) states: Vec<NodeState>,
}

impl Model {
    pub(crate) fn new(nodes: &[NodeSpec], edges: &[EdgeSpec]) -> Self {
        let states = vec![NodeState::Pending; nodes.len()];
        Self { nodes: nodes.to_vec(), edges: edges.to_vec(), states }
    }

    /// Writes down what happened, and nothing that follows from it.
    pub(crate) fn record(&mut self, action: Action) {
        match action {
            Action::Done { node, choice } => self.set(node, NodeState::Done { choice }),
            Action::Failed { node } | Action::ItemFailed { node, .. } => {
                self.set(node, NodeState::Failed);
            }
            Action::Expand { node, width, max_parallel } => {
                let items = vec![ItemState::Waiting; width as usize];
                self.set(node, NodeState::Map { max_parallel, items });
            }
            Action::ItemDone { node, item } => {
                if let NodeState::Map { items, .. } = &mut self.states[node as usize] {
                    items[item as usize] = ItemState::Done;
                }
            }
        }
    }

    /// Derives all that follows, and says what changed.
    pub(crate) fn advance(&mut self) -> ScheduleDelta {
        let (mut ready, mut skipped) = (Vec::new(), Vec::new());
        self.advance_maps(&mut ready);
        while let Some((node, state)) = self.next_decided() {
            match state {
                NodeState::Ready => ready.push(ReadyNode { node, item: None }),
                _ => skipped.push(node),
            }
            self.set(node, state);
        }
        ready.sort();
        skipped.sort_unstable();
        ScheduleDelta { ready, skipped, cancelled: vec![], asking: None, result: self.result() }
    }

    /// All that is in flight.
    pub(crate) fn in_flight(&self) -> Vec<ReadyNode> {
        let mut units = Vec::new();
        for (node, state) in (0u32..).zip(&self.states) {
            match state {
                NodeState::Ready => units.push(ReadyNode { node, item: None }),
                NodeState::Map { items, .. } => {
                    let started = (0u32..).zip(items).filter(|(_, s)| **s == ItemState::Ready);
                    units.extend(started.map(|(item, _)| ReadyNode { node, item: Some(item) }));
                }
                _ => {}
            }
        }
        units
    }

    pub(crate) fn result(&self) -> RunResult {
        let open = |state: &NodeState| {
            matches!(state, NodeState::Pending | NodeState::Ready | NodeState::Map { .. })
        };
        if self.has_failed() {
            RunResult::Failed
        } else if self.states.iter().any(open) {
            RunResult::Running
        } else {
            RunResult::Succeeded
        }
    }

    pub(crate) fn has_failed(&self) -> bool {
        let fatal = |(state, spec): (&NodeState, &NodeSpec)| {
            *state == NodeState::Failed && spec.on_error == OnErrorSpec::Fail
        };
        self.states.iter().zip(&self.nodes).any(fatal)
    }

    fn set(&mut self, node: u32, state: NodeState) {
        self.states[node as usize] = state;
    }

    fn advance_maps(&mut self, ready: &mut Vec<ReadyNode>) {
        let failed = self.has_failed();
        for (node, state) in (0u32..).zip(&mut self.states) {
            let NodeState::Map { max_parallel, items } = state else { continue };
            let count =
                |items: &[ItemState], wanted| items.iter().filter(|s| **s == wanted).count();
            while !failed && count(items, ItemState::Ready) < *max_parallel as usize {
                let Some(item) = items.iter().position(|s| *s == ItemState::Waiting) else { break };
                items[item] = ItemState::Ready;
                let item = u32::try_from(item).expect("maps are small");
                ready.push(ReadyNode { node, item: Some(item) });
            }
            if count(items, ItemState::Done) == items.len() {
                *state = NodeState::Done { choice: None };
            }
        }
    }

    /// A pending node whose in-edges decide over it.
    fn next_decided(&self) -> Option<(u32, NodeState)> {
        if self.has_failed() {
            return None;
        }
        let pending = |node: &u32| self.states[*node as usize] == NodeState::Pending;
        let nodes = 0..u32::try_from(self.nodes.len()).expect("graphs are small");
        nodes.filter(pending).find_map(|node| Some((node, self.decided(node)?)))
    }

    fn decided(&self, node: u32) -> Option<NodeState> {
        let fates = self.in_edges(node);
        let count = |wanted| fates.iter().filter(|fate| **fate == wanted).count();
        let need = match self.nodes[node as usize].join {
            0 => fates.len(),
            join => join as usize,
        };
        if count(Fate::Live) >= need {
            Some(NodeState::Ready)
        } else if count(Fate::Live) + count(Fate::Unresolved) < need {
            Some(NodeState::Skipped)
        } else {
            None
        }
    }

    fn in_edges(&self, node: u32) -> Vec<Fate> {
        let edges = self.edges.iter().filter(|edge| edge.to == node).map(|edge| self.fate(edge));
        let owners = (0usize..)
            .zip(&self.nodes)
            .filter(|(_, spec)| spec.on_error == OnErrorSpec::Fallback(node))
            .map(|(owner, _)| self.fate_to_fallback(owner));
        edges.chain(owners).collect()
    }

    fn fate(&self, edge: &EdgeSpec) -> Fate {
        if let NodeState::Done { choice } = self.states[edge.from as usize] {
            let open = edge.port.is_none() || edge.port == choice;
            return if open { Fate::Live } else { Fate::Dead };
        }
        match self.delivery(edge.from) {
            Fate::Live if edge.port.is_some() => Fate::Dead,
            fate => fate,
        }
    }

    fn fate_to_fallback(&self, owner: usize) -> Fate {
        match self.states[owner] {
            NodeState::Failed => Fate::Live,
            NodeState::Done { .. } | NodeState::Skipped => Fate::Dead,
            _ => Fate::Unresolved,
        }
    }

    /// Whether a node, or what stands in for it, has delivered.
    fn delivery(&self, node: u32) -> Fate {
        match self.states[node as usize] {
            NodeState::Done { .. } => Fate::Live,
            NodeState::Skipped => Fate::Dead,
            NodeState::Failed => match self.nodes[node as usize].on_error {
                OnErrorSpec::Fail | OnErrorSpec::Ask => Fate::Unresolved,
                OnErrorSpec::Skip => Fate::Dead,
                OnErrorSpec::Fallback(fallback) => self.delivery(fallback),
            },
            _ => Fate::Unresolved,
        }
    }
}
