//! `convergio bench log`: appends, replays and loads on every provider, each beside what the same
//! disk or cluster does without this program in the same run.

use std::path::PathBuf;
use std::sync::Arc;
use std::time::{Duration, Instant};

use anyhow::Context as _;
use clap::Args;
use convergio_domain::decider::Wake;
use convergio_domain::event::Event;
use convergio_domain::request::event::{RequestAccepted, RequestEvent};
use convergio_domain::stream::{Seq, StreamKey};
use convergio_domain::time::Timestamp;
use convergio_eventstore::embedded::{self, EmbeddedLog};
use convergio_eventstore::{
    Commit, LogWriter, MemoryLog, Position, RawScan, StreamHead, UndecidedCommit,
};
use convergio_process::{out_line, terminal};
use convergio_server::ClusterLocation;
use convergio_server::config::LogOptions;
use serde::Serialize;
use tokio::task::JoinSet;
use uuid::Uuid;

use super::cluster::{BenchCluster, RawPublish};
use super::growth;
use super::raw::{elapsed_us, group_commit_per_s, value_at_percentile};

/// Characters in an event; with the rest of its record about 600 bytes.
const TEXT_BYTES: usize = 330;
/// Number of distinct texts that are appended in turn.
const TEXTS_COUNT: usize = 256;
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
const PAGE_RECORDS: usize = 4000;

/// What to measure.
#[derive(Debug, Args)]
pub struct LogArgs {
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
struct LogBenchRow {
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

impl LogBenchRow {
    fn print_row(&self, json: bool) -> anyhow::Result<()> {
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
pub(crate) async fn run(args: LogArgs, cluster: &LogOptions, json: bool) -> anyhow::Result<()> {
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
        measure_memory(&args, span, json).await?;
    }
    measure_embedded(&args, span, json).await?;
    if let Some(url) = &args.nats {
        let cluster =
            BenchCluster::create_streams(&ClusterLocation::parse_url(url, cluster)?, args.replicas)
                .await?;
        measure_cluster(&args, cluster, span, json).await?;
    }
    Ok(())
}

/// Measures the log in memory: the cost of our own code, without a device.
async fn measure_memory(args: &LogArgs, span: Duration, json: bool) -> anyhow::Result<()> {
    for writers in &args.writers {
        let log: Arc<dyn LogWriter> = Arc::new(MemoryLog::new());
        measure_appends("memory", &log, *writers, span, 0).await?.print_row(json)?;
    }
    for row in measure_reads("memory", &(Arc::new(MemoryLog::new()) as Arc<dyn LogWriter>)).await? {
        row.print_row(json)?;
    }
    Ok(())
}

async fn measure_embedded(args: &LogArgs, span: Duration, json: bool) -> anyhow::Result<()> {
    let folder = args.dir.join(format!("convergio-bench-{}", Uuid::now_v7()));
    std::fs::create_dir_all(&folder)
        .with_context(|| format!("cannot create {}", folder.display()))?;
    let log: Arc<dyn LogWriter> =
        Arc::new(EmbeddedLog::open(&embedded::EmbeddedConfig::new(folder.join("log")))?);
    if args.growth.is_empty() {
        for writers in &args.writers {
            let raw = group_commit_per_s(&folder, *writers, RECORD_BYTES, span).await?;
            measure_appends("embedded", &log, *writers, span, raw).await?.print_row(json)?;
        }
        for row in measure_reads("embedded", &log).await? {
            row.print_row(json)?;
        }
    } else {
        growth::measure_growth("embedded", &log, &args.growth, json).await?;
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
            let raw = raw_publish_rate(&cluster, RawPublish::Plain, *writers, span).await?;
            let checked = raw_publish_rate(&cluster, RawPublish::Checked, *writers, span).await?;
            let row = measure_appends("jetstream", &log, *writers, span, raw).await?;
            LogBenchRow { raw_checked_ops_per_s: Some(checked), ..row }.print_row(json)?;
        }
        for row in measure_reads("jetstream", &log).await? {
            row.print_row(json)?;
        }
    } else {
        growth::measure_growth("jetstream", &log, &args.growth, json).await?;
    }
    cluster.remove_streams().await
}

async fn raw_publish_rate(
    cluster: &BenchCluster,
    raw: RawPublish,
    writers: usize,
    span: Duration,
) -> anyhow::Result<u64> {
    let times = cluster.raw_publish_us(raw, writers, RECORD_BYTES, span).await?;
    Ok((times.len() as f64 / span.as_secs_f64()) as u64)
}

/// Measures appends of concurrent writers, each alone on streams of 20 commits.
async fn measure_appends(
    provider: &'static str,
    log: &Arc<dyn LogWriter>,
    writers: usize,
    span: Duration,
    raw_ops_per_s: u64,
) -> anyhow::Result<LogBenchRow> {
    // Created before the clock starts: random bytes are not the log's work.
    let texts: Arc<[String]> =
        (0..TEXTS_COUNT).map(|_| random_text(TEXT_BYTES)).collect::<Result<_, _>>()?;
    let begun = Instant::now();
    let mut tasks = JoinSet::new();
    for writer in 0..writers {
        let (log, texts) = (Arc::clone(log), Arc::clone(&texts));
        tasks.spawn(async move {
            let (mut times, mut stream, mut head) = (Vec::new(), new_stream(), None);
            while begun.elapsed() < span {
                if times.len() % 20 == 0 {
                    (stream, head) = (new_stream(), None);
                }
                let text = texts[(writer + times.len()) % TEXTS_COUNT].clone();
                let commit = build_commit(&stream, head, vec![text])?;
                let start = Instant::now();
                head = Some(log.append(commit).await?);
                times.push(elapsed_us(start));
            }
            anyhow::Ok(times)
        });
    }
    let mut times = Vec::new();
    while let Some(of_one) = tasks.join_next().await {
        times.extend(of_one??);
    }
    let elapsed = begun.elapsed();
    Ok(build_row(provider, "append", writers, times, elapsed, raw_ops_per_s))
}

/// Measures loads of runs that grew concurrently, and replays of the whole log, decoded and raw.
/// Then the same for a log with commits as steps write them.
async fn measure_reads(
    provider: &'static str,
    log: &Arc<dyn LogWriter>,
) -> anyhow::Result<Vec<LogBenchRow>> {
    let streams: Vec<StreamKey> = (0..RUNS).map(|_| new_stream()).collect();
    let mut heads: Vec<Option<StreamHead>> = vec![None; RUNS];
    for _ in 0..RUN_EVENTS {
        // Runs grow in turns, so that their records are scattered over the log as in real use.
        for (at, head) in streams.iter().zip(&mut heads) {
            *head = Some(log.append(text_commit(at, *head)?).await?);
        }
    }
    let (begun, mut times) = (Instant::now(), Vec::new());
    for at in streams.iter().cycle().take(RUNS * 5) {
        let start = Instant::now();
        let records = log.read_stream(at, Seq(0), 256).await?;
        anyhow::ensure!(records.len() == RUN_EVENTS, "{} records", records.len());
        times.push(elapsed_us(start));
    }
    let mut rows = vec![build_row(provider, "load", 1, times, begun.elapsed(), 0)];
    // The tail now separates the next records from those measured above.
    let end = log.read_all(Position::START, 0).await?.tail;
    rows.push(measure_replay(provider, "replay", log, Position::START).await?);
    rows.push(measure_raw_replay(provider, "replay_raw", log, Position::START, 1).await?);
    append_step_commits(log, STEP_COMMITS, RUNS * 3).await?;
    rows.push(measure_replay(provider, "replay_steps", log, end).await?);
    rows.push(measure_raw_replay(provider, "replay_steps_raw", log, end, STEP_EVENTS).await?);
    Ok(rows)
}

/// Appends commits as steps write them, by writers each alone on its streams.
async fn append_step_commits(
    log: &Arc<dyn LogWriter>,
    commits: usize,
    writers: usize,
) -> anyhow::Result<()> {
    let mut tasks = JoinSet::new();
    for _ in 0..writers {
        let log = Arc::clone(log);
        tasks.spawn(async move {
            let (mut at, mut head) = (new_stream(), None);
            for number in 0..commits / writers {
                if number % 20 == 0 {
                    (at, head) = (new_stream(), None);
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
async fn measure_replay(
    provider: &'static str,
    operation: &'static str,
    log: &Arc<dyn LogWriter>,
    mut at: Position,
) -> anyhow::Result<LogBenchRow> {
    let (begun, mut events, mut times) = (Instant::now(), 0_usize, Vec::new());
    loop {
        let start = Instant::now();
        let page = log.read_all(at, PAGE_RECORDS).await?;
        if page.records.is_empty() {
            break;
        }
        times.push(elapsed_us(start));
        events += page.records.iter().map(|record| record.body.events.len()).sum::<usize>();
        at = page.next;
    }
    Ok(with_event_rate(build_row(provider, operation, 1, times, begun.elapsed(), 0), events, begun))
}

/// Measures events per second of raw records, with their hashes verified.
async fn measure_raw_replay(
    provider: &'static str,
    operation: &'static str,
    log: &Arc<dyn LogWriter>,
    mut at: Position,
    events_a_record: usize,
) -> anyhow::Result<LogBenchRow> {
    let (begun, mut records, mut times) = (Instant::now(), 0_usize, Vec::new());
    loop {
        let start = Instant::now();
        let page = log.read_raw(RawScan::All(at), PAGE_RECORDS).await?;
        let Some(last) = page.last() else { break };
        times.push(elapsed_us(start));
        records += page.len();
        at = last.position;
    }
    let row = build_row(provider, operation, 1, times, begun.elapsed(), 0);
    Ok(with_event_rate(row, records * events_a_record, begun))
}

fn with_event_rate(row: LogBenchRow, events: usize, begun: Instant) -> LogBenchRow {
    LogBenchRow { ops_per_s: (events as f64 / begun.elapsed().as_secs_f64()) as u64, ..row }
}

fn build_row(
    provider: &'static str,
    operation: &'static str,
    writers: usize,
    mut times: Vec<u64>,
    elapsed: Duration,
    raw_ops_per_s: u64,
) -> LogBenchRow {
    times.sort_unstable();
    LogBenchRow {
        bench: "log",
        provider,
        operation,
        writers,
        ops_per_s: (times.len() as f64 / elapsed.as_secs_f64()) as u64,
        p50_us: value_at_percentile(&times, 50),
        p99_us: value_at_percentile(&times, 99),
        raw_ops_per_s,
        raw_checked_ops_per_s: None,
    }
}

pub(super) fn new_stream() -> StreamKey {
    StreamKey::for_request("bench".parse().expect("`bench` is a valid name"), Uuid::now_v7())
}

fn text_commit(stream: &StreamKey, expected: Option<StreamHead>) -> anyhow::Result<Commit> {
    build_commit(stream, expected, vec![random_text(TEXT_BYTES)?])
}

/// A commit with the short events of one step.
pub(super) fn step_commit(
    stream: &StreamKey,
    expected: Option<StreamHead>,
) -> anyhow::Result<Commit> {
    let texts = (0..STEP_EVENTS).map(|_| random_text(STEP_TEXT_BYTES)).collect::<Result<_, _>>()?;
    build_commit(stream, expected, texts)
}

/// Text of random lower-case letters.
fn random_text(letters: usize) -> anyhow::Result<String> {
    let mut random = vec![0_u8; letters];
    getrandom::fill(&mut random)?;
    Ok(random.iter().map(|byte| char::from(b'a' + byte % 26)).collect())
}

fn build_commit(
    stream: &StreamKey,
    expected: Option<StreamHead>,
    texts: Vec<String>,
) -> anyhow::Result<Commit> {
    let event = |text| {
        Event::Request(RequestEvent::RequestAccepted(RequestAccepted { request_hash: text }))
    };
    Ok(Commit::from(UndecidedCommit {
        stream: stream.clone(),
        expected,
        time: Timestamp(1),
        actor: "bench".parse()?,
        events: texts.into_iter().map(event).collect(),
        payloads: Vec::new(),
        wake: Wake::Done,
    }))
}
