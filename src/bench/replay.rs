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

use bytes::Bytes;
use clap::Args;
use convergio_domain::decider::{Context, Decider};
use convergio_domain::graph::manifest::Graph;
use convergio_domain::graph::{self, GraphNoun, Register};
use convergio_domain::id::{ExecutorId, RunId, TenantId};
use convergio_domain::metering::PriceBook;
use convergio_domain::payload::{PayloadSlot, Purpose};
use convergio_domain::run::{Budget, CreateRun, Phase, Run, RunCommand, RunState};
use convergio_domain::stream::{Seq, StreamKey};
use convergio_eventstore::embedded::{Config, EmbeddedLog};
use convergio_eventstore::{EventLog, LiveHub, Payload, Record, Repository, SystemClock};
use convergio_executor::model::ModelCatalog;
use convergio_executor::replay::Replay;
use convergio_executor::{Executor, ExecutorConfig, tool};
use serde::Serialize;
use uuid::Uuid;

use crate::terminal;

/// Items of each map.
const ITEMS: u64 = 5000;
/// Events of each item: its start and its end.
const PER_ITEM: u64 = 2;
/// Records read at once.
const PAGE: usize = 1024;
/// Interval at which the end of the run is polled.
const LOOK: Duration = Duration::from_millis(100);

/// What to measure.
#[derive(Debug, Args)]
pub(crate) struct ReplayArgs {
    /// Events of the run, at least.
    #[arg(long, default_value_t = 300_000)]
    events: u64,
    /// Folder on the device to use; a new sub-folder is made and removed.
    #[arg(long, default_value = ".")]
    dir: PathBuf,
}

/// Measurement of one way to replay.
#[derive(Debug, Serialize)]
struct Row {
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
pub(crate) async fn run(args: ReplayArgs, json: bool) -> anyhow::Result<()> {
    let folder = args.dir.join(format!("convergio-bench-{}", Uuid::now_v7()));
    std::fs::create_dir_all(&folder)?;
    let measured = measure(&folder, args.events).await;
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
        let Row { what, events, commits, decisions, seconds, events_per_s, .. } = row;
        out_line!(
            "{what:>26} {events:>9} {commits:>9} {decisions:>9} {seconds:>9.2} {events_per_s:>11}"
        );
    }
    Ok(())
}

async fn measure(folder: &Path, events: u64) -> anyhow::Result<Vec<Row>> {
    let log: Arc<dyn EventLog> = Arc::new(EmbeddedLog::open(&Config::new(folder))?);
    let repository = Repository::new(Arc::clone(&log), Arc::new(SystemClock));
    let maps = events.div_ceil(ITEMS * PER_ITEM).max(1);
    let graph = graph::parse(&manifest(maps), &tool::catalog());
    let graph = graph.map_err(|mistakes| anyhow::anyhow!("{mistakes:?}"))?.graph;
    let run = made(&repository, &graph).await?;
    let records = read(&log, &run).await?;
    let mut rows = vec![folded(&records), replayed("state and decisions", &graph, &records)?];
    let begun = Instant::now();
    let mut replay = begin(&graph)?;
    let mut after = Seq(0);
    loop {
        let page = log.read_stream(&run, after, PAGE).await?;
        for record in &page {
            step(&mut replay, record)?;
            after = record.last_seq();
        }
        if page.len() < PAGE {
            break;
        }
    }
    rows.push(row("the same, read from disk", &replay, begun));
    log.close().await?;
    Ok(rows)
}

/// Manifest of maps one after the other, each over a list of numbers.
fn manifest(maps: u64) -> String {
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
async fn made(repository: &Repository, graph: &Graph) -> anyhow::Result<StreamKey> {
    let tenant: TenantId = "bench".parse()?;
    let context = Context { now: repository.clock().now(), actor: "bench".parse()? };
    let id = graph::graph_id(&tenant, &graph.name);
    let register = Register {
        name: graph.name.clone(),
        version: graph.version(),
        nodes: u32::try_from(graph.nodes.len())?,
        manifest: PayloadSlot(0),
        is_derived: false,
    };
    let manifest = vec![payload(graph.canonical(), Purpose::Manifest)];
    let command = |_: &_, _| (register.clone(), manifest.clone());
    let stream = StreamKey::graph(tenant.clone(), id);
    repository.execute::<GraphNoun>(&stream, &context, command).await?;
    let create = CreateRun {
        graph: id,
        version: register.version.clone(),
        input: PayloadSlot(0),
        budget: Budget { wall: None, ..Budget::default() },
        request_hash: String::new(),
        privacy: convergio_domain::chat::Privacy::Any,
        lineage: convergio_domain::run::Lineage::default(),
    };
    let list: Vec<u64> = (0..ITEMS).collect();
    let input = serde_json::to_vec(&serde_json::json!({ "list": list }))?;
    let input = vec![payload(input, Purpose::Input)];
    let command = |_: &_, _| (RunCommand::Create(create.clone()), input.clone());
    let run = StreamKey::run(tenant, RunId(Uuid::now_v7()));
    repository.execute::<Run>(&run, &context, command).await?;
    let prices = Arc::new(PriceBook::parse("[]")?);
    let models = Arc::new(ModelCatalog::new(Vec::new(), Arc::clone(&prices))?);
    let config = ExecutorConfig::new(ExecutorId(Uuid::now_v7()));
    let executor = Executor::start(config, repository.clone(), models, LiveHub::new(), prices);
    let log = repository.log();
    // No stream is due any more when the run has ended and its last obligations are settled.
    while !log.due(convergio_domain::time::Timestamp(i64::MAX), 1).await?.is_empty() {
        tokio::time::sleep(LOOK).await;
    }
    executor.shutdown().await?;
    let RunState { phase, error, .. } = repository.load::<Run>(&run).await?.state;
    anyhow::ensure!(phase == Phase::Completed, "the run is {phase:?}: {error:?}");
    Ok(run)
}

async fn read(log: &Arc<dyn EventLog>, run: &StreamKey) -> anyhow::Result<Vec<Arc<Record>>> {
    let mut records: Vec<Arc<Record>> = Vec::new();
    loop {
        let after = records.last().map_or(Seq(0), |record| record.last_seq());
        let page = log.read_stream(run, after, PAGE).await?;
        let is_last = page.len() < PAGE;
        records.extend(page);
        if is_last {
            return Ok(records);
        }
    }
}

/// Folds the state only.
fn folded(records: &[Arc<Record>]) -> Row {
    let begun = Instant::now();
    let mut state = RunState::default();
    for recorded in records.iter().flat_map(|record| record.events()) {
        Run::evolve(&mut state, recorded);
    }
    let seconds = begun.elapsed().as_secs_f64();
    let (events, commits) = (state.seq.0, records.len() as u64);
    Row {
        bench: "replay",
        what: "state",
        events,
        commits,
        decisions: 0,
        seconds,
        events_per_s: (events as f64 / seconds) as u64,
    }
}

fn replayed(what: &'static str, graph: &Graph, records: &[Arc<Record>]) -> anyhow::Result<Row> {
    let begun = Instant::now();
    let mut replay = begin(graph)?;
    for record in records {
        step(&mut replay, record)?;
    }
    Ok(row(what, &replay, begun))
}

fn begin(graph: &Graph) -> anyhow::Result<Replay> {
    Ok(Replay::new(graph.clone())?)
}

fn step(replay: &mut Replay, record: &Arc<Record>) -> anyhow::Result<()> {
    replay.commit(record, None).map_err(|found| anyhow::anyhow!("it diverges: {found:?}"))
}

fn row(what: &'static str, replay: &Replay, begun: Instant) -> Row {
    let seconds = begun.elapsed().as_secs_f64();
    Row {
        bench: "replay",
        what,
        events: replay.events,
        commits: replay.commits,
        decisions: replay.decisions,
        seconds,
        events_per_s: (replay.events as f64 / seconds) as u64,
    }
}

fn payload(bytes: Vec<u8>, purpose: Purpose) -> Payload {
    let media_type = "application/json".into();
    Payload { bytes: Bytes::from(bytes), media_type, purpose, subject: None }
}
