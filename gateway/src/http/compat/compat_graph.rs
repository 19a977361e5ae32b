//! The one-node graph that every call of the compatible APIs runs.

use std::collections::BTreeSet;
use std::sync::{Mutex, MutexGuard, PoisonError};

use convergio_application::Caller;
use convergio_domain::graph::{self, ToolCatalog, manifest::Graph};
use convergio_domain::id::{GraphId, GraphVersion, TenantId};

use super::refusal::CompatRefusal;
use crate::state::Gateway;

// `CALLER_TIMEOUT` must exceed the timeout of this graph.
const MANIFEST: &str = r#"
name: front-door
description: One call that came in by the interface of OpenAI or Anthropic.
inputs: {type: object, required: [request], properties: {request: {type: object}}}
nodes:
  - id: reply
    timeout: 600s
    retry: {max: 3, backoff: 250ms}
    agent: {request: "{{ inputs.request }}"}
output: "{{ nodes.reply.output }}"
"#;

/// The graph, and the tenants whose log has it.
pub(super) struct CompatGraph {
    graph: Graph,
    pub(super) version: GraphVersion,
    /// A cache: registering twice is harmless.
    registered_tenants: Mutex<BTreeSet<TenantId>>,
}

impl CompatGraph {
    /// Parses the embedded manifest.
    ///
    /// # Panics
    /// Never: a test parses the manifest.
    pub(super) fn new() -> Self {
        let parsed = graph::parse_manifest(MANIFEST, &ToolCatalog::new(Vec::new()));
        let graph = parsed.expect("the manifest of the doors is valid").graph;
        Self { version: graph.compute_version(), graph, registered_tenants: Mutex::default() }
    }

    fn lock_tenants(&self) -> MutexGuard<'_, BTreeSet<TenantId>> {
        self.registered_tenants.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Returns the graph's id in a tenant.
    pub(super) fn graph_id(&self, tenant: &TenantId) -> GraphId {
        graph::graph_id(tenant, &self.graph.name)
    }

    /// Registers the graph for a tenant, unless this process has done so before.
    pub(super) async fn register_for_tenant(
        &self,
        gateway: &Gateway,
        caller: &Caller,
    ) -> Result<GraphId, CompatRefusal> {
        // Concurrent first calls may both register: the same version changes nothing.
        let id = self.graph_id(&caller.tenant);
        if self.lock_tenants().contains(&caller.tenant) {
            return Ok(id);
        }
        gateway.use_cases().register_graph(caller, &self.graph).await?;
        self.lock_tenants().insert(caller.tenant.clone());
        Ok(id)
    }
}

#[cfg(test)]
mod tests {
    use super::CompatGraph;

    #[test]
    fn the_manifest_of_the_doors_is_valid() {
        assert_eq!(CompatGraph::new().graph.nodes.len(), 1);
    }
}
