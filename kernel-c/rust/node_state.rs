//! Values that a scheduler takes and gives: states and ends of nodes, and what a call changed; with
//! their forms in C.

use crate::bindings as c;
use crate::error::KernelError;

/// End of a node or of an item of a map.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum NodeOutcome {
    /// It succeeded.
    Done {
        /// Port taken, if the node chose one; ignored for an item.
        choice: Option<u32>,
    },
    /// It failed, with no retry left.
    Failed,
}

/// Status of a node.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum NodeStatus {
    /// Waits for its in-edges.
    Pending,
    /// Was started and has not ended.
    Ready,
    /// Ended with success.
    Done,
    /// Ended with a failure.
    Failed,
    /// Can no longer become ready, or was skipped by an answer.
    Skipped,
    /// Failed and asks for a decision; it counts as in flight.
    Asking,
    /// Was in flight when its scope failed or the run was cancelled.
    Cancelled,
}

/// Decision about a node that asks.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[repr(u32)]
pub enum NodeAnswer {
    /// The node is in flight again; a scope starts over.
    Retry = c::CVG_ANSWER_RETRY,
    /// The run goes on without the node and what depends on it.
    Skip = c::CVG_ANSWER_SKIP,
    /// The node has failed for good.
    Fail = c::CVG_ANSWER_FAIL,
}

/// Status of an item of a map.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[repr(u8)]
pub enum ItemState {
    /// It was not started.
    Waiting = c::CVG_ITEM_WAITING as u8,
    /// It was started and has not ended.
    Ready = c::CVG_ITEM_READY as u8,
    /// It ended with success.
    Done = c::CVG_ITEM_DONE as u8,
}

/// State of a node as the log has it, from which a scheduler is restored.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum NodeState {
    /// The log has no event of it.
    Pending,
    /// It was scheduled or started.
    Ready,
    /// It was expanded into items and is in flight.
    Map {
        /// Most items in flight at once; at least 1.
        max_parallel: u32,
        /// Every item, by index. Those that wait come last, since items start in order.
        items: Vec<ItemState>,
    },
    /// It ended with success.
    Done {
        /// Port taken, if it chose one.
        choice: Option<u32>,
    },
    /// It ended with a failure.
    Failed,
    /// It was skipped by the scheduler or an answer.
    Skipped,
    /// It failed and asks for a decision.
    Asking,
    /// It was cancelled in flight.
    Cancelled,
    /// It is a scope that has begun iterations.
    Scope {
        /// Status of the scope's node.
        status: NodeStatus,
        /// Port taken, if it is done and chose one.
        choice: Option<u32>,
        /// Number of iterations begun.
        iterations: u32,
        /// True if it is in flight and its last iteration is not over.
        iterating: bool,
    },
}

/// Status of the run as a whole.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum RunResult {
    /// Something is in flight.
    Running,
    /// Every node is done, skipped, or failed where a failure is allowed.
    Succeeded,
    /// A node failed and nothing catches that. Others may still be in flight.
    Failed,
    /// It was cancelled by [`crate::Scheduler::cancel_run`].
    Cancelled,
}

/// A node or item to be started now.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub struct ReadyNode {
    /// Index of the node.
    pub node: u32,
    /// Index of the item if the node is a map; the iteration that is over if it is a scope; `None`
    /// for the node itself.
    pub item: Option<u32>,
}

/// Changes made by one call.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ScheduleDelta {
    /// Nodes and items to be started now, ascending by node, then item.
    pub ready: Vec<ReadyNode>,
    /// Nodes that will never start, ascending.
    pub skipped: Vec<u32>,
    /// Nodes that were in flight and are to be stopped, ascending.
    pub cancelled: Vec<u32>,
    /// Node that has failed and asks for a decision.
    pub asking: Option<u32>,
    /// Status of the run after the call.
    pub result: RunResult,
}

impl RunResult {
    pub(crate) fn from_raw(result: u32) -> Self {
        match result {
            c::CVG_RUN_RUNNING => Self::Running,
            c::CVG_RUN_SUCCEEDED => Self::Succeeded,
            c::CVG_RUN_CANCELLED => Self::Cancelled,
            _ => Self::Failed,
        }
    }
}

impl ReadyNode {
    pub(crate) fn from_raw(ready: &c::cvg_ready) -> Self {
        let item = (ready.item != c::CVG_NONE).then_some(ready.item);
        Self { node: ready.node, item }
    }
}

/// State of a node in C's terms, without the pointer to the items.
pub(crate) struct RawNodeState<'a> {
    pub(crate) status: c::cvg_node_status,
    pub(crate) choice: u32,
    pub(crate) max_parallel: u32,
    pub(crate) iterations: u32,
    pub(crate) iterating: bool,
    pub(crate) items: &'a [ItemState],
}

impl RawNodeState<'_> {
    /// Converts to C. The result points to the items, and is valid as long as they are.
    pub(crate) fn to_raw(&self) -> Result<c::cvg_node_state, KernelError> {
        Ok(c::cvg_node_state {
            status: self.status,
            choice: self.choice,
            max_parallel: self.max_parallel,
            iterations: self.iterations,
            iterating: u32::from(self.iterating),
            width: u32::try_from(self.items.len()).map_err(|_| KernelError::TooLarge)?,
            // ItemState is a u8 in memory.
            items: self.items.as_ptr().cast(),
        })
    }
}

impl NodeStatus {
    fn to_raw(self) -> c::cvg_node_status {
        match self {
            Self::Pending => c::CVG_NODE_PENDING,
            Self::Ready => c::CVG_NODE_READY,
            Self::Done => c::CVG_NODE_DONE,
            Self::Failed => c::CVG_NODE_FAILED,
            Self::Skipped => c::CVG_NODE_SKIPPED,
            Self::Asking => c::CVG_NODE_ASKING,
            Self::Cancelled => c::CVG_NODE_CANCELLED,
        }
    }
}

pub(crate) fn raw_state(state: &NodeState) -> Result<RawNodeState<'_>, KernelError> {
    let plain = |status: NodeStatus| RawNodeState {
        status: status.to_raw(),
        choice: c::CVG_NONE,
        max_parallel: 0,
        iterations: 0,
        iterating: false,
        items: &[],
    };
    Ok(match state {
        NodeState::Pending => plain(NodeStatus::Pending),
        NodeState::Ready => plain(NodeStatus::Ready),
        NodeState::Done { choice } => {
            RawNodeState { choice: port_to_raw(*choice)?, ..plain(NodeStatus::Done) }
        }
        NodeState::Failed => plain(NodeStatus::Failed),
        NodeState::Skipped => plain(NodeStatus::Skipped),
        NodeState::Asking => plain(NodeStatus::Asking),
        NodeState::Cancelled => plain(NodeStatus::Cancelled),
        NodeState::Scope { status, choice, iterations, iterating } => RawNodeState {
            choice: port_to_raw(*choice)?,
            iterations: *iterations,
            iterating: *iterating,
            ..plain(*status)
        },
        // In C, 0 means "not a map".
        NodeState::Map { max_parallel: 0, .. } => return Err(KernelError::BadArgument),
        NodeState::Map { max_parallel, items } => {
            RawNodeState { max_parallel: *max_parallel, items, ..plain(NodeStatus::Ready) }
        }
    })
}

pub(crate) fn raw_outcome(outcome: NodeOutcome) -> Result<c::cvg_outcome, KernelError> {
    Ok(match outcome {
        NodeOutcome::Done { choice } => {
            c::cvg_outcome { kind: c::CVG_OUTCOME_DONE, choice: port_to_raw(choice)? }
        }
        NodeOutcome::Failed => c::cvg_outcome { kind: c::CVG_OUTCOME_FAILED, choice: c::CVG_NONE },
    })
}

/// Converts a port or choice to C. `u32::MAX` is refused: in C it means "always" and "none".
pub(crate) fn port_to_raw(port: Option<u32>) -> Result<u32, KernelError> {
    match port {
        Some(c::CVG_NONE) => Err(KernelError::BadArgument),
        Some(port) => Ok(port),
        None => Ok(c::CVG_NONE),
    }
}
