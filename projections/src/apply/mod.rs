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
mod bulk;
mod held;
mod imported;
mod run;
mod status;
mod step;

use convergio_domain::event::Event;
use convergio_domain::stream::{Seq, StreamKind};
use convergio_domain::time::Timestamp;
use convergio_eventstore::Record;
use sqlx::AnyConnection;

pub(crate) use held::Held;

/// A batch being applied: its transaction, and the cache of rows that are written at its end.
pub(crate) struct Page<'a> {
    pub(crate) to: &'a mut AnyConnection,
    pub(crate) held: &'a mut Held,
}

/// An event with its record and its place within it.
pub(crate) struct Applied<'a> {
    pub(crate) record: &'a Record,
    pub(crate) event: &'a Event,
    pub(crate) index: usize,
    pub(crate) seq: Seq,
}

impl Applied<'_> {
    fn tenant(&self) -> &str {
        self.record.stream.tenant.as_str()
    }

    /// Id of the stream's subject: a run, a graph or an agent.
    fn id(&self) -> String {
        self.record.stream.id.to_string()
    }

    fn at(&self) -> Timestamp {
        self.record.body.time
    }

    fn pos(&self) -> i64 {
        signed(self.record.position.0)
    }

    fn event_id(&self) -> String {
        self.record.event_id(self.index).to_string()
    }
}

/// Converts a number of the log to a column's signed type. Real numbers stay far below 2^63.
pub(crate) fn signed(number: u64) -> i64 {
    i64::try_from(number).unwrap_or(i64::MAX)
}

/// Replaces NUL characters, which PostgreSQL's text type refuses.
pub(crate) fn storable(text: &str) -> String {
    text.replace('\0', "\u{fffd}")
}

/// Applies all events of a record within the caller's transaction. Changes to cached rows stay in
/// the cache until the caller flushes it.
pub(crate) async fn apply(page: &mut Page<'_>, record: &Record) -> sqlx::Result<()> {
    let numbers = record.first_seq().0..;
    for (index, (seq, event)) in numbers.zip(&record.body.events).enumerate() {
        let applied = Applied { record, event, index, seq: Seq(seq) };
        // The audit trail takes events of every kind of stream, so it comes before the match.
        audit::apply(page.held, &applied);
        match record.stream.kind {
            StreamKind::Run => apply_run(page, &applied).await?,
            StreamKind::Graph => run::register(page.to, &applied).await?,
            StreamKind::Agent => agent::apply(page.to, &applied).await?,
            StreamKind::Request | StreamKind::Memory | StreamKind::Token => {}
        }
    }
    if record.stream.kind == StreamKind::Run {
        run::touch(page, record).await?;
    }
    Ok(())
}

async fn apply_run(page: &mut Page<'_>, applied: &Applied<'_>) -> sqlx::Result<()> {
    run::apply(page, applied).await?;
    step::apply(page, applied).await?;
    agent::ran(page.to, applied).await?;
    if let Event::UsageRecorded(usage) = applied.event {
        billing::apply(page, applied, usage).await?;
    }
    Ok(())
}
