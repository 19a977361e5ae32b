//! Replay of runs of a log for the gateway, and of exported files.

use std::sync::Arc;

use async_trait::async_trait;
use convergio_domain::decider::Decider;
use convergio_domain::event::Event;
use convergio_domain::graph::manifest::Graph;
use convergio_domain::id::{GraphId, GraphVersion};
use convergio_domain::payload::PayloadRef;
use convergio_domain::run::{Run, RunPhase, RunState};
use convergio_domain::stream::{Seq, StreamKey};
use convergio_evaluation::{EvaluationJob, Evaluator, JobResult};
use convergio_eventstore::run_file::RunFile;
use convergio_eventstore::{LogError, Record, Repository};
use convergio_executor::migration::find_migration_obstacle;
use convergio_executor::replay::{Divergence, Replay, check_graph_fits, read_graph};
use convergio_gateway::{ReplayError, Replayer};
use convergio_projections::{Queries, TableRow, recompute_run_rows};
use convergio_schemas::wire::{DivergenceView, FleetRun, ReplayReport, ReplayedStep, Verdict};
use serde_json::Value;
use uuid::Uuid;

/// Records read at once.
const READ_LIMIT: usize = 256;
/// Maximum events of a run whose rows are computed again as well; more would take too long to wait
/// for.
const ROWS_EVENTS_LIMIT: u64 = 100_000;

/// Source of the records, payloads and graph versions of a run.
pub(crate) enum ReplaySource<'a> {
    Log(&'a Repository, &'a StreamKey),
    File(&'a RunFile),
}

impl ReplaySource<'_> {
    fn run_stream(&self) -> &StreamKey {
        match self {
            Self::Log(_, run) => run,
            Self::File(file) => &file.stream,
        }
    }

    async fn read_records(&self, after: Seq) -> Result<Vec<Arc<Record>>, LogError> {
        match self {
            Self::Log(repository, run) => {
                repository.event_log().read_stream(run, after, READ_LIMIT).await
            }
            Self::File(file) => {
                let records = file.records.iter().filter(|record| record.first_seq() > after);
                Ok(records.take(READ_LIMIT).cloned().collect())
            }
        }
    }

    async fn load_graph(&self, id: GraphId, version: &GraphVersion) -> Result<Graph, ReplayError> {
        let missing = || ReplayError::Graph(format!("the file has no graph version {version}"));
        match self {
            Self::File(file) => file.graphs.get(version).cloned().ok_or_else(missing),
            Self::Log(repository, run) => {
                let graph = read_graph(repository, &run.tenant, id, version).await;
                graph.map_err(|error| ReplayError::Graph(error.to_string()))
            }
        }
    }

    /// Table of candidates that a model was chosen from; `None` if it was erased or left out.
    async fn candidate_table(&self, at: PayloadRef) -> Result<Option<Vec<u8>>, LogError> {
        match self {
            Self::Log(repository, run) => {
                Ok(repository.read_payload(run, at).await?.map(Vec::from))
            }
            Self::File(file) => Ok(file.payloads.get(&at).map(|bytes| bytes.to_vec())),
        }
    }

    /// State that a fork inherits from its parent; `None` for other runs.
    async fn inherited_state(&self) -> Result<Option<RunState>, LogError> {
        let (repository, run) = match self {
            Self::Log(repository, run) => (repository, run),
            Self::File(file) => return Ok(file.inherited_state()),
        };
        // A run of the log names its parent in its first event; a file has the state itself.
        let first = repository.event_log().read_stream(run, Seq(0), 1).await?;
        let event = first.first().and_then(|record| record.body.events.first());
        let Some(from) = event.and_then(Run::inherited_history) else { return Ok(None) };
        let parent = StreamKey { id: from.id, ..(*run).clone() };
        let loaded = repository.load_at::<Run>(&parent, from.seq, true).await?;
        Ok(loaded.map(|loaded| loaded.state))
    }

    /// Graph and version that the run was created with.
    async fn initial_graph(&self) -> Result<(GraphId, GraphVersion), ReplayError> {
        let records = self.read_records(Seq(0)).await?;
        let first = records.first().and_then(|record| record.body.events.first());
        if let Some(Event::Run(event)) = first
            && let Some((Some(graph), version)) = event.chosen_version()
        {
            return Ok((graph, version.clone()));
        }
        Err(ReplayError::Graph("the run has no graph".into()))
    }
}

/// A replay that has ended, at the requested event or at a divergence.
pub(crate) struct ReplayOutcome {
    pub(crate) replay: Replay,
    pub(crate) divergence: Option<Divergence>,
    /// True for a fork: it began with its parent's state, and its first rows are its parent's.
    is_fork: bool,
    /// Replayed records, as far as their rows may be computed again.
    records: Vec<Arc<Record>>,
}

/// Replays a run up to an event, against its own graph versions or against another graph.
pub(crate) async fn replay_run(
    source: &ReplaySource<'_>,
    last_seq: Option<u64>,
    graph: Option<Graph>,
) -> Result<ReplayOutcome, ReplayError> {
    let (id, version) = source.initial_graph().await?;
    let replay = match graph {
        Some(graph) => Replay::with_fixed_graph(graph),
        None => Replay::new(source.load_graph(id, &version).await?),
    };
    let replay = replay.map_err(|error| ReplayError::Graph(error.to_string()))?;
    let mut outcome =
        ReplayOutcome { replay, divergence: None, is_fork: false, records: Vec::new() };
    if let Some(state) = source.inherited_state().await? {
        outcome.replay.inherit_state(state);
        outcome.is_fork = true;
    }
    let mut after = Seq(0);
    loop {
        let page = source.read_records(after).await?;
        for record in &page {
            // Records are atomic: one that begins after the requested event is not computed at all.
            if last_seq.is_some_and(|at| record.first_seq().0 > at) {
                return Ok(outcome);
            }
            // A migration changes the version in the middle of a run.
            if let Some(version) = outcome.replay.migration_target(record) {
                let graph = source.load_graph(id, version).await?;
                outcome.replay.offer_graph(version.clone(), graph);
            }
            for at in outcome.replay.missing_payloads(record) {
                outcome.replay.provide_payload(at, source.candidate_table(at).await?);
            }
            if let Err(found) = outcome.replay.replay_commit(record, last_seq.map(Seq)) {
                outcome.divergence = Some(*found);
                return Ok(outcome);
            }
            after = record.last_seq();
            if after.0 <= ROWS_EVENTS_LIMIT {
                outcome.records.push(Arc::clone(record));
            }
        }
        if page.len() < READ_LIMIT {
            break;
        }
    }
    let reached = outcome.replay.state.seq.0;
    match last_seq.filter(|at| *at > reached) {
        Some(asked) => Err(ReplayError::BeyondTheEnd { events: reached, asked }),
        None => Ok(outcome),
    }
}

/// Replay for the gateway, over a log and its read models.
pub(crate) struct LogReplayer {
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
    pub(crate) fn new(repository: &Repository, queries: &Queries, evaluator: Evaluator) -> Self {
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
        let computed = recompute_run_rows(&scratch, run, &done.records).await?;
        let in_use = self.queries.list_run_rows(run).await?;
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

/// A divergence in one line.
fn divergence_text(found: &Divergence) -> String {
    let step = found.step.as_ref().map_or_else(|| "the run".to_owned(), ToString::to_string);
    let Divergence { seq, aspect: what, recorded, computed, .. } = found;
    format!("event {seq}, {step}: {what}: written `{recorded}`, computed `{computed}`")
}

/// Report of a replay in the API's form.
pub(crate) fn replay_report(
    run: &StreamKey,
    done: ReplayOutcome,
    rows: Option<u64>,
) -> ReplayReport {
    let ReplayOutcome { mut replay, divergence: diverges, .. } = done;
    let step = |(step, status): (String, &str)| ReplayedStep { step, status: status.into() };
    let diverges = diverges.map(|found| DivergenceView {
        seq: found.seq.0,
        step: found.step.map(|step| step.to_string()),
        what: found.aspect.into(),
        recorded: found.recorded,
        computed: found.computed,
    });
    ReplayReport {
        run: run.id.to_string(),
        seq: replay.state.seq.0,
        status: phase_name(replay.state.phase).into(),
        fingerprint: replay.state.refresh_fingerprint().to_string(),
        commits: replay.commits,
        decisions: replay.decisions,
        unknown: replay.skipped_decisions,
        rows,
        steps: replay.list_steps().into_iter().map(step).collect(),
        diverges,
    }
}

fn phase_name(phase: RunPhase) -> &'static str {
    match phase {
        RunPhase::New | RunPhase::Running => "running",
        RunPhase::Completed => "completed",
        RunPhase::Failed => "failed",
        RunPhase::Cancelled => "cancelled",
    }
}
