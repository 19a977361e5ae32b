//! One engine at work on a run until the run's end or the engine's crash, in this process or in one
//! of its own.

use std::path::Path;
use std::process::Stdio;
use std::sync::Arc;
use std::time::Duration;

use anyhow::Context as _;
use convergio_application::{Caller, NewApprovalAnswer, NewRun, UseCases};
use convergio_domain::billing::PriceBook;
use convergio_domain::decider::Wake;
use convergio_domain::graph::manifest::{Graph, MapWork, NodeWork};
use convergio_domain::id::{ExecutorId, RunId};
use convergio_domain::run::{ApprovalState, Run, RunState};
use convergio_domain::stream::StreamKey;
use convergio_domain::time::Timestamp;
use convergio_eventstore::embedded::{EmbeddedConfig, EmbeddedLog};
use convergio_eventstore::{LiveHub, LogWriter, Position, Repository, SystemClock};
use convergio_executor::catalog::{DetectedServer, ModelCatalog, detect_servers};
use convergio_executor::{Executor, ExecutorConfig};
use convergio_process::out_line;
use futures_util::StreamExt;
use serde_json::Value;
use tokio::io::{AsyncBufReadExt, BufReader};
use tokio::process::Command;
use uuid::Uuid;

use crate::crash_point::CrashPoint;
use crate::faulty_log::{CrashInterceptor, FaultyLog};
use crate::model_proxy::ModelProxy;

/// Maximum time without an event before a run counts as stuck.
const STUCK_TIMEOUT: Duration = Duration::from_secs(300);
/// Line that a process prints when it waits at its crash point to be killed; [`ENDED`] means that
/// the run ended before.
const AT_CRASH_POINT: &str = "here";
const ENDED: &str = "ended";

/// The graph and inputs under test, with proxies of the model servers.
pub(crate) struct GraphUnderTest {
    pub(crate) graph: Graph,
    pub(crate) inputs: Value,
    pub(crate) models: Vec<ModelProxy>,
}

impl GraphUnderTest {
    /// Registers the graph in a log and creates a run of it.
    pub(crate) async fn create_run(&self, log: &Arc<dyn LogWriter>) -> anyhow::Result<StreamKey> {
        let repository = Repository::new(Arc::clone(log), Arc::new(SystemClock));
        let (use_cases, caller) = (UseCases::new(&repository), owner_caller(Vec::new())?);
        let (graph, version) = use_cases.register_graph(&caller, &self.graph).await?;
        let new_run = NewRun {
            budget: self.graph.budget,
            ..NewRun::of_version(graph, version, self.inputs.to_string())
        };
        Ok(use_cases.create_run(&caller, new_run).await?.stream)
    }

    async fn detect_servers(&self) -> Vec<DetectedServer> {
        let urls: Vec<String> = self.models.iter().map(|proxy| proxy.url.clone()).collect();
        if urls.is_empty() { Vec::new() } else { detect_servers(&urls).await }
    }
}

/// True if a graph calls models.
pub fn calls_models(graph: &Graph) -> bool {
    graph.nodes.iter().any(|node| match &node.work {
        NodeWork::Agent(_) | NodeWork::Plan(_) => true,
        NodeWork::Map(map) => matches!(map.work, MapWork::Agent(_)),
        _ => false,
    })
}

/// Returns the owner of the log under test, who answers for some roles.
fn owner_caller(roles: Vec<String>) -> anyhow::Result<Caller> {
    Ok(Caller { roles, ..Caller::new("default".parse()?, "owner".parse()?) })
}

/// Runs an engine in this process, on a thread and a runtime of its own that are dropped with it.
/// Returns whether it crashed, and how many commits it asked for.
pub(crate) async fn run_engine(
    log: &Arc<dyn LogWriter>,
    graph_under_test: &Arc<GraphUnderTest>,
    run: &StreamKey,
    point: Option<CrashPoint>,
) -> anyhow::Result<(bool, u64)> {
    let servers = graph_under_test.detect_servers().await;
    let (log, run) = (Arc::clone(log), run.clone());
    let engine_thread = tokio::task::spawn_blocking(move || {
        // Two threads: races between steps are part of what is tested.
        let mut threads = tokio::runtime::Builder::new_multi_thread();
        let runtime = threads.worker_threads(2).enable_all().build()?;
        let crash = Arc::new(CrashInterceptor::new(point));
        let faulty_log = FaultyLog::new(Arc::clone(&log), Arc::clone(&crash));
        let result = runtime.block_on(async {
            let engine = start_engine(faulty_log, &servers)?;
            let finish_run = async {
                drive_to_end(&log, &run).await?;
                engine.shut_down().await?;
                Ok(false)
            };
            // After a crash in its last commit a run looks complete to readers: it counts as a
            // crash.
            tokio::select! {
                () = crash.wait_for_crash() => Ok(true),
                ended = finish_run => ended,
            }
        });
        // Tasks under way are dropped wherever they are, as a crash would.
        runtime.shutdown_background();
        result.map(|died| (died, crash.append_count()))
    });
    engine_thread.await?
}

fn start_engine(log: FaultyLog, servers: &[DetectedServer]) -> anyhow::Result<Executor> {
    let prices = Arc::new(PriceBook::parse_book(convergio_schemas::PRICE_BOOK)?);
    let providers = servers.iter().map(DetectedServer::to_provider_config).collect();
    let models = Arc::new(ModelCatalog::new(providers, Arc::clone(&prices))?);
    let config = ExecutorConfig::new(ExecutorId(Uuid::now_v7()));
    let repository = Repository::new(Arc::new(log), Arc::new(SystemClock));
    Ok(Executor::start(config, repository, models, LiveHub::new(), prices))
}

/// Follows a run, grants its approvals, and returns when it has ended and nothing is left to do.
async fn drive_to_end(log: &Arc<dyn LogWriter>, run: &StreamKey) -> anyhow::Result<()> {
    let repository = Repository::new(Arc::clone(log), Arc::new(SystemClock));
    let mut tail = log.tail_all(Position::START);
    loop {
        let state = repository.load::<Run>(run).await?.state;
        // A run that has ended may still owe its parent a notice or settle usage.
        if state.phase.is_ended() && state.next_wake() == Wake::Done {
            return Ok(());
        }
        grant_open_approvals(&repository, run, &state).await?;
        let next = tokio::time::timeout(STUCK_TIMEOUT, tail.next()).await;
        let next = next.with_context(|| format!("{run} stands still at event {}", state.seq))?;
        next.context("the log ended")??;
    }
}

async fn grant_open_approvals(
    repository: &Repository,
    run: &StreamKey,
    state: &RunState,
) -> anyhow::Result<()> {
    let open =
        |(_, asked): &(_, &convergio_domain::run::RunApproval)| asked.state == ApprovalState::Open;
    for (id, asked) in state.approvals.iter().filter(open) {
        let answer = NewApprovalAnswer {
            approval: *id,
            content_hash: asked.content_hash.clone(),
            is_granted: true,
            reason: None,
        };
        let (caller, run) = (owner_caller(vec![asked.role.clone()])?, RunId(run.id));
        UseCases::new(repository).answer_approval(&caller, run, answer).await?;
    }
    Ok(())
}

/// Runs an engine in a process of its own and kills it; returns whether it reached the crash point.
pub(crate) async fn run_engine_process(
    folder: &Path,
    graph_under_test: &GraphUnderTest,
    point: CrashPoint,
) -> anyhow::Result<bool> {
    let moment = clap::ValueEnum::to_possible_value(&point.moment);
    let moment = moment.context("every moment has a name")?;
    let mut command = Command::new(std::env::current_exe()?);
    command.args(["crash-test-life", "--moment", moment.get_name(), "--commit"]);
    command.arg(point.commit.to_string()).arg("--data").arg(folder);
    for proxy in &graph_under_test.models {
        command.args(["--model-url", &proxy.url]);
    }
    // `kill_on_drop` covers errors of this process, so that no engine is left behind.
    command.stdin(Stdio::null()).stdout(Stdio::piped()).kill_on_drop(true);
    let mut child = command.spawn()?;
    let stdout = BufReader::new(child.stdout.take().context("it has an output")?);
    let line = tokio::time::timeout(STUCK_TIMEOUT, stdout.lines().next_line()).await;
    child.kill().await?;
    match line.context("a process under test says nothing")??.as_deref() {
        Some(AT_CRASH_POINT) => Ok(true),
        Some(ENDED) => Ok(false),
        other => anyhow::bail!("a process under test ended early: {other:?}"),
    }
}

/// Entry point of that process: works on the only run of the folder, prints [`AT_CRASH_POINT`] when
/// it reaches the crash point, and waits to be killed.
///
/// # Errors
/// The folder cannot be used, or it has no run.
pub async fn wait_at_crash_point(
    folder: &Path,
    urls: &[String],
    point: CrashPoint,
) -> anyhow::Result<()> {
    let log: Arc<dyn LogWriter> = Arc::new(EmbeddedLog::open(&EmbeddedConfig::new(folder))?);
    let run = log.due_streams(Timestamp(i64::MAX), 1).await?;
    let run = run.first().context("the folder has no run to be done")?;
    let servers = if urls.is_empty() { Vec::new() } else { detect_servers(urls).await };
    let crash = Arc::new(CrashInterceptor::new(Some(point)));
    let faulty_log = FaultyLog::new(Arc::clone(&log), Arc::clone(&crash));
    let _engine = start_engine(faulty_log, &servers)?;
    tokio::select! {
        () = crash.wait_for_crash() => out_line!("{AT_CRASH_POINT}"),
        ended = drive_to_end(&log, run) => {
            ended?;
            // The append of the crash point was the run's last one: the log reports the crash in a
            // moment.
            if crash.append_count() < point.commit {
                out_line!("{ENDED}");
            } else {
                crash.wait_for_crash().await;
                out_line!("{AT_CRASH_POINT}");
            }
        }
    }
    std::future::pending().await
}
