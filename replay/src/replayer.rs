//! Replay for the gateway: reports of single runs, and whether runs fit another graph.

use std::sync::Arc;

use async_trait::async_trait;
use convergio_application::{ReplayError, Replayer};
use convergio_domain::graph::manifest::Graph;
use convergio_domain::run::RunState;
use convergio_domain::stream::{Seq, StreamKey};
use convergio_evaluation::{EvaluationJob, Evaluator, JobResult};
use convergio_eventstore::Repository;
use convergio_executor::migration::find_migration_obstacle;
use convergio_executor::replay::{Divergence, check_graph_fits};
use convergio_projections::{ProjectionError, Queries, TableRow, recompute_run_rows};
use convergio_schemas::wire::{FleetRun, ReplayReport, Verdict};
use serde_json::Value;
use uuid::Uuid;

use crate::report::{divergence_text, replay_report};
use crate::run_replay::{ROWS_EVENTS_LIMIT, ReplayOutcome, replay_run};
use crate::source::ReplaySource;

/// Replay for the gateway, over a log and its read models.
pub struct LogReplayer {
    repository: Repository,
    queries: Queries,
    evaluator: Evaluator,
}

#[async_trait]
impl Replayer for LogReplayer {
    async fn replay_run(
        &self,
        run: &StreamKey,
        at: Option<u64>,
        graph: Option<Graph>,
    ) -> Result<ReplayReport, ReplayError> {
        let is_all = at.is_none() && graph.is_none();
        let mut done = replay_run(&ReplaySource::Log(&self.repository, run), at, graph).await?;
        let mut rows = None;
        // Only a complete replay by the run's own graph can equal the rows in use.
        if is_all
            && !done.is_fork
            && done.divergence.is_none()
            && done.replay.state.seq.0 <= ROWS_EVENTS_LIMIT
        {
            rows = self.compare_rows(run, &mut done).await?;
        }
        Ok(replay_report(run, done, rows))
    }

    async fn check_migration(
        &self,
        run: &StreamKey,
        graph: Option<&Graph>,
    ) -> Result<FleetRun, ReplayError> {
        let source = ReplaySource::Log(&self.repository, run);
        let own = replay_run(&source, None, None).await?;
        let (seq, version) = (own.replay.state.seq.0, own.replay.state.graph.clone());
        let mut found = FleetRun {
            run: run.id.to_string(),
            version: version.as_ref().map(|(_, version)| version.to_string()).unwrap_or_default(),
            seq,
            verdict: Verdict::Compatible,
            reason: None,
        };
        if let Some(differs) = own.divergence {
            found.verdict = Verdict::Pin;
            found.reason =
                Some(format!("this program computes otherwise: {}", divergence_text(&differs)));
            return Ok(found);
        }
        if let (Some(graph), Some((id, version))) = (graph, version) {
            let before = source.load_graph(id, &version).await?;
            (found.verdict, found.reason) =
                self.migration_verdict(&source, &before, graph, &own.replay.state).await?;
        }
        Ok(found)
    }

    fn check_state_fits(&self, state: &RunState, graph: &Graph) -> Result<(), String> {
        check_graph_fits(state, graph.clone()).map_err(|failure| failure.full_text().to_owned())
    }
}

impl LogReplayer {
    /// Replay over a log and the read models that rows are compared with.
    pub fn new(repository: &Repository, queries: &Queries, evaluator: Evaluator) -> Self {
        Self { repository: repository.clone(), queries: queries.clone(), evaluator }
    }

    /// Mistakes in the inputs of a run when another graph checks them.
    async fn check_inputs(
        &self,
        run: &StreamKey,
        graph: &Graph,
        input: Value,
    ) -> Result<Vec<String>, ReplayError> {
        let (schema, value) = (Arc::new(graph.inputs.clone()), Arc::new(input));
        match self
            .evaluator
            .evaluate_job(&run.tenant, &EvaluationJob::Check { schema, value })
            .await?
        {
            JobResult::Mistakes(mistakes) => Ok(mistakes),
            _ => Err(ReplayError::Graph("the inputs were not checked".into())),
        }
    }

    /// Verdict on moving a run to another graph: pinned if it cannot move, to be migrated if the
    /// graph would have decided otherwise, else compatible.
    async fn migration_verdict(
        &self,
        source: &ReplaySource<'_>,
        before: &Graph,
        graph: &Graph,
        state: &RunState,
    ) -> Result<(Verdict, Option<String>), ReplayError> {
        // Structural obstacles are found without a replay.
        if let Some(reason) = find_migration_obstacle(before, graph, state) {
            return Ok((Verdict::Pin, Some(reason)));
        }
        if let Some(input) = state.input {
            let bytes = self.repository.read_payload(source.run_stream(), input).await?;
            let input = bytes.and_then(|bytes| serde_json::from_slice(&bytes).ok());
            let wrong = match input {
                Some(input) => self.check_inputs(source.run_stream(), graph, input).await?,
                None => Vec::new(),
            };
            if !wrong.is_empty() {
                return Ok((Verdict::Pin, Some(wrong.join("; "))));
            }
        }
        let replay_by_graph = replay_run(source, Some(state.seq.0), Some(graph.clone())).await?;
        Ok(match replay_by_graph.divergence {
            None => (Verdict::Compatible, None),
            Some(differs) => (Verdict::Migrate, Some(divergence_text(&differs))),
        })
    }

    /// Computes the run's rows again and compares them with those in use; returns their number, or
    /// `None` if the run goes on meanwhile.
    async fn compare_rows(
        &self,
        run: &StreamKey,
        done: &mut ReplayOutcome,
    ) -> Result<Option<u64>, ReplayError> {
        let Some(last) = done.records.last() else { return Ok(None) };
        let timeout = std::time::Duration::from_secs(10);
        // The read models may be behind the log, which is no difference.
        if !self.queries.wait_for_position(last.position, timeout).await {
            return Ok(None);
        }
        let scratch = std::env::temp_dir().join(format!("convergio-replay-{}.db", Uuid::now_v7()));
        let computed = recompute_run_rows(&scratch, run, &done.records).await;
        let computed = computed.map_err(read_model_error)?;
        let in_use = self.queries.list_run_rows(run).await.map_err(read_model_error)?;
        let head = self.repository.event_log().stream_head(run).await?;
        // A later commit may have changed the rows between the two reads.
        if head.is_none_or(|head| head.seq != last.last_seq()) {
            return Ok(None);
        }
        if computed != in_use {
            done.divergence = Some(row_divergence(last.last_seq(), &in_use, &computed));
        }
        Ok(Some(computed.len() as u64))
    }
}

fn read_model_error(error: ProjectionError) -> ReplayError {
    ReplayError::ReadModels(error.to_string())
}

fn row_divergence(seq: Seq, in_use: &[TableRow], computed: &[TableRow]) -> Divergence {
    let only = |these: &[TableRow], those: &[TableRow]| {
        these.iter().find(|row| !those.contains(row)).cloned()
    };
    let (recorded, computed) = (only(in_use, computed), only(computed, in_use));
    let row_text = |row: Option<TableRow>| {
        row.map_or_else(|| "no such row".into(), |row| format!("{}: {}", row.table, row.row))
    };
    Divergence {
        seq,
        step: None,
        aspect: "the read models: run `convergio projections rebuild`",
        recorded: row_text(recorded),
        computed: row_text(computed),
    }
}
