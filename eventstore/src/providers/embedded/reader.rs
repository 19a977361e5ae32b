//! Reading: connections of their own, and every hash is checked.

use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, PoisonError};

use bytes::Bytes;
use convergio_domain::payload::PayloadRef;
use convergio_domain::stream::{Seq, StreamKey};
use convergio_domain::time::Timestamp;
use rusqlite::{Connection, OptionalExtension, Row, params};
use uuid::Uuid;

use super::rows::{kind_number, kind_of, signed, sqlite_error, unsigned};
use super::writer::{commit, payload_id};
use super::{codec, schema, shape};
use crate::error::LogError;
use crate::log::Page;
use crate::record::{Body, Hash, Head, PayloadMeta, Position, Record, chain};
use crate::reuse::Assembly;
use crate::seal::{PayloadKeys, open};

/// Connections kept open for the next reader.
const IDLE: usize = 8;

/// A record with the hash of the one before it in its stream, and its stream's key.
const RECORDS: &str = "SELECT r.position, r.seq, r.time, r.delay, r.dedup, r.commit_end, r.hash, \
    r.body, s.tenant, s.kind, s.uuid, (SELECT p.hash FROM record p WHERE p.stream = r.stream \
    AND p.seq < r.seq ORDER BY p.seq DESC LIMIT 1) \
    FROM record r JOIN stream s ON s.id = r.stream";

pub(super) struct Readers {
    path: PathBuf,
    keys: Arc<dyn PayloadKeys>,
    idle: Mutex<Vec<Connection>>,
}

/// One connection at work.
pub(super) struct Reader<'a> {
    connection: &'a Connection,
    keys: &'a dyn PayloadKeys,
}

impl Readers {
    pub(super) fn open(path: &Path, keys: Arc<dyn PayloadKeys>) -> Result<Self, LogError> {
        let first = schema::open_reader(path)?;
        Ok(Self { path: path.to_owned(), keys, idle: Mutex::new(vec![first]) })
    }

    /// Reads in a thread that may wait for the disk.
    pub(super) async fn run<T: Send + 'static>(
        self: Arc<Self>,
        read: impl FnOnce(&Reader<'_>) -> Result<T, LogError> + Send + 'static,
    ) -> Result<T, LogError> {
        let task = tokio::task::spawn_blocking(move || {
            let idle = self.idle.lock().unwrap_or_else(PoisonError::into_inner).pop();
            let connection = idle.map_or_else(|| schema::open_reader(&self.path), Ok)?;
            let result = read(&Reader { connection: &connection, keys: &*self.keys });
            let mut idle = self.idle.lock().unwrap_or_else(PoisonError::into_inner);
            if idle.len() < IDLE {
                idle.push(connection);
            }
            result
        });
        task.await.unwrap_or_else(|error| Err(LogError::Unavailable(error.to_string())))
    }
}

impl Reader<'_> {
    pub(super) fn head(&self, stream: &StreamKey) -> Result<Option<Head>, LogError> {
        let sql = "SELECT s.position, s.seq, r.hash FROM stream s \
            JOIN record r ON r.position = s.position \
            WHERE s.uuid = ? AND s.kind = ? AND s.tenant = ?";
        let key = params![stream.id.as_bytes(), kind_number(stream.kind), stream.tenant.as_str()];
        let head = |row: &Row<'_>| {
            let position = Position(unsigned(row.get(0)?));
            Ok(Head { position, seq: Seq(unsigned(row.get(1)?)), hash: row.get(2)? })
        };
        let mut statement = self.connection.prepare_cached(sql).map_err(failed)?;
        statement.query_row(key, head).optional().map_err(failed)
    }

    pub(super) fn stream(
        &self,
        stream: &StreamKey,
        after: Seq,
        limit: usize,
    ) -> Result<Vec<Arc<Record>>, LogError> {
        let sql = format!(
            "{RECORDS} WHERE r.stream = (SELECT id FROM stream WHERE uuid = ? AND kind = ? \
             AND tenant = ?) AND r.seq > ? ORDER BY r.seq LIMIT ?"
        );
        let mut statement = self.connection.prepare_cached(&sql).map_err(failed)?;
        let (kind, tenant) = (kind_number(stream.kind), stream.tenant.as_str());
        let (after, limit) = (signed(after.0), signed(limit as u64));
        let key = params![stream.id.as_bytes(), kind, tenant, after, limit];
        let mut rows = statement.query(key).map_err(failed)?;
        let mut records: Vec<Arc<Record>> = Vec::new();
        while let Some(row) = rows.next().map_err(failed)? {
            let record = record(row)?;
            if let Some(before) = records.last()
                && before.last_seq().plus(1) != record.first_seq()
            {
                return Err(gap(&record, before.last_seq()));
            }
            records.push(Arc::new(record));
        }
        Ok(records)
    }

    pub(super) fn all(&self, after: Position, limit: usize) -> Result<Page, LogError> {
        let tail = "SELECT coalesce(max(position), 0) FROM record";
        let tail = self.connection.query_row(tail, [], |row| row.get(0)).map_err(failed)?;
        let sql = format!("{RECORDS} WHERE r.position > ? ORDER BY r.position LIMIT ?");
        let mut statement = self.connection.prepare_cached(&sql).map_err(failed)?;
        let range = params![signed(after.0), signed(limit as u64)];
        let mut rows = statement.query(range).map_err(failed)?;
        let (mut records, mut next) = (Vec::new(), after);
        while let Some(row) = rows.next().map_err(failed)? {
            let record = record(row)?;
            if record.position.0 != next.0 + 1 {
                let reason = format!("the record at position {} is missing", next.0 + 1);
                return Err(LogError::corrupt(&"log.db", &reason));
            }
            next = record.position;
            records.push(Arc::new(record));
        }
        Ok(Page { records, next, tail: Position(unsigned(tail)) })
    }

    /// A payload, put together from those that it is built on.
    pub(super) fn payload(
        &self,
        stream: &StreamKey,
        reference: PayloadRef,
    ) -> Result<Option<Bytes>, LogError> {
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
    ) -> Result<Option<(PayloadMeta, Vec<u8>)>, LogError> {
        let before = Seq(reference.seq.0.saturating_sub(1));
        let records = self.stream(stream, before, 1)?;
        let found = records.first().filter(|record| record.first_seq() == reference.seq);
        let Some(record) = found else { return Ok(None) };
        let Some(meta) = record.body.payloads.get(usize::from(reference.index)) else {
            return Ok(None);
        };
        let sql = "SELECT sealed FROM payload WHERE id = ?";
        let mut statement = self.connection.prepare_cached(sql).map_err(failed)?;
        let id = payload_id(record.position, reference.index);
        let sealed: Option<Vec<u8>> =
            statement.query_row([id], |row| row.get(0)).optional().map_err(failed)?;
        let Some(sealed) = sealed else { return Ok(None) };
        let key = self.keys.key(&stream.tenant)?;
        let own = open(&key, stream, reference, &sealed, &meta.commitment, meta.bytes)?;
        Ok(Some((meta.clone(), own)))
    }

    pub(super) fn due(&self, now: Timestamp, limit: usize) -> Result<Vec<StreamKey>, LogError> {
        let sql = "SELECT s.tenant, s.kind, s.uuid FROM wake w JOIN stream s ON s.id = w.stream \
            WHERE w.due <= ? ORDER BY w.due, w.stream LIMIT ?";
        let mut statement = self.connection.prepare_cached(sql).map_err(failed)?;
        let mut rows = statement.query(params![now.0, signed(limit as u64)]).map_err(failed)?;
        let mut due = Vec::new();
        while let Some(row) = rows.next().map_err(failed)? {
            due.push(stream_key(row, 0)?);
        }
        Ok(due)
    }

    pub(super) fn next_due(&self, now: Timestamp) -> Result<Option<Timestamp>, LogError> {
        let sql = "SELECT min(due) FROM wake WHERE due > ?";
        let mut statement = self.connection.prepare_cached(sql).map_err(failed)?;
        let due: Option<i64> = statement.query_row([now.0], |row| row.get(0)).map_err(failed)?;
        Ok(due.map(Timestamp))
    }
}

/// Bytes of the database.
pub(super) fn database_bytes(reader: &Reader<'_>) -> Result<u64, LogError> {
    let sql = "SELECT page_count * page_size FROM pragma_page_count(), pragma_page_size()";
    let bytes: i64 = reader.connection.query_row(sql, [], |row| row.get(0)).map_err(failed)?;
    Ok(unsigned(bytes))
}

/// Walks the whole log in order and every stream's numbers with it.
pub(super) fn verify(reader: &Reader<'_>) -> Result<(u64, u64), LogError> {
    let mut ends = std::collections::HashMap::new();
    let (mut records, mut events, mut after) = (0, 0, Position::START);
    loop {
        let page = reader.all(after, 1000)?;
        if page.records.is_empty() {
            return Ok((records, events));
        }
        for record in &page.records {
            let end = ends.insert(record.stream.clone(), record.last_seq()).unwrap_or(Seq(0));
            if end.plus(1) != record.first_seq() {
                return Err(gap(record, end));
            }
            records += 1;
            events += record.body.events.len() as u64;
        }
        after = page.next;
    }
}

fn gap(record: &Record, end: Seq) -> LogError {
    let reason = format!("event {} does not follow event {end}", record.first_seq());
    LogError::corrupt(&record.stream, &reason)
}

fn failed(error: rusqlite::Error) -> LogError {
    sqlite_error(&error)
}

fn stream_key(row: &Row<'_>, first: usize) -> Result<StreamKey, LogError> {
    let tenant: String = row.get(first).map_err(failed)?;
    let kind: i64 = row.get(first + 1).map_err(failed)?;
    let id: [u8; 16] = row.get(first + 2).map_err(failed)?;
    let tenant = tenant.parse().map_err(|error| LogError::corrupt(&"a stream", &error))?;
    Ok(StreamKey { tenant, kind: kind_of(kind)?, id: Uuid::from_bytes(id) })
}

/// Reads a row of [`RECORDS`] and checks that it is what was written.
fn record(row: &Row<'_>) -> Result<Record, LogError> {
    let stream = stream_key(row, 8)?;
    let position: i64 = row.get(0).map_err(failed)?;
    let corrupt =
        |reason: &str| LogError::corrupt(&format!("{stream}, position {position}"), &reason);
    let seq = Seq(unsigned(row.get(1).map_err(failed)?));
    let (time, delay): (i64, i64) = (row.get(2).map_err(failed)?, row.get(3).map_err(failed)?);
    let commit = commit(row.get(4).map_err(failed)?, row.get(5).map_err(failed)?);
    let hash: Hash = row.get(6).map_err(|_| corrupt("the hash is not a hash"))?;
    let packed: Vec<u8> = row.get(7).map_err(failed)?;
    let prev_hash: Option<Hash> = row.get(11).map_err(|_| corrupt("the hash before is no hash"))?;
    let prev_hash = match prev_hash {
        None if seq != Seq(1) => return Err(corrupt("the record before it is missing")),
        hash => hash.unwrap_or([0; 32]),
    };
    let place = shape::Row { stream: &stream, commit, seq, time: Timestamp(time) };
    let canonical = codec::unpack(&packed, &place).map_err(|error| corrupt(&error.to_string()))?;
    if chain(&prev_hash, &canonical) != hash {
        return Err(corrupt("the hash does not match: the record or its chain was changed"));
    }
    let body = Body::decode(&canonical).map_err(|error| corrupt(&error.to_string()))?;
    if body.seq != seq
        || body.commit != commit
        || body.stream != stream.name()
        || body.tenant != stream.tenant
    {
        return Err(corrupt("the record stands in another place than it was written for"));
    }
    let position = Position(unsigned(position));
    let recorded_at = Timestamp(time.saturating_add(delay));
    Ok(Record { position, recorded_at, stream, prev_hash, hash, body })
}
