//! `convergio bench wide`: runs of many items, nodes, signals and child runs. The cost of each
//! should not depend on their number, from a thousand to a hundred thousand.

use std::fmt::Write as _;
use std::path::PathBuf;
use std::time::{Duration, Instant};

use clap::Args;
use convergio_domain::id::RunId;
use convergio_domain::payload::{PayloadPurpose, PayloadSlot};
use convergio_domain::run::{Run, RunCommand, RunPhase, SendSignal};
use convergio_domain::stream::StreamKey;
use convergio_process::{out_line, terminal};
use serde::Serialize;
use serde_json::json;
use tokio::task::JoinSet;
use uuid::Uuid;

use super::memory::take_peak_memory_mib;
use super::platform::BenchPlatform;
use super::workload::{bench_context, bench_tenant, json_payload};

/// Interval at which a state is polled.
const POLL_INTERVAL: Duration = Duration::from_millis(20);

/// What to measure.
#[derive(Debug, Args)]
pub struct WideArgs {
    /// Items of a map, one measurement each.
    #[arg(long, value_delimiter = ',', default_value = "1000,10000,100000")]
    items: Vec<usize>,
    /// Nodes of a graph, one measurement of each shape.
    #[arg(long, value_delimiter = ',', default_value = "1000,10000")]
    nodes: Vec<usize>,
    /// Signals that are sent to one run at once.
    #[arg(long, default_value_t = 1000)]
    signals: usize,
    /// Runs within one run that end at once.
    #[arg(long, default_value_t = 500)]
    children: usize,
    /// Folder on the device to measure; new sub-folders are made and removed.
    #[arg(long, default_value = ".")]
    dir: PathBuf,
}

/// Measurement of one shape and size.
#[derive(Debug, Serialize)]
struct WideBenchRow {
    bench: &'static str,
    shape: &'static str,
    count: usize,
    seconds: f64,
    us_each: u64,
    /// Events of the largest commit; 0 where it is not measured.
    largest_commit: usize,
    peak_memory_mib: u64,
}

/// Measures every shape and size and prints a row for each.
///
/// # Errors
/// The folder cannot be used, the log fails, or a run fails.
pub(crate) async fn run(args: WideArgs, json: bool) -> anyhow::Result<()> {
    if !json {
        out_line!(
            "{:<22} {:>8} {:>9} {:>9} {:>15} {:>9}",
            "shape",
            "count",
            "seconds",
            "us each",
            "largest commit",
            "peak MiB"
        );
    }
    for count in &args.items {
        print_row(
            &measure_graph(&args, "items of a map", *count, &map_manifest(*count)).await?,
            json,
        )?;
    }
    for count in &args.nodes {
        for (shape, manifest) in graph_shapes(*count) {
            print_row(&measure_graph(&args, shape, *count, &manifest).await?, json)?;
        }
    }
    print_row(&measure_signals(&args).await?, json)?;
    print_row(&measure_children(&args).await?, json)
}

fn print_row(row: &WideBenchRow, json: bool) -> anyhow::Result<()> {
    if json {
        terminal::print_json_line(row)?;
    } else {
        out_line!(
            "{:<22} {:>8} {:>9.2} {:>9} {:>15} {:>9}",
            row.shape,
            row.count,
            row.seconds,
            row.us_each,
            row.largest_commit,
            row.peak_memory_mib
        );
    }
    Ok(())
}

fn build_row(
    shape: &'static str,
    count: usize,
    elapsed: Duration,
    largest_commit: usize,
) -> WideBenchRow {
    let us_each = elapsed.as_micros() / count.max(1) as u128;
    WideBenchRow {
        bench: "wide",
        shape,
        count,
        seconds: elapsed.as_secs_f64(),
        us_each: u64::try_from(us_each).unwrap_or(u64::MAX),
        largest_commit,
        peak_memory_mib: take_peak_memory_mib(),
    }
}

/// Measures a run of a graph from its creation to its end.
async fn measure_graph(
    args: &WideArgs,
    shape: &'static str,
    count: usize,
    manifest: &str,
) -> anyhow::Result<WideBenchRow> {
    // A platform of its own for each row: earlier runs would be in its log and memory.
    let platform = BenchPlatform::start(&args.dir, |_| {})?;
    let graph = platform.register_graph(manifest).await?;
    let inputs = json!({"items": (0..count).collect::<Vec<usize>>()});
    // The peak is reset here: registering the graph is not part of the run.
    take_peak_memory_mib();
    let begun = Instant::now();
    let run = platform.create_run(&graph, &inputs).await?;
    let largest_commit = platform.wait_for_end(&run).await?;
    let elapsed = begun.elapsed();
    expect_completed(&platform, &run).await?;
    platform.stop_and_remove().await?;
    Ok(build_row(shape, count, elapsed, largest_commit))
}

async fn expect_completed(platform: &BenchPlatform, run: &StreamKey) -> anyhow::Result<()> {
    let state = platform.load_run(run).await?;
    anyhow::ensure!(state.phase == RunPhase::Completed, "the run failed: {:?}", state.error);
    Ok(())
}

fn map_manifest(count: usize) -> String {
    format!(
        "name: items{count}\nbudget: {{wall: 10h}}\noutput: '{{{{ nodes.m.output | length }}}}'\n\
         nodes:\n  - {{id: m, map: {{over: '{{{{ inputs.items }}}}', max_parallel: 64, \
         tool: text.trim, with: {{text: 'item {{{{ item }}}}'}}}}}}\n"
    )
}

/// Graphs of `count` nodes: side by side, all after one, in a row, and in two layers in which each
/// node depends on one of the other layer.
fn graph_shapes(count: usize) -> [(&'static str, String); 4] {
    let beside = |_: usize| None;
    let after_one = |number: usize| (number > 0).then_some(0);
    let in_row = |number: usize| number.checked_sub(1);
    let half = count / 2;
    let in_layers = move |number: usize| number.checked_sub(half);
    [
        ("nodes side by side", nodes_manifest("beside", count, beside)),
        ("nodes after one", nodes_manifest("after", count, after_one)),
        ("nodes in a row", nodes_manifest("row", count, in_row)),
        ("nodes in two layers", nodes_manifest("layers", count, in_layers)),
    ]
}

fn nodes_manifest(name: &str, count: usize, needs: impl Fn(usize) -> Option<usize>) -> String {
    let mut manifest = format!("name: {name}{count}\nbudget: {{wall: 10h}}\nnodes:\n");
    for number in 0..count {
        let needs = needs(number).map_or_else(String::new, |other| format!(", needs: [n{other}]"));
        let _written = writeln!(
            manifest,
            "  - {{id: n{number}, tool: text.trim, with: {{text: 'node {number}'}}{needs}}}"
        );
    }
    manifest
}

/// Measures signals that are sent concurrently to a run that waits for all of them.
async fn measure_signals(args: &WideArgs) -> anyhow::Result<WideBenchRow> {
    let platform = BenchPlatform::start(&args.dir, |_| {})?;
    let mut manifest = "name: signals\nbudget: {wall: 10h}\nnodes:\n".to_owned();
    for number in 0..args.signals.min(1000) {
        let _written = writeln!(manifest, "  - {{id: s{number}, signal: go}}");
    }
    let graph = platform.register_graph(&manifest).await?;
    let run = platform.create_run(&graph, &json!({})).await?;
    take_peak_memory_mib();
    let begun = Instant::now();
    let mut sending = JoinSet::new();
    for _ in 0..args.signals {
        let (repository, stream) = (platform.repository.clone(), run.clone());
        let (command, context) = (signal_command(), bench_context(&platform.repository));
        sending.spawn(async move {
            let payload = vec![json_payload(b"{}".to_vec(), PayloadPurpose::Signal)];
            let command = |_: &_, _| (command.clone(), payload.clone());
            repository.execute::<Run>(&stream, &context, command).await.map(drop)
        });
    }
    while let Some(sent) = sending.join_next().await {
        sent??;
    }
    platform.wait_for_end(&run).await?;
    let elapsed = begun.elapsed();
    expect_completed(&platform, &run).await?;
    platform.stop_and_remove().await?;
    Ok(build_row("signals at once", args.signals, elapsed, 0))
}

fn signal_command() -> RunCommand {
    RunCommand::Signal(SendSignal {
        id: Uuid::now_v7(),
        name: "go".parse().expect("`go` is a valid name"),
        payload: PayloadSlot(0),
    })
}

const CHILD_MANIFEST: &str = "name: within\nbudget: {wall: 10h}\nnodes:\n  - {id: w, signal: go}\n";

/// Measures child runs that all wait for a signal and get it at once, from the first signal to the
/// end of their parent.
async fn measure_children(args: &WideArgs) -> anyhow::Result<WideBenchRow> {
    let count = args.children;
    let platform = BenchPlatform::start(&args.dir, |config| config.child_runs_per_run = count)?;
    platform.register_graph(CHILD_MANIFEST).await?;
    let mut manifest = "name: family\nbudget: {wall: 10h}\nnodes:\n".to_owned();
    for number in 0..count {
        let _written = writeln!(manifest, "  - {{id: g{number}, graph: {{name: within}}}}");
    }
    let graph = platform.register_graph(&manifest).await?;
    let run = platform.create_run(&graph, &json!({})).await?;
    let children = waiting_children(&platform, &run, count).await?;
    take_peak_memory_mib();
    let begun = Instant::now();
    let mut sending = JoinSet::new();
    for child in children {
        let (repository, context) =
            (platform.repository.clone(), bench_context(&platform.repository));
        sending.spawn(async move {
            let payload = vec![json_payload(b"{}".to_vec(), PayloadPurpose::Signal)];
            let command = |_: &_, _| (signal_command(), payload.clone());
            repository.execute::<Run>(&child, &context, command).await.map(drop)
        });
    }
    while let Some(sent) = sending.join_next().await {
        sent??;
    }
    platform.wait_for_end(&run).await?;
    let elapsed = begun.elapsed();
    expect_completed(&platform, &run).await?;
    platform.stop_and_remove().await?;
    Ok(build_row("children at once", count, elapsed, 0))
}

/// Waits until a run has `count` children and all of them wait; returns their streams.
async fn waiting_children(
    platform: &BenchPlatform,
    run: &StreamKey,
    count: usize,
) -> anyhow::Result<Vec<StreamKey>> {
    let mut children: Vec<RunId> = Vec::new();
    while children.len() < count {
        tokio::time::sleep(POLL_INTERVAL).await;
        children = platform.load_run(run).await?.children.keys().copied().collect();
    }
    let streams: Vec<_> =
        children.into_iter().map(|id| StreamKey::for_run(bench_tenant(), id)).collect();
    for stream in &streams {
        while platform.load_run(stream).await?.steps.is_empty() {
            tokio::time::sleep(POLL_INTERVAL).await;
        }
    }
    Ok(streams)
}
