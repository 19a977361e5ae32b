//! The crash test of a graph: its run is executed many times, and the engine dies at another place
//! each time: before or after each commit, where the log syncs. For a sample of places a whole
//! process is killed instead. After each death another engine continues from the log, and the
//! complete history is checked.
//!
//! `engine_run` executes a run up to a crash point, `faulty_log` is the log that stops answering
//! there, `model_proxy` counts model calls, `findings` checks a history against a reference run
//! without a crash. This file chooses the crash points and drives the rest.

mod death;
mod judge;
mod life;
mod proxy;

use std::collections::BTreeSet;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use clap::ValueEnum;
use convergio_domain::graph::manifest::{Graph, Work};
use convergio_domain::stream::StreamKey;
use convergio_domain::time::Span;
use convergio_eventstore::EventLog;
use convergio_eventstore::embedded::{Config, EmbeddedLog};
use serde::Serialize;
use serde_json::Value;
use uuid::Uuid;

pub(crate) use judge::Findings;
pub(crate) use life::stand_still;
pub(crate) use proxy::ModelProxy;

use judge::Reference;
use life::{Subject, live, live_in_process};

/// Maximum wait of a run under test, such as a sleep or a back-off, in milliseconds.
const WAIT: Span = Span(20);

/// Time of a crash relative to an append.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, ValueEnum, Serialize)]
#[serde(rename_all = "lowercase")]
pub(crate) enum Moment {
    /// Before it: nothing is written.
    Before,
    /// In it: nobody knows.
    During,
    /// After it: what was written is durable, and the engine never hears of it.
    After,
}

/// A commit of the engine, and the time of the crash relative to it.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Serialize)]
pub(crate) struct Point {
    /// Number of the engine's commit, from 1.
    pub(crate) commit: u64,
    pub(crate) moment: Moment,
}

/// Result of a crash test.
#[derive(Debug, Serialize)]
pub(crate) struct Report {
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
    pub(crate) findings: Findings,
    pub(crate) ok: bool,
}

/// Subject and extent of a crash test.
pub(crate) struct Plan {
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
pub(crate) fn asks_models(graph: &Graph) -> bool {
    use convergio_domain::graph::manifest::MapWork;
    graph.nodes.iter().any(|node| match &node.work {
        Work::Agent(_) | Work::Plan(_) => true,
        Work::Map(map) => matches!(map.work, MapWork::Agent(_)),
        _ => false,
    })
}

/// Runs a crash test. `on_progress` is called before each crash with its number and the number of
/// all.
///
/// # Errors
/// A data folder cannot be used, or a run does not end without a crash.
pub(crate) async fn test(plan: Plan, mut told: impl FnMut(usize, usize)) -> anyhow::Result<Report> {
    let Plan { graph, inputs, sample, kills, models, folder } = plan;
    let subject = Arc::new(Subject { graph: quick(graph), inputs, models });
    let first = Life::new(&subject, &folder).await?;
    // The first run has no crash: it counts the commits and sets the expected result.
    let (_, commits) = live_in_process(&first.log, &subject, &first.run, None).await?;
    let reference = Reference::of(&first.log, &first.run, commits).await?;
    first.end().await?;
    let points = spread(points(commits), sample);
    let kills = spread(kill_points(commits), Some(kills));
    let all = points.len() + kills.len();
    let mut report = Report {
        graph: subject.graph.name.clone(),
        commits,
        deaths: 0,
        kills: 0,
        not_reached: 0,
        findings: Findings { model_calls: reference.model_calls, ..Findings::default() },
        ok: false,
    };
    for (number, point) in points.iter().enumerate() {
        told(number, all);
        let life = Life::new(&subject, &folder).await?;
        let (died, _) = live_in_process(&life.log, &subject, &life.run, Some(*point)).await?;
        report.deaths += usize::from(died);
        report.not_reached += usize::from(!died);
        // A second engine finishes what the first one left.
        live_in_process(&life.log, &subject, &life.run, None).await?;
        report.findings.judge(&life, &subject, &reference, *point).await?;
        life.end().await?;
    }
    for (number, point) in kills.iter().enumerate() {
        told(points.len() + number, all);
        let life = Life::new(&subject, &folder).await?.in_a_process(&subject, *point).await?;
        report.kills += usize::from(life.1);
        report.not_reached += usize::from(!life.1);
        let life = life.0;
        live_in_process(&life.log, &subject, &life.run, None).await?;
        report.findings.judge(&life, &subject, &reference, *point).await?;
        life.end().await?;
    }
    report.ok = report.findings.is_clean();
    Ok(report)
}

/// Shortens sleeps and back-offs: their length is not under test.
fn quick(mut graph: Graph) -> Graph {
    for node in &mut graph.nodes {
        node.retry.backoff = node.retry.backoff.min(WAIT);
        if let Work::Sleep(sleep) = &mut node.work {
            sleep.span = sleep.span.min(WAIT);
        }
    }
    graph
}

fn points(commits: u64) -> Vec<Point> {
    let moments = [Moment::Before, Moment::After];
    (1..=commits).flat_map(|commit| moments.map(|moment| Point { commit, moment })).collect()
}

/// One crash point for each commit, with the three moments in turn.
fn kill_points(commits: u64) -> Vec<Point> {
    // The process that is killed during an append is the most realistic case: it comes first.
    let moments = [Moment::During, Moment::Before, Moment::After];
    let moments = moments.into_iter().cycle();
    (1..=commits).zip(moments).map(|(commit, moment)| Point { commit, moment }).collect()
}

/// Selects at most `most` points at even distances, including the first and the last.
fn spread(points: Vec<Point>, most: Option<usize>) -> Vec<Point> {
    let Some(most) = most.filter(|most| *most < points.len()) else { return points };
    let last = points.len().saturating_sub(1);
    let gaps = most.saturating_sub(1).max(1);
    let chosen: BTreeSet<usize> = (0..most).map(|number| number * last / gaps).collect();
    chosen.into_iter().map(|index| points[index]).collect()
}

/// A data folder with one run that has not started.
pub(crate) struct Life {
    folder: PathBuf,
    pub(crate) log: Arc<dyn EventLog>,
    pub(crate) run: StreamKey,
}

impl Life {
    async fn new(subject: &Subject, parent: &Path) -> anyhow::Result<Self> {
        let folder = parent.join(format!("life-{}", Uuid::now_v7()));
        let log = open(&folder)?;
        let run = subject.create(&log).await?;
        Ok(Self { folder, log, run })
    }

    /// Runs a process on the folder and kills it; returns whether it reached the crash point.
    async fn in_a_process(self, subject: &Subject, point: Point) -> anyhow::Result<(Self, bool)> {
        // Only one process may hold the folder's lock.
        self.log.close().await?;
        let Self { folder, log, run } = self;
        drop(log);
        let killed = live(&folder, subject, point).await?;
        let log = open(&folder)?;
        Ok((Self { folder, log, run }, killed))
    }

    async fn end(self) -> anyhow::Result<()> {
        self.log.close().await?;
        drop(self.log);
        Ok(std::fs::remove_dir_all(&self.folder)?)
    }
}

fn open(folder: &Path) -> anyhow::Result<Arc<dyn EventLog>> {
    Ok(Arc::new(EmbeddedLog::open(&Config::new(folder))?))
}

#[cfg(test)]
mod tests {
    use super::{Moment, Point, points, spread};

    #[test]
    fn a_sample_has_both_ends_and_no_place_twice() {
        let all = points(10);
        assert_eq!(all.len(), 20);
        let few = spread(all.clone(), Some(5));
        assert_eq!((few.len(), few[0], few[4]), (5, all[0], all[19]));
        assert_eq!(few[0], Point { commit: 1, moment: Moment::Before });
        assert_eq!(spread(all.clone(), Some(40)), all);
        assert!(spread(all, Some(0)).is_empty());
    }
}
