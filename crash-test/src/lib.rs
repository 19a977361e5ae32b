//! The crash test of a graph: its run is executed many times, and the engine dies at another place
//! each time: before or after each commit, where the log syncs. For a sample of places a whole
//! process is killed instead. After each death another engine continues from the log, and the
//! complete history is checked.
//!
//! `crash_point` chooses where to die, `engine_run` executes a run up to there, `faulty_log` is the
//! log that stops answering there, `test_run` is a run in a folder of its own, `model_proxy` counts
//! model calls, `findings` checks a history against a reference run without a crash. This file
//! drives them.

#![warn(clippy::print_stdout, clippy::print_stderr)]

mod crash_point;
mod engine_run;
mod faulty_log;
mod findings;
mod model_proxy;
mod test_run;

use std::path::PathBuf;
use std::sync::Arc;

use convergio_domain::graph::manifest::{Graph, NodeWork};
use convergio_domain::time::Span;
use serde::Serialize;
use serde_json::Value;

use crash_point::{crash_points, kill_points, sample_evenly};
use engine_run::{GraphUnderTest, run_engine};
use findings::ReferenceResult;
use test_run::CrashTestRun;

pub use crash_point::{CrashMoment, CrashPoint};
pub use engine_run::{calls_models, wait_at_crash_point};
pub use findings::CrashFindings;
pub use model_proxy::ModelProxy;

/// Maximum wait of a run under test, such as a sleep or a back-off, in milliseconds.
const WAIT_LIMIT: Span = Span(20);

/// Result of a crash test.
#[derive(Debug, Serialize)]
pub struct CrashTestReport {
    /// Name of the graph.
    pub graph: String,
    /// Commits of the engine in a run without a crash.
    pub commits: u64,
    /// Crashes of the engine within this process.
    pub deaths: usize,
    /// Processes that were killed.
    pub kills: usize,
    /// Crash points that a run did not reach, because its commits were grouped differently.
    pub not_reached: usize,
    /// Violations, and counts that are merely informative.
    #[serde(flatten)]
    pub findings: CrashFindings,
    /// True if nothing was repeated or lost.
    pub ok: bool,
}

/// Subject and extent of a crash test.
pub struct CrashTestPlan {
    /// The graph; it runs no other one.
    pub graph: Graph,
    /// Inputs that fit the graph's schema.
    pub inputs: Value,
    /// Crash points tried within this process; `None` for all.
    pub sample: Option<usize>,
    /// Crash points at which a process is killed.
    pub kills: usize,
    /// Proxies before the model servers that the graph may call.
    pub models: Vec<ModelProxy>,
    /// Folder in which data folders are created and removed.
    pub folder: PathBuf,
}

/// Runs a crash test. `on_progress` is called before each crash with its number and the number of
/// all.
///
/// # Errors
/// A data folder cannot be used, or a run does not end without a crash.
pub async fn run_crash_test(
    plan: CrashTestPlan,
    mut on_progress: impl FnMut(usize, usize),
) -> anyhow::Result<CrashTestReport> {
    let CrashTestPlan { graph, inputs, sample, kills, models, folder } = plan;
    let graph_under_test = Arc::new(GraphUnderTest { graph: shorten_waits(graph), inputs, models });
    let reference_run = CrashTestRun::new(&graph_under_test, &folder).await?;
    // The first run has no crash: it counts the commits and sets the expected result.
    let (_, commits) =
        run_engine(&reference_run.log, &graph_under_test, &reference_run.run, None).await?;
    let reference =
        ReferenceResult::from_log(&reference_run.log, &reference_run.run, commits).await?;
    reference_run.close_and_remove().await?;
    let points = sample_evenly(crash_points(commits), sample);
    let kills = sample_evenly(kill_points(commits), Some(kills));
    let all = points.len() + kills.len();
    let mut report = CrashTestReport {
        graph: graph_under_test.graph.name.clone(),
        commits,
        deaths: 0,
        kills: 0,
        not_reached: 0,
        findings: CrashFindings { model_calls: reference.model_calls, ..CrashFindings::default() },
        ok: false,
    };
    for (number, point) in points.iter().enumerate() {
        on_progress(number, all);
        let test_run = CrashTestRun::new(&graph_under_test, &folder).await?;
        let (has_crashed, _) =
            run_engine(&test_run.log, &graph_under_test, &test_run.run, Some(*point)).await?;
        report.deaths += usize::from(has_crashed);
        report.not_reached += usize::from(!has_crashed);
        // A second engine finishes what the first one left.
        run_engine(&test_run.log, &graph_under_test, &test_run.run, None).await?;
        report.findings.check_run(&test_run, &graph_under_test, &reference, *point).await?;
        test_run.close_and_remove().await?;
    }
    for (number, point) in kills.iter().enumerate() {
        on_progress(points.len() + number, all);
        let life = CrashTestRun::new(&graph_under_test, &folder)
            .await?
            .run_killed_process(&graph_under_test, *point)
            .await?;
        report.kills += usize::from(life.1);
        report.not_reached += usize::from(!life.1);
        let life = life.0;
        run_engine(&life.log, &graph_under_test, &life.run, None).await?;
        report.findings.check_run(&life, &graph_under_test, &reference, *point).await?;
        life.close_and_remove().await?;
    }
    report.ok = report.findings.is_clean();
    Ok(report)
}

/// Shortens sleeps and back-offs: their length is not under test.
fn shorten_waits(mut graph: Graph) -> Graph {
    for node in &mut graph.nodes {
        node.retry.backoff = node.retry.backoff.min(WAIT_LIMIT);
        if let NodeWork::Sleep(sleep) = &mut node.work {
            sleep.span = sleep.span.min(WAIT_LIMIT);
        }
    }
    graph
}
