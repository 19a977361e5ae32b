//! Compiled graph versions and their cache: the manifest for templates, the kernel's arrays for the
//! scheduler.

use std::collections::{BTreeMap, VecDeque};
use std::fmt;
use std::sync::{Arc, Mutex, PoisonError};

use convergio_domain::expr;
use convergio_domain::failure::{PlatformText, UnsealedFailure};
use convergio_domain::graph::manifest::{Graph, Join, Node, OnError};
use convergio_domain::graph::{self, topology};
use convergio_domain::id::{GraphId, GraphVersion, NodeId, StepId, TenantId};
use convergio_domain::platform_text;
use convergio_domain::stream::StreamKey;
use convergio_eventstore::{LogError, Repository};
use convergio_kernel_c as kernel;

/// Maximum compiled versions in the cache; the oldest is evicted.
const CACHE_LIMIT: usize = 64;

/// A graph version that is ready to be scheduled.
#[derive(Debug)]
pub(crate) struct CompiledGraph {
    pub(crate) graph: Graph,
    pub(crate) kernel: Arc<kernel::Graph>,
    numbers: BTreeMap<NodeId, u32>,
    /// Nodes whose outputs the run's output template refers to.
    pub(crate) yields: Vec<NodeId>,
}

impl CompiledGraph {
    /// Compiles a manifest, which was validated when it was registered.
    pub(crate) fn compile(graph: Graph) -> Result<Self, UnsealedFailure> {
        // The kernel knows nodes by number only: their position in the manifest.
        let numbers: BTreeMap<NodeId, u32> =
            (0_u32..).zip(&graph.nodes).map(|(number, node)| (node.id.clone(), number)).collect();
        let nodes: Vec<_> = graph.nodes.iter().map(|node| node_spec(node, &numbers)).collect();
        let edges: Vec<_> = topology::edges(&graph).iter().map(edge_spec).collect();
        let kernel = kernel::Graph::compile(&nodes, &edges)
            .map_err(|error| broken(platform_text!("the kernel refuses the graph"), &error))?;
        let yields = graph.output.as_ref().map(expr::nodes_in_value).unwrap_or_default();
        Ok(Self { graph, kernel: Arc::new(kernel), numbers, yields })
    }

    /// Returns the node of a number that the kernel returned.
    pub(crate) fn node(&self, number: u32) -> &Node {
        &self.graph.nodes[number as usize]
    }

    /// Finds a node by name. It does not scan all nodes as the manifest does: a graph may have
    /// thousands.
    pub(crate) fn find_node(&self, id: &NodeId) -> Option<&Node> {
        self.graph.nodes.get(*self.numbers.get(id)? as usize)
    }

    /// Returns the kernel's number of a node; `None` if the graph has no such node.
    pub(crate) fn number(&self, node: &NodeId) -> Option<u32> {
        self.numbers.get(node).copied()
    }

    /// Returns the step id of a node number and map item from the kernel.
    pub(crate) fn step(&self, number: u32, item: Option<u32>) -> StepId {
        StepId { node: self.node(number).id.clone(), item }
    }
}

/// Translates a node's join and error rules for the kernel.
fn node_spec(node: &Node, numbers: &BTreeMap<NodeId, u32>) -> kernel::NodeSpec {
    let on_error = match &node.on_error {
        OnError::Fail => kernel::OnError::Fail,
        OnError::Skip => kernel::OnError::Skip,
        OnError::Ask => kernel::OnError::Ask,
        OnError::Fallback(other) => match numbers.get(other) {
            Some(number) => kernel::OnError::Fallback(*number),
            // Validation has excluded unknown fallback nodes; failing is the safe reading.
            None => kernel::OnError::Fail,
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

fn broken(message: PlatformText, detail: &dyn fmt::Display) -> UnsealedFailure {
    UnsealedFailure::new("graph.invalid", message).with_cause(detail)
}

fn missing(message: PlatformText) -> UnsealedFailure {
    UnsealedFailure::new("graph.invalid", message)
}

/// Cache of compiled graph versions by tenant, filled from the log.
#[derive(Debug, Default)]
pub(crate) struct GraphCache {
    entries: Mutex<VecDeque<(CacheKey, Arc<CompiledGraph>)>>,
}

type CacheKey = (TenantId, GraphVersion);

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
        if let Some(found) = self.find(&key) {
            return Ok(found);
        }
        let manifest = read_manifest(repository, tenant, graph, version).await?;
        let compiled = Arc::new(CompiledGraph::compile(manifest)?);
        // Two runs may compile the same version at once; the second copy is harmless.
        self.keep(key, Arc::clone(&compiled));
        Ok(compiled)
    }

    fn find(&self, key: &CacheKey) -> Option<Arc<CompiledGraph>> {
        let entries = self.entries.lock().unwrap_or_else(PoisonError::into_inner);
        entries.iter().find(|(other, _)| other == key).map(|(_, graph)| Arc::clone(graph))
    }

    fn keep(&self, key: CacheKey, graph: Arc<CompiledGraph>) {
        let mut entries = self.entries.lock().unwrap_or_else(PoisonError::into_inner);
        if entries.len() == CACHE_LIMIT {
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
    let stream = StreamKey::graph(tenant.clone(), graph);
    let loaded = repository.load::<graph::GraphNoun>(&stream).await?;
    let reference = loaded.state.versions.get(version).ok_or_else(|| {
        missing(platform_text!("version {} of graph {} is not registered", version, graph))
    })?;
    let bytes = repository.log().payload(&stream, *reference).await?;
    let erased = || missing(platform_text!("the manifest of {} was erased", version));
    let bytes = bytes.ok_or_else(erased)?;
    let parsed = serde_json::from_slice(&bytes);
    let unusable = || platform_text!("the manifest of {} cannot be used", version);
    Ok(parsed.map_err(|error| broken(unusable(), &error))?)
}
