//! The writer thread: takes queued jobs, compares heads, and writes groups of commits in one
//! transaction each.

use std::collections::HashMap;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::Duration;

use convergio_domain::decider::Wake;
use convergio_domain::stream::{Seq, StreamKey};
use convergio_domain::time::Timestamp;
use rusqlite::{Connection, OptionalExtension, params, params_from_iter};
use tokio::sync::{broadcast, oneshot};
use tokio::time::Instant;
use uuid::Uuid;

use super::fresh::Fresh;
use super::jobs::{Append, Job, Jobs};
use super::recovery::{WriteError, last_position};
use super::rows::{kind_number, signed, sqlite_error, unsigned};
use super::shape::Row;
use super::witness::Witness;
use super::{Counters, codec};
use crate::clock::{Clock, SystemClock};
use crate::error::{AppendError, LogError};
use crate::prepare::Prepared;
use crate::record::{Body, Hash, Head, Outline, Position, Record};
use crate::stream_tail::Feeds;
use crate::tail::BACKLOG;

/// Maximum number of commits in one transaction.
pub(super) const GROUP: usize = 256;
/// Pending first records buffered for their subscribers.
const EARLY: usize = 256;
/// Maximum time that a group waits for the commit that continues one of its own, so that one sync
/// makes both durable.
const CONTINUED: Duration = Duration::from_millis(1);
/// Maximum number of stream summaries in memory.
const HEADS: usize = 8192;

/// Time to wait for a lock that another connection holds.
const LOCKED: Duration = Duration::from_secs(5);

/// A stream's row id, head, and entry in the wake index.
#[derive(Clone, Copy)]
pub(super) struct Known {
    id: i64,
    pub(super) head: Head,
    wake: Option<i64>,
}

/// Channels and caches that are fed with written records.
#[derive(Clone)]
pub(super) struct Followers {
    pub(super) live: broadcast::Sender<Arc<Record>>,
    pub(super) feeds: Arc<Feeds>,
    /// Receives first records before they are durable.
    pub(super) early: broadcast::Sender<Arc<Record>>,
    pub(super) fresh: Arc<Fresh>,
}

impl Followers {
    pub(super) fn new() -> Self {
        let (live, early) = (broadcast::channel(BACKLOG).0, broadcast::channel(EARLY).0);
        Self { live, early, feeds: Arc::default(), fresh: Arc::default() }
    }
}

/// State of the writer thread. Memory and file are equal between transactions while `is_in_sync`.
pub(super) struct Writer {
    pub(super) connection: Connection,
    /// Path of the database, for a connection that replaces a broken one.
    pub(super) database: PathBuf,
    pub(super) followers: Followers,
    counters: Arc<Counters>,
    witness: Witness,
    pub(super) position: u64,
    pub(super) heads: HashMap<StreamKey, Known>,
    /// Error of the last transaction; `None` after a success.
    pub(super) failure: Option<AppendError>,
    /// True if connection and memory equal the file. After an error they may not.
    pub(super) is_sound: bool,
}

/// A reply that is sent once the group is durable.
struct Written {
    reply: oneshot::Sender<Result<Head, AppendError>>,
    head: Head,
    record: Option<Arc<Record>>,
}

impl Prepared {
    /// Returns the columns that this commit's row will have.
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
        let position = last_position(&connection).map_err(|error| sqlite_error(&error))?;
        let witness = Witness::open(database, Position(position), |at| {
            let sql = "SELECT hash FROM record WHERE position = ?";
            let hash = connection.query_row(sql, [signed(at.0)], |row| row.get(0)).optional();
            hash.map_err(|error| sqlite_error(&error))
        })?;
        Ok(Self {
            connection,
            database: database.to_owned(),
            followers,
            counters,
            witness,
            position,
            heads: HashMap::new(),
            failure: None,
            is_sound: true,
        })
    }

    /// Runs jobs until all senders are gone.
    pub(super) fn run(mut self, mut jobs: Jobs) {
        while let Some(job) = jobs.next() {
            match job {
                Job::Append(append) => self.write(*append, &mut jobs),
                Job::AppendAll { commits, reply } => {
                    // A caller that was cancelled does not receive the reply.
                    let _told = reply.send(self.write_all(commits));
                }
                Job::Erase { id, stream, reply } => {
                    self.followers.fresh.forget(&stream);
                    // The caller may have been cancelled; the payload is erased all the same.
                    let _told = reply.send(self.erase(id));
                }
                Job::Check { reply } => {
                    // Who asked may have gone.
                    let _told = reply.send(self.check_writable());
                }
            }
        }
        self.followers.feeds.end();
        // Checkpointing is optional: the write-ahead log is replayed at the next opening.
        let _folded = self.connection.execute_batch("PRAGMA wal_checkpoint(TRUNCATE)");
    }

    /// Erases a payload, and truncates the write-ahead log, whose older pages still hold it.
    fn erase(&self, id: i64) -> Result<bool, AppendError> {
        let erase = || {
            let sql = "UPDATE payload SET sealed = x'' WHERE id = ? AND length(sealed) > 0";
            let erased = self.connection.prepare_cached(sql)?.execute([id])? > 0;
            let sql = "PRAGMA wal_checkpoint(TRUNCATE)";
            // Truncation must wait for readers that still use older pages of the write-ahead log.
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

    /// Writes a commit, and those that are queued behind it, in one transaction.
    pub(super) fn write(&mut self, first: Append, jobs: &mut Jobs) {
        if let Err(error) = self.begin() {
            return self.refuse([first.reply].into_iter(), &error);
        }
        let (mut written, mut next, mut taken) = (Vec::new(), Some(first), 0);
        // Waiting pays off only if a subscriber can continue one of these commits.
        let mut until = self.is_heard().then(|| Instant::now() + CONTINUED);
        let mut failed = None;
        while let Some(job) = next.take() {
            taken += 1;
            // A commit that nobody continues must not be delayed: from it on, only queued ones are
            // taken.
            until = until.filter(|_| job.prepared.is_continued);
            match self.write_one(job) {
                Ok(done) => written.extend(done),
                Err(error) => {
                    failed = Some(error);
                    break;
                }
            }
            // Refused commits count too, so that a group ends whatever arrives.
            if taken < GROUP {
                next = jobs.next_append(until);
            }
        }
        let result = match failed {
            None => self.transaction("COMMIT").map_err(|error| (error.into(), None)),
            // The failed job's own reply is sent together with those of its group.
            Some((error, reply)) => Err((WriteError::from(error), Some(reply))),
        };
        match result {
            Ok(()) => self.acknowledge(written),
            Err((error, reply)) => {
                let replies = written.into_iter().map(|written| written.reply);
                self.refuse(replies.chain(reply), &error);
            }
        }
    }

    /// Returns whether anybody could continue a commit before it is durable.
    fn is_heard(&self) -> bool {
        self.followers.early.receiver_count() > 0
    }

    pub(super) fn transaction(&self, statement: &str) -> rusqlite::Result<()> {
        self.connection.prepare_cached(statement)?.execute([])?;
        Ok(())
    }

    fn acknowledge(&mut self, written: Vec<Written>) {
        let mut appended = written.iter().filter(|written| written.record.is_some());
        let last = appended.next_back().map(|written| written.head);
        // The marker is written before the replies: an acknowledged commit must be covered by it.
        self.note_group(written.len(), last);
        for Written { reply, head, record } in written {
            if let Some(record) = record {
                self.tell(record);
            }
            // A caller that was cancelled finds its commit in the log.
            let _told = reply.send(Ok(head));
        }
    }

    /// Acknowledges a batch that was written atomically; its job sends the only reply.
    pub(super) fn acknowledge_all(&mut self, records: Vec<Arc<Record>>) {
        self.note_group(records.len(), records.last().map(|record| record.head()));
        records.into_iter().for_each(|record| self.tell(record));
    }

    /// Records that a group of commits is durable.
    fn note_group(&mut self, commits: usize, last: Option<Head>) {
        self.failure = None;
        self.counters.syncs.fetch_add(1, Ordering::Relaxed);
        self.counters.commits.fetch_add(commits as u64, Ordering::Relaxed);
        if let Some(last) = last {
            self.witness.note(last.position, &last.hash);
        }
    }

    fn tell(&self, record: Arc<Record>) {
        self.followers.feeds.tell(&record);
        // An error means that there are no followers.
        let _followers = self.followers.live.send(record);
    }

    /// Appends one commit of the group. A commit that is refused gets its reply at once and leaves
    /// the group alone; an error of the database ends the group.
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

    fn decide(&self, prepared: &Prepared) -> rusqlite::Result<Verdict> {
        let known = match self.known(&prepared.stream)? {
            Ok(known) => known,
            Err(error) => return Ok(Verdict::Refuse(error.into())),
        };
        match known {
            Some(known) if prepared.expected != Some(known.head) => {
                self.settle(prepared, (known.id, known.head))
            }
            // The stream is unknown, but the caller has seen a head of it: that was in another log.
            None if prepared.expected.is_some() => {
                Ok(Verdict::Refuse(AppendError::Conflict { actual: None }))
            }
            known => Ok(Verdict::Append(known)),
        }
    }

    /// Resolves a commit that does not expect the stream's head: if its record follows the head
    /// that it expects, it was appended before; otherwise another writer was faster.
    fn settle(
        &self,
        prepared: &Prepared,
        (stream, actual): (i64, Head),
    ) -> rusqlite::Result<Verdict> {
        let conflict = Verdict::Refuse(AppendError::Conflict { actual: Some(actual) });
        let sql = "SELECT position, hash, body, time, dedup, commit_end FROM record \
            WHERE stream = ? AND seq = ?";
        let mut statement = self.connection.prepare_cached(sql)?;
        let mut rows = statement.query(params![stream, signed(prepared.body.seq.0)])?;
        let Some(row) = rows.next()? else { return Ok(conflict) };
        let (seq, commit) = (prepared.body.seq, commit(row.get(4)?, row.get(5)?));
        if commit != prepared.commit {
            return Ok(conflict);
        }
        let (packed, time): (Vec<u8>, _) = (row.get(2)?, Timestamp(row.get(3)?));
        let place = Row { stream: &prepared.stream, commit, seq, time };
        let decoded = codec::unpack(&packed, &place).and_then(|body| Body::decode(&body));
        let body = match decoded {
            Ok(body) => body,
            Err(error) => return Ok(Verdict::Refuse(error.into())),
        };
        if !prepared.is_same(&body) {
            return Ok(Verdict::Refuse(AppendError::CommitMismatch));
        }
        let (position, seq) = (Position(unsigned(row.get(0)?)), prepared.last_seq());
        Ok(Verdict::Known(Head { position, seq, hash: row.get(1)? }))
    }

    pub(super) fn known(
        &self,
        stream: &StreamKey,
    ) -> rusqlite::Result<Result<Option<Known>, LogError>> {
        if let Some(known) = self.heads.get(stream) {
            return Ok(Ok(Some(*known)));
        }
        let sql = "SELECT id FROM stream WHERE uuid = ? AND kind = ? AND tenant = ?";
        let key = params![stream.id.as_bytes(), kind_number(stream.kind), stream.tenant.as_str()];
        let mut statement = self.connection.prepare_cached(sql)?;
        let id: Option<i64> = statement.query_row(key, |row| row.get(0)).optional()?;
        let Some(id) = id else { return Ok(Ok(None)) };
        let head = match self.head(id, stream)? {
            Ok(head) => head,
            Err(error) => return Ok(Err(error)),
        };
        let sql = "SELECT 0 FROM wake_now WHERE stream = ?1 \
            UNION ALL SELECT due FROM wake WHERE stream = ?1";
        let mut statement = self.connection.prepare_cached(sql)?;
        let wake = statement.query_row([id], |row| row.get(0)).optional()?;
        Ok(Ok(head.map(|head| Known { id, head, wake })))
    }

    /// Reads a stream's head from the database.
    fn head(
        &self,
        id: i64,
        stream: &StreamKey,
    ) -> rusqlite::Result<Result<Option<Head>, LogError>> {
        let sql = "SELECT position, seq, time, dedup, commit_end, hash, body FROM record \
            WHERE stream = ? ORDER BY seq DESC LIMIT 1";
        let mut statement = self.connection.prepare_cached(sql)?;
        let mut rows = statement.query([id])?;
        let Some(row) = rows.next()? else { return Ok(Ok(None)) };
        let (position, seq) = (Position(unsigned(row.get(0)?)), Seq(unsigned(row.get(1)?)));
        let (time, commit) = (Timestamp(row.get(2)?), commit(row.get(3)?, row.get(4)?));
        let (hash, packed): (Hash, Vec<u8>) = (row.get(5)?, row.get(6)?);
        let place = Row { stream, commit, seq, time };
        let outline = codec::unpack(&packed, &place).and_then(|body| Outline::read(&body));
        Ok(outline.map(|outline| {
            let seq = seq.plus(outline.events().saturating_sub(1));
            Some(Head { position, seq, hash })
        }))
    }

    pub(super) fn insert(
        &mut self,
        mut prepared: Prepared,
        body: &[u8],
        known: Option<Known>,
    ) -> rusqlite::Result<(Head, Arc<Record>)> {
        self.position += 1;
        let position = Position(self.position);
        let head = Head { position, seq: prepared.last_seq(), hash: prepared.hash };
        let stream = match known {
            Some(known) => known.id,
            None => self.write_stream(&prepared.stream)?,
        };
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
        // Erased before it was archived: the empty row keeps it distinguishable from a lost one.
        for (index, sealed) in (0..).zip(&prepared.sealed) {
            let id = payload_id(position, index);
            self.connection.prepare_cached(sql)?.execute(params![id, sealed])?;
        }
        let wake = self.write_wake(stream, known.and_then(|known| known.wake), prepared.wake)?;
        if self.heads.len() >= HEADS {
            // Forgetting all costs one read per stream, which is cheaper than tracking use.
            self.heads.clear();
        }
        self.heads.insert(prepared.stream.clone(), Known { id: stream, head, wake });
        let fresh = std::mem::take(&mut prepared.fresh);
        // A subscriber must find all payloads of a pending record in the cache, since the file does
        // not show them yet.
        let is_early = known.is_none() && fresh.len() == prepared.sealed.len();
        self.followers.fresh.add(&prepared.stream, prepared.body.seq, fresh);
        let Prepared { stream, prev_hash, hash, body, .. } = prepared;
        let record = Arc::new(Record { position, recorded_at, stream, prev_hash, hash, body });
        if is_early {
            // An error means that there are no subscribers.
            let _listeners = self.followers.early.send(Arc::clone(&record));
        }
        Ok((head, record))
    }

    fn write_stream(&self, stream: &StreamKey) -> rusqlite::Result<i64> {
        let sql = "INSERT INTO stream (tenant, kind, uuid) VALUES (?, ?, ?)";
        let row = params![stream.tenant.as_str(), kind_number(stream.kind), stream.id.as_bytes()];
        self.connection.prepare_cached(sql)?.execute(row)?;
        Ok(self.connection.last_insert_rowid())
    }

    /// Updates the wake index where it changes; most commits leave it as it is.
    fn write_wake(
        &self,
        stream: i64,
        before: Option<i64>,
        wake: Wake,
    ) -> rusqlite::Result<Option<i64>> {
        let due = match wake {
            Wake::Now => Some(0),
            // 0 means "now" in the summary, so timed wakes are at least 1 ms after the epoch.
            Wake::At(due) => Some(due.0.max(1)),
            Wake::Parked | Wake::Done => None,
        };
        if due == before {
            return Ok(due);
        }
        let change = |sql: &str, key: &[i64]| -> rusqlite::Result<()> {
            self.connection.prepare_cached(sql)?.execute(params_from_iter(key))?;
            Ok(())
        };
        match before {
            Some(0) => change("DELETE FROM wake_now WHERE stream = ?", &[stream])?,
            Some(_) => change("DELETE FROM wake WHERE stream = ?", &[stream])?,
            None => {}
        }
        match due {
            Some(0) => change("INSERT INTO wake_now (stream) VALUES (?)", &[stream])?,
            Some(due) => change("INSERT INTO wake (stream, due) VALUES (?, ?)", &[stream, due])?,
            None => {}
        }
        Ok(due)
    }
}

/// Decision about a commit of the group.
enum Verdict {
    Append(Option<Known>),
    Known(Head),
    Refuse(AppendError),
}

/// Returns the first half of a commit id, for the column `dedup`.
fn dedup(commit: Uuid) -> i64 {
    let (first, _) = commit.as_u64_pair();
    i64::from_ne_bytes(first.to_ne_bytes())
}

/// Returns the second half of a commit id, for the column `commit_end`.
fn commit_end(commit: Uuid) -> i64 {
    let (_, second) = commit.as_u64_pair();
    i64::from_ne_bytes(second.to_ne_bytes())
}

/// Joins a commit id from its halves.
pub(super) fn commit(dedup: i64, end: i64) -> Uuid {
    let half = |number: i64| u64::from_ne_bytes(number.to_ne_bytes());
    Uuid::from_u64_pair(half(dedup), half(end))
}

/// Returns the row id of a payload.
pub(super) fn payload_id(position: Position, index: u16) -> i64 {
    signed(position.0) * 64 + i64::from(index)
}
