//! Decoding of record rows: each is unpacked, and its hash is checked.
//!
//! The hash before a record comes from the previous row of its stream, which a connection remembers
//! from page to page; the database is asked once per stream. Many rows are decoded by several
//! threads.

use std::cell::RefCell;
use std::collections::HashMap;
use std::path::Path;
use std::sync::LazyLock;

use bytes::Bytes;
use convergio_domain::stream::{Seq, StreamKey};
use convergio_domain::time::Timestamp;
use rusqlite::{Connection, OptionalExtension, Params, params};
use uuid::Uuid;

use super::sql_values::{
    commit_id_from_halves, kind_from_number, sqlite_error, to_signed, to_unsigned,
};
use super::{codec, schema, shape};
use crate::error::LogError;
use crate::record::{Hash, Position, RawRecord, Record, RecordBody, chain_hash};

/// Columns that a statement must select of `record r`.
pub(super) const COLUMNS: &str =
    "r.position, r.stream, r.seq, r.time, r.delay, r.dedup, r.commit_end, r.hash, r.body";
/// Maximum number of stream cursors of a connection.
const CURSOR_LIMIT: usize = 20_000;
/// Number of rows from which on another thread pays off.
const ROWS_PER_THREAD: usize = 256;
/// Maximum number of decoding threads.
const THREAD_LIMIT: usize = 4;
/// Number of processors. Cached, because reading it opens files of the control group.
static PROCESSORS: LazyLock<usize> =
    LazyLock::new(|| std::thread::available_parallelism().map_or(1, usize::from));

/// A stream, with sequence number and hash of its record that was read last.
struct StreamCursor {
    key: StreamKey,
    last: Option<(Seq, Hash)>,
}

/// A read-only connection with its cursors.
pub(super) struct ReadConnection {
    pub(super) sqlite: Connection,
    cursors: RefCell<HashMap<i64, StreamCursor>>,
}

/// A row whose body is still encoded.
struct PackedRow {
    position: i64,
    stream_id: i64,
    stream: StreamKey,
    seq: Seq,
    time: i64,
    delay: i64,
    commit: Uuid,
    hash: Hash,
    /// Hash of the previous record of the stream; `None` if the database has none before it.
    prev_hash: Option<Hash>,
    packed: Vec<u8>,
}

/// A row whose hash is correct, with its canonical body.
pub(super) struct VerifiedRow {
    pub(super) raw: RawRecord,
    commit: Uuid,
    recorded_at: Timestamp,
}

/// Failure of verifying a row.
enum RowFailure {
    /// It does not follow the record that was read last. Another record may be between them.
    Chain(Box<PackedRow>),
    Corrupt(LogError),
}

impl ReadConnection {
    pub(super) fn open(path: &Path) -> Result<Self, LogError> {
        Ok(Self { sqlite: schema::open_reader(path)?, cursors: RefCell::default() })
    }

    /// Reads the selected records as canonical bytes.
    pub(super) fn read_raw(
        &self,
        sql: &str,
        key: impl Params,
        stream: Option<&StreamKey>,
    ) -> Result<Vec<RawRecord>, LogError> {
        let opened = map_rows(self.query_rows(sql, key, stream)?, verify_row);
        opened.into_iter().map(|opened| Ok(self.recheck_chain(opened)?.raw)).collect()
    }

    /// Reads and decodes the selected records.
    pub(super) fn read_records(
        &self,
        sql: &str,
        key: impl Params,
        stream: Option<&StreamKey>,
    ) -> Result<Vec<Record>, LogError> {
        let read =
            map_rows(self.query_rows(sql, key, stream)?, |row| verify_row(row).map(decode_row));
        let settled = read.into_iter().map(|read| match read {
            Ok(record) => record,
            Err(failure) => self.recheck_chain(Err(failure)).and_then(self::decode_row),
        });
        settled.collect()
    }

    fn query_rows(
        &self,
        sql: &str,
        key: impl Params,
        stream: Option<&StreamKey>,
    ) -> Result<Vec<PackedRow>, LogError> {
        let mut statement = self.sqlite.prepare_cached(sql).map_err(into_log_error)?;
        let mut rows = statement.query(key).map_err(into_log_error)?;
        let mut found = Vec::new();
        while let Some(row) = rows.next().map_err(into_log_error)? {
            found.push(self.to_packed_row(row, stream)?);
        }
        Ok(found)
    }

    fn to_packed_row(
        &self,
        row: &rusqlite::Row<'_>,
        stream: Option<&StreamKey>,
    ) -> Result<PackedRow, LogError> {
        let position: i64 = row.get(0).map_err(into_log_error)?;
        let corrupt = |reason: &str| LogError::corrupt(&format!("position {position}"), &reason);
        let stream_id: i64 = row.get(1).map_err(into_log_error)?;
        let seq = Seq(to_unsigned(row.get(2).map_err(into_log_error)?));
        let hash: Hash = row.get(7).map_err(|_| corrupt("the hash is not a hash"))?;
        let packed = row.get_ref(8).map_err(into_log_error)?;
        let packed = packed.as_blob().map_err(|_| corrupt("the body is no bytes"))?.to_vec();
        let (stream, before) = self.advance_cursor(stream_id, seq, hash, stream)?;
        Ok(PackedRow {
            position,
            stream_id,
            stream,
            seq,
            time: row.get(3).map_err(into_log_error)?,
            delay: row.get(4).map_err(into_log_error)?,
            commit: commit_id_from_halves(
                row.get(5).map_err(into_log_error)?,
                row.get(6).map_err(into_log_error)?,
            ),
            hash,
            prev_hash: before,
            packed,
        })
    }

    /// Returns the stream of an id and the hash before an event, and moves the stream's cursor to
    /// that event.
    fn advance_cursor(
        &self,
        id: i64,
        seq: Seq,
        hash: Hash,
        stream: Option<&StreamKey>,
    ) -> Result<(StreamKey, Option<Hash>), LogError> {
        let mut known = self.cursors.borrow_mut();
        if known.len() >= CURSOR_LIMIT && !known.contains_key(&id) {
            // Forgetting all costs one query per stream, which is cheaper than tracking use.
            known.clear();
        }
        let known = match known.entry(id) {
            std::collections::hash_map::Entry::Occupied(entry) => entry.into_mut(),
            std::collections::hash_map::Entry::Vacant(entry) => {
                let key = stream.map_or_else(|| self.load_stream_key(id), |key| Ok(key.clone()))?;
                entry.insert(StreamCursor { key, last: None })
            }
        };
        let before = match known.last {
            Some((last, hash)) if last < seq => Some(hash),
            _ => self.hash_before(id, seq)?,
        };
        known.last = Some((seq, hash));
        Ok((known.key.clone(), before))
    }

    fn load_stream_key(&self, id: i64) -> Result<StreamKey, LogError> {
        let sql = "SELECT tenant, kind, uuid FROM stream WHERE id = ?";
        let mut statement = self.sqlite.prepare_cached(sql).map_err(into_log_error)?;
        let key = statement.query_row([id], |row| Ok(stream_key_from_row(row)));
        match key.optional().map_err(into_log_error)? {
            Some(key) => key,
            None => Err(LogError::corrupt(&format!("stream {id}"), &"it is missing")),
        }
    }

    /// Reads the hash of the record before an event; zeros before the first.
    fn hash_before(&self, stream: i64, seq: Seq) -> Result<Option<Hash>, LogError> {
        if seq <= Seq(1) {
            return Ok(Some([0; 32]));
        }
        let sql = "SELECT hash FROM record WHERE stream = ? AND seq < ? ORDER BY seq DESC LIMIT 1";
        let mut statement = self.sqlite.prepare_cached(sql).map_err(into_log_error)?;
        let hash = statement.query_row(params![stream, to_signed(seq.0)], |row| row.get(0));
        match hash.optional() {
            Err(
                rusqlite::Error::FromSqlConversionFailure(..)
                | rusqlite::Error::InvalidColumnType(..),
            ) => Err(LogError::corrupt(&format!("stream {stream}"), &"the hash before is no hash")),
            hash => hash.map_err(into_log_error),
        }
    }

    /// Verifies a row whose chain did not hold against the record that really precedes it: a cursor
    /// may have skipped records.
    fn recheck_chain(
        &self,
        opened: Result<VerifiedRow, RowFailure>,
    ) -> Result<VerifiedRow, LogError> {
        let row = match opened {
            Ok(opened) => return Ok(opened),
            Err(RowFailure::Corrupt(error)) => return Err(error),
            Err(RowFailure::Chain(row)) => row,
        };
        let before = self.hash_before(row.stream_id, row.seq)?;
        let reason = match before {
            None => "the record before it is missing",
            Some(_) => "the hash does not match: the record or its chain was changed",
        };
        let error = LogError::corrupt(&row_location(&row), &reason);
        match verify_row(PackedRow { prev_hash: before, ..*row }) {
            Err(RowFailure::Chain(_)) => Err(error),
            other => self.recheck_chain(other),
        }
    }
}

fn row_location(row: &PackedRow) -> String {
    format!("{}, position {}", row.stream, row.position)
}

/// Decodes a row and checks its hash.
fn verify_row(row: PackedRow) -> Result<VerifiedRow, RowFailure> {
    let place = shape::RowColumns {
        stream: &row.stream,
        commit: row.commit,
        seq: row.seq,
        time: Timestamp(row.time),
    };
    let canonical = codec::unpack_body(&row.packed, &place)
        .map_err(|error| RowFailure::Corrupt(LogError::corrupt(&row_location(&row), &error)))?;
    let Some(prev_hash) = row.prev_hash.filter(|before| chain_hash(before, &canonical) == row.hash)
    else {
        return Err(RowFailure::Chain(Box::new(row)));
    };
    let raw = RawRecord {
        position: Position(to_unsigned(row.position)),
        stream: row.stream,
        seq: row.seq,
        prev_hash,
        hash: row.hash,
        body: Bytes::from(canonical),
    };
    let recorded_at = Timestamp(row.time.saturating_add(row.delay));
    Ok(VerifiedRow { raw, commit: row.commit, recorded_at })
}

/// Decodes the events of a row, and checks that they belong to its place: a row that was moved has
/// a correct hash too.
fn decode_row(opened: VerifiedRow) -> Result<Record, LogError> {
    let VerifiedRow { raw, commit, recorded_at } = opened;
    let RawRecord { position, stream, seq, prev_hash, hash, body } = raw;
    let corrupt = |reason: &dyn std::fmt::Display| {
        LogError::corrupt(&format!("{stream}, position {}", position.0), &reason.to_string())
    };
    let body = RecordBody::from_canonical_json(&body).map_err(|error| corrupt(&error))?;
    if body.seq != seq
        || body.commit != commit
        || body.stream != stream.stream_name()
        || body.tenant != stream.tenant
    {
        return Err(corrupt(&"the record stands in another place than it was written for"));
    }
    if body.events.is_empty() {
        return Err(corrupt(&"the body has no event"));
    }
    Ok(Record { position, recorded_at, stream, prev_hash, hash, body })
}

/// Maps rows in order, with several threads if there are enough rows.
fn map_rows<T: Send>(rows: Vec<PackedRow>, work: impl Fn(PackedRow) -> T + Sync) -> Vec<T> {
    let threads = PROCESSORS.min(THREAD_LIMIT).min(rows.len() / ROWS_PER_THREAD);
    if threads < 2 {
        return rows.into_iter().map(work).collect();
    }
    // Contiguous parts keep the order of rows when the results are joined.
    let size = rows.len().div_ceil(threads);
    let (mut rows, work) = (rows.into_iter(), &work);
    std::thread::scope(|scope| {
        let parts: Vec<Vec<PackedRow>> =
            (0..threads).map(|_| rows.by_ref().take(size).collect()).collect();
        let parts: Vec<_> = parts
            .into_iter()
            .map(|part| scope.spawn(move || part.into_iter().map(work).collect::<Vec<T>>()))
            .collect();
        let done = parts.into_iter().map(|part| match part.join() {
            Ok(done) => done,
            Err(panic) => std::panic::resume_unwind(panic),
        });
        done.flatten().collect()
    })
}

pub(super) fn into_log_error(error: rusqlite::Error) -> LogError {
    sqlite_error(&error)
}

/// Reads a stream key from the columns tenant, kind and uuid.
pub(super) fn stream_key_from_row(row: &rusqlite::Row<'_>) -> Result<StreamKey, LogError> {
    let tenant: String = row.get(0).map_err(into_log_error)?;
    let kind: i64 = row.get(1).map_err(into_log_error)?;
    let id: [u8; 16] = row.get(2).map_err(into_log_error)?;
    let tenant = tenant.parse().map_err(|error| LogError::corrupt(&"a stream", &error))?;
    Ok(StreamKey { tenant, kind: kind_from_number(kind)?, id: Uuid::from_bytes(id) })
}
