//! Errors of the kernel, and where in a graph they lie.

use std::fmt;

use crate::bindings as c;

/// Refusal of a call. The refused call has changed nothing. Its text is C's, by `ffi`.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, thiserror::Error)]
#[repr(u32)]
pub enum KernelError {
    /// There is no memory left.
    NoMemory = c::CVG_NO_MEMORY,
    /// A value lies outside its range; `u32::MAX` as port or choice is one.
    BadArgument = c::CVG_BAD_ARGUMENT,
    /// The input exceeds a limit of the kernel.
    TooLarge = c::CVG_TOO_LARGE,
    /// Wrapper and C library were built from different headers.
    AbiMismatch = c::CVG_ABI_MISMATCH,
    /// No node has this index.
    BadNode = c::CVG_BAD_NODE,
    /// An edge names a node that does not exist.
    BadEdge = c::CVG_BAD_EDGE,
    /// The same source, target and port are given twice.
    DuplicateEdge = c::CVG_DUPLICATE_EDGE,
    /// A node waits for itself.
    Cycle = c::CVG_CYCLE,
    /// A join asks for more in-edges than the node has.
    BadJoin = c::CVG_BAD_JOIN,
    /// The fallback does not exist or is the node itself.
    BadFallback = c::CVG_BAD_FALLBACK,
    /// The node is not in flight.
    NotReady = c::CVG_NOT_READY,
    /// The node has no items.
    NotExpanded = c::CVG_NOT_EXPANDED,
    /// The node has items, which complete it.
    AlreadyExpanded = c::CVG_ALREADY_EXPANDED,
    /// The item is not in flight.
    ItemNotReady = c::CVG_ITEM_NOT_READY,
    /// The run has failed and starts nothing more.
    RunEnded = c::CVG_RUN_ENDED,
    /// The states given cannot come from a run of the graph.
    BadState = c::CVG_BAD_STATE,
    /// A body leaves its scope, an edge crosses one, or the node has no body.
    BadScope = c::CVG_BAD_SCOPE,
    /// The scope has had all its iterations.
    IterationLimit = c::CVG_ITERATION_LIMIT,
    /// The node asks nothing.
    NotAsking = c::CVG_NOT_ASKING,
    /// The answer does not fit into the room given.
    BufferTooSmall = c::CVG_BUFFER_TOO_SMALL,
    /// The bytes are damaged, or of another format, version or graph.
    BadBytes = c::CVG_BAD_BYTES,
    /// The text is not JSON within the reader's limits.
    BadJson = c::CVG_BAD_JSON,
    /// The schema is not of the subset that can be compiled.
    BadSchema = c::CVG_BAD_SCHEMA,
    /// The arguments break the schema.
    Mismatch = c::CVG_MISMATCH,
    /// The permissions do not cover the call.
    Denied = c::CVG_DENIED,
    /// No built-in tool has this name.
    UnknownTool = c::CVG_UNKNOWN_TOOL,
    /// The tool has no answer for these arguments.
    ToolFailed = c::CVG_TOOL_FAILED,
}

impl KernelError {
    /// Maps a status: `Ok` for `CVG_OK`. A status that this wrapper does not know means another
    /// header.
    pub(crate) fn check(status: c::cvg_status) -> Result<(), Self> {
        Err(match status {
            c::CVG_OK => return Ok(()),
            c::CVG_NO_MEMORY => Self::NoMemory,
            c::CVG_BAD_ARGUMENT => Self::BadArgument,
            c::CVG_TOO_LARGE => Self::TooLarge,
            c::CVG_BAD_NODE => Self::BadNode,
            c::CVG_BAD_EDGE => Self::BadEdge,
            c::CVG_DUPLICATE_EDGE => Self::DuplicateEdge,
            c::CVG_CYCLE => Self::Cycle,
            c::CVG_BAD_JOIN => Self::BadJoin,
            c::CVG_BAD_FALLBACK => Self::BadFallback,
            c::CVG_NOT_READY => Self::NotReady,
            c::CVG_NOT_EXPANDED => Self::NotExpanded,
            c::CVG_ALREADY_EXPANDED => Self::AlreadyExpanded,
            c::CVG_ITEM_NOT_READY => Self::ItemNotReady,
            c::CVG_RUN_ENDED => Self::RunEnded,
            c::CVG_BAD_STATE => Self::BadState,
            c::CVG_BAD_SCOPE => Self::BadScope,
            c::CVG_ITERATION_LIMIT => Self::IterationLimit,
            c::CVG_NOT_ASKING => Self::NotAsking,
            c::CVG_BUFFER_TOO_SMALL => Self::BufferTooSmall,
            c::CVG_BAD_BYTES => Self::BadBytes,
            c::CVG_BAD_JSON => Self::BadJson,
            c::CVG_BAD_SCHEMA => Self::BadSchema,
            c::CVG_MISMATCH => Self::Mismatch,
            c::CVG_DENIED => Self::Denied,
            c::CVG_UNKNOWN_TOOL => Self::UnknownTool,
            c::CVG_TOOL_FAILED => Self::ToolFailed,
            _ => Self::AbiMismatch,
        })
    }
}

/// Error of a graph that does not compile or of states that do not restore.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub struct CompileError {
    /// Kind of the error.
    pub kind: KernelError,
    /// Index of the node at fault, if it is one.
    pub node: Option<u32>,
    /// Index of the edge at fault, if it is one.
    pub edge: Option<u32>,
}

impl CompileError {
    /// Creates an error in the node with this index.
    pub(crate) fn at_node(kind: KernelError, node: u32) -> Self {
        Self { kind, node: Some(node), edge: None }
    }

    /// Creates an error in the edge with this index.
    pub(crate) fn at_edge(kind: KernelError, edge: u32) -> Self {
        Self { kind, node: None, edge: Some(edge) }
    }
}

impl fmt::Display for CompileError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match (self.node, self.edge) {
            (Some(node), _) => write!(f, "node {node}: {}", self.kind),
            (None, Some(edge)) => write!(f, "edge {edge}: {}", self.kind),
            (None, None) => self.kind.fmt(f),
        }
    }
}

impl From<KernelError> for CompileError {
    fn from(kind: KernelError) -> Self {
        Self { kind, node: None, edge: None }
    }
}

/// Value of a fault before the kernel has written one.
pub(crate) const NO_FAULT: c::cvg_fault = c::cvg_fault { node: c::CVG_NONE, edge: c::CVG_NONE };

/// Maps a status and its fault: `Ok` for `CVG_OK`.
pub(crate) fn check_at(status: c::cvg_status, fault: c::cvg_fault) -> Result<(), CompileError> {
    let index = |value: u32| (value != c::CVG_NONE).then_some(value);
    KernelError::check(status).map_err(|kind| CompileError {
        kind,
        node: index(fault.node),
        edge: index(fault.edge),
    })
}
