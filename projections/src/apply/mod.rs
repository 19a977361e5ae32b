//! What each event changes in the read models.
//!
//! [`apply_record`] is the only way in: `batch_writer` calls it for each record of a batch. One
//! file for each group of tables: `run`, `step` (with the counts of `status`), `agent`, `audit`,
//! `billing`, and `imported` for runs that came as files. `row_cache` holds rows of runs under way,
//! `bulk_insert` writes many rows in one statement. Nothing here decides anything: rows are a
//! function of events.

mod agent;
mod audit;
mod billing;
mod bulk_insert;
mod imported;
mod row_cache;
mod run;
mod status;
mod step;

use convergio_domain::event::Event;
use convergio_domain::run::event::RunEvent;
use convergio_domain::stream::{Seq, StreamKind};
use convergio_domain::time::Timestamp;
use convergio_eventstore::Record;
use sqlx::AnyConnection;

pub(crate) use row_cache::RowCache;

/// A batch being applied: its transaction, and the cache of rows that are written at its end.
pub(crate) struct ApplyBatch<'a> {
    pub(crate) transaction: &'a mut AnyConnection,
    pub(crate) row_cache: &'a mut RowCache,
}

/// An event with its record and its place within it.
pub(crate) struct AppliedEvent<'a> {
    pub(crate) record: &'a Record,
    pub(crate) event: &'a Event,
    pub(crate) index: usize,
    pub(crate) seq: Seq,
}

impl AppliedEvent<'_> {
    fn tenant_id(&self) -> &str {
        self.record.stream.tenant.as_str()
    }

    /// Id of the stream's subject: a run, a graph or an agent.
    fn stream_id(&self) -> String {
        self.record.stream.id.to_string()
    }

    fn recorded_at(&self) -> Timestamp {
        self.record.body.time
    }

    fn log_position(&self) -> i64 {
        to_column(self.record.position.0)
    }

    fn event_id(&self) -> String {
        self.record.event_id(self.index).to_string()
    }
}

/// Converts a number of the log to a column's signed type. Real numbers stay far below 2^63.
pub(crate) fn to_column(number: u64) -> i64 {
    i64::try_from(number).unwrap_or(i64::MAX)
}

/// Replaces NUL characters, which PostgreSQL's text type refuses.
pub(crate) fn replace_nul(text: &str) -> String {
    text.replace('\0', "\u{fffd}")
}

/// Applies all events of a record within the caller's transaction. Changes to cached rows stay in
/// the cache until the caller flushes it.
pub(crate) async fn apply_record(batch: &mut ApplyBatch<'_>, record: &Record) -> sqlx::Result<()> {
    let numbers = record.first_seq().0..;
    for (index, (seq, event)) in numbers.zip(&record.body.events).enumerate() {
        let applied = AppliedEvent { record, event, index, seq: Seq(seq) };
        // The audit trail takes events of every kind of stream, so it comes before the match.
        audit::apply(batch.row_cache, &applied);
        match event {
            Event::Run(event) => apply_run(batch, &applied, event).await?,
            Event::Graph(event) => {
                run::insert_graph_version(batch.transaction, &applied, event).await?;
            }
            Event::Agent(event) => agent::apply(batch.transaction, &applied, event).await?,
            Event::Request(_) | Event::Memory(_) | Event::Token(_) => {}
        }
    }
    if record.stream.kind == StreamKind::Run {
        run::update_last_event(batch, record).await?;
    }
    Ok(())
}

async fn apply_run(
    batch: &mut ApplyBatch<'_>,
    applied: &AppliedEvent<'_>,
    event: &RunEvent,
) -> sqlx::Result<()> {
    run::apply(batch, applied, event).await?;
    step::apply(batch, applied, event).await?;
    if let RunEvent::AgentSpawned(spawned) = event {
        agent::count_agent_run(batch.transaction, applied, spawned).await?;
    }
    if let RunEvent::UsageRecorded(usage) = event {
        billing::apply(batch, applied, usage).await?;
    }
    Ok(())
}
