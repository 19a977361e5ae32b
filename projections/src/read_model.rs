//! The contract of a read model, and what all of them share: the event that is applied, and the
//! forms of numbers and texts in columns.

use convergio_domain::event::Event;
use convergio_domain::stream::Seq;
use convergio_domain::time::Timestamp;
use convergio_eventstore::Record;
use sqlx::AnyConnection;

/// Maximum rows that a read model caches between batches.
pub(crate) const CACHED_ROWS_LIMIT: usize = 4096;

/// A table that a read model writes, and nobody else.
#[derive(Debug, Clone, Copy)]
pub(crate) struct ReadModelTable {
    pub(crate) name: &'static str,
    pub(crate) runs: RunColumn,
}

/// The column that says of which run a row is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum RunColumn {
    /// None: no row is of one run alone.
    Absent,
    /// Column `run`, the run's id.
    Id,
    /// Column `stream`, the name of the run's stream.
    StreamName,
}

/// One noun's tables, as a function of the events of the log. A read model keeps rows in memory as
/// it likes until it is flushed, reads no table of another, and decides nothing.
pub(crate) trait ReadModel: Default + Send {
    /// Name of the noun.
    const NAME: &'static str;
    /// Every table of the model, in the order of a dump.
    const TABLES: &'static [ReadModelTable];

    /// Applies one event, within the transaction of its batch. Events that do not concern the noun
    /// change nothing.
    fn apply_event(
        &mut self,
        connection: &mut AnyConnection,
        applied: &AppliedEvent<'_>,
    ) -> impl Future<Output = sqlx::Result<()>> + Send;

    /// Writes what is changed in memory only; the batch ends.
    fn flush_rows(
        &mut self,
        _connection: &mut AnyConnection,
    ) -> impl Future<Output = sqlx::Result<()>> + Send {
        std::future::ready(Ok(()))
    }
}

/// A batch as a read model with a cache applies it.
pub(crate) struct ApplyBatch<'a, C> {
    pub(crate) transaction: &'a mut AnyConnection,
    pub(crate) row_cache: &'a mut C,
}

/// An event with its record and its place within it.
pub(crate) struct AppliedEvent<'a> {
    pub(crate) record: &'a Record,
    pub(crate) event: &'a Event,
    pub(crate) index: usize,
    pub(crate) seq: Seq,
}

impl AppliedEvent<'_> {
    pub(crate) fn tenant_id(&self) -> &str {
        self.record.stream.tenant.as_str()
    }

    /// Id of the stream's subject: a run, a graph or an agent.
    pub(crate) fn stream_id(&self) -> String {
        self.record.stream.id.to_string()
    }

    pub(crate) fn recorded_at(&self) -> Timestamp {
        self.record.body.time
    }

    pub(crate) fn log_position(&self) -> i64 {
        to_column(self.record.position.0)
    }

    pub(crate) fn event_id(&self) -> String {
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
