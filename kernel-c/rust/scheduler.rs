//! The scheduler: which nodes and items of a run start next.

use std::sync::Arc;

use crate::bindings as c;
use crate::error::{CompileError, KernelError};
use crate::ffi::{RawDelta, RawSched};
use crate::graph::KernelGraph;
use crate::node_state::{
    NodeAnswer, NodeOutcome, NodeState, NodeStatus, RawNodeState, RunResult, ScheduleDelta,
    raw_outcome, raw_state,
};

/// The scheduling state of one run. A refused call leaves it as it was.
///
/// Cloning copies the state and shares the graph; like any clone in Rust it aborts the process when
/// memory runs out.
#[derive(Debug, Clone)]
pub struct Scheduler {
    // Dropped before the graph, which it refers to.
    raw: RawSched,
    delta: RawDelta,
    graph: Arc<KernelGraph>,
}

impl Scheduler {
    /// Starts a run; the delta holds the nodes without in-edges.
    ///
    /// # Errors
    /// [`KernelError::NoMemory`].
    pub fn start(graph: &Arc<KernelGraph>) -> Result<(Self, ScheduleDelta), KernelError> {
        let mut delta = RawDelta::new()?;
        let raw = RawSched::start(graph.raw_graph(), &mut delta)?;
        Ok(Self::with_first_delta(raw, delta, graph))
    }

    /// Rebuilds the scheduler of a run from the state of each node, by index. From there on it
    /// answers as one that has lived through the run.
    ///
    /// The delta holds what the states imply but do not say; normally nothing.
    ///
    /// # Errors
    /// [`KernelError::BadState`] with the node if no run of this graph leads to these states,
    /// [`KernelError::BadArgument`] if their number is not that of the nodes.
    pub fn restore_run(
        graph: &Arc<KernelGraph>,
        states: &[NodeState],
    ) -> Result<(Self, ScheduleDelta), CompileError> {
        let states: Vec<RawNodeState<'_>> = (0u32..)
            .zip(states)
            .map(|(node, state)| raw_state(state).map_err(|kind| CompileError::at_node(kind, node)))
            .collect::<Result<_, _>>()?;
        let mut delta = RawDelta::new()?;
        let raw = RawSched::restore(graph.raw_graph(), &states, &mut delta)?;
        Ok(Self::with_first_delta(raw, delta, graph))
    }

    fn with_first_delta(
        raw: RawSched,
        delta: RawDelta,
        graph: &Arc<KernelGraph>,
    ) -> (Self, ScheduleDelta) {
        let first = delta.read();
        (Self { raw, delta, graph: Arc::clone(graph) }, first)
    }

    /// Records how a node in flight ended. An expanded map can fail as a whole, but is done only by
    /// its items. Once the run has failed, outcomes are recorded and start nothing.
    ///
    /// # Errors
    /// `BadNode`, `NotReady`, `AlreadyExpanded`, `BadArgument` (choice), `NoMemory`.
    pub fn complete_node(
        &mut self,
        node: u32,
        outcome: NodeOutcome,
    ) -> Result<ScheduleDelta, KernelError> {
        self.raw.complete(node, raw_outcome(outcome)?, &mut self.delta)?;
        Ok(self.delta.read())
    }

    /// Turns a node in flight into a map of `width` items, at most `max_parallel` (> 0) of them in
    /// flight at once. The delta holds the first items; width 0 completes the node.
    ///
    /// # Errors
    /// `BadNode`, `NotReady`, `AlreadyExpanded`, `RunEnded`, `BadArgument`, `TooLarge`, `NoMemory`.
    pub fn expand_node(
        &mut self,
        node: u32,
        width: u32,
        max_parallel: u32,
    ) -> Result<ScheduleDelta, KernelError> {
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
        outcome: NodeOutcome,
    ) -> Result<ScheduleDelta, KernelError> {
        self.raw.complete_item(node, item, raw_outcome(outcome)?, &mut self.delta)?;
        Ok(self.delta.read())
    }

    /// Starts an idle scope's body afresh; the delta holds its first members. When all members are
    /// resolved, a delta names the scope with the iteration that is over.
    ///
    /// # Errors
    /// `BadNode`, `NotReady`, `BadScope`, `AlreadyExpanded`, `IterationLimit`, `RunEnded`,
    /// `NoMemory`.
    pub fn iterate_scope(&mut self, node: u32) -> Result<ScheduleDelta, KernelError> {
        self.raw.iterate(node, &mut self.delta)?;
        Ok(self.delta.read())
    }

    /// Decides about a node that asks.
    ///
    /// # Errors
    /// `BadNode`, `NotAsking`, `RunEnded`, `NoMemory`.
    pub fn answer_node(
        &mut self,
        node: u32,
        answer: NodeAnswer,
    ) -> Result<ScheduleDelta, KernelError> {
        self.raw.answer(node, answer as u32, &mut self.delta)?;
        Ok(self.delta.read())
    }

    /// Cancels a run in progress; the delta holds what is to be stopped.
    ///
    /// # Errors
    /// `RunEnded`, `NoMemory`.
    pub fn cancel_run(&mut self) -> Result<ScheduleDelta, KernelError> {
        self.raw.cancel(&mut self.delta)?;
        Ok(self.delta.read())
    }

    /// Serialises the state for [`Scheduler::load`]: equal states have equal bytes.
    ///
    /// # Errors
    /// None but those of a broken kernel.
    pub fn save(&self) -> Result<Vec<u8>, KernelError> {
        self.raw.save()
    }

    /// Restores what [`Scheduler::save`] wrote for the same graph.
    ///
    /// # Errors
    /// [`KernelError::BadBytes`] for anything else, [`KernelError::BadState`] if no run of this
    /// graph leads to the state, `NoMemory`.
    pub fn load(graph: &Arc<KernelGraph>, bytes: &[u8]) -> Result<Self, CompileError> {
        let mut delta = RawDelta::new()?;
        let raw = RawSched::load(graph.raw_graph(), bytes, &mut delta)?;
        Ok(Self { raw, delta, graph: Arc::clone(graph) })
    }

    /// Hash of the state and its graph: equal for equal states, on every machine.
    #[must_use]
    pub fn hash(&self) -> u64 {
        self.raw.hash()
    }

    /// Returns the status of a node.
    ///
    /// # Errors
    /// [`KernelError::BadNode`].
    pub fn node_status(&self, node: u32) -> Result<NodeStatus, KernelError> {
        Ok(match self.raw.node_status(node)? {
            c::CVG_NODE_PENDING => NodeStatus::Pending,
            c::CVG_NODE_READY => NodeStatus::Ready,
            c::CVG_NODE_DONE => NodeStatus::Done,
            c::CVG_NODE_FAILED => NodeStatus::Failed,
            c::CVG_NODE_SKIPPED => NodeStatus::Skipped,
            c::CVG_NODE_ASKING => NodeStatus::Asking,
            // `CVG_NODE_CANCELLED`: values of another header are ruled out by `check_abi`.
            _ => NodeStatus::Cancelled,
        })
    }

    /// Status of the run as a whole.
    #[must_use]
    pub fn run_result(&self) -> RunResult {
        RunResult::from_raw(self.raw.result())
    }

    /// The graph that this scheduler runs.
    #[must_use]
    pub fn compiled_graph(&self) -> &Arc<KernelGraph> {
        &self.graph
    }
}
