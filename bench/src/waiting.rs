//! `convergio bench waiting`: runs that wait for a time or a person, the cost of a restart with
//! them, and their cost for a run that has work.

use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::{Duration, Instant};

use anyhow::Context as _;
use clap::Args;
use convergio_application::UseCases;
use convergio_domain::id::{ApprovalId, ExecutorId};
use convergio_domain::payload::{PayloadPurpose, PayloadSlot};
use convergio_domain::run::{AdvanceRun, Budget, Run, RunCommand, StepIntent, StepStart};
use convergio_domain::stream::StreamKey;
use convergio_domain::time::Span;
use convergio_eventstore::embedded::{EmbeddedConfig, EmbeddedLog};
use convergio_eventstore::{LogWriter, Repository, SystemClock};
use convergio_process::{out_line, terminal};
use serde::Serialize;
use tokio::task::JoinSet;
use uuid::Uuid;

use super::memory::resident_memory_mib;
use super::workload::{
    BenchGraph, bench_caller, bench_context, json_payload, parse_graph, register_graph,
    start_executor,
};

/// Maximum runs created concurrently.
const CREATIONS_LIMIT: usize = 256;
/// Interval at which the end of the run with work is polled.
const POLL_INTERVAL: Duration = Duration::from_millis(1);

const MANIFEST: &str = "name: waiting\nnodes:\n  - {id: nap, sleep: 30d}\n";
const WORK: &str = "name: work\nnodes:\n  - {id: a, tool: text.trim, with: {text: done}}\n";

#[derive(Debug, Clone, Args)]
pub struct WaitingArgs {
    /// Runs that wait: half for a time, half for a person.
    #[arg(long, default_value_t = 100_000)]
    runs: usize,
    /// Folder on the device to measure; a new sub-folder is made and removed.
    #[arg(long, default_value = ".")]
    dir: PathBuf,
}

/// Result of the bench.
#[derive(Debug, Serialize)]
struct WaitingBenchRow {
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
    let row = measure_waiting(&folder, args.runs).await;
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

async fn measure_waiting(folder: &Path, runs: usize) -> anyhow::Result<WaitingBenchRow> {
    let begun = Instant::now();
    // The log is closed after it was filled, so that opening it is a cold start.
    fill_log(folder, runs).await?;
    let create_s = begun.elapsed().as_secs_f64();
    let rss_before_mib = resident_memory_mib();
    let begun = Instant::now();
    let log: Arc<dyn LogWriter> = Arc::new(EmbeddedLog::open(&EmbeddedConfig::new(folder))?);
    let open_ms = elapsed_ms(begun);
    let repository = Repository::new(Arc::clone(&log), Arc::new(SystemClock));
    let begun = Instant::now();
    let executor = start_executor(&repository, |_| {})?;
    let graph = register_graph(&repository, &parse_graph(WORK)?).await?;
    let stream = create_run(&repository, &graph, None).await?;
    while !repository.load::<Run>(&stream).await?.state.phase.is_ended() {
        tokio::time::sleep(POLL_INTERVAL).await;
    }
    let first_run_ms = elapsed_ms(begun);
    let rss_after_mib = resident_memory_mib();
    executor.shut_down().await?;
    log.close().await?;
    Ok(WaitingBenchRow {
        bench: "waiting",
        runs,
        create_s,
        open_ms,
        first_run_ms,
        rss_before_mib,
        rss_after_mib,
    })
}

fn elapsed_ms(started: Instant) -> u64 {
    u64::try_from(started.elapsed().as_millis()).unwrap_or(u64::MAX)
}

/// Fills a log with waiting runs.
async fn fill_log(folder: &Path, runs: usize) -> anyhow::Result<()> {
    let log: Arc<dyn LogWriter> = Arc::new(EmbeddedLog::open(&EmbeddedConfig::new(folder))?);
    let repository = Repository::new(Arc::clone(&log), Arc::new(SystemClock));
    let graph = register_graph(&repository, &parse_graph(MANIFEST)?).await?;
    let mut creating = JoinSet::new();
    for number in 0..runs {
        // Bounded, so that memory measures waiting runs and not pending tasks.
        if creating.len() == CREATIONS_LIMIT {
            let _stream = creating.join_next().await.context("one is under way")???;
        }
        let (repository, graph) = (repository.clone(), graph.clone());
        let intent = waiting_intent(&repository, number);
        creating.spawn(async move { create_run(&repository, &graph, Some(intent)).await });
    }
    while let Some(created) = creating.join_next().await {
        let _stream = created??;
    }
    log.close().await?;
    Ok(())
}

/// Intent that a run waits by: every other run waits for a person.
fn waiting_intent(repository: &Repository, number: usize) -> StepIntent {
    let due = repository.clock().now().add_span(Span::from_seconds(30 * 24 * 3600));
    match number % 2 {
        0 => StepIntent::Sleep { due },
        _ => StepIntent::RequestApproval {
            approval: ApprovalId(Uuid::now_v7()),
            role: "owner".into(),
            content: PayloadSlot(0),
            content_hash: "0".repeat(64),
            expires: Some(due),
        },
    }
}

/// Creates a run; with an intent, one that waits by it.
async fn create_run(
    repository: &Repository,
    graph: &BenchGraph,
    intent: Option<StepIntent>,
) -> anyhow::Result<StreamKey> {
    let new_run = graph.new_run(Budget { wall: None, ..Budget::default() }, "{}");
    let mut run = UseCases::new(repository).create_run(&bench_caller(), new_run).await?;
    if let Some(intent) = intent {
        let advance = AdvanceRun {
            executor: ExecutorId(Uuid::nil()),
            turn_updates: Vec::new(),
            outcomes: Vec::new(),
            instant_outcomes: Vec::new(),
            ready_steps: Vec::new(),
            starts: vec![StepStart { step: "nap".parse()?, intent }],
            end: None,
        };
        let content = vec![json_payload(b"{}".to_vec(), PayloadPurpose::Input)];
        let context = bench_context(repository);
        repository.commit(&mut run, RunCommand::Advance(advance), content, &context).await?;
    }
    Ok(run.stream)
}
