//! Cost of an append and of a load while a log grows from thousands of runs to millions.

use std::sync::Arc;
use std::time::Instant;

use convergio_domain::stream::{Seq, StreamKey};
use convergio_eventstore::LogWriter;
use convergio_process::{out_line, terminal};
use serde::Serialize;
use tokio::task::JoinSet;

use super::log::{new_stream, step_commit};
use super::memory::resident_memory_mib;
use super::raw::{elapsed_us, value_at_percentile};

/// Commits of each run.
const COMMITS_PER_RUN: usize = 2;
/// Concurrent writers that fill the log.
const WRITERS: usize = 64;
/// Appends and loads measured at each size.
const SAMPLES: usize = 300;

/// Measurement at one size of the log.
#[derive(Debug, Serialize)]
struct GrowthBenchRow {
    bench: &'static str,
    provider: &'static str,
    /// Number of runs in the log.
    runs: usize,
    /// Commits per second while the log was filled up to this size.
    fill_per_s: u64,
    append_p50_us: u64,
    append_p99_us: u64,
    load_p50_us: u64,
    load_p99_us: u64,
    /// Resident memory of this process.
    memory_mib: u64,
}

/// Fills a log up to each number of runs and prints a row for it.
///
/// # Errors
/// The log fails.
pub(super) async fn measure_growth(
    provider: &'static str,
    log: &Arc<dyn LogWriter>,
    sizes: &[usize],
    json: bool,
) -> anyhow::Result<()> {
    // Runs of every age of the log, for loads.
    let (mut runs, mut sample) = (0, Vec::new());
    for size in sizes {
        let begun = Instant::now();
        let filled = add_runs(log, size.saturating_sub(runs)).await?;
        let commits = (size.saturating_sub(runs) * COMMITS_PER_RUN) as f64;
        let fill_per_s = (commits / begun.elapsed().as_secs_f64()) as u64;
        runs = *size;
        sample.extend(filled);
        let (appends, loads) = (measure_appends(log).await?, measure_loads(log, &sample).await?);
        let row = GrowthBenchRow {
            bench: "log_growth",
            provider,
            runs,
            fill_per_s,
            append_p50_us: value_at_percentile(&appends, 50),
            append_p99_us: value_at_percentile(&appends, 99),
            load_p50_us: value_at_percentile(&loads, 50),
            load_p99_us: value_at_percentile(&loads, 99),
            memory_mib: resident_memory_mib(),
        };
        match json {
            true => terminal::print_json_line(&row)?,
            false => out_line!(
                "{provider:>10} {runs:>8} runs: {fill_per_s} commits/s, append {} us (p99 {}), \
                 load {} us (p99 {}), {} MiB",
                row.append_p50_us,
                row.append_p99_us,
                row.load_p50_us,
                row.load_p99_us,
                row.memory_mib
            ),
        }
    }
    Ok(())
}

/// Adds runs; returns a sample of them.
async fn add_runs(log: &Arc<dyn LogWriter>, runs: usize) -> anyhow::Result<Vec<StreamKey>> {
    let mut tasks = JoinSet::new();
    for writer in 0..WRITERS {
        let log = Arc::clone(log);
        tasks.spawn(async move {
            let mut some = Vec::new();
            for number in (writer..runs).step_by(WRITERS) {
                let (at, mut head) = (new_stream(), None);
                for _ in 0..COMMITS_PER_RUN {
                    head = Some(log.append(step_commit(&at, head)?).await?);
                }
                // A sample of constant size, however large the log becomes.
                if number % (runs / SAMPLES + 1) == 0 {
                    some.push(at);
                }
            }
            anyhow::Ok(some)
        });
    }
    let mut some = Vec::new();
    while let Some(of_one) = tasks.join_next().await {
        some.extend(of_one??);
    }
    Ok(some)
}

/// Sorted latencies in microseconds of appends by one writer, each to a new run.
async fn measure_appends(log: &Arc<dyn LogWriter>) -> anyhow::Result<Vec<u64>> {
    let mut times = Vec::with_capacity(SAMPLES);
    for _ in 0..SAMPLES {
        let commit = step_commit(&new_stream(), None)?;
        let start = Instant::now();
        log.append(commit).await?;
        times.push(elapsed_us(start));
    }
    times.sort_unstable();
    Ok(times)
}

/// Sorted latencies in microseconds of loads of whole runs, spread over the log's age.
async fn measure_loads(log: &Arc<dyn LogWriter>, runs: &[StreamKey]) -> anyhow::Result<Vec<u64>> {
    let mut times = Vec::with_capacity(SAMPLES);
    for at in runs.iter().step_by(runs.len() / SAMPLES + 1) {
        let start = Instant::now();
        let records = log.read_stream(at, Seq(0), 256).await?;
        times.push(elapsed_us(start));
        anyhow::ensure!(records.len() == COMMITS_PER_RUN, "{} records", records.len());
    }
    times.sort_unstable();
    Ok(times)
}
