//! `convergio bench replay`: rate at which a run's history is computed again, in memory and from
//! the log.
//!
//! The run is a real one: an executor works on maps of pure steps until there are enough events. It
//! is replayed in three ways: only its state is folded; state, fingerprints and the kernel's
//! decisions are computed and compared; and the same with all records read from the embedded log,
//! where each record's hash is verified and each event decoded.

use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::{Duration, Instant};

use clap::Args;
use convergio_application::UseCases;
use convergio_domain::decider::Decider;
use convergio_domain::graph::manifest::Graph;
use convergio_domain::run::{Budget, Run, RunPhase, RunState};
use convergio_domain::stream::{Seq, StreamKey};
use convergio_eventstore::embedded::{EmbeddedConfig, EmbeddedLog};
use convergio_eventstore::{EventLog, Record, Repository, SystemClock};
use convergio_executor::replay::Replay;
use convergio_process::{out_line, terminal};
use serde::Serialize;
use uuid::Uuid;

use super::workload::{bench_caller, parse_graph, register_graph, start_executor};

/// Items of each map.
const ITEMS_PER_MAP: u64 = 5000;
/// Events of each item: its start and its end.
const EVENTS_PER_ITEM: u64 = 2;
/// Records read at once.
const PAGE_RECORDS: usize = 1024;
/// Interval at which the end of the run is polled.
const POLL_INTERVAL: Duration = Duration::from_millis(100);

/// What to measure.
#[derive(Debug, Args)]
pub struct BenchReplayArgs {
    /// Events of the run, at least.
    #[arg(long, default_value_t = 300_000)]
    events: u64,
    /// Folder on the device to use; a new sub-folder is made and removed.
    #[arg(long, default_value = ".")]
    dir: PathBuf,
}

/// Measurement of one way to replay.
#[derive(Debug, Serialize)]
struct ReplayBenchRow {
    bench: &'static str,
    what: &'static str,
    events: u64,
    commits: u64,
    decisions: u64,
    seconds: f64,
    events_per_s: u64,
}

/// Creates a run, replays it in each way and prints a row for each.
///
/// # Errors
/// The folder cannot be used, the log fails, or the replay differs from what was written.
pub(crate) async fn run(args: BenchReplayArgs, json: bool) -> anyhow::Result<()> {
    let folder = args.dir.join(format!("convergio-bench-{}", Uuid::now_v7()));
    std::fs::create_dir_all(&folder)?;
    let measured = measure_replay(&folder, args.events).await;
    std::fs::remove_dir_all(&folder)?;
    let rows = measured?;
    if !json {
        out_line!(
            "{:>26} {:>9} {:>9} {:>9} {:>9} {:>11}",
            "computed again",
            "events",
            "commits",
            "decisions",
            "seconds",
            "events/s"
        );
    }
    for row in rows {
        if json {
            terminal::print_json_line(&row)?;
            continue;
        }
        let ReplayBenchRow { what, events, commits, decisions, seconds, events_per_s, .. } = row;
        out_line!(
            "{what:>26} {events:>9} {commits:>9} {decisions:>9} {seconds:>9.2} {events_per_s:>11}"
        );
    }
    Ok(())
}

async fn measure_replay(folder: &Path, events: u64) -> anyhow::Result<Vec<ReplayBenchRow>> {
    let log = Arc::new(EmbeddedLog::open(&EmbeddedConfig::new(folder))?);
    let repository = Repository::new(log, Arc::new(SystemClock));
    let log = repository.event_log();
    let maps = events.div_ceil(ITEMS_PER_MAP * EVENTS_PER_ITEM).max(1);
    let graph = parse_graph(&maps_manifest(maps))?;
    let run = complete_run(&repository, &graph).await?;
    let records = read_records(&log, &run).await?;
    let mut rows = vec![
        measure_fold(&records),
        measure_replay_in_memory("state and decisions", &graph, &records)?,
    ];
    let begun = Instant::now();
    let mut replay = new_replay(&graph)?;
    let mut after = Seq(0);
    loop {
        let page = log.read_stream(&run, after, PAGE_RECORDS).await?;
        for record in &page {
            replay_record(&mut replay, record)?;
            after = record.last_seq();
        }
        if page.len() < PAGE_RECORDS {
            break;
        }
    }
    rows.push(build_row("the same, read from disk", &replay, begun));
    log.close().await?;
    Ok(rows)
}

/// Manifest of maps one after the other, each over a list of numbers.
fn maps_manifest(maps: u64) -> String {
    let mut nodes = String::new();
    let mut needs = String::new();
    for number in 0..maps {
        nodes += &format!("  - id: m{number}\n    needs: [{needs}]\n    map:\n");
        nodes += "      over: \"{{ inputs.list }}\"\n      max_parallel: 64\n";
        nodes += "      tool: text.trim\n      with: {text: \"n{{ index }}\"}\n";
        needs = format!("m{number}");
    }
    format!("name: bench\ninputs: {{type: object}}\nnodes:\n{nodes}")
}

/// Registers the graph, creates a run of it, and lets an executor complete it.
async fn complete_run(repository: &Repository, graph: &Graph) -> anyhow::Result<StreamKey> {
    let registered = register_graph(repository, graph).await?;
    let list: Vec<u64> = (0..ITEMS_PER_MAP).collect();
    let inputs = serde_json::json!({ "list": list }).to_string();
    let new_run = registered.new_run(Budget { wall: None, ..Budget::default() }, inputs);
    let run = UseCases::new(repository).create_run(&bench_caller(), new_run).await?.stream;
    let executor = start_executor(repository, |_| {})?;
    let log = repository.event_log();
    // No stream is due any more when the run has ended and its last obligations are settled.
    while !log.due_streams(convergio_domain::time::Timestamp(i64::MAX), 1).await?.is_empty() {
        tokio::time::sleep(POLL_INTERVAL).await;
    }
    executor.shut_down().await?;
    let RunState { phase, error, .. } = repository.load::<Run>(&run).await?.state;
    anyhow::ensure!(phase == RunPhase::Completed, "the run is {phase:?}: {error:?}");
    Ok(run)
}

async fn read_records(
    log: &Arc<dyn EventLog>,
    run: &StreamKey,
) -> anyhow::Result<Vec<Arc<Record>>> {
    let mut records: Vec<Arc<Record>> = Vec::new();
    loop {
        let after = records.last().map_or(Seq(0), |record| record.last_seq());
        let page = log.read_stream(run, after, PAGE_RECORDS).await?;
        let is_last = page.len() < PAGE_RECORDS;
        records.extend(page);
        if is_last {
            return Ok(records);
        }
    }
}

/// Folds the state only.
fn measure_fold(records: &[Arc<Record>]) -> ReplayBenchRow {
    let begun = Instant::now();
    let mut state = RunState::default();
    for recorded in records.iter().flat_map(|record| record.recorded_events()) {
        Run::fold_event(&mut state, recorded);
    }
    let seconds = begun.elapsed().as_secs_f64();
    let (events, commits) = (state.seq.0, records.len() as u64);
    ReplayBenchRow {
        bench: "replay",
        what: "state",
        events,
        commits,
        decisions: 0,
        seconds,
        events_per_s: (events as f64 / seconds) as u64,
    }
}

fn measure_replay_in_memory(
    what: &'static str,
    graph: &Graph,
    records: &[Arc<Record>],
) -> anyhow::Result<ReplayBenchRow> {
    let begun = Instant::now();
    let mut replay = new_replay(graph)?;
    for record in records {
        replay_record(&mut replay, record)?;
    }
    Ok(build_row(what, &replay, begun))
}

fn new_replay(graph: &Graph) -> anyhow::Result<Replay> {
    Ok(Replay::new(graph.clone())?)
}

fn replay_record(replay: &mut Replay, record: &Arc<Record>) -> anyhow::Result<()> {
    replay.replay_commit(record, None).map_err(|found| anyhow::anyhow!("it diverges: {found:?}"))
}

fn build_row(what: &'static str, replay: &Replay, begun: Instant) -> ReplayBenchRow {
    let seconds = begun.elapsed().as_secs_f64();
    ReplayBenchRow {
        bench: "replay",
        what,
        events: replay.events,
        commits: replay.commits,
        decisions: replay.decisions,
        seconds,
        events_per_s: (replay.events as f64 / seconds) as u64,
    }
}
