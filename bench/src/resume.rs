//! `convergio bench resume`: time to load and to fork runs of 10^3 to 10^6 events, with and without
//! checkpoints.
//!
//! Two shapes: `long`, a fixed number of steps that are retried again and again, and `wide`, with
//! steps in proportion to its events.

use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Instant;

use anyhow::Context as _;
use clap::Args;
use convergio_application::UseCases;
use convergio_domain::id::{ExecutorId, GraphId, GraphVersion, NodeId, RunId, StepId};
use convergio_domain::run::{
    AdvanceRun, Budget, ForkRun, Run, RunCommand, StepIntent, StepOutcome, StepResult, StepStart,
};
use convergio_domain::stream::{Seq, StreamKey};
use convergio_domain::time::Timestamp;
use convergio_eventstore::embedded::{EmbeddedConfig, EmbeddedLog};
use convergio_eventstore::{
    CheckpointFolder, CheckpointStore, LoadedStream, LogWriter, Repository, SystemClock,
};
use convergio_process::{out_line, terminal};
use serde::Serialize;
use uuid::Uuid;

use super::raw::{elapsed_us, value_at_percentile};
use super::workload::{BenchGraph, bench_caller, bench_context, new_run_stream};

/// Maximum steps per commit.
const STEPS_PER_COMMIT: u32 = 256;
/// Repetitions of each measurement.
const ROUNDS: usize = 21;

#[derive(Debug, Clone, Args)]
pub struct ResumeArgs {
    /// Events of the runs.
    #[arg(long, value_delimiter = ',', default_value = "1000,10000,100000,1000000")]
    events: Vec<u64>,
    /// Folder on the device to measure; a new sub-folder is made and removed.
    #[arg(long, default_value = ".")]
    dir: PathBuf,
}

/// Measurement of one shape and size.
#[derive(Debug, Serialize)]
struct ResumeBenchRow {
    bench: &'static str,
    shape: &'static str,
    events: u64,
    steps: usize,
    /// Median time to load the run from its last checkpoint.
    resume_p50_us: u64,
    /// Time to load the run without any checkpoint.
    fold_ms: u64,
    /// Median time to fork the run at 40 % of its events.
    fork_p50_us: u64,
    checkpoints: usize,
    last_checkpoint_bytes: usize,
}

/// Measures every size and prints a row for each.
///
/// # Errors
/// The folder cannot be used, or the log fails.
pub(crate) async fn run(args: ResumeArgs, json: bool) -> anyhow::Result<()> {
    if !json {
        out_line!(
            "{:>6} {:>9} {:>8} {:>13} {:>9} {:>12} {:>12} {:>12}",
            "shape",
            "events",
            "steps",
            "resume p50 us",
            "fold ms",
            "fork p50 us",
            "checkpoints",
            "last bytes"
        );
    }
    for shape in [RunShape::Long, RunShape::Wide] {
        for events in &args.events {
            let folder = args.dir.join(format!("convergio-bench-{}", Uuid::now_v7()));
            std::fs::create_dir_all(&folder)
                .with_context(|| format!("cannot create {}", folder.display()))?;
            let row = measure_resume(&folder, shape, *events).await;
            std::fs::remove_dir_all(&folder)?;
            print_row(&row?, json)?;
        }
    }
    Ok(())
}

fn print_row(row: &ResumeBenchRow, json: bool) -> anyhow::Result<()> {
    if json {
        terminal::print_json_line(row)?;
        return Ok(());
    }
    out_line!(
        "{:>6} {:>9} {:>8} {:>13} {:>9} {:>12} {:>12} {:>12}",
        row.shape,
        row.events,
        row.steps,
        row.resume_p50_us,
        row.fold_ms,
        row.fork_p50_us,
        row.checkpoints,
        row.last_checkpoint_bytes
    );
    Ok(())
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum RunShape {
    Long,
    Wide,
}

async fn measure_resume(
    folder: &Path,
    shape: RunShape,
    events: u64,
) -> anyhow::Result<ResumeBenchRow> {
    let log: Arc<dyn LogWriter> = Arc::new(EmbeddedLog::open(&EmbeddedConfig::new(folder))?);
    // One repository with checkpoints and one without, on the same log.
    let checkpoints = Arc::new(CheckpointFolder::new(&folder.join("checkpoints")));
    let plain = Repository::new(Arc::clone(&log), Arc::new(SystemClock));
    let repository = plain.clone().with_checkpoints(checkpoints.clone());
    let stream = create_long_run(&repository, shape, events).await?;
    let mut resumes = Vec::new();
    for _ in 0..ROUNDS {
        let begun = Instant::now();
        repository.load::<Run>(&stream).await?;
        resumes.push(elapsed_us(begun));
    }
    let at = Seq(events * 2 / 5);
    let mut forks = Vec::new();
    for _ in 0..ROUNDS {
        let begun = Instant::now();
        fork_run(&repository, &stream, at).await?;
        forks.push(elapsed_us(begun));
    }
    let begun = Instant::now();
    let steps = plain.load::<Run>(&stream).await?.state.steps.len();
    let fold_ms = elapsed_us(begun) / 1000;
    let last = checkpoints.last_checkpoint(&stream, Seq(u64::MAX));
    resumes.sort_unstable();
    forks.sort_unstable();
    log.close().await?;
    Ok(ResumeBenchRow {
        bench: "resume",
        shape: if shape == RunShape::Long { "long" } else { "wide" },
        events,
        steps,
        resume_p50_us: value_at_percentile(&resumes, 50),
        fold_ms,
        fork_p50_us: value_at_percentile(&forks, 50),
        checkpoints: checkpoints.list_seqs(&stream).len(),
        last_checkpoint_bytes: last.map_or(0, |last| last.state.len()),
    })
}

/// Creates a run of `events` events.
async fn create_long_run(
    repository: &Repository,
    shape: RunShape,
    events: u64,
) -> anyhow::Result<StreamKey> {
    // Nothing reads the graph: its id and version are made up.
    let graph =
        BenchGraph { id: GraphId(Uuid::nil()), version: GraphVersion::from_manifest(b"bench") };
    let new_run = graph.new_run(Budget::UNBOUND, "{}");
    let mut run = UseCases::new(repository).create_run(&bench_caller(), new_run).await?;
    let context = bench_context(repository);
    let mut round = 0;
    while run.state.seq.0 < events {
        // Each step adds two events at most, so the last commit is narrower and ends at the number
        // that was asked for.
        let width = u32::try_from((events - run.state.seq.0).div_ceil(2))?.min(STEPS_PER_COMMIT);
        let advance = match shape {
            RunShape::Long if round % 2 == 1 => retry_steps(&run, width),
            RunShape::Long => advance_command(Vec::new(), step_starts(0, width)),
            RunShape::Wide => complete_and_start(round, width),
        };
        round += 1;
        let command = RunCommand::Advance(advance);
        repository.commit(&mut run, command, Vec::new(), &context).await?;
    }
    Ok(run.stream)
}

/// Ends steps under way with an unknown outcome, so that they are retried.
fn retry_steps(run: &LoadedStream<Run>, width: u32) -> AdvanceRun {
    let steps = run.state.steps.iter().take(width as usize);
    let outcomes = steps.map(|(id, step)| {
        let result = StepResult::Unknown { retry_at: Some(Timestamp(0)) };
        step_outcome(id.clone(), step.attempt, result)
    });
    advance_command(outcomes.collect(), Vec::new())
}

/// Completes the steps of the previous round and starts others.
fn complete_and_start(round: u32, width: u32) -> AdvanceRun {
    let done = |item| {
        let result = StepResult::Completed { output: None, case: None };
        step_outcome(
            StepId::for_map_item(work_node(), (round - 1) * STEPS_PER_COMMIT + item),
            1,
            result,
        )
    };
    let outcomes = if round == 0 { Vec::new() } else { (0..width).map(done).collect() };
    advance_command(outcomes, step_starts(round * STEPS_PER_COMMIT, width))
}

fn step_outcome(step: StepId, attempt: u32, result: StepResult) -> StepOutcome {
    StepOutcome { step, attempt, result, call: None, skipped: Vec::new() }
}

fn step_starts(first: u32, width: u32) -> Vec<StepStart> {
    let start = |item| StepStart {
        step: StepId::for_map_item(work_node(), first + item),
        intent: StepIntent::Compute,
    };
    (0..width).map(start).collect()
}

fn advance_command(outcomes: Vec<StepOutcome>, starts: Vec<StepStart>) -> AdvanceRun {
    let (executor, instant) = (ExecutorId(Uuid::nil()), Vec::new());
    AdvanceRun {
        executor,
        turn_updates: Vec::new(),
        outcomes,
        instant_outcomes: instant,
        ready_steps: Vec::new(),
        starts,
        end: None,
    }
}

async fn fork_run(repository: &Repository, parent: &StreamKey, at: Seq) -> anyhow::Result<()> {
    let loaded = repository.load_at::<Run>(parent, at, true).await?;
    let mut loaded = loaded.context("the run has the event")?;
    let head = loaded.head.context("the run has events")?;
    let (graph, version) = loaded.state.graph.clone().context("the run was created")?;
    let command = ForkRun {
        parent: RunId(parent.id),
        seq: head.seq,
        hash: String::new(),
        fingerprint: loaded.state.refresh_fingerprint(),
        graph,
        version,
        input: None,
        budget: loaded.state.budget,
        changes: Vec::new(),
        request_hash: String::new(),
        is_parent_imported: false,
    };
    let fork = new_run_stream();
    let commands = |_: &_, _| (RunCommand::Fork(command.clone()), Vec::new());
    repository.execute_from(loaded, &fork, &bench_context(repository), commands).await?;
    Ok(())
}

fn work_node() -> NodeId {
    "work".parse().expect("`work` is a valid name")
}
