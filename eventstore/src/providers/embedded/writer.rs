//! The writer thread: takes queued jobs, compares heads, and writes groups of commits in one
//! transaction each.

use std::collections::HashMap;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use convergio_domain::decider::Wake;
use convergio_domain::stream::{Seq, StreamKey};
use convergio_domain::time::Timestamp;
use rusqlite::{Connection, OptionalExtension, params, params_from_iter};
use tokio::sync::{broadcast, oneshot};
use tokio::time::Instant;

use super::ack_marker::AckMarkerFile;
use super::codec;
use super::job_queue::{AppendJob, JobQueue, WriteJob};
use super::recent_payloads::RecentPayloads;
use super::recovery::{WriteError, last_position};
use super::shape::RowColumns;
use super::sql_values::{
    commit_id_from_halves, first_id_half, kind_number, payload_row_id, second_id_half,
    sqlite_error, to_signed, to_unsigned,
};
use crate::clock::{SystemClock, WallClock};
use crate::error::{AppendError, LogError};
use crate::prepare::PreparedCommit;
use crate::record::{BodyOutline, Hash, Position, Record, RecordBody, StreamHead};
use crate::stream_tail::StreamFeeds;
use crate::tail::BACKLOG;

/// Maximum number of commits in one transaction.
pub(super) const GROUP_COMMITS: usize = 256;
/// Pending first records buffered for their subscribers.
const PENDING_BACKLOG: usize = 256;
/// Maximum time that a group waits for the commit that continues one of its own, so that one sync
/// makes both durable.
const CONTINUATION_WAIT: Duration = Duration::from_millis(1);
/// Maximum number of stream summaries in memory.
const SUMMARY_LIMIT: usize = 8192;

/// Time to wait for a lock that another connection holds.
const LOCK_TIMEOUT: Duration = Duration::from_secs(5);

/// A stream's row id, head, and entry in the wake index.
#[derive(Clone, Copy)]
pub(super) struct StreamSummary {
    id: i64,
    pub(super) head: StreamHead,
    wake_due: Option<i64>,
}

/// Channels and caches that are fed with written records.
#[derive(Clone)]
pub(super) struct LogSubscribers {
    pub(super) live: broadcast::Sender<Arc<Record>>,
    pub(super) feeds: Arc<StreamFeeds>,
    /// Receives first records before they are durable.
    pub(super) pending: broadcast::Sender<Arc<Record>>,
    pub(super) recent_payloads: Arc<RecentPayloads>,
}

impl LogSubscribers {
    pub(super) fn new() -> Self {
        let (live, early) = (broadcast::channel(BACKLOG).0, broadcast::channel(PENDING_BACKLOG).0);
        Self { live, pending: early, feeds: Arc::default(), recent_payloads: Arc::default() }
    }
}

/// Numbers of commits and transactions since the log was opened.
#[derive(Default)]
pub(super) struct WriterCounters {
    pub(super) commits: AtomicU64,
    pub(super) syncs: AtomicU64,
}

/// State of the writer thread. Memory and file are equal between transactions while `is_in_sync`.
pub(super) struct EmbeddedWriter {
    pub(super) connection: Connection,
    /// Path of the database, for a connection that replaces a broken one.
    pub(super) database: PathBuf,
    pub(super) subscribers: LogSubscribers,
    counters: Arc<WriterCounters>,
    ack_marker: AckMarkerFile,
    pub(super) last_position: u64,
    pub(super) summaries: HashMap<StreamKey, StreamSummary>,
    /// Error of the last transaction; `None` after a success.
    pub(super) failure: Option<AppendError>,
    /// True if connection and memory equal the file. After an error they may not.
    pub(super) is_in_sync: bool,
}

/// A reply that is sent once the group is durable.
struct PendingReply {
    reply: oneshot::Sender<Result<StreamHead, AppendError>>,
    head: StreamHead,
    record: Option<Arc<Record>>,
}

impl PreparedCommit {
    /// Returns the columns that this commit's row will have.
    pub(super) fn row_columns(&self) -> RowColumns<'_> {
        let Self { stream, commit, body, .. } = self;
        RowColumns { stream, commit: *commit, seq: body.seq, time: body.time }
    }
}

impl EmbeddedWriter {
    pub(super) fn new(
        connection: Connection,
        followers: LogSubscribers,
        counters: Arc<WriterCounters>,
        database: &Path,
    ) -> Result<Self, LogError> {
        let position = last_position(&connection).map_err(|error| sqlite_error(&error))?;
        let witness = AckMarkerFile::open(database, Position(position), |at| {
            let sql = "SELECT hash FROM record WHERE position = ?";
            let hash = connection.query_row(sql, [to_signed(at.0)], |row| row.get(0)).optional();
            hash.map_err(|error| sqlite_error(&error))
        })?;
        Ok(Self {
            connection,
            database: database.to_owned(),
            subscribers: followers,
            counters,
            ack_marker: witness,
            last_position: position,
            summaries: HashMap::new(),
            failure: None,
            is_in_sync: true,
        })
    }

    /// Runs jobs until all senders are gone.
    pub(super) fn run_jobs(mut self, mut jobs: JobQueue) {
        while let Some(job) = jobs.next_job() {
            match job {
                WriteJob::Append(append) => self.write_group(*append, &mut jobs),
                WriteJob::AppendAll { commits, reply } => {
                    // A caller that was cancelled does not receive the reply.
                    let _delivered = reply.send(self.write_batch(commits));
                }
                WriteJob::Erase { id, stream, reply } => {
                    self.subscribers.recent_payloads.forget_stream(&stream);
                    // The caller may have been cancelled; the payload is erased all the same.
                    let _delivered = reply.send(self.erase_payload(id));
                }
                WriteJob::CheckWritable { reply } => {
                    // Who asked may have gone.
                    let _delivered = reply.send(self.check_writable());
                }
            }
        }
        self.subscribers.feeds.close_all();
        // Checkpointing is optional: the write-ahead log is replayed at the next opening.
        let _folded = self.connection.execute_batch("PRAGMA wal_checkpoint(TRUNCATE)");
    }

    /// Erases a payload, and truncates the write-ahead log, whose older pages still hold it.
    fn erase_payload(&self, id: i64) -> Result<bool, AppendError> {
        let erase = || {
            let sql = "UPDATE payload SET sealed = x'' WHERE id = ? AND length(sealed) > 0";
            let erased = self.connection.prepare_cached(sql)?.execute([id])? > 0;
            let sql = "PRAGMA wal_checkpoint(TRUNCATE)";
            // Truncation must wait for readers that still use older pages of the write-ahead log.
            self.connection.busy_timeout(LOCK_TIMEOUT)?;
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
    pub(super) fn write_group(&mut self, first: AppendJob, jobs: &mut JobQueue) {
        if let Err(error) = self.begin_transaction() {
            return self.refuse_commits([first.reply].into_iter(), &error);
        }
        let (mut written, mut next, mut taken) = (Vec::new(), Some(first), 0);
        // Waiting pays off only if a subscriber can continue one of these commits.
        let mut until = self.has_pending_subscribers().then(|| Instant::now() + CONTINUATION_WAIT);
        let mut failed = None;
        while let Some(job) = next.take() {
            taken += 1;
            // A commit that nobody continues must not be delayed: from it on, only queued ones are
            // taken.
            until = until.filter(|_| job.prepared.is_continued);
            match self.append_in_group(job) {
                Ok(done) => written.extend(done),
                Err(error) => {
                    failed = Some(error);
                    break;
                }
            }
            // Refused commits count too, so that a group ends whatever arrives.
            if taken < GROUP_COMMITS {
                next = jobs.next_append(until);
            }
        }
        let result = match failed {
            None => self.execute_statement("COMMIT").map_err(|error| (error.into(), None)),
            // The failed job's own reply is sent together with those of its group.
            Some((error, reply)) => Err((WriteError::from(error), Some(reply))),
        };
        match result {
            Ok(()) => self.acknowledge_group(written),
            Err((error, reply)) => {
                let replies = written.into_iter().map(|written| written.reply);
                self.refuse_commits(replies.chain(reply), &error);
            }
        }
    }

    /// Returns whether anybody could continue a commit before it is durable.
    fn has_pending_subscribers(&self) -> bool {
        self.subscribers.pending.receiver_count() > 0
    }

    pub(super) fn execute_statement(&self, statement: &str) -> rusqlite::Result<()> {
        self.connection.prepare_cached(statement)?.execute([])?;
        Ok(())
    }

    fn acknowledge_group(&mut self, written: Vec<PendingReply>) {
        let mut appended = written.iter().filter(|written| written.record.is_some());
        let last = appended.next_back().map(|written| written.head);
        // The marker is written before the replies: an acknowledged commit must be covered by it.
        self.record_durable_group(written.len(), last);
        for PendingReply { reply, head, record } in written {
            if let Some(record) = record {
                self.publish_record(record);
            }
            // A caller that was cancelled finds its commit in the log.
            let _delivered = reply.send(Ok(head));
        }
    }

    /// Acknowledges a batch that was written atomically; its job sends the only reply.
    pub(super) fn acknowledge_batch(&mut self, records: Vec<Arc<Record>>) {
        self.record_durable_group(records.len(), records.last().map(|record| record.stream_head()));
        records.into_iter().for_each(|record| self.publish_record(record));
    }

    /// Records that a group of commits is durable.
    fn record_durable_group(&mut self, commits: usize, last: Option<StreamHead>) {
        self.failure = None;
        self.counters.syncs.fetch_add(1, Ordering::Relaxed);
        self.counters.commits.fetch_add(commits as u64, Ordering::Relaxed);
        if let Some(last) = last {
            self.ack_marker.write_marker(last.position, &last.hash);
        }
    }

    fn publish_record(&self, record: Arc<Record>) {
        self.subscribers.feeds.publish_record(&record);
        // An error means that there are no followers.
        let _followers = self.subscribers.live.send(record);
    }

    /// Appends one commit of the group. A commit that is refused gets its reply at once and leaves
    /// the group alone; an error of the database ends the group.
    #[expect(clippy::type_complexity, reason = "the reply must come back with the error")]
    fn append_in_group(
        &mut self,
        job: AppendJob,
    ) -> Result<
        Option<PendingReply>,
        (rusqlite::Error, oneshot::Sender<Result<StreamHead, AppendError>>),
    > {
        let AppendJob { prepared, body, reply } = job;
        match self.decide_append(&prepared) {
            Ok(AppendVerdict::Append(known)) => match self.insert_commit(prepared, &body, known) {
                Ok((head, record)) => Ok(Some(PendingReply { reply, head, record: Some(record) })),
                Err(error) => Err((error, reply)),
            },
            Ok(AppendVerdict::AlreadyAppended(head)) => {
                Ok(Some(PendingReply { reply, head, record: None }))
            }
            Ok(AppendVerdict::Refuse(error)) => {
                let _delivered = reply.send(Err(error));
                Ok(None)
            }
            Err(error) => Err((error, reply)),
        }
    }

    fn decide_append(&self, prepared: &PreparedCommit) -> rusqlite::Result<AppendVerdict> {
        let known = match self.load_summary(&prepared.stream)? {
            Ok(known) => known,
            Err(error) => return Ok(AppendVerdict::Refuse(error.into())),
        };
        match known {
            Some(known) if prepared.expected != Some(known.head) => {
                self.resolve_stale_head(prepared, (known.id, known.head))
            }
            // The stream is unknown, but the caller has seen a head of it: that was in another log.
            None if prepared.expected.is_some() => {
                Ok(AppendVerdict::Refuse(AppendError::Conflict { actual: None }))
            }
            known => Ok(AppendVerdict::Append(known)),
        }
    }

    /// Resolves a commit that does not expect the stream's head: if its record follows the head
    /// that it expects, it was appended before; otherwise another writer was faster.
    fn resolve_stale_head(
        &self,
        prepared: &PreparedCommit,
        (stream, actual): (i64, StreamHead),
    ) -> rusqlite::Result<AppendVerdict> {
        let conflict = AppendVerdict::Refuse(AppendError::Conflict { actual: Some(actual) });
        let sql = "SELECT position, hash, body, time, dedup, commit_end FROM record \
            WHERE stream = ? AND seq = ?";
        let mut statement = self.connection.prepare_cached(sql)?;
        let mut rows = statement.query(params![stream, to_signed(prepared.body.seq.0)])?;
        let Some(row) = rows.next()? else { return Ok(conflict) };
        let (seq, commit) = (prepared.body.seq, commit_id_from_halves(row.get(4)?, row.get(5)?));
        if commit != prepared.commit {
            return Ok(conflict);
        }
        let (packed, time): (Vec<u8>, _) = (row.get(2)?, Timestamp(row.get(3)?));
        let place = RowColumns { stream: &prepared.stream, commit, seq, time };
        let decoded = codec::unpack_body(&packed, &place)
            .and_then(|body| RecordBody::from_canonical_json(&body));
        let body = match decoded {
            Ok(body) => body,
            Err(error) => return Ok(AppendVerdict::Refuse(error.into())),
        };
        if !prepared.is_same_commit(&body) {
            return Ok(AppendVerdict::Refuse(AppendError::CommitMismatch));
        }
        let (position, seq) = (Position(to_unsigned(row.get(0)?)), prepared.last_seq());
        Ok(AppendVerdict::AlreadyAppended(StreamHead { position, seq, hash: row.get(1)? }))
    }

    pub(super) fn load_summary(
        &self,
        stream: &StreamKey,
    ) -> rusqlite::Result<Result<Option<StreamSummary>, LogError>> {
        if let Some(known) = self.summaries.get(stream) {
            return Ok(Ok(Some(*known)));
        }
        let sql = "SELECT id FROM stream WHERE uuid = ? AND kind = ? AND tenant = ?";
        let key = params![stream.id.as_bytes(), kind_number(stream.kind), stream.tenant.as_str()];
        let mut statement = self.connection.prepare_cached(sql)?;
        let id: Option<i64> = statement.query_row(key, |row| row.get(0)).optional()?;
        let Some(id) = id else { return Ok(Ok(None)) };
        let head = match self.load_head(id, stream)? {
            Ok(head) => head,
            Err(error) => return Ok(Err(error)),
        };
        let sql = "SELECT 0 FROM wake_now WHERE stream = ?1 \
            UNION ALL SELECT due FROM wake WHERE stream = ?1";
        let mut statement = self.connection.prepare_cached(sql)?;
        let wake = statement.query_row([id], |row| row.get(0)).optional()?;
        Ok(Ok(head.map(|head| StreamSummary { id, head, wake_due: wake })))
    }

    /// Reads a stream's head from the database.
    fn load_head(
        &self,
        id: i64,
        stream: &StreamKey,
    ) -> rusqlite::Result<Result<Option<StreamHead>, LogError>> {
        let sql = "SELECT position, seq, time, dedup, commit_end, hash, body FROM record \
            WHERE stream = ? ORDER BY seq DESC LIMIT 1";
        let mut statement = self.connection.prepare_cached(sql)?;
        let mut rows = statement.query([id])?;
        let Some(row) = rows.next()? else { return Ok(Ok(None)) };
        let (position, seq) = (Position(to_unsigned(row.get(0)?)), Seq(to_unsigned(row.get(1)?)));
        let (time, commit) =
            (Timestamp(row.get(2)?), commit_id_from_halves(row.get(3)?, row.get(4)?));
        let (hash, packed): (Hash, Vec<u8>) = (row.get(5)?, row.get(6)?);
        let place = RowColumns { stream, commit, seq, time };
        let outline = codec::unpack_body(&packed, &place).and_then(|body| BodyOutline::read(&body));
        Ok(outline.map(|outline| {
            let seq = seq.offset_by(outline.event_count().saturating_sub(1));
            Some(StreamHead { position, seq, hash })
        }))
    }

    pub(super) fn insert_commit(
        &mut self,
        mut prepared: PreparedCommit,
        body: &[u8],
        known: Option<StreamSummary>,
    ) -> rusqlite::Result<(StreamHead, Arc<Record>)> {
        self.last_position += 1;
        let position = Position(self.last_position);
        let head = StreamHead { position, seq: prepared.last_seq(), hash: prepared.hash };
        let stream = match known {
            Some(known) => known.id,
            None => self.write_stream(&prepared.stream)?,
        };
        let recorded_at = SystemClock.now();
        let sql = "INSERT INTO record \
            (position, stream, seq, time, delay, dedup, commit_end, hash, body) \
            VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?)";
        self.connection.prepare_cached(sql)?.execute(params![
            to_signed(position.0),
            stream,
            to_signed(prepared.body.seq.0),
            prepared.body.time.0,
            recorded_at.0 - prepared.body.time.0,
            first_id_half(prepared.commit),
            second_id_half(prepared.commit),
            prepared.hash,
            body
        ])?;
        let sql = "INSERT INTO payload (id, sealed) VALUES (?, ?)";
        // Erased before it was archived: the empty row keeps it distinguishable from a lost one.
        for (index, sealed) in (0..).zip(&prepared.sealed) {
            let id = payload_row_id(position, index);
            self.connection.prepare_cached(sql)?.execute(params![id, sealed])?;
        }
        let wake =
            self.write_wake(stream, known.and_then(|known| known.wake_due), prepared.wake)?;
        if self.summaries.len() >= SUMMARY_LIMIT {
            // Forgetting all costs one read per stream, which is cheaper than tracking use.
            self.summaries.clear();
        }
        self.summaries
            .insert(prepared.stream.clone(), StreamSummary { id: stream, head, wake_due: wake });
        let fresh = std::mem::take(&mut prepared.recent_payloads);
        // A subscriber must find all payloads of a pending record in the cache, since the file does
        // not show them yet.
        let is_early = known.is_none() && fresh.len() == prepared.sealed.len();
        self.subscribers.recent_payloads.add_payloads(&prepared.stream, prepared.body.seq, fresh);
        let PreparedCommit { stream, prev_hash, hash, body, .. } = prepared;
        let record = Arc::new(Record { position, recorded_at, stream, prev_hash, hash, body });
        if is_early {
            // An error means that there are no subscribers.
            let _listeners = self.subscribers.pending.send(Arc::clone(&record));
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
enum AppendVerdict {
    Append(Option<StreamSummary>),
    AlreadyAppended(StreamHead),
    Refuse(AppendError),
}
