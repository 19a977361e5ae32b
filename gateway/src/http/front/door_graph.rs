//! The one-node graph that every call of the compatible APIs runs.

use std::collections::BTreeSet;
use std::sync::{Mutex, MutexGuard, PoisonError};

use convergio_domain::graph::{self, GraphNoun, Register, ToolCatalog, manifest::Graph};
use convergio_domain::id::{GraphId, GraphVersion, TenantId};
use convergio_domain::payload::{PayloadSlot, Purpose};
use convergio_domain::stream::StreamKey;

use super::refusal::Refusal;
use super::turn::payload;
use crate::app::Gateway;
use crate::auth::Identity;

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
pub(super) struct DoorGraph {
    graph: Graph,
    pub(super) version: GraphVersion,
    /// A cache: registering twice is harmless.
    tenants: Mutex<BTreeSet<TenantId>>,
}

impl DoorGraph {
    /// Parses the embedded manifest.
    ///
    /// # Panics
    /// Never: a test parses the manifest.
    pub(super) fn new() -> Self {
        let parsed = graph::parse(MANIFEST, &ToolCatalog::new(Vec::new()));
        let graph = parsed.expect("the manifest of the doors is valid").graph;
        Self { version: graph.version(), graph, tenants: Mutex::default() }
    }

    fn tenants(&self) -> MutexGuard<'_, BTreeSet<TenantId>> {
        self.tenants.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Returns the graph's id in a tenant.
    pub(super) fn id(&self, tenant: &TenantId) -> GraphId {
        graph::graph_id(tenant, &self.graph.name)
    }

    /// Registers the graph for a tenant, unless this process has done so before.
    pub(super) async fn register(
        &self,
        gateway: &Gateway,
        caller: &Identity,
    ) -> Result<GraphId, Refusal> {
        // Concurrent first calls may both register: the same version changes nothing.
        let id = self.id(&caller.tenant);
        if self.tenants().contains(&caller.tenant) {
            return Ok(id);
        }
        let register = Register {
            name: self.graph.name.clone(),
            version: self.version.clone(),
            nodes: u32::try_from(self.graph.nodes.len()).unwrap_or(u32::MAX),
            manifest: PayloadSlot(0),
            is_derived: false,
        };
        let manifest = payload(self.graph.canonical(), Purpose::Manifest);
        let command = |_: &_, _| (register.clone(), vec![manifest.clone()]);
        let stream = StreamKey::graph(caller.tenant.clone(), id);
        let context = gateway.context(caller);
        gateway.repository.execute::<GraphNoun>(&stream, &context, command).await?;
        self.tenants().insert(caller.tenant.clone());
        Ok(id)
    }
}

#[cfg(test)]
mod tests {
    use super::DoorGraph;

    #[test]
    fn the_manifest_of_the_doors_is_valid() {
        assert_eq!(DoorGraph::new().graph.nodes.len(), 1);
    }
}
