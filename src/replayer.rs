//! Replay of runs of a log for the gateway, and of exported files.

use std::sync::Arc;

use async_trait::async_trait;
use convergio_domain::decider::Decider;
use convergio_domain::event::Event;
use convergio_domain::graph::manifest::Graph;
use convergio_domain::id::{GraphId, GraphVersion};
use convergio_domain::payload::PayloadRef;
use convergio_domain::run::{Phase, Run, RunState};
use convergio_domain::stream::{Seq, StreamKey};
use convergio_evaluation::{Answer, Evaluator, Job};
use convergio_eventstore::run_file::RunFile;
use convergio_eventstore::{LogError, Record, Repository};
use convergio_executor::migration::obstacle;
use convergio_executor::replay::{Divergence, Replay, fits, read_graph};
use convergio_gateway::{ReplayError, Replayer};
use convergio_projections::{Queries, TableRow, recompute};
use convergio_schemas::wire::{DivergenceView, FleetRun, ReplayReport, ReplayedStep, Verdict};
use serde_json::Value;
use uuid::Uuid;

/// Records read at once.
const PAGE: usize = 256;
/// Maximum events of a run whose rows are computed again as well; more would take too long to wait
/// for.
const ROWS_OF: u64 = 100_000;

/// Source of the records, payloads and graph versions of a run.
pub(crate) enum Source<'a> {
    Log(&'a Repository, &'a StreamKey),
    File(&'a RunFile),
}

impl Source<'_> {
    fn run(&self) -> &StreamKey {
        match self {
            Self::Log(_, run) => run,
            Self::File(file) => &file.stream,
        }
    }

    async fn records(&self, after: Seq) -> Result<Vec<Arc<Record>>, LogError> {
        match self {
            Self::Log(repository, run) => repository.log().read_stream(run, after, PAGE).await,
            Self::File(file) => {
                let records = file.records.iter().filter(|record| record.first_seq() > after);
                Ok(records.take(PAGE).cloned().collect())
            }
        }
    }

    async fn graph(&self, id: GraphId, version: &GraphVersion) -> Result<Graph, ReplayError> {
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
    async fn table(&self, at: PayloadRef) -> Result<Option<Vec<u8>>, LogError> {
        match self {
            Self::Log(repository, run) => Ok(repository.payload(run, at).await?.map(Vec::from)),
            Self::File(file) => Ok(file.payloads.get(&at).map(|bytes| bytes.to_vec())),
        }
    }

    /// State that a fork inherits from its parent; `None` for other runs.
    async fn inherited(&self) -> Result<Option<RunState>, LogError> {
        let (repository, run) = match self {
            Self::Log(repository, run) => (repository, run),
            Self::File(file) => return Ok(file.inherited()),
        };
        // A run of the log names its parent in its first event; a file has the state itself.
        let first = repository.log().read_stream(run, Seq(0), 1).await?;
        let event = first.first().and_then(|record| record.body.events.first());
        let Some(from) = event.and_then(Run::inherits) else { return Ok(None) };
        let parent = StreamKey { id: from.id, ..(*run).clone() };
        let loaded = repository.load_at::<Run>(&parent, from.seq, true).await?;
        Ok(loaded.map(|loaded| loaded.state))
    }

    /// Graph and version that the run was created with.
    async fn created(&self) -> Result<(GraphId, GraphVersion), ReplayError> {
        let records = self.records(Seq(0)).await?;
        let first = records.first().and_then(|record| record.body.events.first());
        match first {
            Some(Event::RunCreated(created)) => Ok((created.graph, created.version.clone())),
            Some(Event::RunForked(forked)) => Ok((forked.graph, forked.version.clone())),
            _ => Err(ReplayError::Graph("the run has no graph".into())),
        }
    }
}

/// A replay that has ended, at the requested event or at a divergence.
pub(crate) struct Replayed {
    pub(crate) replay: Replay,
    pub(crate) diverges: Option<Divergence>,
    /// True for a fork: it began with its parent's state, and its first rows are its parent's.
    is_fork: bool,
    /// Replayed records, as far as their rows may be computed again.
    records: Vec<Arc<Record>>,
}

/// Replays a run up to an event, against its own graph versions or against another graph.
pub(crate) async fn replay(
    source: &Source<'_>,
    at: Option<u64>,
    graph: Option<Graph>,
) -> Result<Replayed, ReplayError> {
    let (id, version) = source.created().await?;
    let replay = match graph {
        Some(graph) => Replay::against(graph),
        None => Replay::new(source.graph(id, &version).await?),
    };
    let replay = replay.map_err(|error| ReplayError::Graph(error.to_string()))?;
    let mut done = Replayed { replay, diverges: None, is_fork: false, records: Vec::new() };
    if let Some(state) = source.inherited().await? {
        done.replay.inherit(state);
        done.is_fork = true;
    }
    let mut after = Seq(0);
    loop {
        let page = source.records(after).await?;
        for record in &page {
            // Records are atomic: one that begins after the requested event is not computed at all.
            if at.is_some_and(|at| record.first_seq().0 > at) {
                return Ok(done);
            }
            // A migration changes the version in the middle of a run.
            if let Some(version) = done.replay.wants(record) {
                let graph = source.graph(id, version).await?;
                done.replay.offer(version.clone(), graph);
            }
            for at in done.replay.lacks(record) {
                done.replay.provide(at, source.table(at).await?);
            }
            if let Err(found) = done.replay.commit(record, at.map(Seq)) {
                done.diverges = Some(*found);
                return Ok(done);
            }
            after = record.last_seq();
            if after.0 <= ROWS_OF {
                done.records.push(Arc::clone(record));
            }
        }
        if page.len() < PAGE {
            break;
        }
    }
    let reached = done.replay.state.seq.0;
    match at.filter(|at| *at > reached) {
        Some(asked) => Err(ReplayError::BeyondTheEnd { events: reached, asked }),
        None => Ok(done),
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
    async fn replay(
        &self,
        run: &StreamKey,
        at: Option<u64>,
        graph: Option<Graph>,
    ) -> Result<ReplayReport, ReplayError> {
        let is_all = at.is_none() && graph.is_none();
        let mut done = replay(&Source::Log(&self.repository, run), at, graph).await?;
        let mut rows = None;
        // Only a complete replay by the run's own graph can equal the rows in use.
        if is_all && !done.is_fork && done.diverges.is_none() && done.replay.state.seq.0 <= ROWS_OF
        {
            rows = self.compare_rows(run, &mut done).await?;
        }
        Ok(report(run, done, rows))
    }

    async fn survives(
        &self,
        run: &StreamKey,
        graph: Option<&Graph>,
    ) -> Result<FleetRun, ReplayError> {
        let source = Source::Log(&self.repository, run);
        let own = replay(&source, None, None).await?;
        let (seq, version) = (own.replay.state.seq.0, own.replay.state.graph.clone());
        let mut found = FleetRun {
            run: run.id.to_string(),
            version: version.as_ref().map(|(_, version)| version.to_string()).unwrap_or_default(),
            seq,
            verdict: Verdict::Compatible,
            reason: None,
        };
        if let Some(differs) = own.diverges {
            found.verdict = Verdict::Pin;
            found.reason = Some(format!("this program computes otherwise: {}", text(&differs)));
            return Ok(found);
        }
        if let (Some(graph), Some((id, version))) = (graph, version) {
            let before = source.graph(id, &version).await?;
            (found.verdict, found.reason) =
                self.verdict(&source, &before, graph, &own.replay.state).await?;
        }
        Ok(found)
    }

    fn fits(&self, state: &RunState, graph: &Graph) -> Result<(), String> {
        fits(state, graph.clone()).map_err(|failure| failure.full_text().to_owned())
    }
}

impl LogReplayer {
    pub(crate) fn new(repository: &Repository, queries: &Queries, evaluator: Evaluator) -> Self {
        Self { repository: repository.clone(), queries: queries.clone(), evaluator }
    }

    /// Mistakes in the inputs of a run when another graph checks them.
    async fn check(
        &self,
        run: &StreamKey,
        graph: &Graph,
        input: Value,
    ) -> Result<Vec<String>, ReplayError> {
        let (schema, value) = (Arc::new(graph.inputs.clone()), Arc::new(input));
        match self.evaluator.evaluate(&run.tenant, &Job::Check { schema, value }).await? {
            Answer::Mistakes(mistakes) => Ok(mistakes),
            _ => Err(ReplayError::Graph("the inputs were not checked".into())),
        }
    }

    /// Verdict on moving a run to another graph: pinned if it cannot move, to be migrated if the
    /// graph would have decided otherwise, else compatible.
    async fn verdict(
        &self,
        source: &Source<'_>,
        before: &Graph,
        graph: &Graph,
        state: &RunState,
    ) -> Result<(Verdict, Option<String>), ReplayError> {
        // Structural obstacles are found without a replay.
        if let Some(reason) = obstacle(before, graph, state) {
            return Ok((Verdict::Pin, Some(reason)));
        }
        if let Some(input) = state.input {
            let bytes = self.repository.payload(source.run(), input).await?;
            let input = bytes.and_then(|bytes| serde_json::from_slice(&bytes).ok());
            let wrong = match input {
                Some(input) => self.check(source.run(), graph, input).await?,
                None => Vec::new(),
            };
            if !wrong.is_empty() {
                return Ok((Verdict::Pin, Some(wrong.join("; "))));
            }
        }
        let other = replay(source, Some(state.seq.0), Some(graph.clone())).await?;
        Ok(match other.diverges {
            None => (Verdict::Compatible, None),
            Some(differs) => (Verdict::Migrate, Some(text(&differs))),
        })
    }

    /// Computes the run's rows again and compares them with those in use; returns their number, or
    /// `None` if the run goes on meanwhile.
    async fn compare_rows(
        &self,
        run: &StreamKey,
        done: &mut Replayed,
    ) -> Result<Option<u64>, ReplayError> {
        let Some(last) = done.records.last() else { return Ok(None) };
        let patience = std::time::Duration::from_secs(10);
        // The read models may be behind the log, which is no difference.
        if !self.queries.wait_for(last.position, patience).await {
            return Ok(None);
        }
        let scratch = std::env::temp_dir().join(format!("convergio-replay-{}.db", Uuid::now_v7()));
        let computed = recompute(&scratch, run, &done.records).await?;
        let in_use = self.queries.rows_of(run).await?;
        let head = self.repository.log().head(run).await?;
        // A later commit may have changed the rows between the two reads.
        if head.is_none_or(|head| head.seq != last.last_seq()) {
            return Ok(None);
        }
        if computed != in_use {
            done.diverges = Some(differing(last.last_seq(), &in_use, &computed));
        }
        Ok(Some(computed.len() as u64))
    }
}

fn differing(seq: Seq, in_use: &[TableRow], computed: &[TableRow]) -> Divergence {
    let only = |these: &[TableRow], those: &[TableRow]| {
        these.iter().find(|row| !those.contains(row)).cloned()
    };
    let (recorded, computed) = (only(in_use, computed), only(computed, in_use));
    let shown = |row: Option<TableRow>| {
        row.map_or_else(|| "no such row".into(), |row| format!("{}: {}", row.table, row.row))
    };
    Divergence {
        seq,
        step: None,
        what: "the read models: run `convergio projections rebuild`",
        recorded: shown(recorded),
        computed: shown(computed),
    }
}

/// A divergence in one line.
fn text(found: &Divergence) -> String {
    let step = found.step.as_ref().map_or_else(|| "the run".to_owned(), ToString::to_string);
    let Divergence { seq, what, recorded, computed, .. } = found;
    format!("event {seq}, {step}: {what}: written `{recorded}`, computed `{computed}`")
}

/// Report of a replay in the API's form.
pub(crate) fn report(run: &StreamKey, done: Replayed, rows: Option<u64>) -> ReplayReport {
    let Replayed { mut replay, diverges, .. } = done;
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
        unknown: replay.unknown,
        rows,
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
