//! The writer thread: takes what has arrived, compares heads, writes it in one transaction.

use std::collections::HashMap;
use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::Duration;

use convergio_domain::decider::Wake;
use convergio_domain::stream::{Seq, StreamKey};
use convergio_domain::time::Timestamp;
use rusqlite::{Connection, ErrorCode, OptionalExtension, params};
use tokio::sync::{broadcast, mpsc, oneshot};
use uuid::Uuid;

use super::rows::{kind_number, signed, sqlite_error, unsigned};
use super::shape::Row;
use super::witness::Witness;
use super::{Counters, codec};
use crate::clock::{Clock, SystemClock};
use crate::error::{AppendError, LogError};
use crate::prepare::Prepared;
use crate::record::{Body, Head, Position, Record};
use crate::stream_tail::Feeds;

/// Commits in one transaction at most.
pub(super) const GROUP: usize = 256;
/// Streams whose heads are kept in memory.
const HEADS: usize = 100_000;

/// Waits for a lock that another connection holds.
const LOCKED: Duration = Duration::from_secs(5);

/// What the writer is asked to do.
pub(super) enum Job {
    Append(Box<Append>),
    /// Empties the payload of this id; tells whether there was one.
    Erase {
        id: i64,
        reply: oneshot::Sender<Result<bool, AppendError>>,
    },
}

/// A commit on its way to the disk.
pub(super) struct Append {
    pub(super) prepared: Prepared,
    pub(super) body: Vec<u8>,
    pub(super) reply: oneshot::Sender<Result<Head, AppendError>>,
}

/// What the writer knows of a stream.
#[derive(Clone, Copy)]
struct Known {
    id: i64,
    head: Head,
    wake: Option<i64>,
}

/// Who is told of what was written.
pub(super) struct Followers {
    pub(super) live: broadcast::Sender<Arc<Record>>,
    pub(super) feeds: Arc<Feeds>,
}

pub(super) struct Writer {
    connection: Connection,
    followers: Followers,
    counters: Arc<Counters>,
    witness: Witness,
    position: u64,
    heads: HashMap<StreamKey, Known>,
}

/// What is told once the group is durable.
struct Written {
    reply: oneshot::Sender<Result<Head, AppendError>>,
    head: Head,
    record: Option<Arc<Record>>,
}

impl Prepared {
    /// What the row of this commit will say.
    pub(super) fn row(&self) -> Row<'_> {
        let Self { stream, commit, body, .. } = self;
        Row { stream, commit: *commit, seq: body.seq, time: body.time }
    }
}

impl Writer {
    pub(super) fn new(
        connection: Connection,
        followers: Followers,
        counters: Arc<Counters>,
        database: &Path,
    ) -> Result<Self, LogError> {
        let last = "SELECT coalesce(max(position), 0) FROM record";
        let position = connection.query_row(last, [], |row| row.get(0));
        let position = unsigned(position.map_err(|error| sqlite_error(&error))?);
        let witness = Witness::open(database, Position(position), |at| {
            let sql = "SELECT hash FROM record WHERE position = ?";
            let hash = connection.query_row(sql, [signed(at.0)], |row| row.get(0)).optional();
            hash.map_err(|error| sqlite_error(&error))
        })?;
        Ok(Self { connection, followers, counters, witness, position, heads: HashMap::new() })
    }

    /// Works until nobody can send jobs any more.
    pub(super) fn run(mut self, mut jobs: mpsc::Receiver<Job>) {
        while let Some(first) = jobs.blocking_recv() {
            let (mut next, mut group, mut erase) = (Some(first), Vec::new(), None);
            while let Some(job) = next.take() {
                match job {
                    Job::Append(append) => group.push(*append),
                    Job::Erase { id, reply } => erase = Some((id, reply)),
                }
                if erase.is_none() && group.len() < GROUP {
                    next = jobs.try_recv().ok();
                }
            }
            if !group.is_empty() {
                self.write(group);
            }
            if let Some((id, reply)) = erase {
                // Who asked may have gone; it is erased all the same.
                let _told = reply.send(self.erase(id));
            }
        }
        self.followers.feeds.end();
        // Folding the write-ahead log away is a courtesy: it is replayed at the next opening.
        let _folded = self.connection.execute_batch("PRAGMA wal_checkpoint(TRUNCATE)");
    }

    /// Empties a payload, and folds the write-ahead log away, which holds older pages.
    fn erase(&self, id: i64) -> Result<bool, AppendError> {
        let erase = || {
            let sql = "UPDATE payload SET sealed = x'' WHERE id = ? AND length(sealed) > 0";
            let erased = self.connection.prepare_cached(sql)?.execute([id])? > 0;
            let sql = "PRAGMA wal_checkpoint(TRUNCATE)";
            self.connection.busy_timeout(LOCKED)?;
            let is_busy = self.connection.query_row(sql, [], |row| row.get::<_, bool>(0));
            self.connection.busy_timeout(Duration::ZERO)?;
            Ok::<_, rusqlite::Error>((erased, is_busy?))
        };
        match erase() {
            Ok((erased, false)) => Ok(erased),
            Ok((_, true)) => Err(AppendError::Busy),
            Err(error) => Err(AppendError::from(sqlite_error(&error))),
        }
    }

    fn write(&mut self, group: Vec<Append>) {
        let before = self.position;
        if let Err(error) = self.connection.execute_batch("BEGIN IMMEDIATE") {
            refuse(group.into_iter().map(|job| job.reply), &error);
            return;
        }
        let mut written = Vec::with_capacity(group.len());
        let mut failed = None;
        let mut group = group.into_iter();
        for job in group.by_ref() {
            match self.write_one(job) {
                Ok(done) => written.extend(done),
                Err((error, reply)) => {
                    failed = Some((error, reply));
                    break;
                }
            }
        }
        let result = match failed {
            None => self.connection.execute_batch("COMMIT").map_err(|error| (error, None)),
            Some((error, reply)) => Err((error, Some(reply))),
        };
        match result {
            Ok(()) => self.acknowledge(written),
            Err((error, reply)) => {
                self.roll_back(before);
                let replies = written.into_iter().map(|written| written.reply);
                refuse(replies.chain(reply).chain(group.map(|job| job.reply)), &error);
            }
        }
    }

    fn acknowledge(&self, written: Vec<Written>) {
        self.counters.syncs.fetch_add(1, Ordering::Relaxed);
        self.counters.commits.fetch_add(written.len() as u64, Ordering::Relaxed);
        let mut appended = written.iter().filter(|written| written.record.is_some());
        if let Some(last) = appended.next_back() {
            self.witness.note(last.head.position, &last.head.hash);
        }
        for Written { reply, head, record } in written {
            if let Some(record) = record {
                // Nobody following is fine.
                self.followers.feeds.tell(&record);
                let _followers = self.followers.live.send(record);
            }
            // A caller that went away finds its commit in the log.
            let _told = reply.send(Ok(head));
        }
    }

    fn roll_back(&mut self, position: u64) {
        // After some errors SQLite has rolled back by itself.
        let _rolled_back = self.connection.execute_batch("ROLLBACK");
        self.position = position;
        self.heads.clear();
    }

    /// Writes one commit of the group. What is wrong with the commit itself is told at once and
    /// leaves the group alone; an error of the database ends the group.
    #[expect(clippy::type_complexity, reason = "the reply must come back with the error")]
    fn write_one(
        &mut self,
        job: Append,
    ) -> Result<Option<Written>, (rusqlite::Error, oneshot::Sender<Result<Head, AppendError>>)>
    {
        let Append { prepared, body, reply } = job;
        match self.decide(&prepared) {
            Ok(Verdict::Append(known)) => match self.insert(prepared, &body, known) {
                Ok((head, record)) => Ok(Some(Written { reply, head, record: Some(record) })),
                Err(error) => Err((error, reply)),
            },
            Ok(Verdict::Known(head)) => Ok(Some(Written { reply, head, record: None })),
            Ok(Verdict::Refuse(error)) => {
                let _told = reply.send(Err(error));
                Ok(None)
            }
            Err(error) => Err((error, reply)),
        }
    }

    fn decide(&mut self, prepared: &Prepared) -> rusqlite::Result<Verdict> {
        let known = self.known(&prepared.stream)?;
        if let Some(known) = known
            && let Some(verdict) = self.find(known.id, prepared)?
        {
            return Ok(verdict);
        }
        let actual = known.map(|known| known.head);
        if actual != prepared.expected {
            return Ok(Verdict::Refuse(AppendError::Conflict { actual }));
        }
        Ok(Verdict::Append(known))
    }

    /// The commit, if it stands in the stream already.
    fn find(&self, stream: i64, prepared: &Prepared) -> rusqlite::Result<Option<Verdict>> {
        let sql = "SELECT position, hash, body, seq, time, commit_end FROM record \
            WHERE dedup = ? AND stream = ?";
        let mut statement = self.connection.prepare_cached(sql)?;
        let mut rows = statement.query(params![dedup(prepared.commit), stream])?;
        while let Some(row) = rows.next()? {
            let commit = commit(dedup(prepared.commit), row.get(5)?);
            if commit != prepared.commit {
                continue;
            }
            let body: Vec<u8> = row.get(2)?;
            let (seq, time) = (Seq(unsigned(row.get(3)?)), Timestamp(row.get(4)?));
            let place = Row { stream: &prepared.stream, commit, seq, time };
            let decoded = codec::unpack(&body, &place).and_then(|c| Body::decode(&c));
            let body = match decoded {
                Ok(body) => body,
                Err(error) => return Ok(Some(Verdict::Refuse(error.into()))),
            };
            if !prepared.is_same(&body) {
                return Ok(Some(Verdict::Refuse(AppendError::CommitMismatch)));
            }
            let seq = body.seq.plus(body.events.len() as u64 - 1);
            let position = Position(unsigned(row.get(0)?));
            return Ok(Some(Verdict::Known(Head { position, seq, hash: row.get(1)? })));
        }
        Ok(None)
    }

    fn known(&mut self, stream: &StreamKey) -> rusqlite::Result<Option<Known>> {
        if let Some(known) = self.heads.get(stream) {
            return Ok(Some(*known));
        }
        let sql = "SELECT s.id, s.position, s.seq, r.hash, w.due FROM stream s \
            JOIN record r ON r.position = s.position LEFT JOIN wake w ON w.stream = s.id \
            WHERE s.uuid = ? AND s.kind = ? AND s.tenant = ?";
        let key = params![stream.id.as_bytes(), kind_number(stream.kind), stream.tenant.as_str()];
        let mut statement = self.connection.prepare_cached(sql)?;
        let known = statement
            .query_row(key, |row| {
                let position = Position(unsigned(row.get(1)?));
                let head = Head { position, seq: Seq(unsigned(row.get(2)?)), hash: row.get(3)? };
                Ok(Known { id: row.get(0)?, head, wake: row.get(4)? })
            })
            .optional()?;
        Ok(known)
    }

    fn insert(
        &mut self,
        prepared: Prepared,
        body: &[u8],
        known: Option<Known>,
    ) -> rusqlite::Result<(Head, Arc<Record>)> {
        self.position += 1;
        let position = Position(self.position);
        let head = Head { position, seq: prepared.last_seq(), hash: prepared.hash };
        let stream = self.write_stream(&prepared.stream, known, head)?;
        let recorded_at = SystemClock.now();
        let sql = "INSERT INTO record \
            (position, stream, seq, time, delay, dedup, commit_end, hash, body) \
            VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?)";
        self.connection.prepare_cached(sql)?.execute(params![
            signed(position.0),
            stream,
            signed(prepared.body.seq.0),
            prepared.body.time.0,
            recorded_at.0 - prepared.body.time.0,
            dedup(prepared.commit),
            commit_end(prepared.commit),
            prepared.hash,
            body
        ])?;
        let sql = "INSERT INTO payload (id, sealed) VALUES (?, ?)";
        // What is empty was erased before it was archived, and stays so.
        for (index, sealed) in (0..).zip(&prepared.sealed) {
            let id = payload_id(position, index);
            self.connection.prepare_cached(sql)?.execute(params![id, sealed])?;
        }
        let wake = self.write_wake(stream, known.and_then(|known| known.wake), prepared.wake)?;
        if self.heads.len() >= HEADS {
            self.heads.clear();
        }
        self.heads.insert(prepared.stream.clone(), Known { id: stream, head, wake });
        let Prepared { stream, prev_hash, hash, body, .. } = prepared;
        let record = Record { position, recorded_at, stream, prev_hash, hash, body };
        Ok((head, Arc::new(record)))
    }

    fn write_stream(
        &self,
        stream: &StreamKey,
        known: Option<Known>,
        head: Head,
    ) -> rusqlite::Result<i64> {
        let (position, seq) = (signed(head.position.0), signed(head.seq.0));
        if let Some(known) = known {
            let sql = "UPDATE stream SET position = ?, seq = ? WHERE id = ?";
            self.connection.prepare_cached(sql)?.execute(params![position, seq, known.id])?;
            return Ok(known.id);
        }
        let sql = "INSERT INTO stream (tenant, kind, uuid, position, seq) VALUES (?, ?, ?, ?, ?)";
        let (kind, uuid) = (kind_number(stream.kind), stream.id.as_bytes());
        let row = params![stream.tenant.as_str(), kind, uuid, position, seq];
        self.connection.prepare_cached(sql)?.execute(row)?;
        Ok(self.connection.last_insert_rowid())
    }

    /// Writes the wake index where it changes; most steps leave it as it is.
    fn write_wake(
        &self,
        stream: i64,
        before: Option<i64>,
        wake: Wake,
    ) -> rusqlite::Result<Option<i64>> {
        let due = match wake {
            Wake::Now => Some(0),
            Wake::At(due) => Some(due.0.max(1)),
            Wake::Parked | Wake::Done => None,
        };
        match due {
            same if same == before => {}
            Some(due) => {
                let sql = "INSERT INTO wake (stream, due) VALUES (?, ?) \
                    ON CONFLICT (stream) DO UPDATE SET due = excluded.due";
                self.connection.prepare_cached(sql)?.execute(params![stream, due])?;
            }
            None => {
                let sql = "DELETE FROM wake WHERE stream = ?";
                self.connection.prepare_cached(sql)?.execute(params![stream])?;
            }
        }
        Ok(due)
    }
}

enum Verdict {
    Append(Option<Known>),
    Known(Head),
    Refuse(AppendError),
}

/// The first half of a commit's id.
fn dedup(commit: Uuid) -> i64 {
    let (first, _) = commit.as_u64_pair();
    i64::from_ne_bytes(first.to_ne_bytes())
}

/// Its second half.
fn commit_end(commit: Uuid) -> i64 {
    let (_, second) = commit.as_u64_pair();
    i64::from_ne_bytes(second.to_ne_bytes())
}

/// A commit's id from its halves.
pub(super) fn commit(dedup: i64, end: i64) -> Uuid {
    let half = |number: i64| u64::from_ne_bytes(number.to_ne_bytes());
    Uuid::from_u64_pair(half(dedup), half(end))
}

/// Where a payload lies.
pub(super) fn payload_id(position: Position, index: u16) -> i64 {
    signed(position.0) * 64 + i64::from(index)
}

fn refuse(
    replies: impl Iterator<Item = oneshot::Sender<Result<Head, AppendError>>>,
    error: &rusqlite::Error,
) {
    let full = matches!(error.sqlite_error_code(), Some(ErrorCode::DiskFull));
    tracing::error!(%error, "a group of commits was not written");
    for reply in replies {
        let error = if full { AppendError::Full } else { AppendError::from(sqlite_error(error)) };
        let _told = reply.send(Err(error));
    }
}
