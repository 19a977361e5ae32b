//! Graphs: nodes, the edges between them, and the compiled form that schedulers share.

use crate::bindings as c;
use crate::error::{CompileError, KernelError};
use crate::ffi::RawGraph;
use crate::node_state::port_to_raw;

/// Effect of a node's failure on the run.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum OnErrorSpec {
    /// The run fails; nothing more becomes ready.
    #[default]
    Fail,
    /// The node counts as skipped, and the run goes on.
    Skip,
    /// The node with this index runs instead. It has one more in-edge for that, live on failure.
    Fallback(u32),
    /// The node asks for a decision; the rest of the run goes on meanwhile.
    Ask,
}

/// A node; its index is its position in the slice given to [`KernelGraph::compile_graph`].
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct NodeSpec {
    /// Number of in-edges that must be live, those from nodes it is the fallback of included; 0
    /// means all.
    pub join: u32,
    /// Effect of its failure.
    pub on_error: OnErrorSpec,
}

/// A dependency between two nodes.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct EdgeSpec {
    /// Index of the source node.
    pub from: u32,
    /// Index of the target node.
    pub to: u32,
    /// Choice of the source that makes the edge live; `None`: live whenever the source is done.
    pub port: Option<u32>,
}

/// A node with a body: a sub-graph (one iteration) or a bounded loop (several). Its body is the
/// `body` nodes that follow it, scopes among them included; edges and fallbacks stay in a scope.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct ScopeSpec {
    /// Index of the node that has the body.
    pub node: u32,
    /// Number of following nodes that are its body; at least 1.
    pub body: u32,
    /// Most iterations of the body; from 1 to 65,535.
    pub max_iterations: u32,
}

/// A checked, compiled, immutable graph.
#[derive(Debug)]
pub struct KernelGraph {
    raw: RawGraph,
}

impl KernelGraph {
    /// Checks and compiles a graph.
    ///
    /// # Errors
    /// The first mistake found, with the node or edge it lies in.
    pub fn compile_graph(nodes: &[NodeSpec], edges: &[EdgeSpec]) -> Result<Self, CompileError> {
        Self::compile_scoped(nodes, edges, &[])
    }

    /// Checks and compiles a graph with sub-graphs and loops.
    ///
    /// # Errors
    /// The first mistake found, with the node or edge it lies in.
    pub fn compile_scoped(
        nodes: &[NodeSpec],
        edges: &[EdgeSpec],
        scopes: &[ScopeSpec],
    ) -> Result<Self, CompileError> {
        let mut nodes: Vec<c::cvg_node_spec> = nodes.iter().map(node_spec).collect();
        for scope in scopes {
            let node = nodes.get_mut(scope.node as usize).ok_or(KernelError::BadNode)?;
            // In C, a body of 0 means that the node is no scope.
            if scope.body == 0 {
                return Err(CompileError::at_node(KernelError::BadScope, scope.node));
            }
            node.body = scope.body;
            node.max_iterations = scope.max_iterations;
        }
        let edges: Vec<c::cvg_edge_spec> =
            (0u32..).zip(edges).map(edge_spec).collect::<Result<_, _>>()?;
        Ok(Self { raw: RawGraph::compile(&nodes, &edges)? })
    }

    /// Number of nodes, scopes and their bodies included.
    #[must_use]
    pub fn node_count(&self) -> u32 {
        self.raw.node_count()
    }

    /// Number of edges, those to fallbacks not counted.
    #[must_use]
    pub fn edge_count(&self) -> u32 {
        self.raw.edge_count()
    }

    /// Hash of everything that was compiled; the same on every machine.
    #[must_use]
    pub fn hash(&self) -> u64 {
        self.raw.hash()
    }

    pub(crate) fn raw_graph(&self) -> &RawGraph {
        &self.raw
    }
}

fn node_spec(node: &NodeSpec) -> c::cvg_node_spec {
    let (on_error, fallback) = match node.on_error {
        OnErrorSpec::Fail => (c::CVG_ON_ERROR_FAIL, c::CVG_NONE),
        OnErrorSpec::Skip => (c::CVG_ON_ERROR_SKIP, c::CVG_NONE),
        OnErrorSpec::Fallback(fallback) => (c::CVG_ON_ERROR_FALLBACK, fallback),
        OnErrorSpec::Ask => (c::CVG_ON_ERROR_ASK, c::CVG_NONE),
    };
    c::cvg_node_spec { join: node.join, on_error, fallback, body: 0, max_iterations: 0 }
}

fn edge_spec((index, edge): (u32, &EdgeSpec)) -> Result<c::cvg_edge_spec, CompileError> {
    let port = port_to_raw(edge.port).map_err(|kind| CompileError::at_edge(kind, index))?;
    Ok(c::cvg_edge_spec { from: edge.from, to: edge.to, port })
}
