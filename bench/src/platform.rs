//! A platform under measurement: an embedded log in a folder of its own, an executor, and graphs
//! and runs on them.

use std::path::{Path, PathBuf};
use std::sync::Arc;

use anyhow::Context as _;
use convergio_application::UseCases;
use convergio_domain::event::Event;
use convergio_domain::run::event::RunEvent;
use convergio_domain::run::{Budget, Run, RunState};
use convergio_domain::stream::{Seq, StreamKey};
use convergio_eventstore::embedded::{EmbeddedConfig, EmbeddedLog};
use convergio_eventstore::{LogWriter, Repository, SystemClock};
use convergio_executor::{Executor, ExecutorConfig};
use futures_util::StreamExt;
use serde_json::Value;
use uuid::Uuid;

use super::workload::{BenchGraph, bench_caller, parse_graph, register_graph, start_executor};

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
        let log: Arc<dyn LogWriter> = Arc::new(EmbeddedLog::open(&EmbeddedConfig::new(&folder))?);
        let repository = Repository::new(log, Arc::new(SystemClock));
        let executor = start_executor(&repository, configure)?;
        Ok(Self { repository, executor, folder })
    }

    /// Stops the executor and removes the folder.
    pub(super) async fn stop_and_remove(self) -> anyhow::Result<()> {
        self.executor.shut_down().await?;
        self.repository.event_log().close().await?;
        Ok(std::fs::remove_dir_all(&self.folder)?)
    }

    /// Registers the graph of a manifest.
    pub(super) async fn register_graph(&self, manifest: &str) -> anyhow::Result<BenchGraph> {
        register_graph(&self.repository, &parse_graph(manifest)?).await
    }

    /// Creates a run without limits on tokens and time.
    pub(super) async fn create_run(
        &self,
        graph: &BenchGraph,
        inputs: &Value,
    ) -> anyhow::Result<StreamKey> {
        let budget = Budget { tokens: None, wall: None, ..Budget::default() };
        let new_run = graph.new_run(budget, inputs.to_string());
        let created = UseCases::new(&self.repository).create_run(&bench_caller(), new_run).await;
        Ok(created?.stream)
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
}
