//! `convergio bench log`: appends, replay and loads, on the embedded log and on JetStream, each
//! beside what the same disk or the same cluster does without us in the same run.

use std::path::PathBuf;
use std::sync::Arc;
use std::time::{Duration, Instant};

use anyhow::Context as _;
use async_nats::ConnectOptions;
use async_nats::jetstream::{self, stream};
use clap::Args;
use convergio_domain::decider::Wake;
use convergio_domain::event::{Event, request};
use convergio_domain::stream::{Seq, StreamKey};
use convergio_domain::time::Timestamp;
use convergio_eventstore::embedded::{self, EmbeddedLog};
use convergio_eventstore::jetstream::{Address, Config, JetStreamLog, Layout, Login};
use convergio_eventstore::{Commit, Durability, EventLog, Head, Position};
use serde::Serialize;
use tokio::task::JoinSet;
use uuid::Uuid;

use super::raw::{group_commit_per_s, percentile};

/// Letters in an event; with the rest of the record about 600 bytes.
const TEXT_BYTES: usize = 330;
/// What a raw record has in its place.
const RECORD_BYTES: usize = 600;
/// Events of a run that is loaded, and how many such runs grow at the same time.
const RUN_EVENTS: usize = 100;
const RUNS: usize = 20;
/// Records read at once.
const PAGE: usize = 2000;

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
    /// A cluster to measure too: nats://user:password@host:port[,host:port]. Streams are made and
    /// removed.
    #[arg(long)]
    nats: Option<String>,
    /// Copies of each record in the cluster.
    #[arg(long, default_value_t = 3)]
    replicas: usize,
}

/// One row.
#[derive(Debug, Serialize)]
struct Row {
    bench: &'static str,
    provider: &'static str,
    operation: &'static str,
    writers: usize,
    ops_per_s: u64,
    p50_us: u64,
    p99_us: u64,
    /// What the device or the cluster does without us; 0 where there is no such measure.
    raw_ops_per_s: u64,
}

impl Row {
    fn print(&self, json: bool) -> anyhow::Result<()> {
        if json {
            println!("{}", serde_json::to_string(self)?);
            return Ok(());
        }
        let Self { provider, operation, writers, ops_per_s, p50_us, p99_us, raw_ops_per_s, .. } =
            self;
        println!(
            "{provider:>10} {operation:>8} {writers:>8} {ops_per_s:>10} {p50_us:>9} {p99_us:>9} \
             {raw_ops_per_s:>10}"
        );
        Ok(())
    }
}

/// Measures and prints a row each.
///
/// # Errors
/// The folder or the cluster cannot be used, or the log fails.
pub(crate) async fn run(args: LogArgs, json: bool) -> anyhow::Result<()> {
    if !json {
        println!(
            "{:>10} {:>8} {:>8} {:>10} {:>9} {:>9} {:>10}",
            "provider", "does", "writers", "ops/s", "p50 us", "p99 us", "raw ops/s"
        );
    }
    let span = Duration::from_secs(args.seconds);
    embedded(&args, span, json).await?;
    if let Some(url) = &args.nats {
        cluster(&args, url, span, json).await?;
    }
    Ok(())
}

async fn embedded(args: &LogArgs, span: Duration, json: bool) -> anyhow::Result<()> {
    let folder = args.dir.join(format!("convergio-bench-{}", Uuid::now_v7()));
    std::fs::create_dir_all(&folder)
        .with_context(|| format!("cannot create {}", folder.display()))?;
    let log: Arc<dyn EventLog> =
        Arc::new(EmbeddedLog::open(&embedded::Config::new(folder.join("log")))?);
    for writers in &args.writers {
        let raw = group_commit_per_s(&folder, *writers, RECORD_BYTES, span).await?;
        append("embedded", &log, *writers, span, raw).await?.print(json)?;
    }
    for row in reads("embedded", &log).await? {
        row.print(json)?;
    }
    log.close().await?;
    std::fs::remove_dir_all(&folder)?;
    Ok(())
}

async fn cluster(args: &LogArgs, url: &str, span: Duration, json: bool) -> anyhow::Result<()> {
    let mut address: Address = url.parse()?;
    let id = Uuid::now_v7().simple().to_string().to_ascii_uppercase();
    address.name = format!("BENCH_{}", &id[20..28]);
    let mut config = Config::new(address, [7; 32]);
    config.require = Durability::Process;
    let (log_bytes, payload_bytes) = (2 << 30, 64 << 20);
    let layout = Layout { replicas: args.replicas, log_bytes, payload_bytes };
    JetStreamLog::create(&config, &layout).await?;
    let raw = RawStream::make(&config.address, args.replicas).await?;
    let log: Arc<dyn EventLog> = Arc::new(JetStreamLog::open(&config).await?);
    for writers in &args.writers {
        let raw = raw.publish_per_s(*writers, span).await?;
        append("jetstream", &log, *writers, span, raw).await?.print(json)?;
    }
    for row in reads("jetstream", &log).await? {
        row.print(json)?;
    }
    log.close().await?;
    raw.remove(&config.address.name).await
}

/// A stream of the same settings, written to without us.
struct RawStream {
    context: jetstream::Context,
    name: String,
}

impl RawStream {
    async fn make(address: &Address, replicas: usize) -> anyhow::Result<Self> {
        let options = match &address.login {
            Login::Nobody => ConnectOptions::new(),
            Login::Password { user, password } => {
                ConnectOptions::with_user_and_password(user.clone(), password.clone())
            }
            Login::Credentials(path) => {
                ConnectOptions::with_credentials(&std::fs::read_to_string(path)?)?
            }
        };
        let context = jetstream::new(options.connect(address.servers.clone()).await?);
        let name = format!("RAW_{}", address.name);
        let config = stream::Config {
            name: name.clone(),
            subjects: vec![format!("raw.{name}.>")],
            num_replicas: replicas,
            storage: stream::StorageType::File,
            max_bytes: 2 << 30,
            ..stream::Config::default()
        };
        context.create_stream(config).await?;
        Ok(Self { context, name })
    }

    /// Messages a second; each writer waits for its own acknowledgement.
    async fn publish_per_s(&self, writers: usize, span: Duration) -> anyhow::Result<u64> {
        let begun = Instant::now();
        let mut tasks = JoinSet::new();
        for _ in 0..writers {
            let (context, name) = (self.context.clone(), self.name.clone());
            tasks.spawn(async move {
                let mut count = 0_u64;
                while begun.elapsed() < span {
                    let subject = format!("raw.{name}.{}", Uuid::now_v7());
                    context.publish(subject, vec![7; RECORD_BYTES].into()).await?.await?;
                    count += 1;
                }
                anyhow::Ok(count)
            });
        }
        let mut total = 0;
        while let Some(count) = tasks.join_next().await {
            total += count??;
        }
        Ok((total as f64 / begun.elapsed().as_secs_f64()) as u64)
    }

    /// Removes everything that the measurement made.
    async fn remove(&self, name: &str) -> anyhow::Result<()> {
        self.context.delete_stream(&self.name).await?;
        for part in ["LOG", "PAYLOAD", "DERIVED"] {
            self.context.delete_stream(format!("{name}_{part}")).await?;
        }
        Ok(())
    }
}

/// Writers, each alone on streams of 20 commits.
async fn append(
    provider: &'static str,
    log: &Arc<dyn EventLog>,
    writers: usize,
    span: Duration,
    raw_ops_per_s: u64,
) -> anyhow::Result<Row> {
    let begun = Instant::now();
    let mut tasks = JoinSet::new();
    for _ in 0..writers {
        let log = Arc::clone(log);
        tasks.spawn(async move {
            let (mut times, mut at, mut head) = (Vec::new(), stream(), None);
            while begun.elapsed() < span {
                if times.len() % 20 == 0 {
                    (at, head) = (stream(), None);
                }
                let commit = commit(&at, head)?;
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

/// The whole log, decoded and checked, and runs of 100 events that grew at the same time.
async fn reads(provider: &'static str, log: &Arc<dyn EventLog>) -> anyhow::Result<[Row; 2]> {
    let streams: Vec<StreamKey> = (0..RUNS).map(|_| stream()).collect();
    let mut heads: Vec<Option<Head>> = vec![None; RUNS];
    for _ in 0..RUN_EVENTS {
        for (at, head) in streams.iter().zip(&mut heads) {
            *head = Some(log.append(commit(at, *head)?).await?);
        }
    }
    let (begun, mut times) = (Instant::now(), Vec::new());
    for at in &streams {
        let start = Instant::now();
        let records = log.read_stream(at, Seq(0), 256).await?;
        anyhow::ensure!(records.len() == RUN_EVENTS, "{} records", records.len());
        times.push(micros(start));
    }
    let load = row(provider, "load", 1, times, begun.elapsed(), 0);
    let (begun, mut count, mut times, mut at) =
        (Instant::now(), 0_u64, Vec::new(), Position::START);
    loop {
        let start = Instant::now();
        let page = log.read_all(at, PAGE).await?;
        if page.records.is_empty() {
            break;
        }
        times.push(micros(start));
        count += page.records.len() as u64;
        at = page.next;
    }
    let per_s = count as f64 / begun.elapsed().as_secs_f64();
    // Times are those of a page.
    let replay =
        Row { ops_per_s: per_s as u64, ..row(provider, "replay", 1, times, begun.elapsed(), 0) };
    Ok([load, replay])
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
    }
}

fn micros(start: Instant) -> u64 {
    u64::try_from(start.elapsed().as_micros()).unwrap_or(u64::MAX)
}

fn stream() -> StreamKey {
    StreamKey::request("bench".parse().expect("`bench` is a valid name"), Uuid::now_v7())
}

fn commit(stream: &StreamKey, expected: Option<Head>) -> anyhow::Result<Commit> {
    let mut random = [0_u8; TEXT_BYTES];
    getrandom::fill(&mut random)?;
    let text = random.iter().map(|byte| char::from(b'a' + byte % 26)).collect();
    Ok(Commit {
        stream: stream.clone(),
        id: Uuid::now_v7(),
        expected,
        time: Timestamp(1),
        actor: "bench".parse()?,
        events: vec![Event::RequestAccepted(request::Accepted { request_hash: text })],
        fold: None,
        payloads: Vec::new(),
        reuse: Vec::new(),
        wake: Wake::Done,
    })
}
