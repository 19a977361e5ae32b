//! A platform under measurement: an embedded log in a folder of its own, an executor, and graphs
//! and runs on them.

use std::path::{Path, PathBuf};
use std::sync::Arc;

use anyhow::Context as _;
use bytes::Bytes;
use convergio_domain::billing::PriceBook;
use convergio_domain::chat::Privacy;
use convergio_domain::decider::DecisionContext;
use convergio_domain::event::Event;
use convergio_domain::graph::{self, GraphNoun, RegisterGraph};
use convergio_domain::id::{ExecutorId, GraphId, RunId, TenantId};
use convergio_domain::payload::{PayloadPurpose, PayloadSlot};
use convergio_domain::run::event::RunEvent;
use convergio_domain::run::{Budget, CreateRun, Provenance, Run, RunCommand, RunState};
use convergio_domain::stream::{Seq, StreamKey};
use convergio_eventstore::embedded::{EmbeddedConfig, EmbeddedLog};
use convergio_eventstore::{EventLog, LiveHub, Payload, Repository, SystemClock};
use convergio_executor::catalog::ModelCatalog;
use convergio_executor::{Executor, ExecutorConfig, tool};
use futures_util::StreamExt;
use serde_json::Value;
use uuid::Uuid;

/// A log in a folder that is removed at the end, and an executor that works on it.
pub(super) struct BenchPlatform {
    pub(super) repository: Repository,
    executor: Executor,
    folder: PathBuf,
}

impl BenchPlatform {
    /// Creates a folder in `parent` and starts an executor there. `configure` may change its
    /// limits.
    ///
    /// # Errors
    /// The folder cannot be used.
    pub(super) fn start(
        parent: &Path,
        configure: impl FnOnce(&mut ExecutorConfig),
    ) -> anyhow::Result<Self> {
        let folder = parent.join(format!("convergio-bench-{}", Uuid::now_v7()));
        std::fs::create_dir_all(&folder)
            .with_context(|| format!("cannot create {}", folder.display()))?;
        let log: Arc<dyn EventLog> = Arc::new(EmbeddedLog::open(&EmbeddedConfig::new(&folder))?);
        let repository = Repository::new(log, Arc::new(SystemClock));
        let prices = Arc::new(PriceBook::parse_book("[]")?);
        let models = Arc::new(ModelCatalog::new(Vec::new(), Arc::clone(&prices))?);
        let mut config = ExecutorConfig::new(ExecutorId(Uuid::now_v7()));
        configure(&mut config);
        let executor = Executor::start(config, repository.clone(), models, LiveHub::new(), prices);
        Ok(Self { repository, executor, folder })
    }

    /// Stops the executor and removes the folder.
    pub(super) async fn stop_and_remove(self) -> anyhow::Result<()> {
        self.executor.shut_down().await?;
        self.repository.event_log().close().await?;
        Ok(std::fs::remove_dir_all(&self.folder)?)
    }

    /// Registers the graph of a manifest.
    pub(super) async fn register_graph(&self, manifest: &str) -> anyhow::Result<RegisterGraph> {
        let parsed = graph::parse_manifest(manifest, &tool::builtin_catalog());
        let graph = parsed.map_err(|mistakes| anyhow::anyhow!("{mistakes:?}"))?.graph;
        let register = RegisterGraph {
            name: graph.name.clone(),
            version: graph.compute_version(),
            nodes: u32::try_from(graph.nodes.len())?,
            manifest: PayloadSlot(0),
            is_derived: false,
        };
        let stream =
            StreamKey::for_graph(bench_tenant(), graph::graph_id(&bench_tenant(), &graph.name));
        let manifest = vec![json_payload(graph.canonical_manifest(), PayloadPurpose::Manifest)];
        let command = |_: &_, _| (register.clone(), manifest.clone());
        self.repository.execute::<GraphNoun>(&stream, &self.command_context(), command).await?;
        Ok(register)
    }

    /// Creates a run without limits on tokens and time.
    pub(super) async fn create_run(
        &self,
        graph: &RegisterGraph,
        inputs: &Value,
    ) -> anyhow::Result<StreamKey> {
        let GraphId(id) = graph::graph_id(&bench_tenant(), &graph.name);
        let create = CreateRun {
            graph: GraphId(id),
            version: graph.version.clone(),
            input: PayloadSlot(0),
            budget: Budget { tokens: None, wall: None, ..Budget::default() },
            privacy: Privacy::Any,
            provenance: Provenance::default(),
            request_hash: String::new(),
        };
        let stream = StreamKey::for_run(bench_tenant(), RunId(Uuid::now_v7()));
        let input = vec![json_payload(serde_json::to_vec(inputs)?, PayloadPurpose::Input)];
        let command = |_: &_, _| (RunCommand::Create(create.clone()), input.clone());
        self.repository.execute::<Run>(&stream, &self.command_context(), command).await?;
        Ok(stream)
    }

    /// Loads the present state of a run.
    pub(super) async fn load_run(&self, stream: &StreamKey) -> anyhow::Result<RunState> {
        Ok(self.repository.load::<Run>(stream).await?.state)
    }

    /// Waits until a run has ended; returns the number of events in its largest record.
    pub(super) async fn wait_for_end(&self, stream: &StreamKey) -> anyhow::Result<usize> {
        let mut records = self.repository.event_log().tail_stream(stream, Seq(0));
        let mut largest = 0;
        while let Some(record) = records.next().await {
            let record = record?;
            largest = largest.max(record.body.events.len());
            let is_end = |event: &RunEvent| {
                matches!(event, RunEvent::RunCompleted(_) | RunEvent::RunFailed(_))
            };
            if record.body.events.iter().filter_map(Event::as_run).any(is_end) {
                return Ok(largest);
            }
        }
        anyhow::bail!("the log ended before the run did")
    }

    /// Context of a command that the bench sends now.
    pub(super) fn command_context(&self) -> DecisionContext {
        let actor = "bench".parse().expect("`bench` is a valid name");
        DecisionContext { now: self.repository.clock().now(), actor }
    }
}

/// Tenant of all benches.
pub(super) fn bench_tenant() -> TenantId {
    "bench".parse().expect("`bench` is a valid name")
}

/// A payload of JSON without a subject.
pub(super) fn json_payload(bytes: Vec<u8>, purpose: PayloadPurpose) -> Payload {
    let media_type = "application/json".into();
    Payload { bytes: Bytes::from(bytes), media_type, purpose, subject: None }
}

/// Peak memory of this process in MiB since the last call, and a reset of the peak; 0 where the
/// system does not report it.
pub(super) fn take_peak_memory_mib() -> u64 {
    let status = std::fs::read_to_string("/proc/self/status").unwrap_or_default();
    let line = status.lines().find_map(|line| line.strip_prefix("VmHWM:"));
    let kib = line.and_then(|line| line.split_whitespace().next()?.parse::<u64>().ok());
    // Writing 5 sets the peak to what is in use now (proc(5)).
    let _reset = std::fs::write("/proc/self/clear_refs", "5");
    kib.unwrap_or(0) / 1024
}
