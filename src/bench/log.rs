//! `convergio bench log`: appends, replays and loads on every provider, each beside what the same
//! disk or cluster does without this program in the same run.

use std::path::PathBuf;
use std::sync::Arc;
use std::time::{Duration, Instant};

use anyhow::Context as _;
use clap::Args;
use convergio_domain::decider::Wake;
use convergio_domain::event::{Event, request};
use convergio_domain::stream::{Seq, StreamKey};
use convergio_domain::time::Timestamp;
use convergio_eventstore::embedded::{self, EmbeddedLog};
use convergio_eventstore::{Commit, EventLog, Head, MemoryLog, Position, Scan};
use serde::Serialize;
use tokio::task::JoinSet;
use uuid::Uuid;

use super::cluster::{BenchCluster, Raw};
use super::growth;
use super::raw::{group_commit_per_s, micros, percentile};
use crate::cli::Global;
use crate::log_place::ClusterPlace;
use crate::terminal;

/// Characters in an event; with the rest of its record about 600 bytes.
const TEXT_BYTES: usize = 330;
/// Number of distinct texts that are appended in turn.
const TEXTS: usize = 256;
/// Bytes of a raw record for comparison.
const RECORD_BYTES: usize = 600;
/// Events of a run that is loaded, and number of such runs that grow concurrently.
const RUN_EVENTS: usize = 100;
const RUNS: usize = 20;
/// Events of one commit at the border of two steps, and characters in each.
const STEP_EVENTS: usize = 3;
const STEP_TEXT_BYTES: usize = 60;
/// Number of such commits that are replayed.
const STEP_COMMITS: usize = 30_000;
/// Records read at once.
const PAGE: usize = 4000;

/// What to measure.
#[derive(Debug, Args)]
pub(crate) struct LogArgs {
    /// Writers at once, one measurement each.
    #[arg(long, value_delimiter = ',', default_value = "1,16,64,256")]
    writers: Vec<usize>,
    /// Seconds of each measurement.
    #[arg(long, default_value_t = 3)]
    seconds: u64,
    /// Folder on the device to measure; a new sub-folder is made and removed.
    #[arg(long, default_value = ".")]
    dir: PathBuf,
    /// A cluster to measure too: nats://host:port[,host:port], with --log-creds. Streams are made
    /// and removed.
    #[arg(long)]
    nats: Option<String>,
    /// Copies of each record in the cluster.
    #[arg(long, default_value_t = 3)]
    replicas: usize,
    /// Runs in the log at which the cost of an append and of a load is measured, in place of the
    /// rest: 10000,100000,1000000.
    #[arg(long, value_delimiter = ',')]
    growth: Vec<usize>,
}

/// Measurement of one operation on one provider.
#[derive(Debug, Serialize)]
struct Row {
    bench: &'static str,
    provider: &'static str,
    operation: &'static str,
    writers: usize,
    ops_per_s: u64,
    p50_us: u64,
    p99_us: u64,
    /// Rate of the device or cluster without this program; 0 where there is no such measure.
    raw_ops_per_s: u64,
    /// Rate of a cluster that compares an expected version with each message, as the log demands.
    #[serde(skip_serializing_if = "Option::is_none")]
    raw_checked_ops_per_s: Option<u64>,
}

impl Row {
    fn print(&self, json: bool) -> anyhow::Result<()> {
        if json {
            terminal::print_json_line(self)?;
            return Ok(());
        }
        let Self { provider, operation, writers, ops_per_s, p50_us, p99_us, raw_ops_per_s, .. } =
            self;
        let checked = self.raw_checked_ops_per_s.map(|rate| rate.to_string()).unwrap_or_default();
        out_line!(
            "{provider:>10} {operation:>15} {writers:>8} {ops_per_s:>10} {p50_us:>9} {p99_us:>9} \
             {raw_ops_per_s:>10} {checked:>10}"
        );
        Ok(())
    }
}

/// Measures every provider and prints a row for each operation.
///
/// # Errors
/// The folder or the cluster cannot be used, or the log fails.
pub(crate) async fn run(args: LogArgs, global: &Global) -> anyhow::Result<()> {
    let json = global.json;
    if !json && args.growth.is_empty() {
        out_line!(
            "{:>10} {:>15} {:>8} {:>10} {:>9} {:>9} {:>10} {:>10}",
            "provider",
            "does",
            "writers",
            "ops/s",
            "p50 us",
            "p99 us",
            "raw ops/s",
            "checked"
        );
    }
    let span = Duration::from_secs(args.seconds);
    if args.growth.is_empty() {
        memory(&args, span, json).await?;
    }
    embedded(&args, span, json).await?;
    if let Some(url) = &args.nats {
        let cluster = BenchCluster::make(&ClusterPlace::parse(url, global)?, args.replicas).await?;
        measure_cluster(&args, cluster, span, json).await?;
    }
    Ok(())
}

/// Measures the log in memory: the cost of our own code, without a device.
async fn memory(args: &LogArgs, span: Duration, json: bool) -> anyhow::Result<()> {
    for writers in &args.writers {
        let log: Arc<dyn EventLog> = Arc::new(MemoryLog::new());
        append("memory", &log, *writers, span, 0).await?.print(json)?;
    }
    for row in reads("memory", &(Arc::new(MemoryLog::new()) as Arc<dyn EventLog>)).await? {
        row.print(json)?;
    }
    Ok(())
}

async fn embedded(args: &LogArgs, span: Duration, json: bool) -> anyhow::Result<()> {
    let folder = args.dir.join(format!("convergio-bench-{}", Uuid::now_v7()));
    std::fs::create_dir_all(&folder)
        .with_context(|| format!("cannot create {}", folder.display()))?;
    let log: Arc<dyn EventLog> =
        Arc::new(EmbeddedLog::open(&embedded::Config::new(folder.join("log")))?);
    if args.growth.is_empty() {
        for writers in &args.writers {
            let raw = group_commit_per_s(&folder, *writers, RECORD_BYTES, span).await?;
            append("embedded", &log, *writers, span, raw).await?.print(json)?;
        }
        for row in reads("embedded", &log).await? {
            row.print(json)?;
        }
    } else {
        growth::measure("embedded", &log, &args.growth, json).await?;
    }
    log.close().await?;
    std::fs::remove_dir_all(&folder)?;
    Ok(())
}

async fn measure_cluster(
    args: &LogArgs,
    cluster: BenchCluster,
    span: Duration,
    json: bool,
) -> anyhow::Result<()> {
    let log = Arc::clone(&cluster.log);
    if args.growth.is_empty() {
        for writers in &args.writers {
            // Raw publishes run just before the appends, under the same load of the machine.
            let raw = raw_per_s(&cluster, Raw::Plain, *writers, span).await?;
            let checked = raw_per_s(&cluster, Raw::Checked, *writers, span).await?;
            let row = append("jetstream", &log, *writers, span, raw).await?;
            Row { raw_checked_ops_per_s: Some(checked), ..row }.print(json)?;
        }
        for row in reads("jetstream", &log).await? {
            row.print(json)?;
        }
    } else {
        growth::measure("jetstream", &log, &args.growth, json).await?;
    }
    cluster.remove().await
}

async fn raw_per_s(
    cluster: &BenchCluster,
    raw: Raw,
    writers: usize,
    span: Duration,
) -> anyhow::Result<u64> {
    let times = cluster.raw_publish_us(raw, writers, RECORD_BYTES, span).await?;
    Ok((times.len() as f64 / span.as_secs_f64()) as u64)
}

/// Measures appends of concurrent writers, each alone on streams of 20 commits.
async fn append(
    provider: &'static str,
    log: &Arc<dyn EventLog>,
    writers: usize,
    span: Duration,
    raw_ops_per_s: u64,
) -> anyhow::Result<Row> {
    // Created before the clock starts: random bytes are not the log's work.
    let texts: Arc<[String]> = (0..TEXTS).map(|_| text(TEXT_BYTES)).collect::<Result<_, _>>()?;
    let begun = Instant::now();
    let mut tasks = JoinSet::new();
    for writer in 0..writers {
        let (log, texts) = (Arc::clone(log), Arc::clone(&texts));
        tasks.spawn(async move {
            let (mut times, mut at, mut head) = (Vec::new(), stream(), None);
            while begun.elapsed() < span {
                if times.len() % 20 == 0 {
                    (at, head) = (stream(), None);
                }
                let text = texts[(writer + times.len()) % TEXTS].clone();
                let commit = commit_of(&at, head, vec![text])?;
                let start = Instant::now();
                head = Some(log.append(commit).await?);
                times.push(micros(start));
            }
            anyhow::Ok(times)
        });
    }
    let mut times = Vec::new();
    while let Some(of_one) = tasks.join_next().await {
        times.extend(of_one??);
    }
    let elapsed = begun.elapsed();
    Ok(row(provider, "append", writers, times, elapsed, raw_ops_per_s))
}

/// Measures loads of runs that grew concurrently, and replays of the whole log, decoded and raw.
/// Then the same for a log with commits as steps write them.
async fn reads(provider: &'static str, log: &Arc<dyn EventLog>) -> anyhow::Result<Vec<Row>> {
    let streams: Vec<StreamKey> = (0..RUNS).map(|_| stream()).collect();
    let mut heads: Vec<Option<Head>> = vec![None; RUNS];
    for _ in 0..RUN_EVENTS {
        // Runs grow in turns, so that their records are scattered over the log as in real use.
        for (at, head) in streams.iter().zip(&mut heads) {
            *head = Some(log.append(commit(at, *head)?).await?);
        }
    }
    let (begun, mut times) = (Instant::now(), Vec::new());
    for at in streams.iter().cycle().take(RUNS * 5) {
        let start = Instant::now();
        let records = log.read_stream(at, Seq(0), 256).await?;
        anyhow::ensure!(records.len() == RUN_EVENTS, "{} records", records.len());
        times.push(micros(start));
    }
    let mut rows = vec![row(provider, "load", 1, times, begun.elapsed(), 0)];
    // The tail now separates the next records from those measured above.
    let end = log.read_all(Position::START, 0).await?.tail;
    rows.push(replay(provider, "replay", log, Position::START).await?);
    rows.push(replay_raw(provider, "replay_raw", log, Position::START, 1).await?);
    steps(log, STEP_COMMITS, RUNS * 3).await?;
    rows.push(replay(provider, "replay_steps", log, end).await?);
    rows.push(replay_raw(provider, "replay_steps_raw", log, end, STEP_EVENTS).await?);
    Ok(rows)
}

/// Appends commits as steps write them, by writers each alone on its streams.
async fn steps(log: &Arc<dyn EventLog>, commits: usize, writers: usize) -> anyhow::Result<()> {
    let mut tasks = JoinSet::new();
    for _ in 0..writers {
        let log = Arc::clone(log);
        tasks.spawn(async move {
            let (mut at, mut head) = (stream(), None);
            for number in 0..commits / writers {
                if number % 20 == 0 {
                    (at, head) = (stream(), None);
                }
                head = Some(log.append(step_commit(&at, head)?).await?);
            }
            anyhow::Ok(())
        });
    }
    while let Some(done) = tasks.join_next().await {
        done??;
    }
    Ok(())
}

/// Measures events per second, decoded and verified; latencies are per page.
async fn replay(
    provider: &'static str,
    operation: &'static str,
    log: &Arc<dyn EventLog>,
    mut at: Position,
) -> anyhow::Result<Row> {
    let (begun, mut events, mut times) = (Instant::now(), 0_usize, Vec::new());
    loop {
        let start = Instant::now();
        let page = log.read_all(at, PAGE).await?;
        if page.records.is_empty() {
            break;
        }
        times.push(micros(start));
        events += page.records.iter().map(|record| record.body.events.len()).sum::<usize>();
        at = page.next;
    }
    Ok(per_s(row(provider, operation, 1, times, begun.elapsed(), 0), events, begun))
}

/// Measures events per second of raw records, with their hashes verified.
async fn replay_raw(
    provider: &'static str,
    operation: &'static str,
    log: &Arc<dyn EventLog>,
    mut at: Position,
    events_a_record: usize,
) -> anyhow::Result<Row> {
    let (begun, mut records, mut times) = (Instant::now(), 0_usize, Vec::new());
    loop {
        let start = Instant::now();
        let page = log.read_raw(Scan::All(at), PAGE).await?;
        let Some(last) = page.last() else { break };
        times.push(micros(start));
        records += page.len();
        at = last.position;
    }
    let row = row(provider, operation, 1, times, begun.elapsed(), 0);
    Ok(per_s(row, records * events_a_record, begun))
}

fn per_s(row: Row, events: usize, begun: Instant) -> Row {
    Row { ops_per_s: (events as f64 / begun.elapsed().as_secs_f64()) as u64, ..row }
}

fn row(
    provider: &'static str,
    operation: &'static str,
    writers: usize,
    mut times: Vec<u64>,
    elapsed: Duration,
    raw_ops_per_s: u64,
) -> Row {
    times.sort_unstable();
    Row {
        bench: "log",
        provider,
        operation,
        writers,
        ops_per_s: (times.len() as f64 / elapsed.as_secs_f64()) as u64,
        p50_us: percentile(&times, 50),
        p99_us: percentile(&times, 99),
        raw_ops_per_s,
        raw_checked_ops_per_s: None,
    }
}

pub(super) fn stream() -> StreamKey {
    StreamKey::request("bench".parse().expect("`bench` is a valid name"), Uuid::now_v7())
}

fn commit(stream: &StreamKey, expected: Option<Head>) -> anyhow::Result<Commit> {
    commit_of(stream, expected, vec![text(TEXT_BYTES)?])
}

/// A commit with the short events of one step.
pub(super) fn step_commit(stream: &StreamKey, expected: Option<Head>) -> anyhow::Result<Commit> {
    let texts = (0..STEP_EVENTS).map(|_| text(STEP_TEXT_BYTES)).collect::<Result<_, _>>()?;
    commit_of(stream, expected, texts)
}

/// Text of random lower-case letters.
fn text(letters: usize) -> anyhow::Result<String> {
    let mut random = vec![0_u8; letters];
    getrandom::fill(&mut random)?;
    Ok(random.iter().map(|byte| char::from(b'a' + byte % 26)).collect())
}

fn commit_of(
    stream: &StreamKey,
    expected: Option<Head>,
    texts: Vec<String>,
) -> anyhow::Result<Commit> {
    let event = |text| Event::RequestAccepted(request::Accepted { request_hash: text });
    Ok(Commit {
        stream: stream.clone(),
        id: Uuid::now_v7(),
        expected,
        time: Timestamp(1),
        actor: "bench".parse()?,
        events: texts.into_iter().map(event).collect(),
        fold: None,
        payloads: Vec::new(),
        reuse: Vec::new(),
        wake: Wake::Done,
        is_continued: false,
    })
}
