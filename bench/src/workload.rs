//! What benches put into a log: graphs, runs, and an executor that completes them.

use std::sync::Arc;

use bytes::Bytes;
use convergio_domain::billing::PriceBook;
use convergio_domain::chat::Privacy;
use convergio_domain::decider::DecisionContext;
use convergio_domain::graph::manifest::Graph;
use convergio_domain::graph::{self, GraphNoun, RegisterGraph};
use convergio_domain::id::{ExecutorId, GraphId, GraphVersion, RunId, TenantId};
use convergio_domain::payload::{PayloadPurpose, PayloadSlot};
use convergio_domain::run::{Budget, CreateRun, Provenance};
use convergio_domain::stream::StreamKey;
use convergio_eventstore::{LiveHub, Payload, Repository};
use convergio_executor::catalog::ModelCatalog;
use convergio_executor::{Executor, ExecutorConfig, tool};
use uuid::Uuid;

/// A graph version that runs are created of.
#[derive(Clone)]
pub(super) struct BenchGraph {
    pub(super) id: GraphId,
    pub(super) version: GraphVersion,
}

impl BenchGraph {
    /// Command that creates a run; the run's input is the command's first payload.
    pub(super) fn create_command(&self, budget: Budget) -> CreateRun {
        CreateRun {
            graph: self.id,
            version: self.version.clone(),
            input: PayloadSlot(0),
            budget,
            privacy: Privacy::Any,
            provenance: Provenance::default(),
            request_hash: String::new(),
        }
    }
}

/// Tenant of all benches.
pub(super) fn bench_tenant() -> TenantId {
    "bench".parse().expect("`bench` is a valid name")
}

/// Context of a command that a bench sends now.
pub(super) fn bench_context(repository: &Repository) -> DecisionContext {
    let actor = "bench".parse().expect("`bench` is a valid name");
    DecisionContext { now: repository.clock().now(), actor }
}

/// A payload of JSON without a subject.
pub(super) fn json_payload(bytes: Vec<u8>, purpose: PayloadPurpose) -> Payload {
    let media_type = "application/json".into();
    Payload { bytes: Bytes::from(bytes), media_type, purpose, subject: None }
}

/// Stream of a run that does not exist yet.
pub(super) fn new_run_stream() -> StreamKey {
    StreamKey::for_run(bench_tenant(), RunId(Uuid::now_v7()))
}

/// Parses a manifest that uses built-in tools only.
pub(super) fn parse_graph(manifest: &str) -> anyhow::Result<Graph> {
    let parsed = graph::parse_manifest(manifest, &tool::builtin_catalog());
    Ok(parsed.map_err(|mistakes| anyhow::anyhow!("{mistakes:?}"))?.graph)
}

/// Registers a graph.
pub(super) async fn register_graph(
    repository: &Repository,
    graph: &Graph,
) -> anyhow::Result<BenchGraph> {
    let register = RegisterGraph {
        name: graph.name.clone(),
        version: graph.compute_version(),
        nodes: u32::try_from(graph.nodes.len())?,
        manifest: PayloadSlot(0),
        is_derived: false,
    };
    let id = graph::graph_id(&bench_tenant(), &graph.name);
    let stream = StreamKey::for_graph(bench_tenant(), id);
    let manifest = vec![json_payload(graph.canonical_manifest(), PayloadPurpose::Manifest)];
    let command = |_: &_, _| (register.clone(), manifest.clone());
    repository.execute::<GraphNoun>(&stream, &bench_context(repository), command).await?;
    Ok(BenchGraph { id, version: register.version })
}

/// Starts an executor without models. `configure` may change its limits.
pub(super) fn start_executor(
    repository: &Repository,
    configure: impl FnOnce(&mut ExecutorConfig),
) -> anyhow::Result<Executor> {
    let prices = Arc::new(PriceBook::parse_book("[]")?);
    let models = Arc::new(ModelCatalog::new(Vec::new(), Arc::clone(&prices))?);
    let mut config = ExecutorConfig::new(ExecutorId(Uuid::now_v7()));
    configure(&mut config);
    Ok(Executor::start(config, repository.clone(), models, LiveHub::new(), prices))
}
