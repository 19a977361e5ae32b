//! `convergio bench steps`: rate of linear graphs of pure steps, every step durable.
//!
//! A closed loop: each of `concurrency` clients creates a run, waits for its end, and creates the
//! next. A step's time is the time between the commits that end it and its predecessor.

use std::collections::HashMap;
use std::path::PathBuf;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

use anyhow::Context as _;
use clap::Args;
use convergio_application::{NewRun, UseCases};
use convergio_domain::event::Event;
use convergio_domain::id::RunId;
use convergio_domain::run::Budget;
use convergio_domain::run::event::RunEvent;
use convergio_domain::stream::StreamKey;
use convergio_eventstore::embedded::{EmbeddedConfig, EmbeddedLog};
use convergio_eventstore::{EventLog, LogWriter, Position, Repository, SystemClock};
use convergio_executor::Executor;
use convergio_process::{out_line, terminal};
use convergio_server::ClusterLocation;
use convergio_server::config::LogOptions;
use futures_util::StreamExt;
use serde::Serialize;
use tokio::sync::{mpsc, oneshot};
use uuid::Uuid;

use super::cluster::{BenchCluster, RawPublish};
use super::raw::{append_sync_us, elapsed_us, value_at_percentile};
use super::workload::{bench_caller, parse_graph, register_graph, start_executor};

/// Bytes of a raw publish, about those of a step's commit and payload, and the time of the
/// measurement.
const RAW_BYTES: usize = 600;
const RAW_SPAN: Duration = Duration::from_secs(2);

/// What to measure.
#[derive(Debug, Args)]
pub struct StepsArgs {
    /// Steps of each graph.
    #[arg(long, default_value_t = 10)]
    steps: usize,
    /// Bytes that each step yields.
    #[arg(long, default_value_t = 200)]
    payload: usize,
    /// Runs under way at once, one measurement each.
    #[arg(long, value_delimiter = ',', default_value = "1,16,64")]
    concurrency: Vec<usize>,
    /// Seconds of each measurement.
    #[arg(long, default_value_t = 5)]
    seconds: u64,
    /// Folder on the device to measure; a new sub-folder is made and removed.
    #[arg(long, default_value = ".")]
    dir: PathBuf,
    /// A cluster to measure in place of a folder: nats://host:port[,host:port], with --log-creds.
    /// Streams are made and removed.
    #[arg(long)]
    nats: Option<String>,
    /// Copies of each record in the cluster.
    #[arg(long, default_value_t = 3)]
    replicas: usize,
}

/// Measurement at one concurrency.
#[derive(Debug, Serialize)]
struct StepsBenchRow {
    bench: &'static str,
    provider: &'static str,
    concurrency: usize,
    steps_per_s: u64,
    step_p50_us: u64,
    step_p99_us: u64,
    /// In a cluster: stored messages, which its servers sync one by one or in groups.
    syncs_per_step: f64,
    bytes_per_step: f64,
    /// Median of an append and a sync without this program; in a cluster of a publish.
    raw_sync_p50_us: u64,
}

/// A log under measurement, with counters of its work.
enum MeasuredLog {
    Embedded(Arc<EmbeddedLog>),
    Cluster(Box<BenchCluster>),
}

impl MeasuredLog {
    fn log_writer(&self) -> Arc<dyn LogWriter> {
        match self {
            Self::Embedded(log) => Arc::clone(log) as Arc<dyn LogWriter>,
            Self::Cluster(cluster) => Arc::clone(&cluster.log),
        }
    }

    /// Syncs and bytes of the log so far.
    async fn syncs_and_bytes(&self) -> anyhow::Result<(u64, u64)> {
        match self {
            Self::Embedded(log) => Ok((log.writer_stats().syncs, log.database_bytes().await?)),
            Self::Cluster(cluster) => cluster.stored_messages_and_bytes().await,
        }
    }
}

/// Measures every concurrency and prints a row for each.
///
/// # Errors
/// The folder cannot be used, or the log fails.
pub(crate) async fn run(args: StepsArgs, cluster: &LogOptions, json: bool) -> anyhow::Result<()> {
    if !json {
        out_line!(
            "{:>11} {:>11} {:>11} {:>11} {:>10} {:>10} {:>12}",
            "concurrency",
            "steps/s",
            "p50 us",
            "p99 us",
            "syncs/step",
            "bytes/step",
            "raw sync us"
        );
    }
    for concurrency in &args.concurrency {
        let row = measure_steps(&args, cluster, *concurrency).await?;
        if json {
            terminal::print_json_line(&row)?;
        } else {
            out_line!(
                "{:>11} {:>11} {:>11} {:>11} {:>10.2} {:>10.0} {:>12}",
                row.concurrency,
                row.steps_per_s,
                row.step_p50_us,
                row.step_p99_us,
                row.syncs_per_step,
                row.bytes_per_step,
                row.raw_sync_p50_us
            );
        }
    }
    Ok(())
}

async fn measure_steps(
    args: &StepsArgs,
    cluster: &LogOptions,
    concurrency: usize,
) -> anyhow::Result<StepsBenchRow> {
    if let Some(url) = &args.nats {
        let cluster =
            BenchCluster::create_streams(&ClusterLocation::parse_url(url, cluster)?, args.replicas)
                .await?;
        let raw = cluster.raw_publish_us(RawPublish::Plain, 1, RAW_BYTES, RAW_SPAN).await?;
        let measured_log = MeasuredLog::Cluster(Box::new(cluster));
        let row = measure_row(&measured_log, args, concurrency, &raw).await;
        if let MeasuredLog::Cluster(cluster) = measured_log {
            cluster.remove_streams().await?;
        }
        return row;
    }
    let folder = args.dir.join(format!("convergio-bench-{}", Uuid::now_v7()));
    std::fs::create_dir_all(&folder)
        .with_context(|| format!("cannot create {}", folder.display()))?;
    let raw = append_sync_us(&folder)?;
    let measured_log =
        MeasuredLog::Embedded(Arc::new(EmbeddedLog::open(&EmbeddedConfig::new(&folder))?));
    let row = measure_row(&measured_log, args, concurrency, &raw).await;
    measured_log.log_writer().close().await?;
    std::fs::remove_dir_all(&folder)?;
    row
}

async fn measure_row(
    measured_log: &MeasuredLog,
    args: &StepsArgs,
    concurrency: usize,
    raw_latencies_us: &[u64],
) -> anyhow::Result<StepsBenchRow> {
    let bench = StepsBench::start(measured_log.log_writer(), args).await?;
    let before = measured_log.syncs_and_bytes().await?;
    let begun = Instant::now();
    let watch = StepWatcher::start_watcher(bench.repository.event_log());
    let stop = Arc::new(AtomicBool::new(false));
    let clients: Vec<_> =
        (0..concurrency).map(|_| tokio::spawn(bench.run_client(&watch, &stop))).collect();
    tokio::time::sleep(Duration::from_secs(args.seconds)).await;
    stop.store(true, Ordering::Relaxed);
    for client in clients {
        client.await??;
    }
    let elapsed = begun.elapsed();
    bench.executor.shut_down().await?;
    // Read after the executor has stopped, so that all its commits are counted.
    let after = measured_log.syncs_and_bytes().await?;
    let mut times = watch.finish_times().await?;
    times.sort_unstable();
    let steps = times.len().max(1) as f64;
    Ok(StepsBenchRow {
        bench: "steps",
        provider: match measured_log {
            MeasuredLog::Embedded(_) => "embedded",
            MeasuredLog::Cluster(_) => "jetstream",
        },
        concurrency,
        steps_per_s: (steps / elapsed.as_secs_f64()) as u64,
        step_p50_us: value_at_percentile(&times, 50),
        step_p99_us: value_at_percentile(&times, 99),
        syncs_per_step: (after.0 - before.0) as f64 / steps,
        bytes_per_step: (after.1 - before.1) as f64 / steps,
        raw_sync_p50_us: value_at_percentile(raw_latencies_us, 50),
    })
}

/// Platform under measurement: an executor on the log, with one registered graph.
struct StepsBench {
    repository: Repository,
    executor: Executor,
    /// The run that clients create; each gives it an id of its own.
    new_run: NewRun,
}

impl StepsBench {
    async fn start(log: Arc<dyn LogWriter>, args: &StepsArgs) -> anyhow::Result<Self> {
        let repository = Repository::new(log, Arc::new(SystemClock));
        let graph = parse_graph(&chain_manifest(args.steps))?;
        let graph = register_graph(&repository, &graph).await?;
        let executor = start_executor(&repository, |_| {})?;
        let text = serde_json::json!({ "text": random_text(args.payload)? });
        let new_run = graph.new_run(Budget::default(), text.to_string());
        Ok(Self { repository, executor, new_run })
    }

    /// One client's loop: creates a run, waits for its end, and starts again until `stop`.
    fn run_client(
        &self,
        watch: &StepWatcher,
        stop: &Arc<AtomicBool>,
    ) -> impl Future<Output = anyhow::Result<()>> + Send + 'static {
        let (repository, new_run) = (self.repository.clone(), self.new_run.clone());
        let (waiters, stop) = (watch.waiters.clone(), Arc::clone(stop));
        async move {
            while !stop.load(Ordering::Relaxed) {
                let new_run = NewRun { run: RunId(Uuid::now_v7()), ..new_run.clone() };
                let (caller, (ended, end)) = (bench_caller(), oneshot::channel());
                waiters.send((caller.run_stream(new_run.run), ended))?;
                UseCases::new(&repository).create_run(&caller, new_run).await?;
                end.await?;
            }
            Ok(())
        }
    }
}

/// Tails the log: measures the time of each step, and notifies clients of the ends of runs.
struct StepWatcher {
    waiters: mpsc::UnboundedSender<(StreamKey, oneshot::Sender<()>)>,
    task: tokio::task::JoinHandle<anyhow::Result<Vec<u64>>>,
}

impl StepWatcher {
    fn start_watcher(log: Arc<dyn EventLog>) -> Self {
        let (waiters, mut waiting) = mpsc::unbounded_channel();
        let task = tokio::spawn(async move {
            let mut tail = log.tail_all(Position::START);
            let mut open: HashMap<StreamKey, oneshot::Sender<()>> = HashMap::new();
            let mut last: HashMap<StreamKey, Instant> = HashMap::new();
            let mut times = Vec::new();
            loop {
                tokio::select! {
                    // Waiters come first: a client must be known before the end of its run is read.
                    biased;
                    waiter = waiting.recv() => match waiter {
                        Some((stream, ended)) => { open.insert(stream, ended); }
                        None => return Ok(times),
                    },
                    record = tail.next() => {
                        let record = record.context("the log ended")??;
                        let now = Instant::now();
                        let before = last.insert(record.stream.clone(), now);
                        for event in &record.body.events {
                            let Event::Run(event) = event else { continue };
                            if let (RunEvent::StepCompleted(_), Some(before)) = (event, before) {
                                times.push(elapsed_us(before));
                            }
                            if matches!(event, RunEvent::RunCompleted(_) | RunEvent::RunFailed(_)) {
                                last.remove(&record.stream);
                                open.remove(&record.stream).map(|ended| ended.send(()));
                            }
                        }
                    }
                }
            }
        });
        Self { waiters, task }
    }

    async fn finish_times(self) -> anyhow::Result<Vec<u64>> {
        drop(self.waiters);
        self.task.await?
    }
}

/// Manifest of a chain of steps, each of which returns its input.
fn chain_manifest(steps: usize) -> String {
    let mut nodes = String::new();
    let mut from = "inputs.text".to_owned();
    for number in 0..steps {
        nodes += &format!(
            "  - {{id: s{number}, tool: text.trim, with: {{text: \"{{{{ {from} }}}}\"}}}}\n"
        );
        from = format!("nodes.s{number}.output");
    }
    format!("name: bench\nnodes:\n{nodes}")
}

/// Random letters, which compress no better than their entropy allows, like prose.
fn random_text(bytes: usize) -> anyhow::Result<String> {
    let mut random = vec![0_u8; bytes];
    getrandom::fill(&mut random)?;
    Ok(random.iter().map(|byte| char::from(b'a' + byte % 26)).collect())
}
