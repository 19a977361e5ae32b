//! The crash test of a graph: its run is lived through again and again, and the engine dies in each
//! life at another place: before and after each commit, which is where the log syncs. In a sample
//! the place is a process that is killed. After each death another engine goes on from the log, and
//! the whole history is judged.

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

/// Longest wait of a run under test: a sleep, a back-off.
const WAIT: Span = Span(20);

/// When the engine dies, seen from one append.
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

/// One place to die.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Serialize)]
pub(crate) struct Point {
    /// The engine's commit, from 1.
    pub(crate) commit: u64,
    pub(crate) moment: Moment,
}

/// What came of a crash test.
#[derive(Debug, Serialize)]
pub(crate) struct Report {
    pub(crate) graph: String,
    /// Commits of the engine in a life without death.
    pub(crate) commits: u64,
    /// Deaths of the engine within this process.
    pub(crate) deaths: usize,
    /// Processes that were killed.
    pub(crate) kills: usize,
    /// Places that a run did not come to, because its commits fell together otherwise.
    pub(crate) not_reached: usize,
    #[serde(flatten)]
    pub(crate) findings: Findings,
    pub(crate) ok: bool,
}

/// What is tested, and how thoroughly.
pub(crate) struct Plan {
    pub(crate) graph: Graph,
    pub(crate) inputs: Value,
    /// Places tried in this process; all when absent.
    pub(crate) sample: Option<usize>,
    /// Places at which a process is killed.
    pub(crate) kills: usize,
    pub(crate) models: Vec<ModelProxy>,
    /// Where data folders are made and removed.
    pub(crate) folder: PathBuf,
}

/// Whether a graph asks models.
pub(crate) fn asks_models(graph: &Graph) -> bool {
    use convergio_domain::graph::manifest::MapWork;
    graph.nodes.iter().any(|node| match &node.work {
        Work::Agent(_) | Work::Plan(_) => true,
        Work::Map(map) => matches!(map.work, MapWork::Agent(_)),
        _ => false,
    })
}

/// Lives through all of it. `told` hears of each death.
///
/// # Errors
/// A data folder cannot be used, or a run does not come to its end without any death.
pub(crate) async fn test(plan: Plan, mut told: impl FnMut(usize, usize)) -> anyhow::Result<Report> {
    let Plan { graph, inputs, sample, kills, models, folder } = plan;
    let subject = Arc::new(Subject { graph: quick(graph), inputs, models });
    let first = Life::new(&subject, &folder).await?;
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

/// The graph without long waits: what is tested is not how long they are.
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

fn kill_points(commits: u64) -> Vec<Point> {
    let moments = [Moment::During, Moment::Before, Moment::After];
    let moments = moments.into_iter().cycle();
    (1..=commits).zip(moments).map(|(commit, moment)| Point { commit, moment }).collect()
}

/// At most so many, the first and the last among them, evenly apart.
fn spread(points: Vec<Point>, most: Option<usize>) -> Vec<Point> {
    let Some(most) = most.filter(|most| *most < points.len()) else { return points };
    let last = points.len().saturating_sub(1);
    let gaps = most.saturating_sub(1).max(1);
    let chosen: BTreeSet<usize> = (0..most).map(|number| number * last / gaps).collect();
    chosen.into_iter().map(|index| points[index]).collect()
}

/// A data folder with one run that has not begun.
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

    /// Lets a process work on the folder and kills it; tells whether it came to the place.
    async fn in_a_process(self, subject: &Subject, point: Point) -> anyhow::Result<(Self, bool)> {
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
