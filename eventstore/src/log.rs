//! The contract of a log, in parts: [`LogReader`], [`PayloadReader`] and [`WakeIndex`] are what
//! everybody may have, together an [`EventLog`]; [`LogWriter`] is what the repository has beside.
//! Every provider passes the same conformance suite (module `conformance`).

use std::sync::Arc;

use async_trait::async_trait;
use bytes::Bytes;
use convergio_domain::payload::PayloadRef;
use convergio_domain::stream::{Seq, StreamKey};
use convergio_domain::time::Timestamp;
use futures_util::StreamExt;
use futures_util::stream::{self, BoxStream};

use crate::commit::{Commit, LogLimits};
use crate::error::{AppendError, LogError};
use crate::prepare::PreparedCommit;
use crate::record::{Position, RawRecord, Record, StreamHead};
use crate::seal::Opening;
use crate::signature::ExportSigner;

/// Failures that an acknowledged commit survives, from weakest to strongest.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum Durability {
    /// The caller's end, but not that of the process that holds the log.
    Process,
    /// A power failure of this machine.
    Fsync,
    /// The loss of a minority of the cluster's machines.
    QuorumFsync,
}

impl Durability {
    /// Name shown to people, in error messages and in the log of the process.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Process => "process",
            Self::Fsync => "fsync",
            Self::QuorumFsync => "quorum fsync",
        }
    }
}

/// One page of the records of all streams.
#[derive(Debug, Clone)]
pub struct RecordPage {
    /// Records in ascending order of position.
    pub records: Vec<Arc<Record>>,
    /// Position to pass as `after` for the next page.
    pub next: Position,
    /// Position of the log's last record when the page was read. A reader that has reached it has
    /// caught up.
    pub tail: Position,
}

/// Selects the records that [`LogReader::read_raw`] returns.
#[derive(Debug, Clone, Copy)]
pub enum RawScan<'a> {
    /// Records of all streams after a position.
    All(Position),
    /// Records of one stream whose first event comes after a sequence number.
    Stream(&'a StreamKey, Seq),
}

/// A record of an archive or of a run file, on its way into a log with its original hash.
pub struct ArchivedRecord(PreparedCommit);

impl ArchivedRecord {
    /// Wraps a record that fits every log.
    ///
    /// # Errors
    /// [`LogError::Corrupt`] if the number of events or payloads exceeds [`LogLimits`], or payloads
    /// are missing.
    pub(crate) fn new(prepared: PreparedCommit) -> Result<Self, LogError> {
        let refuse = |reason: &str| Err(LogError::corrupt(&prepared.stream, reason));
        if prepared.body.events.is_empty() || prepared.body.events.len() > LogLimits::EVENTS {
            return refuse("a record holds no event, or too many");
        }
        let payloads = prepared.body.payloads.len();
        if payloads > LogLimits::PAYLOADS || payloads != prepared.sealed.len() {
            return refuse("a record holds too many payloads, or not those that it names");
        }
        Ok(Self(prepared))
    }

    /// Returns the commit to write.
    pub(crate) fn into_prepared(self) -> PreparedCommit {
        self.0
    }
}

/// The records of a log, for reading and following. Guarantees:
///
/// - Positions only grow, and no record ever appears below a position that was returned.
/// - A read that begins after `Ok` of an append sees the commit.
/// - A gap, a hash mismatch or an unreadable record is `Corrupt`.
#[async_trait]
pub trait LogReader: Send + Sync + 'static {
    /// Reads a stream's head, linearizable with appends; `None` if the stream has no record.
    async fn stream_head(&self, stream: &StreamKey) -> Result<Option<StreamHead>, LogError>;

    /// Reads at most `limit` records of a stream whose first event comes after `after`, in order.
    async fn read_stream(
        &self,
        stream: &StreamKey,
        after: Seq,
        limit: usize,
    ) -> Result<Vec<Arc<Record>>, LogError>;

    /// Reads at most `limit` records of all streams after a position, in order.
    async fn read_all(&self, after: Position, limit: usize) -> Result<RecordPage, LogError>;

    /// Reads records as canonical bytes, in order and with their hashes checked, for copies of the
    /// log.
    async fn read_raw(&self, scan: RawScan<'_>, limit: usize) -> Result<Vec<RawRecord>, LogError>;

    /// Follows the whole log: first the records that exist after a position, then new ones as they
    /// arrive. No gap, no repeat.
    fn tail_all(&self, after: Position) -> BoxStream<'static, Result<Arc<Record>, LogError>>;

    /// Follows one stream: first the records that hold events after a sequence number, then new
    /// ones as they arrive. No gap, no repeat. Records of other streams cost nothing.
    fn tail_stream(
        &self,
        stream: &StreamKey,
        after: Seq,
    ) -> BoxStream<'static, Result<Arc<Record>, LogError>>;

    /// Streams' first records as the log takes them in, before they are durable. A subscriber may
    /// append to the stream, but must cause no effect outside the log before that append is
    /// acknowledged, which makes both durable. Records may be missed; readers must discard records
    /// whose commit fails.
    fn tail_pending(&self) -> BoxStream<'static, Arc<Record>> {
        stream::pending().boxed()
    }
}

/// The payloads beside the chain, which are sealed at rest.
#[async_trait]
pub trait PayloadReader: Send + Sync + 'static {
    /// Opens a payload: its plaintext with the salt of its commitment, both checked; `None` if it
    /// was erased. A payload that is absent and was not erased is `Corrupt`.
    async fn open_payload(
        &self,
        stream: &StreamKey,
        reference: PayloadRef,
    ) -> Result<Option<Opening>, LogError>;

    /// Reads a payload's plaintext, checked against its commitment; `None` if it was erased.
    async fn read_payload(
        &self,
        stream: &StreamKey,
        reference: PayloadRef,
    ) -> Result<Option<Bytes>, LogError> {
        Ok(self.open_payload(stream, reference).await?.map(|opening| opening.bytes))
    }
}

/// The index beside the log of streams that have work, now or at a time.
#[async_trait]
pub trait WakeIndex: Send + Sync + 'static {
    /// Lists at most `limit` streams whose wake time is not after `now`.
    async fn due_streams(&self, now: Timestamp, limit: usize) -> Result<Vec<StreamKey>, LogError>;

    /// Returns the earliest wake time after `now`.
    async fn next_due_time(&self, now: Timestamp) -> Result<Option<Timestamp>, LogError>;
}

/// An open log as everybody but the repository has it: nothing can be appended or erased by it.
#[async_trait]
pub trait EventLog: LogReader + PayloadReader + WakeIndex {
    /// Returns the failures that an acknowledged commit survives, as proven when the log was
    /// opened.
    fn durability(&self) -> Durability;

    /// Returns the signer of files that are exported from this log, if it has a key for that.
    fn export_signer(&self) -> Option<ExportSigner> {
        None
    }

    /// Shuts down in order: what was acknowledged is durable, files and connections are released.
    async fn close(&self) -> Result<(), LogError>;
}

/// An open log that takes commits. Whoever opens a log has it, to make the one
/// [`Repository`](crate::Repository) of it; the repository hands out [`EventLog`] only. A
/// [`Commit`] and an [`ArchivedRecord`] are made nowhere but in this crate, so that a holder has
/// nothing to append. Guarantees:
///
/// - `Ok` of an append means durable as [`EventLog::durability`] says; a commit is all or nothing.
/// - Of n rivals with the same `expected` head exactly one wins.
/// - The same commit id again returns the first head, for ever.
/// - An error of `append` means that the commit was not appended: outcomes that are open are
///   resolved before it returns.
#[async_trait]
pub trait LogWriter: EventLog {
    /// Appends a commit and returns the stream's new head.
    async fn append(&self, commit: Commit) -> Result<StreamHead, AppendError>;

    /// Checks whether the log accepts commits now. A log whose last write failed tries one that
    /// changes nothing.
    async fn check_writable(&self) -> Result<(), AppendError> {
        Ok(())
    }

    /// Erases a payload from the log's files, for ever; true if it existed. The hash chain still
    /// holds. After an error a part may be gone, and the call may be repeated.
    async fn erase_payload(
        &self,
        stream: &StreamKey,
        reference: PayloadRef,
    ) -> Result<bool, AppendError>;

    /// Appends an archived record with its original hash, and without payloads that were erased.
    async fn restore_record(&self, archived: ArchivedRecord) -> Result<StreamHead, AppendError>;

    /// Appends archived records, each of which follows the one before it in its stream. A log that
    /// can write all of them atomically does so; this default does not.
    async fn restore_records(&self, archived: Vec<ArchivedRecord>) -> Result<(), AppendError> {
        for record in archived {
            let mut prepared = record.into_prepared();
            // The position of the record before is another one in this log than in the archive's.
            let actual = self.stream_head(&prepared.stream).await?;
            prepared.expect_head(actual)?;
            self.restore_record(ArchivedRecord::new(prepared)?).await?;
        }
        Ok(())
    }
}
