//! Reads: a pool of read-only connections. Every hash is checked.

use std::path::{Path, PathBuf};
use std::sync::{Arc, LazyLock, Mutex, PoisonError};

use convergio_domain::payload::PayloadRef;
use convergio_domain::stream::{Seq, StreamKey};
use convergio_domain::time::Timestamp;
use rusqlite::{OptionalExtension, params};

use super::scan::{COLUMNS, ReadConnection, into_log_error, stream_key_from_row};
use super::sql_values::{kind_number, payload_row_id, to_signed, to_unsigned};
use crate::dedup::PayloadAssembly;
use crate::error::LogError;
use crate::log::RecordPage;
use crate::record::{PayloadMeta, Position, RawRecord, Record, StreamHead};
use crate::seal::{Opening, PayloadKeys, StoredPart, open_part};

/// Maximum number of idle connections.
const IDLE_CONNECTIONS: usize = 8;

/// Pool of connections; it grows with the number of concurrent reads.
pub(super) struct ReaderPool {
    path: PathBuf,
    keys: Arc<dyn PayloadKeys>,
    idle: Mutex<Vec<ReadConnection>>,
}

/// A borrowed connection with the keys that open payloads.
pub(super) struct EmbeddedReader<'a> {
    connection: &'a ReadConnection,
    keys: &'a dyn PayloadKeys,
}

impl ReaderPool {
    pub(super) fn open(path: &Path, keys: Arc<dyn PayloadKeys>) -> Result<Self, LogError> {
        let first = ReadConnection::open(path)?;
        Ok(Self { path: path.to_owned(), keys, idle: Mutex::new(vec![first]) })
    }

    /// Runs a read on a thread that may block on the disk.
    pub(super) async fn run_blocking<T: Send + 'static>(
        self: Arc<Self>,
        read: impl FnOnce(&EmbeddedReader<'_>) -> Result<T, LogError> + Send + 'static,
    ) -> Result<T, LogError> {
        let task = tokio::task::spawn_blocking(move || {
            let idle = self.idle.lock().unwrap_or_else(PoisonError::into_inner).pop();
            let line = idle.map_or_else(|| ReadConnection::open(&self.path), Ok)?;
            let result = read(&EmbeddedReader { connection: &line, keys: &*self.keys });
            // A connection that failed is dropped: it may be inside a broken statement.
            if result.is_ok() {
                let mut idle = self.idle.lock().unwrap_or_else(PoisonError::into_inner);
                if idle.len() < IDLE_CONNECTIONS {
                    idle.push(line);
                }
            }
            result
        });
        task.await.unwrap_or_else(|error| Err(LogError::Unavailable(error.to_string())))
    }
}

impl EmbeddedReader<'_> {
    pub(super) fn read_head(&self, stream: &StreamKey) -> Result<Option<StreamHead>, LogError> {
        let key = params![stream.id.as_bytes(), kind_number(stream.kind), stream.tenant.as_str()];
        let last = self.connection.read_records(&SELECT_LAST_OF_STREAM, key, Some(stream))?;
        Ok(last.first().map(Record::stream_head))
    }

    pub(super) fn read_stream(
        &self,
        stream: &StreamKey,
        after: Seq,
        limit: usize,
    ) -> Result<Vec<Arc<Record>>, LogError> {
        let (kind, tenant) = (kind_number(stream.kind), stream.tenant.as_str());
        let (from, limit) = (to_signed(after.0), to_signed(limit as u64));
        let key = params![stream.id.as_bytes(), kind, tenant, from, limit];
        let records = self.connection.read_records(&SELECT_STREAM, key, Some(stream))?;
        for pair in records.windows(2) {
            if pair[0].last_seq().offset_by(1) != pair[1].first_seq() {
                return Err(gap_error(&pair[1], pair[0].last_seq()));
            }
        }
        Ok(records.into_iter().map(Arc::new).collect())
    }

    pub(super) fn read_stream_raw(
        &self,
        stream: &StreamKey,
        after: Seq,
        limit: usize,
    ) -> Result<Vec<RawRecord>, LogError> {
        let (kind, tenant) = (kind_number(stream.kind), stream.tenant.as_str());
        let (from, limit) = (to_signed(after.0), to_signed(limit as u64));
        let key = params![stream.id.as_bytes(), kind, tenant, from, limit];
        self.connection.read_raw(&SELECT_STREAM, key, Some(stream))
    }

    pub(super) fn read_all(&self, after: Position, limit: usize) -> Result<RecordPage, LogError> {
        let tail = "SELECT coalesce(max(position), 0) FROM record";
        let mut tail = self.connection.sqlite.prepare_cached(tail).map_err(into_log_error)?;
        let tail = tail.query_row([], |row| row.get(0)).map_err(into_log_error)?;
        let range = params![to_signed(after.0), to_signed(limit as u64)];
        let records = self.connection.read_records(&SELECT_ALL, range, None)?;
        check_dense(after, records.iter().map(|record| record.position))?;
        let next = records.last().map_or(after, |record| record.position);
        let records = records.into_iter().map(Arc::new).collect();
        Ok(RecordPage { records, next, tail: Position(to_unsigned(tail)) })
    }

    pub(super) fn read_all_raw(
        &self,
        after: Position,
        limit: usize,
    ) -> Result<Vec<RawRecord>, LogError> {
        let range = params![to_signed(after.0), to_signed(limit as u64)];
        let records = self.connection.read_raw(&SELECT_ALL, range, None)?;
        check_dense(after, records.iter().map(|record| record.position))?;
        Ok(records)
    }

    /// Opens a payload, assembling it from the payloads that it is a delta of.
    pub(super) fn open_payload(
        &self,
        stream: &StreamKey,
        reference: PayloadRef,
    ) -> Result<Option<Opening>, LogError> {
        let mut assembly = PayloadAssembly::new(reference);
        while let Some(wanted) = assembly.next_wanted() {
            let Some((meta, own)) = self.read_stored_part(stream, wanted)? else { return Ok(None) };
            assembly.add_stored(meta, own)?;
        }
        assembly.into_opening(&self.keys.tenant_key(&stream.tenant)?, stream).map(Some)
    }

    fn read_stored_part(
        &self,
        stream: &StreamKey,
        reference: PayloadRef,
    ) -> Result<Option<(PayloadMeta, StoredPart)>, LogError> {
        let before = Seq(reference.seq.0.saturating_sub(1));
        let records = self.read_stream(stream, before, 1)?;
        let found = records.first().filter(|record| record.first_seq() == reference.seq);
        let Some(record) = found else { return Ok(None) };
        let Some(meta) = record.body.payloads.get(usize::from(reference.index)) else {
            return Ok(None);
        };
        let sql = "SELECT sealed FROM payload WHERE id = ?";
        let mut statement = self.connection.sqlite.prepare_cached(sql).map_err(into_log_error)?;
        let id = payload_row_id(record.position, reference.index);
        let sealed: Option<Vec<u8>> =
            statement.query_row([id], |row| row.get(0)).optional().map_err(into_log_error)?;
        let Some(sealed) = sealed else {
            return Err(LogError::missing_payload(stream, reference));
        };
        // An empty row marks an erased payload.
        if sealed.is_empty() {
            return Ok(None);
        }
        let key = self.keys.tenant_key(&stream.tenant)?;
        let own = open_part(&key, stream, reference, &sealed, &meta.commitment, meta.bytes)?;
        Ok(Some((meta.clone(), own)))
    }

    pub(super) fn due_streams(
        &self,
        now: Timestamp,
        limit: usize,
    ) -> Result<Vec<StreamKey>, LogError> {
        // Streams that are due now sort as time 0, before all timed ones.
        let sql = "SELECT s.tenant, s.kind, s.uuid FROM (SELECT 0 AS due, stream FROM wake_now \
            UNION ALL SELECT due, stream FROM wake WHERE due <= ? ORDER BY 1, 2 LIMIT ?) w \
            JOIN stream s ON s.id = w.stream ORDER BY w.due, w.stream";
        let mut statement = self.connection.sqlite.prepare_cached(sql).map_err(into_log_error)?;
        let mut rows =
            statement.query(params![now.0, to_signed(limit as u64)]).map_err(into_log_error)?;
        let mut due = Vec::new();
        while let Some(row) = rows.next().map_err(into_log_error)? {
            due.push(stream_key_from_row(row)?);
        }
        Ok(due)
    }

    pub(super) fn next_due_time(&self, now: Timestamp) -> Result<Option<Timestamp>, LogError> {
        let sql = "SELECT min(due) FROM wake WHERE due > ?";
        let mut statement = self.connection.sqlite.prepare_cached(sql).map_err(into_log_error)?;
        let due: Option<i64> =
            statement.query_row([now.0], |row| row.get(0)).map_err(into_log_error)?;
        Ok(due.map(Timestamp))
    }
}

/// Returns the bytes of the database, the write-ahead log not counted.
pub(super) fn database_bytes(reader: &EmbeddedReader<'_>) -> Result<u64, LogError> {
    let sql = "SELECT page_count * page_size FROM pragma_page_count(), pragma_page_size()";
    let bytes: i64 =
        reader.connection.sqlite.query_row(sql, [], |row| row.get(0)).map_err(into_log_error)?;
    Ok(to_unsigned(bytes))
}

static SELECT_STREAM: LazyLock<String> = LazyLock::new(|| {
    format!(
        "SELECT {COLUMNS} FROM record r WHERE r.stream = (SELECT id FROM stream WHERE uuid = ? \
         AND kind = ? AND tenant = ?) AND r.seq > ? ORDER BY r.seq LIMIT ?"
    )
});

static SELECT_LAST_OF_STREAM: LazyLock<String> = LazyLock::new(|| {
    format!(
        "SELECT {COLUMNS} FROM record r WHERE r.stream = (SELECT id FROM stream WHERE uuid = ? \
         AND kind = ? AND tenant = ?) ORDER BY r.seq DESC LIMIT 1"
    )
});

static SELECT_ALL: LazyLock<String> = LazyLock::new(|| {
    format!("SELECT {COLUMNS} FROM record r WHERE r.position > ? ORDER BY r.position LIMIT ?")
});

/// Checks that positions have no hole: rows can vanish from a damaged file.
fn check_dense(after: Position, positions: impl Iterator<Item = Position>) -> Result<(), LogError> {
    for (expected, position) in (after.0 + 1..).zip(positions) {
        if position.0 != expected {
            let reason = format!("the record at position {expected} is missing");
            return Err(LogError::corrupt(&"log.db", &reason));
        }
    }
    Ok(())
}

fn gap_error(record: &Record, end: Seq) -> LogError {
    let reason = format!("event {} does not follow event {end}", record.first_seq());
    LogError::corrupt(&record.stream, &reason)
}
