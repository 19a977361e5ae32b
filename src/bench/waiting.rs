//! `convergio bench waiting`: runs that wait for a time or a person, the cost of a restart with
//! them, and their cost for a run that has work.

use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::{Duration, Instant};

use anyhow::Context as _;
use bytes::Bytes;
use clap::Args;
use convergio_domain::chat::Privacy;
use convergio_domain::decider::Context;
use convergio_domain::graph::{self, GraphNoun, Register};
use convergio_domain::id::{ApprovalId, ExecutorId, GraphId, RunId, TenantId};
use convergio_domain::metering::PriceBook;
use convergio_domain::payload::{PayloadSlot, Purpose};
use convergio_domain::run::{Advance, Budget, CreateRun, Intent, Lineage, Run, RunCommand, Start};
use convergio_domain::stream::StreamKey;
use convergio_domain::time::Span;
use convergio_eventstore::embedded::{Config, EmbeddedLog};
use convergio_eventstore::{EventLog, LiveHub, Loaded, Payload, Repository, SystemClock};
use convergio_executor::model::ModelCatalog;
use convergio_executor::{Executor, ExecutorConfig, tool};
use serde::Serialize;
use tokio::task::JoinSet;
use uuid::Uuid;

use crate::terminal;

/// Maximum runs created concurrently.
const AT_ONCE: usize = 256;
/// Interval at which the end of the run with work is polled.
const LOOK: Duration = Duration::from_millis(1);

const MANIFEST: &str = "name: waiting\nnodes:\n  - {id: nap, sleep: 30d}\n";
const WORK: &str = "name: work\nnodes:\n  - {id: a, tool: text.trim, with: {text: done}}\n";

#[derive(Debug, Clone, Args)]
pub(crate) struct WaitingArgs {
    /// Runs that wait: half for a time, half for a person.
    #[arg(long, default_value_t = 100_000)]
    runs: usize,
    /// Folder on the device to measure; a new sub-folder is made and removed.
    #[arg(long, default_value = ".")]
    dir: PathBuf,
}

/// Result of the bench.
#[derive(Debug, Serialize)]
struct Row {
    bench: &'static str,
    runs: usize,
    create_s: f64,
    /// Time to open the log with all runs in it.
    open_ms: u64,
    /// Time from the executor's start to the end of a run that has work.
    first_run_ms: u64,
    /// Resident memory before the log was opened; `rss_after_mib` after the run.
    rss_before_mib: u64,
    rss_after_mib: u64,
}

/// Runs the bench and prints its result.
///
/// # Errors
/// The folder cannot be used, or the log fails.
pub(crate) async fn run(args: WaitingArgs, json: bool) -> anyhow::Result<()> {
    let folder = args.dir.join(format!("convergio-bench-{}", Uuid::now_v7()));
    std::fs::create_dir_all(&folder)
        .with_context(|| format!("cannot create {}", folder.display()))?;
    let row = measure(&folder, args.runs).await;
    std::fs::remove_dir_all(&folder)?;
    let row = row?;
    if json {
        terminal::print_json_line(&row)?;
        return Ok(());
    }
    out_line!("{} runs wait, created in {:.1} s", row.runs, row.create_s);
    out_line!("the log is open after {} ms", row.open_ms);
    out_line!("a run with work ends {} ms after the executor's start", row.first_run_ms);
    out_line!("memory {} MiB before, {} MiB after", row.rss_before_mib, row.rss_after_mib);
    Ok(())
}

async fn measure(folder: &Path, runs: usize) -> anyhow::Result<Row> {
    let begun = Instant::now();
    // The log is closed after it was filled, so that opening it is a cold start.
    fill(folder, runs).await?;
    let create_s = begun.elapsed().as_secs_f64();
    let rss_before_mib = rss_mib();
    let begun = Instant::now();
    let log: Arc<dyn EventLog> = Arc::new(EmbeddedLog::open(&Config::new(folder))?);
    let open_ms = millis(begun);
    let repository = Repository::new(Arc::clone(&log), Arc::new(SystemClock));
    let begun = Instant::now();
    let prices = Arc::new(PriceBook::parse("[]")?);
    let models = Arc::new(ModelCatalog::new(Vec::new(), Arc::clone(&prices))?);
    let config = ExecutorConfig::new(ExecutorId(Uuid::now_v7()));
    let executor = Executor::start(config, repository.clone(), models, LiveHub::new(), prices);
    let graph = register(&repository, WORK).await?;
    let stream = create(&repository, &graph, None).await?;
    while !repository.load::<Run>(&stream).await?.state.phase.is_ended() {
        tokio::time::sleep(LOOK).await;
    }
    let first_run_ms = millis(begun);
    let rss_after_mib = rss_mib();
    executor.shutdown().await?;
    log.close().await?;
    Ok(Row {
        bench: "waiting",
        runs,
        create_s,
        open_ms,
        first_run_ms,
        rss_before_mib,
        rss_after_mib,
    })
}

fn millis(begun: Instant) -> u64 {
    u64::try_from(begun.elapsed().as_millis()).unwrap_or(u64::MAX)
}

/// Resident memory of this process in MiB; 0 where the system does not report it.
fn rss_mib() -> u64 {
    let status = std::fs::read_to_string("/proc/self/status").unwrap_or_default();
    let line = status.lines().find_map(|line| line.strip_prefix("VmRSS:"));
    let kib = line.and_then(|line| line.split_whitespace().next()?.parse::<u64>().ok());
    kib.unwrap_or(0) / 1024
}

/// Fills a log with waiting runs.
async fn fill(folder: &Path, runs: usize) -> anyhow::Result<()> {
    let log: Arc<dyn EventLog> = Arc::new(EmbeddedLog::open(&Config::new(folder))?);
    let repository = Repository::new(Arc::clone(&log), Arc::new(SystemClock));
    let graph = register(&repository, MANIFEST).await?;
    let mut creating = JoinSet::new();
    for number in 0..runs {
        // Bounded, so that memory measures waiting runs and not pending tasks.
        if creating.len() == AT_ONCE {
            let _stream = creating.join_next().await.context("one is under way")???;
        }
        let (repository, graph) = (repository.clone(), graph.clone());
        let intent = waits(&repository, number);
        creating.spawn(async move { create(&repository, &graph, Some(intent)).await });
    }
    while let Some(created) = creating.join_next().await {
        let _stream = created??;
    }
    log.close().await?;
    Ok(())
}

/// Intent that a run waits by: every other run waits for a person.
fn waits(repository: &Repository, number: usize) -> Intent {
    let due = repository.clock().now().after(Span::seconds(30 * 24 * 3600));
    match number % 2 {
        0 => Intent::Sleep { due },
        _ => Intent::Ask {
            approval: ApprovalId(Uuid::now_v7()),
            role: "owner".into(),
            content: PayloadSlot(0),
            content_hash: "0".repeat(64),
            expires: Some(due),
        },
    }
}

async fn register(repository: &Repository, text: &str) -> anyhow::Result<(GraphId, Register)> {
    let parsed = graph::parse(text, &tool::catalog());
    let graph = parsed.map_err(|mistakes| anyhow::anyhow!("{mistakes:?}"))?.graph;
    let register = Register {
        name: graph.name.clone(),
        version: graph.version(),
        nodes: u32::try_from(graph.nodes.len())?,
        manifest: PayloadSlot(0),
        is_derived: false,
    };
    let id = graph::graph_id(&tenant(), &graph.name);
    let stream = StreamKey::graph(tenant(), id);
    let manifest = vec![payload(graph.canonical(), Purpose::Manifest)];
    let command = |_: &_, _| (register.clone(), manifest.clone());
    repository.execute::<GraphNoun>(&stream, &context(repository), command).await?;
    Ok((id, register))
}

/// Creates a run; with an intent, one that waits by it.
async fn create(
    repository: &Repository,
    (graph, register): &(GraphId, Register),
    intent: Option<Intent>,
) -> anyhow::Result<StreamKey> {
    let create = CreateRun {
        graph: *graph,
        version: register.version.clone(),
        input: PayloadSlot(0),
        budget: Budget { wall: None, ..Budget::default() },
        privacy: Privacy::Any,
        lineage: Lineage::default(),
        request_hash: String::new(),
    };
    let mut run = Loaded::<Run>::new(StreamKey::run(tenant(), RunId(Uuid::now_v7())));
    let context = context(repository);
    let input = vec![payload(b"{}".to_vec(), Purpose::Input)];
    repository.commit(&mut run, RunCommand::Create(create), input.clone(), &context).await?;
    if let Some(intent) = intent {
        let advance = Advance {
            executor: ExecutorId(Uuid::nil()),
            moves: Vec::new(),
            outcomes: Vec::new(),
            instant: Vec::new(),
            ready: Vec::new(),
            starts: vec![Start { step: "nap".parse()?, intent }],
            end: None,
        };
        repository.commit(&mut run, RunCommand::Advance(advance), input, &context).await?;
    }
    Ok(run.stream)
}

fn tenant() -> TenantId {
    "bench".parse().expect("`bench` is a valid name")
}

fn context(repository: &Repository) -> Context {
    let actor = "bench".parse().expect("`bench` is a valid name");
    Context { now: repository.clock().now(), actor }
}

fn payload(bytes: Vec<u8>, purpose: Purpose) -> Payload {
    let media_type = "application/json".into();
    Payload { bytes: Bytes::from(bytes), media_type, purpose, subject: None }
}
