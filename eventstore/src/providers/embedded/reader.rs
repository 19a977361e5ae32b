//! Reads: a pool of read-only connections. Every hash is checked.

use std::path::{Path, PathBuf};
use std::sync::{Arc, LazyLock, Mutex, PoisonError};

use convergio_domain::payload::PayloadRef;
use convergio_domain::stream::{Seq, StreamKey};
use convergio_domain::time::Timestamp;
use rusqlite::{OptionalExtension, params};

use super::rows::{kind_number, signed, unsigned};
use super::scan::{COLUMNS, Line, failed, stream_key};
use super::writer::payload_id;
use crate::error::LogError;
use crate::log::Page;
use crate::record::{Head, PayloadMeta, Position, RawRecord, Record};
use crate::reuse::Assembly;
use crate::seal::{Opening, Own, PayloadKeys, open};

/// Maximum number of idle connections.
const IDLE: usize = 8;

/// Pool of connections; it grows with the number of concurrent reads.
pub(super) struct Readers {
    path: PathBuf,
    keys: Arc<dyn PayloadKeys>,
    idle: Mutex<Vec<Line>>,
}

/// A borrowed connection with the keys that open payloads.
pub(super) struct Reader<'a> {
    line: &'a Line,
    keys: &'a dyn PayloadKeys,
}

impl Readers {
    pub(super) fn open(path: &Path, keys: Arc<dyn PayloadKeys>) -> Result<Self, LogError> {
        let first = Line::open(path)?;
        Ok(Self { path: path.to_owned(), keys, idle: Mutex::new(vec![first]) })
    }

    /// Runs a read on a thread that may block on the disk.
    pub(super) async fn run<T: Send + 'static>(
        self: Arc<Self>,
        read: impl FnOnce(&Reader<'_>) -> Result<T, LogError> + Send + 'static,
    ) -> Result<T, LogError> {
        let task = tokio::task::spawn_blocking(move || {
            let idle = self.idle.lock().unwrap_or_else(PoisonError::into_inner).pop();
            let line = idle.map_or_else(|| Line::open(&self.path), Ok)?;
            let result = read(&Reader { line: &line, keys: &*self.keys });
            // A connection that failed is dropped: it may be inside a broken statement.
            if result.is_ok() {
                let mut idle = self.idle.lock().unwrap_or_else(PoisonError::into_inner);
                if idle.len() < IDLE {
                    idle.push(line);
                }
            }
            result
        });
        task.await.unwrap_or_else(|error| Err(LogError::Unavailable(error.to_string())))
    }
}

impl Reader<'_> {
    pub(super) fn head(&self, stream: &StreamKey) -> Result<Option<Head>, LogError> {
        let key = params![stream.id.as_bytes(), kind_number(stream.kind), stream.tenant.as_str()];
        let last = self.line.records(&LAST_OF_STREAM, key, Some(stream))?;
        Ok(last.first().map(Record::head))
    }

    pub(super) fn stream(
        &self,
        stream: &StreamKey,
        after: Seq,
        limit: usize,
    ) -> Result<Vec<Arc<Record>>, LogError> {
        let (kind, tenant) = (kind_number(stream.kind), stream.tenant.as_str());
        let (from, limit) = (signed(after.0), signed(limit as u64));
        let key = params![stream.id.as_bytes(), kind, tenant, from, limit];
        let records = self.line.records(&OF_STREAM, key, Some(stream))?;
        for pair in records.windows(2) {
            if pair[0].last_seq().plus(1) != pair[1].first_seq() {
                return Err(gap(&pair[1], pair[0].last_seq()));
            }
        }
        Ok(records.into_iter().map(Arc::new).collect())
    }

    pub(super) fn stream_raw(
        &self,
        stream: &StreamKey,
        after: Seq,
        limit: usize,
    ) -> Result<Vec<RawRecord>, LogError> {
        let (kind, tenant) = (kind_number(stream.kind), stream.tenant.as_str());
        let (from, limit) = (signed(after.0), signed(limit as u64));
        let key = params![stream.id.as_bytes(), kind, tenant, from, limit];
        self.line.raw(&OF_STREAM, key, Some(stream))
    }

    pub(super) fn all(&self, after: Position, limit: usize) -> Result<Page, LogError> {
        let tail = "SELECT coalesce(max(position), 0) FROM record";
        let mut tail = self.line.connection.prepare_cached(tail).map_err(failed)?;
        let tail = tail.query_row([], |row| row.get(0)).map_err(failed)?;
        let range = params![signed(after.0), signed(limit as u64)];
        let records = self.line.records(&OF_ALL, range, None)?;
        dense(after, records.iter().map(|record| record.position))?;
        let next = records.last().map_or(after, |record| record.position);
        let records = records.into_iter().map(Arc::new).collect();
        Ok(Page { records, next, tail: Position(unsigned(tail)) })
    }

    pub(super) fn all_raw(
        &self,
        after: Position,
        limit: usize,
    ) -> Result<Vec<RawRecord>, LogError> {
        let range = params![signed(after.0), signed(limit as u64)];
        let records = self.line.raw(&OF_ALL, range, None)?;
        dense(after, records.iter().map(|record| record.position))?;
        Ok(records)
    }

    /// Opens a payload, assembling it from the payloads that it is a delta of.
    pub(super) fn opening(
        &self,
        stream: &StreamKey,
        reference: PayloadRef,
    ) -> Result<Option<Opening>, LogError> {
        let mut assembly = Assembly::new(reference);
        while let Some(wanted) = assembly.wants() {
            let Some((meta, own)) = self.stored(stream, wanted)? else { return Ok(None) };
            assembly.add(meta, own)?;
        }
        assembly.finish(&self.keys.key(&stream.tenant)?, stream).map(Some)
    }

    fn stored(
        &self,
        stream: &StreamKey,
        reference: PayloadRef,
    ) -> Result<Option<(PayloadMeta, Own)>, LogError> {
        let before = Seq(reference.seq.0.saturating_sub(1));
        let records = self.stream(stream, before, 1)?;
        let found = records.first().filter(|record| record.first_seq() == reference.seq);
        let Some(record) = found else { return Ok(None) };
        let Some(meta) = record.body.payloads.get(usize::from(reference.index)) else {
            return Ok(None);
        };
        let sql = "SELECT sealed FROM payload WHERE id = ?";
        let mut statement = self.line.connection.prepare_cached(sql).map_err(failed)?;
        let id = payload_id(record.position, reference.index);
        let sealed: Option<Vec<u8>> =
            statement.query_row([id], |row| row.get(0)).optional().map_err(failed)?;
        let Some(sealed) = sealed else {
            return Err(LogError::missing_payload(stream, reference));
        };
        // An empty row marks an erased payload.
        if sealed.is_empty() {
            return Ok(None);
        }
        let key = self.keys.key(&stream.tenant)?;
        let own = open(&key, stream, reference, &sealed, &meta.commitment, meta.bytes)?;
        Ok(Some((meta.clone(), own)))
    }

    pub(super) fn due(&self, now: Timestamp, limit: usize) -> Result<Vec<StreamKey>, LogError> {
        // Streams that are due now sort as time 0, before all timed ones.
        let sql = "SELECT s.tenant, s.kind, s.uuid FROM (SELECT 0 AS due, stream FROM wake_now \
            UNION ALL SELECT due, stream FROM wake WHERE due <= ? ORDER BY 1, 2 LIMIT ?) w \
            JOIN stream s ON s.id = w.stream ORDER BY w.due, w.stream";
        let mut statement = self.line.connection.prepare_cached(sql).map_err(failed)?;
        let mut rows = statement.query(params![now.0, signed(limit as u64)]).map_err(failed)?;
        let mut due = Vec::new();
        while let Some(row) = rows.next().map_err(failed)? {
            due.push(stream_key(row)?);
        }
        Ok(due)
    }

    pub(super) fn next_due(&self, now: Timestamp) -> Result<Option<Timestamp>, LogError> {
        let sql = "SELECT min(due) FROM wake WHERE due > ?";
        let mut statement = self.line.connection.prepare_cached(sql).map_err(failed)?;
        let due: Option<i64> = statement.query_row([now.0], |row| row.get(0)).map_err(failed)?;
        Ok(due.map(Timestamp))
    }
}

/// Returns the bytes of the database, the write-ahead log not counted.
pub(super) fn database_bytes(reader: &Reader<'_>) -> Result<u64, LogError> {
    let sql = "SELECT page_count * page_size FROM pragma_page_count(), pragma_page_size()";
    let bytes: i64 = reader.line.connection.query_row(sql, [], |row| row.get(0)).map_err(failed)?;
    Ok(unsigned(bytes))
}

static OF_STREAM: LazyLock<String> = LazyLock::new(|| {
    format!(
        "SELECT {COLUMNS} FROM record r WHERE r.stream = (SELECT id FROM stream WHERE uuid = ? \
         AND kind = ? AND tenant = ?) AND r.seq > ? ORDER BY r.seq LIMIT ?"
    )
});

static LAST_OF_STREAM: LazyLock<String> = LazyLock::new(|| {
    format!(
        "SELECT {COLUMNS} FROM record r WHERE r.stream = (SELECT id FROM stream WHERE uuid = ? \
         AND kind = ? AND tenant = ?) ORDER BY r.seq DESC LIMIT 1"
    )
});

static OF_ALL: LazyLock<String> = LazyLock::new(|| {
    format!("SELECT {COLUMNS} FROM record r WHERE r.position > ? ORDER BY r.position LIMIT ?")
});

/// Checks that positions have no hole: rows can vanish from a damaged file.
fn dense(after: Position, positions: impl Iterator<Item = Position>) -> Result<(), LogError> {
    for (expected, position) in (after.0 + 1..).zip(positions) {
        if position.0 != expected {
            let reason = format!("the record at position {expected} is missing");
            return Err(LogError::corrupt(&"log.db", &reason));
        }
    }
    Ok(())
}

fn gap(record: &Record, end: Seq) -> LogError {
    let reason = format!("event {} does not follow event {end}", record.first_seq());
    LogError::corrupt(&record.stream, &reason)
}
