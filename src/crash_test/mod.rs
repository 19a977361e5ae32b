//! The crash test of a graph: its run is executed many times, and the engine dies at another place
//! each time: before or after each commit, where the log syncs. For a sample of places a whole
//! process is killed instead. After each death another engine continues from the log, and the
//! complete history is checked.
//!
//! `engine_run` executes a run up to a crash point, `faulty_log` is the log that stops answering
//! there, `model_proxy` counts model calls, `findings` checks a history against a reference run
//! without a crash. This file chooses the crash points and drives the rest.

mod engine_run;
mod faulty_log;
mod findings;
mod model_proxy;

use std::collections::BTreeSet;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use clap::ValueEnum;
use convergio_domain::graph::manifest::{Graph, NodeWork};
use convergio_domain::stream::StreamKey;
use convergio_domain::time::Span;
use convergio_eventstore::EventLog;
use convergio_eventstore::embedded::{EmbeddedConfig, EmbeddedLog};
use serde::Serialize;
use serde_json::Value;
use uuid::Uuid;

pub(crate) use engine_run::wait_at_crash_point;
pub(crate) use findings::CrashFindings;
pub(crate) use model_proxy::ModelProxy;

use engine_run::{GraphUnderTest, run_engine, run_engine_process};
use findings::ReferenceResult;

/// Maximum wait of a run under test, such as a sleep or a back-off, in milliseconds.
const WAIT_LIMIT: Span = Span(20);

/// Time of a crash relative to an append.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, ValueEnum, Serialize)]
#[serde(rename_all = "lowercase")]
pub(crate) enum CrashMoment {
    /// Before it: nothing is written.
    Before,
    /// In it: nobody knows.
    During,
    /// After it: what was written is durable, and the engine never hears of it.
    After,
}

/// A commit of the engine, and the time of the crash relative to it.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Serialize)]
pub(crate) struct CrashPoint {
    /// Number of the engine's commit, from 1.
    pub(crate) commit: u64,
    pub(crate) moment: CrashMoment,
}

/// Result of a crash test.
#[derive(Debug, Serialize)]
pub(crate) struct CrashTestReport {
    pub(crate) graph: String,
    /// Commits of the engine in a run without a crash.
    pub(crate) commits: u64,
    /// Crashes of the engine within this process.
    pub(crate) deaths: usize,
    /// Processes that were killed.
    pub(crate) kills: usize,
    /// Crash points that a run did not reach, because its commits were grouped differently.
    pub(crate) not_reached: usize,
    #[serde(flatten)]
    pub(crate) findings: CrashFindings,
    pub(crate) ok: bool,
}

/// Subject and extent of a crash test.
pub(crate) struct CrashTestPlan {
    pub(crate) graph: Graph,
    pub(crate) inputs: Value,
    /// Crash points tried within this process; `None` for all.
    pub(crate) sample: Option<usize>,
    /// Crash points at which a process is killed.
    pub(crate) kills: usize,
    pub(crate) models: Vec<ModelProxy>,
    /// Folder in which data folders are created and removed.
    pub(crate) folder: PathBuf,
}

/// True if a graph calls models.
pub(crate) fn calls_models(graph: &Graph) -> bool {
    use convergio_domain::graph::manifest::MapWork;
    graph.nodes.iter().any(|node| match &node.work {
        NodeWork::Agent(_) | NodeWork::Plan(_) => true,
        NodeWork::Map(map) => matches!(map.work, MapWork::Agent(_)),
        _ => false,
    })
}

/// Runs a crash test. `on_progress` is called before each crash with its number and the number of
/// all.
///
/// # Errors
/// A data folder cannot be used, or a run does not end without a crash.
pub(crate) async fn run_crash_test(
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

fn crash_points(commits: u64) -> Vec<CrashPoint> {
    let moments = [CrashMoment::Before, CrashMoment::After];
    (1..=commits).flat_map(|commit| moments.map(|moment| CrashPoint { commit, moment })).collect()
}

/// One crash point for each commit, with the three moments in turn.
fn kill_points(commits: u64) -> Vec<CrashPoint> {
    // The process that is killed during an append is the most realistic case: it comes first.
    let moments = [CrashMoment::During, CrashMoment::Before, CrashMoment::After];
    let moments = moments.into_iter().cycle();
    (1..=commits).zip(moments).map(|(commit, moment)| CrashPoint { commit, moment }).collect()
}

/// Selects at most `most` points at even distances, including the first and the last.
fn sample_evenly(points: Vec<CrashPoint>, limit: Option<usize>) -> Vec<CrashPoint> {
    let Some(limit) = limit.filter(|most| *most < points.len()) else { return points };
    let last = points.len().saturating_sub(1);
    let gaps = limit.saturating_sub(1).max(1);
    let chosen: BTreeSet<usize> = (0..limit).map(|number| number * last / gaps).collect();
    chosen.into_iter().map(|index| points[index]).collect()
}

/// A data folder with one run that has not started.
pub(crate) struct CrashTestRun {
    folder: PathBuf,
    pub(crate) log: Arc<dyn EventLog>,
    pub(crate) run: StreamKey,
}

impl CrashTestRun {
    async fn new(graph_under_test: &GraphUnderTest, parent: &Path) -> anyhow::Result<Self> {
        let folder = parent.join(format!("life-{}", Uuid::now_v7()));
        let log = open_log(&folder)?;
        let run = graph_under_test.create_run(&log).await?;
        Ok(Self { folder, log, run })
    }

    /// Runs a process on the folder and kills it; returns whether it reached the crash point.
    async fn run_killed_process(
        self,
        subject: &GraphUnderTest,
        point: CrashPoint,
    ) -> anyhow::Result<(Self, bool)> {
        // Only one process may hold the folder's lock.
        self.log.close().await?;
        let Self { folder, log, run } = self;
        drop(log);
        let killed = run_engine_process(&folder, subject, point).await?;
        let log = open_log(&folder)?;
        Ok((Self { folder, log, run }, killed))
    }

    async fn close_and_remove(self) -> anyhow::Result<()> {
        self.log.close().await?;
        drop(self.log);
        Ok(std::fs::remove_dir_all(&self.folder)?)
    }
}

fn open_log(folder: &Path) -> anyhow::Result<Arc<dyn EventLog>> {
    Ok(Arc::new(EmbeddedLog::open(&EmbeddedConfig::new(folder))?))
}

#[cfg(test)]
mod tests {
    use super::{CrashMoment, CrashPoint, crash_points, sample_evenly};

    #[test]
    fn a_sample_has_both_ends_and_no_place_twice() {
        let all = crash_points(10);
        assert_eq!(all.len(), 20);
        let few = sample_evenly(all.clone(), Some(5));
        assert_eq!((few.len(), few[0], few[4]), (5, all[0], all[19]));
        assert_eq!(few[0], CrashPoint { commit: 1, moment: CrashMoment::Before });
        assert_eq!(sample_evenly(all.clone(), Some(40)), all);
        assert!(sample_evenly(all, Some(0)).is_empty());
    }
}
