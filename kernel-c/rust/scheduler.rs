//! The scheduler: which nodes and items of a run start next.

use std::sync::Arc;

use crate::bindings as c;
use crate::error::{CompileError, KernelError};
use crate::ffi::{RawDelta, RawSched};
use crate::graph::{Graph, port};

/// How a node or an item ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Outcome {
    /// It is done.
    Done {
        /// The port taken, if the node chose one; means nothing for an item.
        choice: Option<u32>,
    },
    /// It failed, with no try left.
    Failed,
}

/// Where a node stands.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum NodeStatus {
    /// It waits for its in-edges.
    Pending,
    /// It was told to start and has not ended.
    Ready,
    /// It is done.
    Done,
    /// It failed.
    Failed,
    /// It can no longer become ready.
    Skipped,
}

/// Where an item of a map stands.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[repr(u8)]
pub enum ItemState {
    /// It was not told to start.
    Waiting = c::CVG_ITEM_WAITING as u8,
    /// It was told to start and has not ended.
    Ready = c::CVG_ITEM_READY as u8,
    /// It is done.
    Done = c::CVG_ITEM_DONE as u8,
}

/// A node as the log knows it, to restore a scheduler from.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum NodeState {
    /// The log does not speak of it.
    Pending,
    /// It was scheduled or started.
    Ready,
    /// It was expanded into items and is in flight.
    Map {
        /// How many items may be in flight at once; at least 1.
        max_parallel: u32,
        /// Every item, by index. Those that wait come last, since items start in order.
        items: Vec<ItemState>,
    },
    /// It is done.
    Done {
        /// The port taken, if it chose one.
        choice: Option<u32>,
    },
    /// It failed.
    Failed,
    /// It was skipped.
    Skipped,
}

/// How the run as a whole stands.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum RunResult {
    /// Something is in flight.
    Running,
    /// Every node is done, skipped, or failed where a failure is allowed.
    Succeeded,
    /// A node failed and nothing catches that. Others may still be in flight.
    Failed,
}

/// Something to be started now.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub struct Ready {
    /// Index of the node.
    pub node: u32,
    /// Index of the item if the node is a map; `None` for the node itself.
    pub item: Option<u32>,
}

/// What one call changed.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Delta {
    /// To be started now, ascending by node, then item.
    pub ready: Vec<Ready>,
    /// Nodes that will never start, ascending.
    pub skipped: Vec<u32>,
    /// How the run stands after the call.
    pub result: RunResult,
}

/// Where one run of a graph stands. A refused call leaves it as it was.
///
/// Cloning copies the state and shares the graph; like any clone in Rust it ends the process when
/// memory runs out.
#[derive(Debug, Clone)]
pub struct Scheduler {
    // Dropped before the graph, which it refers to.
    raw: RawSched,
    delta: RawDelta,
    graph: Arc<Graph>,
}

impl Scheduler {
    /// Starts a run; the delta holds the nodes without in-edges.
    ///
    /// # Errors
    /// [`KernelError::NoMemory`].
    pub fn start(graph: &Arc<Graph>) -> Result<(Self, Delta), KernelError> {
        let mut delta = RawDelta::new()?;
        let raw = RawSched::start(graph.raw(), &mut delta)?;
        Ok(Self::begin(raw, delta, graph))
    }

    /// Rebuilds the scheduler of a run from the state of each node, by index. From there on it
    /// answers as one that has lived through the run.
    ///
    /// The delta holds what the states imply but do not say; normally nothing.
    ///
    /// # Errors
    /// [`KernelError::BadState`] with the node if no run of this graph leads to these states,
    /// [`KernelError::BadArgument`] if their number is not that of the nodes.
    pub fn restore(
        graph: &Arc<Graph>,
        states: &[NodeState],
    ) -> Result<(Self, Delta), CompileError> {
        let states: Vec<RawState<'_>> = (0u32..)
            .zip(states)
            .map(|(node, state)| raw_state(state).map_err(|kind| at_node(kind, node)))
            .collect::<Result<_, _>>()?;
        let mut delta = RawDelta::new()?;
        let raw = RawSched::restore(graph.raw(), &states, &mut delta)?;
        Ok(Self::begin(raw, delta, graph))
    }

    fn begin(raw: RawSched, delta: RawDelta, graph: &Arc<Graph>) -> (Self, Delta) {
        let first = delta.read();
        (Self { raw, delta, graph: Arc::clone(graph) }, first)
    }

    /// Records how a node in flight ended. An expanded map can fail as a whole, but is done only
    /// by its items. Once the run has failed, outcomes are recorded and start nothing.
    ///
    /// # Errors
    /// `BadNode`, `NotReady`, `AlreadyExpanded`, `BadArgument` (choice), `NoMemory`.
    pub fn complete(&mut self, node: u32, outcome: Outcome) -> Result<Delta, KernelError> {
        self.raw.complete(node, raw_outcome(outcome)?, &mut self.delta)?;
        Ok(self.delta.read())
    }

    /// Turns a node in flight into a map of `width` items, at most `max_parallel` (> 0) of them in
    /// flight at once. The delta holds the first items; width 0 completes the node.
    ///
    /// # Errors
    /// `BadNode`, `NotReady`, `AlreadyExpanded`, `RunEnded`, `BadArgument`, `TooLarge`, `NoMemory`.
    pub fn expand(
        &mut self,
        node: u32,
        width: u32,
        max_parallel: u32,
    ) -> Result<Delta, KernelError> {
        self.raw.expand(node, width, max_parallel, &mut self.delta)?;
        Ok(self.delta.read())
    }

    /// Records how an item in flight ended. A done item lets the next one start, the last one
    /// completes the node; a failed item fails the node, and its siblings no longer count.
    ///
    /// # Errors
    /// `BadNode`, `NotReady`, `NotExpanded`, `ItemNotReady`, `BadArgument` (choice), `NoMemory`.
    pub fn complete_item(
        &mut self,
        node: u32,
        item: u32,
        outcome: Outcome,
    ) -> Result<Delta, KernelError> {
        self.raw.complete_item(node, item, raw_outcome(outcome)?, &mut self.delta)?;
        Ok(self.delta.read())
    }

    /// Where a node stands.
    ///
    /// # Errors
    /// [`KernelError::BadNode`].
    pub fn status(&self, node: u32) -> Result<NodeStatus, KernelError> {
        Ok(match self.raw.node_status(node)? {
            c::CVG_NODE_PENDING => NodeStatus::Pending,
            c::CVG_NODE_READY => NodeStatus::Ready,
            c::CVG_NODE_DONE => NodeStatus::Done,
            c::CVG_NODE_FAILED => NodeStatus::Failed,
            _ => NodeStatus::Skipped,
        })
    }

    /// How the run stands.
    #[must_use]
    pub fn result(&self) -> RunResult {
        RunResult::from_raw(self.raw.result())
    }

    /// The graph that is run.
    #[must_use]
    pub fn graph(&self) -> &Arc<Graph> {
        &self.graph
    }
}

impl RunResult {
    pub(crate) fn from_raw(result: u32) -> Self {
        match result {
            c::CVG_RUN_RUNNING => Self::Running,
            c::CVG_RUN_SUCCEEDED => Self::Succeeded,
            _ => Self::Failed,
        }
    }
}

impl Ready {
    pub(crate) fn from_raw(ready: &c::cvg_ready) -> Self {
        let item = (ready.item != c::CVG_NONE).then_some(ready.item);
        Self { node: ready.node, item }
    }
}

/// A node's state as C knows it, but for the pointer to the items.
pub(crate) struct RawState<'a> {
    pub(crate) status: c::cvg_node_status,
    pub(crate) choice: u32,
    pub(crate) max_parallel: u32,
    pub(crate) items: &'a [ItemState],
}

fn raw_state(state: &NodeState) -> Result<RawState<'_>, KernelError> {
    let plain = |status| RawState { status, choice: c::CVG_NONE, max_parallel: 0, items: &[] };
    Ok(match state {
        NodeState::Pending => plain(c::CVG_NODE_PENDING),
        NodeState::Ready => plain(c::CVG_NODE_READY),
        NodeState::Done { choice } => {
            RawState { choice: port(*choice)?, ..plain(c::CVG_NODE_DONE) }
        }
        NodeState::Failed => plain(c::CVG_NODE_FAILED),
        NodeState::Skipped => plain(c::CVG_NODE_SKIPPED),
        // In C, 0 means "not a map".
        NodeState::Map { max_parallel: 0, .. } => return Err(KernelError::BadArgument),
        NodeState::Map { max_parallel, items } => {
            RawState { max_parallel: *max_parallel, items, ..plain(c::CVG_NODE_READY) }
        }
    })
}

fn raw_outcome(outcome: Outcome) -> Result<c::cvg_outcome, KernelError> {
    Ok(match outcome {
        Outcome::Done { choice } => {
            c::cvg_outcome { kind: c::CVG_OUTCOME_DONE, choice: port(choice)? }
        }
        Outcome::Failed => c::cvg_outcome { kind: c::CVG_OUTCOME_FAILED, choice: c::CVG_NONE },
    })
}

fn at_node(kind: KernelError, node: u32) -> CompileError {
    CompileError { kind, node: Some(node), edge: None }
}
