//! Compiled graph versions and their cache: the manifest for templates, the kernel's arrays for the
//! scheduler.

use std::collections::{BTreeMap, VecDeque};
use std::fmt;
use std::sync::{Arc, Mutex, PoisonError};

use convergio_application::{ManifestError, UseCases};
use convergio_domain::expr;
use convergio_domain::failure::{PlatformText, UnsealedFailure};
use convergio_domain::graph::manifest::{
    Agent, Graph, GraphNode, Join, MapWork, NodeWork, OnError,
};
use convergio_domain::graph::topology;
use convergio_domain::id::{GraphId, GraphVersion, NodeId, StepId, TenantId};
use convergio_domain::platform_text;
use convergio_eventstore::{LogError, Repository};
use convergio_kernel_c as kernel;

/// Maximum compiled versions in the cache; the oldest is evicted.
const CACHED_GRAPHS_LIMIT: usize = 64;

/// A graph version that is ready to be scheduled.
#[derive(Debug)]
pub(crate) struct CompiledGraph {
    pub(crate) graph: Graph,
    pub(crate) kernel_graph: Arc<kernel::KernelGraph>,
    node_numbers: BTreeMap<NodeId, u32>,
    /// Nodes whose outputs the run's output template refers to.
    pub(crate) output_nodes: Vec<NodeId>,
}

impl CompiledGraph {
    /// Compiles a manifest, which was validated when it was registered.
    pub(crate) fn from_manifest(graph: Graph) -> Result<Self, UnsealedFailure> {
        // The kernel knows nodes by number only: their position in the manifest.
        let numbers: BTreeMap<NodeId, u32> =
            (0_u32..).zip(&graph.nodes).map(|(number, node)| (node.id.clone(), number)).collect();
        let nodes: Vec<_> = graph.nodes.iter().map(|node| node_spec(node, &numbers)).collect();
        let edges: Vec<_> = topology::graph_edges(&graph).iter().map(edge_spec).collect();
        let kernel = kernel::KernelGraph::compile_graph(&nodes, &edges).map_err(|error| {
            invalid_graph_with_cause(platform_text!("the kernel refuses the graph"), &error)
        })?;
        let yields = graph.output.as_ref().map(expr::nodes_in_value).unwrap_or_default();
        Ok(Self {
            graph,
            kernel_graph: Arc::new(kernel),
            node_numbers: numbers,
            output_nodes: yields,
        })
    }

    /// Returns the node of a number that the kernel returned.
    pub(crate) fn node_at(&self, number: u32) -> &GraphNode {
        &self.graph.nodes[number as usize]
    }

    /// Finds a node by name. It does not scan all nodes as the manifest does: a graph may have
    /// thousands.
    pub(crate) fn find_node(&self, id: &NodeId) -> Option<&GraphNode> {
        self.graph.nodes.get(*self.node_numbers.get(id)? as usize)
    }

    /// Returns the agent that a step calls, if it calls one.
    pub(crate) fn find_agent(&self, step: &StepId) -> Option<&Agent> {
        match (&self.find_node(&step.node)?.work, step.item) {
            (NodeWork::Agent(agent), None) => Some(agent),
            (NodeWork::Plan(plan), None) => Some(&plan.agent),
            (NodeWork::Map(map), Some(_)) => match &map.work {
                MapWork::Agent(agent) => Some(agent),
                MapWork::Tool(_) => None,
            },
            _ => None,
        }
    }

    /// Returns the kernel's number of a node; `None` if the graph has no such node.
    pub(crate) fn node_number(&self, node: &NodeId) -> Option<u32> {
        self.node_numbers.get(node).copied()
    }

    /// Returns the step id of a node number and map item from the kernel.
    pub(crate) fn step_id(&self, number: u32, item: Option<u32>) -> StepId {
        StepId { node: self.node_at(number).id.clone(), item }
    }
}

/// Translates a node's join and error rules for the kernel.
fn node_spec(node: &GraphNode, numbers: &BTreeMap<NodeId, u32>) -> kernel::NodeSpec {
    let on_error = match &node.on_error {
        OnError::Fail => kernel::OnErrorSpec::Fail,
        OnError::Skip => kernel::OnErrorSpec::Skip,
        OnError::Ask => kernel::OnErrorSpec::Ask,
        OnError::Fallback(other) => match numbers.get(other) {
            Some(number) => kernel::OnErrorSpec::Fallback(*number),
            // Validation has excluded unknown fallback nodes; failing is the safe reading.
            None => kernel::OnErrorSpec::Fail,
        },
    };
    let join = match node.join {
        // The kernel takes 0 as all incoming edges.
        Join::All => 0,
        Join::Any => 1,
        Join::AtLeast(count) => count,
    };
    kernel::NodeSpec { join, on_error }
}

fn edge_spec(edge: &topology::Edge) -> kernel::EdgeSpec {
    let number = |index: usize| u32::try_from(index).unwrap_or(u32::MAX);
    kernel::EdgeSpec { from: number(edge.from), to: number(edge.to), port: edge.port }
}

fn invalid_graph_with_cause(message: PlatformText, detail: &dyn fmt::Display) -> UnsealedFailure {
    UnsealedFailure::new("graph.invalid", message).with_cause(detail)
}

fn invalid_graph(message: PlatformText) -> UnsealedFailure {
    UnsealedFailure::new("graph.invalid", message)
}

/// Cache of compiled graph versions by tenant, filled from the log.
#[derive(Debug, Default)]
pub(crate) struct GraphCache {
    entries: Mutex<VecDeque<(GraphCacheKey, Arc<CompiledGraph>)>>,
}

type GraphCacheKey = (TenantId, GraphVersion);

/// Error of a graph lookup.
#[derive(Debug, thiserror::Error)]
pub enum GraphError {
    /// The log cannot be read.
    #[error(transparent)]
    Log(#[from] LogError),
    /// The version is not registered, or its manifest is erased or unusable.
    #[error(transparent)]
    Broken(#[from] UnsealedFailure),
}

impl GraphCache {
    /// Returns the compiled version, from the cache or the log.
    pub(crate) async fn get(
        &self,
        repository: &Repository,
        tenant: &TenantId,
        graph: GraphId,
        version: &GraphVersion,
    ) -> Result<Arc<CompiledGraph>, GraphError> {
        let key = (tenant.clone(), version.clone());
        if let Some(cached) = self.find_cached(&key) {
            return Ok(cached);
        }
        let manifest = read_manifest(repository, tenant, graph, version).await?;
        let compiled = Arc::new(CompiledGraph::from_manifest(manifest)?);
        // Two runs may compile the same version at once; the second copy is harmless.
        self.insert_cached(key, Arc::clone(&compiled));
        Ok(compiled)
    }

    fn find_cached(&self, key: &GraphCacheKey) -> Option<Arc<CompiledGraph>> {
        let entries = self.entries.lock().unwrap_or_else(PoisonError::into_inner);
        entries.iter().find(|(other, _)| other == key).map(|(_, graph)| Arc::clone(graph))
    }

    fn insert_cached(&self, key: GraphCacheKey, graph: Arc<CompiledGraph>) {
        let mut entries = self.entries.lock().unwrap_or_else(PoisonError::into_inner);
        if entries.len() == CACHED_GRAPHS_LIMIT {
            entries.pop_front();
        }
        entries.push_back((key, graph));
    }
}

/// Reads and parses the manifest of a registered version from the log.
pub(crate) async fn read_manifest(
    repository: &Repository,
    tenant: &TenantId,
    graph: GraphId,
    version: &GraphVersion,
) -> Result<Graph, GraphError> {
    let loaded = UseCases::new(repository).load_manifest(tenant, graph, Some(version.as_str()));
    let broken = match loaded.await {
        Ok((_, manifest)) => return Ok(manifest),
        Err(ManifestError::Log(error)) => return Err(error.into()),
        Err(ManifestError::NotRegistered) => invalid_graph(platform_text!(
            "version {} of graph {} is not registered",
            version,
            graph
        )),
        Err(ManifestError::Erased) => {
            invalid_graph(platform_text!("the manifest of {} was erased", version))
        }
        Err(ManifestError::Unusable(error)) => invalid_graph_with_cause(
            platform_text!("the manifest of {} cannot be used", version),
            &error,
        ),
    };
    Err(broken.into())
}
