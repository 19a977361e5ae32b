//! What benches put into a log: graphs, runs, and an executor that completes them.

use std::sync::Arc;

use bytes::Bytes;
use convergio_application::{Caller, NewRun, UseCases};
use convergio_domain::billing::PriceBook;
use convergio_domain::decider::DecisionContext;
use convergio_domain::graph;
use convergio_domain::graph::manifest::Graph;
use convergio_domain::id::{ExecutorId, GraphId, GraphVersion, RunId, TenantId};
use convergio_domain::payload::PayloadPurpose;
use convergio_domain::run::Budget;
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
    /// Describes a run of the version that does not exist yet.
    pub(super) fn new_run(&self, budget: Budget, input: impl Into<Bytes>) -> NewRun {
        NewRun { budget, ..NewRun::of_version(self.id, self.version.clone(), input) }
    }
}

/// Tenant of all benches.
pub(super) fn bench_tenant() -> TenantId {
    "bench".parse().expect("`bench` is a valid name")
}

/// The caller of all benches.
pub(super) fn bench_caller() -> Caller {
    Caller::new(bench_tenant(), "bench".parse().expect("`bench` is a valid name"))
}

/// Context of a command that a bench gives the repository itself.
pub(super) fn bench_context(repository: &Repository) -> DecisionContext {
    DecisionContext { now: repository.clock().now(), actor: bench_caller().actor }
}

/// A payload of JSON without a subject.
pub(super) fn json_payload(bytes: Vec<u8>, purpose: PayloadPurpose) -> Payload {
    Payload::from_json(bytes, purpose, None)
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
    let registered = UseCases::new(repository).register_graph(&bench_caller(), graph).await;
    let (id, version) = registered?;
    Ok(BenchGraph { id, version })
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
