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

use super::rows::{kind_of, signed, sqlite_error, unsigned};
use super::writer::commit;
use super::{codec, schema, shape};
use crate::error::LogError;
use crate::record::{Body, Hash, Position, RawRecord, Record, chain};

/// Columns that a statement must select of `record r`.
pub(super) const COLUMNS: &str =
    "r.position, r.stream, r.seq, r.time, r.delay, r.dedup, r.commit_end, r.hash, r.body";
/// Maximum number of stream cursors of a connection.
const KNOWN: usize = 20_000;
/// Number of rows from which on another thread pays off.
const WORTH: usize = 256;
/// Maximum number of decoding threads.
const THREADS: usize = 4;
/// Number of processors. Cached, because reading it opens files of the control group.
static PROCESSORS: LazyLock<usize> =
    LazyLock::new(|| std::thread::available_parallelism().map_or(1, usize::from));

/// A stream, with sequence number and hash of its record that was read last.
struct Known {
    key: StreamKey,
    last: Option<(Seq, Hash)>,
}

/// A read-only connection with its cursors.
pub(super) struct Line {
    pub(super) connection: Connection,
    known: RefCell<HashMap<i64, Known>>,
}

/// A row whose body is still encoded.
struct Row {
    position: i64,
    stream_id: i64,
    stream: StreamKey,
    seq: Seq,
    time: i64,
    delay: i64,
    commit: Uuid,
    hash: Hash,
    /// Hash of the previous record of the stream; `None` if the database has none before it.
    before: Option<Hash>,
    packed: Vec<u8>,
}

/// A row whose hash is correct, with its canonical body.
pub(super) struct Opened {
    pub(super) raw: RawRecord,
    commit: Uuid,
    recorded_at: Timestamp,
}

/// Failure of verifying a row.
enum Failure {
    /// It does not follow the record that was read last. Another record may be between them.
    Chain(Box<Row>),
    Corrupt(LogError),
}

impl Line {
    pub(super) fn open(path: &Path) -> Result<Self, LogError> {
        Ok(Self { connection: schema::open_reader(path)?, known: RefCell::default() })
    }

    /// Reads the selected records as canonical bytes.
    pub(super) fn raw(
        &self,
        sql: &str,
        key: impl Params,
        stream: Option<&StreamKey>,
    ) -> Result<Vec<RawRecord>, LogError> {
        let opened = each(self.rows(sql, key, stream)?, open);
        opened.into_iter().map(|opened| Ok(self.settle(opened)?.raw)).collect()
    }

    /// Reads and decodes the selected records.
    pub(super) fn records(
        &self,
        sql: &str,
        key: impl Params,
        stream: Option<&StreamKey>,
    ) -> Result<Vec<Record>, LogError> {
        let read = each(self.rows(sql, key, stream)?, |row| open(row).map(read));
        let settled = read.into_iter().map(|read| match read {
            Ok(record) => record,
            Err(failure) => self.settle(Err(failure)).and_then(self::read),
        });
        settled.collect()
    }

    fn rows(
        &self,
        sql: &str,
        key: impl Params,
        stream: Option<&StreamKey>,
    ) -> Result<Vec<Row>, LogError> {
        let mut statement = self.connection.prepare_cached(sql).map_err(failed)?;
        let mut rows = statement.query(key).map_err(failed)?;
        let mut found = Vec::new();
        while let Some(row) = rows.next().map_err(failed)? {
            found.push(self.row(row, stream)?);
        }
        Ok(found)
    }

    fn row(&self, row: &rusqlite::Row<'_>, stream: Option<&StreamKey>) -> Result<Row, LogError> {
        let position: i64 = row.get(0).map_err(failed)?;
        let corrupt = |reason: &str| LogError::corrupt(&format!("position {position}"), &reason);
        let stream_id: i64 = row.get(1).map_err(failed)?;
        let seq = Seq(unsigned(row.get(2).map_err(failed)?));
        let hash: Hash = row.get(7).map_err(|_| corrupt("the hash is not a hash"))?;
        let packed = row.get_ref(8).map_err(failed)?;
        let packed = packed.as_blob().map_err(|_| corrupt("the body is no bytes"))?.to_vec();
        let (stream, before) = self.follows(stream_id, seq, hash, stream)?;
        Ok(Row {
            position,
            stream_id,
            stream,
            seq,
            time: row.get(3).map_err(failed)?,
            delay: row.get(4).map_err(failed)?,
            commit: commit(row.get(5).map_err(failed)?, row.get(6).map_err(failed)?),
            hash,
            before,
            packed,
        })
    }

    /// Returns the stream of an id and the hash before an event, and moves the stream's cursor to
    /// that event.
    fn follows(
        &self,
        id: i64,
        seq: Seq,
        hash: Hash,
        stream: Option<&StreamKey>,
    ) -> Result<(StreamKey, Option<Hash>), LogError> {
        let mut known = self.known.borrow_mut();
        if known.len() >= KNOWN && !known.contains_key(&id) {
            // Forgetting all costs one query per stream, which is cheaper than tracking use.
            known.clear();
        }
        let known = match known.entry(id) {
            std::collections::hash_map::Entry::Occupied(entry) => entry.into_mut(),
            std::collections::hash_map::Entry::Vacant(entry) => {
                let key = stream.map_or_else(|| self.stream_key(id), |key| Ok(key.clone()))?;
                entry.insert(Known { key, last: None })
            }
        };
        let before = match known.last {
            Some((last, hash)) if last < seq => Some(hash),
            _ => self.before(id, seq)?,
        };
        known.last = Some((seq, hash));
        Ok((known.key.clone(), before))
    }

    fn stream_key(&self, id: i64) -> Result<StreamKey, LogError> {
        let sql = "SELECT tenant, kind, uuid FROM stream WHERE id = ?";
        let mut statement = self.connection.prepare_cached(sql).map_err(failed)?;
        let key = statement.query_row([id], |row| Ok(stream_key(row)));
        match key.optional().map_err(failed)? {
            Some(key) => key,
            None => Err(LogError::corrupt(&format!("stream {id}"), &"it is missing")),
        }
    }

    /// Reads the hash of the record before an event; zeros before the first.
    fn before(&self, stream: i64, seq: Seq) -> Result<Option<Hash>, LogError> {
        if seq <= Seq(1) {
            return Ok(Some([0; 32]));
        }
        let sql = "SELECT hash FROM record WHERE stream = ? AND seq < ? ORDER BY seq DESC LIMIT 1";
        let mut statement = self.connection.prepare_cached(sql).map_err(failed)?;
        let hash = statement.query_row(params![stream, signed(seq.0)], |row| row.get(0));
        match hash.optional() {
            Err(
                rusqlite::Error::FromSqlConversionFailure(..)
                | rusqlite::Error::InvalidColumnType(..),
            ) => Err(LogError::corrupt(&format!("stream {stream}"), &"the hash before is no hash")),
            hash => hash.map_err(failed),
        }
    }

    /// Verifies a row whose chain did not hold against the record that really precedes it: a cursor
    /// may have skipped records.
    fn settle(&self, opened: Result<Opened, Failure>) -> Result<Opened, LogError> {
        let row = match opened {
            Ok(opened) => return Ok(opened),
            Err(Failure::Corrupt(error)) => return Err(error),
            Err(Failure::Chain(row)) => row,
        };
        let before = self.before(row.stream_id, row.seq)?;
        let reason = match before {
            None => "the record before it is missing",
            Some(_) => "the hash does not match: the record or its chain was changed",
        };
        let error = LogError::corrupt(&at(&row), &reason);
        match open(Row { before, ..*row }) {
            Err(Failure::Chain(_)) => Err(error),
            other => self.settle(other),
        }
    }
}

fn at(row: &Row) -> String {
    format!("{}, position {}", row.stream, row.position)
}

/// Decodes a row and checks its hash.
fn open(row: Row) -> Result<Opened, Failure> {
    let place = shape::Row {
        stream: &row.stream,
        commit: row.commit,
        seq: row.seq,
        time: Timestamp(row.time),
    };
    let canonical = codec::unpack(&row.packed, &place)
        .map_err(|error| Failure::Corrupt(LogError::corrupt(&at(&row), &error)))?;
    let Some(prev_hash) = row.before.filter(|before| chain(before, &canonical) == row.hash) else {
        return Err(Failure::Chain(Box::new(row)));
    };
    let raw = RawRecord {
        position: Position(unsigned(row.position)),
        stream: row.stream,
        seq: row.seq,
        prev_hash,
        hash: row.hash,
        body: Bytes::from(canonical),
    };
    let recorded_at = Timestamp(row.time.saturating_add(row.delay));
    Ok(Opened { raw, commit: row.commit, recorded_at })
}

/// Decodes the events of a row, and checks that they belong to its place: a row that was moved has
/// a correct hash too.
fn read(opened: Opened) -> Result<Record, LogError> {
    let Opened { raw, commit, recorded_at } = opened;
    let RawRecord { position, stream, seq, prev_hash, hash, body } = raw;
    let corrupt = |reason: &dyn std::fmt::Display| {
        LogError::corrupt(&format!("{stream}, position {}", position.0), &reason.to_string())
    };
    let body = Body::decode(&body).map_err(|error| corrupt(&error))?;
    if body.seq != seq
        || body.commit != commit
        || body.stream != stream.name()
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
fn each<T: Send>(rows: Vec<Row>, work: impl Fn(Row) -> T + Sync) -> Vec<T> {
    let threads = PROCESSORS.min(THREADS).min(rows.len() / WORTH);
    if threads < 2 {
        return rows.into_iter().map(work).collect();
    }
    // Contiguous parts keep the order of rows when the results are joined.
    let size = rows.len().div_ceil(threads);
    let (mut rows, work) = (rows.into_iter(), &work);
    std::thread::scope(|scope| {
        let parts: Vec<Vec<Row>> =
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

pub(super) fn failed(error: rusqlite::Error) -> LogError {
    sqlite_error(&error)
}

/// Reads a stream key from the columns tenant, kind and uuid.
pub(super) fn stream_key(row: &rusqlite::Row<'_>) -> Result<StreamKey, LogError> {
    let tenant: String = row.get(0).map_err(failed)?;
    let kind: i64 = row.get(1).map_err(failed)?;
    let id: [u8; 16] = row.get(2).map_err(failed)?;
    let tenant = tenant.parse().map_err(|error| LogError::corrupt(&"a stream", &error))?;
    Ok(StreamKey { tenant, kind: kind_of(kind)?, id: Uuid::from_bytes(id) })
}
