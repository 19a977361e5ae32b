//! One replay of a run, commit by commit.

use std::sync::Arc;

use convergio_application::ReplayError;
use convergio_domain::graph::manifest::Graph;
use convergio_domain::stream::Seq;
use convergio_eventstore::Record;
use convergio_executor::replay::{Divergence, Replay};

use crate::source::{READ_LIMIT, ReplaySource};

/// Maximum events of a run whose rows are computed again as well; more would take too long to wait
/// for.
pub(crate) const ROWS_EVENTS_LIMIT: u64 = 100_000;

/// A replay that has ended, at the requested event or at a divergence.
pub struct ReplayOutcome {
    /// The state, and what was compared on the way.
    pub replay: Replay,
    /// First difference between the log and what was computed.
    pub divergence: Option<Divergence>,
    /// True for a fork: it began with its parent's state, and its first rows are its parent's.
    pub(crate) is_fork: bool,
    /// Replayed records, as far as their rows may be computed again.
    pub(crate) records: Vec<Arc<Record>>,
}

/// Replays a run up to an event, against its own graph versions or against another graph.
///
/// # Errors
/// The log cannot be read, a graph is missing or invalid, or the run has fewer events.
pub async fn replay_run(
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
