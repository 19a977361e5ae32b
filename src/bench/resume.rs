//! `convergio bench resume`: time to load and to fork runs of 10^3 to 10^6 events, with and without
//! checkpoints.
//!
//! Two shapes: `long`, a fixed number of steps that are retried again and again, and `wide`, with
//! steps in proportion to its events.

use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Instant;

use anyhow::Context as _;
use bytes::Bytes;
use clap::Args;
use convergio_domain::chat::Privacy;
use convergio_domain::decider::Context;
use convergio_domain::id::{ExecutorId, GraphId, GraphVersion, NodeId, RunId, StepId, TenantId};
use convergio_domain::payload::{PayloadSlot, Purpose};
use convergio_domain::run::{
    Advance, Budget, CreateRun, ForkRun, Intent, Lineage, Outcome, Run, RunCommand, Start,
    StepResult,
};
use convergio_domain::stream::{Seq, StreamKey};
use convergio_domain::time::Timestamp;
use convergio_eventstore::embedded::{Config, EmbeddedLog};
use convergio_eventstore::{
    CheckpointFolder, Checkpoints, EventLog, Loaded, Payload, Repository, SystemClock,
};
use serde::Serialize;
use uuid::Uuid;

use super::raw::{micros, percentile};
use crate::terminal;

/// Maximum steps per commit.
const WIDTH: u32 = 256;
/// Repetitions of each measurement.
const ROUNDS: usize = 21;

#[derive(Debug, Clone, Args)]
pub(crate) struct ResumeArgs {
    /// Events of the runs.
    #[arg(long, value_delimiter = ',', default_value = "1000,10000,100000,1000000")]
    events: Vec<u64>,
    /// Folder on the device to measure; a new sub-folder is made and removed.
    #[arg(long, default_value = ".")]
    dir: PathBuf,
}

/// Measurement of one shape and size.
#[derive(Debug, Serialize)]
struct Row {
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
    for shape in [Shape::Long, Shape::Wide] {
        for events in &args.events {
            let folder = args.dir.join(format!("convergio-bench-{}", Uuid::now_v7()));
            std::fs::create_dir_all(&folder)
                .with_context(|| format!("cannot create {}", folder.display()))?;
            let row = measure(&folder, shape, *events).await;
            std::fs::remove_dir_all(&folder)?;
            print(&row?, json)?;
        }
    }
    Ok(())
}

fn print(row: &Row, json: bool) -> anyhow::Result<()> {
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
enum Shape {
    Long,
    Wide,
}

async fn measure(folder: &Path, shape: Shape, events: u64) -> anyhow::Result<Row> {
    let log: Arc<dyn EventLog> = Arc::new(EmbeddedLog::open(&Config::new(folder))?);
    // One repository with checkpoints and one without, on the same log.
    let checkpoints = Arc::new(CheckpointFolder::new(&folder.join("checkpoints")));
    let plain = Repository::new(Arc::clone(&log), Arc::new(SystemClock));
    let repository = plain.clone().with_checkpoints(checkpoints.clone());
    let stream = fill(&repository, shape, events).await?;
    let mut resumes = Vec::new();
    for _ in 0..ROUNDS {
        let begun = Instant::now();
        repository.load::<Run>(&stream).await?;
        resumes.push(micros(begun));
    }
    let at = Seq(events * 2 / 5);
    let mut forks = Vec::new();
    for _ in 0..ROUNDS {
        let begun = Instant::now();
        fork(&repository, &stream, at).await?;
        forks.push(micros(begun));
    }
    let begun = Instant::now();
    let steps = plain.load::<Run>(&stream).await?.state.steps.len();
    let fold_ms = micros(begun) / 1000;
    let last = checkpoints.last(&stream, Seq(u64::MAX));
    resumes.sort_unstable();
    forks.sort_unstable();
    log.close().await?;
    Ok(Row {
        bench: "resume",
        shape: if shape == Shape::Long { "long" } else { "wide" },
        events,
        steps,
        resume_p50_us: percentile(&resumes, 50),
        fold_ms,
        fork_p50_us: percentile(&forks, 50),
        checkpoints: checkpoints.list(&stream).len(),
        last_checkpoint_bytes: last.map_or(0, |last| last.state.len()),
    })
}

/// Creates a run of `events` events.
async fn fill(repository: &Repository, shape: Shape, events: u64) -> anyhow::Result<StreamKey> {
    let stream = StreamKey::run(tenant(), RunId(Uuid::now_v7()));
    let mut run = Loaded::<Run>::new(stream.clone());
    let create = CreateRun {
        graph: GraphId(Uuid::nil()),
        version: GraphVersion::of(b"bench"),
        input: PayloadSlot(0),
        budget: Budget::UNBOUND,
        privacy: Privacy::Any,
        lineage: Lineage::default(),
        request_hash: String::new(),
    };
    let media_type = "application/json".into();
    let bytes = Bytes::from_static(b"{}");
    let input = Payload { bytes, media_type, purpose: Purpose::Input, subject: None };
    let context = context(repository);
    repository.commit(&mut run, RunCommand::Create(create), vec![input], &context).await?;
    let mut round = 0;
    while run.state.seq.0 < events {
        // Each step adds two events at most, so the last commit is narrower and ends at the number
        // that was asked for.
        let width = u32::try_from((events - run.state.seq.0).div_ceil(2))?.min(WIDTH);
        let advance = match shape {
            Shape::Long if round % 2 == 1 => tried(&run, width),
            Shape::Long => advance(Vec::new(), starts(0, width)),
            Shape::Wide => wide(round, width),
        };
        round += 1;
        let command = RunCommand::Advance(advance);
        repository.commit(&mut run, command, Vec::new(), &context).await?;
    }
    Ok(stream)
}

/// Ends steps under way with an unknown outcome, so that they are retried.
fn tried(run: &Loaded<Run>, width: u32) -> Advance {
    let steps = run.state.steps.iter().take(width as usize);
    let outcomes = steps.map(|(id, step)| {
        let result = StepResult::Unknown { retry_at: Some(Timestamp(0)) };
        outcome(id.clone(), step.attempt, result)
    });
    advance(outcomes.collect(), Vec::new())
}

/// Completes the steps of the previous round and starts others.
fn wide(round: u32, width: u32) -> Advance {
    let done = |item| {
        let result = StepResult::Completed { output: None, case: None };
        outcome(StepId::item(node(), (round - 1) * WIDTH + item), 1, result)
    };
    let outcomes = if round == 0 { Vec::new() } else { (0..width).map(done).collect() };
    advance(outcomes, starts(round * WIDTH, width))
}

fn outcome(step: StepId, attempt: u32, result: StepResult) -> Outcome {
    Outcome { step, attempt, result, call: None, skipped: Vec::new() }
}

fn starts(first: u32, width: u32) -> Vec<Start> {
    let start = |item| Start { step: StepId::item(node(), first + item), intent: Intent::Compute };
    (0..width).map(start).collect()
}

fn advance(outcomes: Vec<Outcome>, starts: Vec<Start>) -> Advance {
    let (executor, instant) = (ExecutorId(Uuid::nil()), Vec::new());
    Advance { executor, moves: Vec::new(), outcomes, instant, ready: Vec::new(), starts, end: None }
}

async fn fork(repository: &Repository, parent: &StreamKey, at: Seq) -> anyhow::Result<()> {
    let loaded = repository.load_at::<Run>(parent, at, true).await?;
    let mut loaded = loaded.context("the run has the event")?;
    let head = loaded.head.context("the run has events")?;
    let (graph, version) = loaded.state.graph.clone().context("the run was created")?;
    let command = ForkRun {
        parent: RunId(parent.id),
        seq: head.seq,
        hash: String::new(),
        fold: loaded.state.fingerprint(),
        graph,
        version,
        input: None,
        budget: loaded.state.budget,
        changes: Vec::new(),
        request_hash: String::new(),
        of_import: false,
    };
    let fork = StreamKey::run(tenant(), RunId(Uuid::now_v7()));
    let commands = |_: &_, _| (RunCommand::Fork(command.clone()), Vec::new());
    repository.execute_from(loaded, &fork, &context(repository), commands).await?;
    Ok(())
}

fn node() -> NodeId {
    "work".parse().expect("`work` is a valid name")
}

fn tenant() -> TenantId {
    "bench".parse().expect("`bench` is a valid name")
}

fn context(repository: &Repository) -> Context {
    let actor = "bench".parse().expect("`bench` is a valid name");
    Context { now: repository.clock().now(), actor }
}
