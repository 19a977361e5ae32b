//! Replays for the gateway, by the executor's own replay over the log.

use async_trait::async_trait;
use convergio_domain::decider::Decider;
use convergio_domain::graph::manifest::Graph;
use convergio_domain::run::{Phase, Run, RunState};
use convergio_domain::stream::{Seq, StreamKey};
use convergio_eventstore::Repository;
use convergio_executor::replay::{Divergence, Replay, fits, read_graph};
use convergio_gateway::{ReplayError, Replayer};
use convergio_schemas::wire::{DivergenceView, ReplayReport, ReplayedStep};

/// Records read at once.
const PAGE: usize = 256;

/// Replays runs of a log.
pub(crate) struct LogReplayer(pub(crate) Repository);

#[async_trait]
impl Replayer for LogReplayer {
    async fn replay(
        &self,
        run: &StreamKey,
        at: Option<u64>,
        graph: Option<Graph>,
    ) -> Result<ReplayReport, ReplayError> {
        let graph = match graph {
            Some(graph) => graph,
            None => self.own_graph(run).await?,
        };
        let mut replay =
            Replay::new(graph).map_err(|error| ReplayError::Graph(error.to_string()))?;
        let diverges = self.compute(run, at, &mut replay).await?;
        let reached = replay.state.seq.0;
        if let Some(asked) = at.filter(|at| *at > reached && diverges.is_none()) {
            return Err(ReplayError::BeyondTheEnd { events: reached, asked });
        }
        Ok(report(run, replay, diverges))
    }

    fn fits(&self, state: &RunState, graph: &Graph) -> Result<(), String> {
        fits(state, graph.clone()).map_err(|failure| failure.message)
    }
}

impl LogReplayer {
    async fn own_graph(&self, run: &StreamKey) -> Result<Graph, ReplayError> {
        let state = self.0.load::<Run>(run).await?.state;
        let Some((id, version)) = state.graph else {
            return Err(ReplayError::Graph("the run has no graph".into()));
        };
        let graph = read_graph(&self.0, &run.tenant, id, &version).await;
        graph.map_err(|error| ReplayError::Graph(error.to_string()))
    }

    /// A fork begins with its parent's state.
    async fn inherit(&self, run: &StreamKey, replay: &mut Replay) -> Result<(), ReplayError> {
        let first = self.0.log().read_stream(run, Seq(0), 1).await?;
        let event = first.first().and_then(|record| record.body.events.first());
        let Some(from) = event.and_then(Run::inherits) else { return Ok(()) };
        let parent = StreamKey { id: from.id, ..run.clone() };
        if let Some(loaded) = self.0.load_at::<Run>(&parent, from.seq, true).await? {
            replay.inherit(loaded.state);
        }
        Ok(())
    }

    async fn compute(
        &self,
        run: &StreamKey,
        at: Option<u64>,
        replay: &mut Replay,
    ) -> Result<Option<Divergence>, ReplayError> {
        let log = self.0.log();
        self.inherit(run, replay).await?;
        let mut after = Seq(0);
        loop {
            let records = log.read_stream(run, after, PAGE).await?;
            for record in &records {
                if at.is_some_and(|at| record.first_seq().0 > at) {
                    return Ok(None);
                }
                if let Err(found) = replay.commit(record, at.map(Seq)) {
                    return Ok(Some(*found));
                }
                after = record.last_seq();
            }
            if records.len() < PAGE {
                return Ok(None);
            }
        }
    }
}

fn report(run: &StreamKey, mut replay: Replay, diverges: Option<Divergence>) -> ReplayReport {
    let step = |(step, status): (String, &str)| ReplayedStep { step, status: status.into() };
    let diverges = diverges.map(|found| DivergenceView {
        seq: found.seq.0,
        step: found.step.map(|step| step.to_string()),
        what: found.what.into(),
        recorded: found.recorded,
        computed: found.computed,
    });
    ReplayReport {
        run: run.id.to_string(),
        seq: replay.state.seq.0,
        status: status(replay.state.phase).into(),
        fingerprint: replay.state.fingerprint().to_string(),
        commits: replay.commits,
        decisions: replay.decisions,
        steps: replay.steps().into_iter().map(step).collect(),
        diverges,
    }
}

fn status(phase: Phase) -> &'static str {
    match phase {
        Phase::New | Phase::Running => "running",
        Phase::Completed => "completed",
        Phase::Failed => "failed",
        Phase::Cancelled => "cancelled",
    }
}
