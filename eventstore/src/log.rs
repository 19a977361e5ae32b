//! The contract of a log. Every provider passes the same conformance suite.

use std::sync::Arc;

use async_trait::async_trait;
use bytes::Bytes;
use convergio_domain::payload::PayloadRef;
use convergio_domain::stream::{Seq, StreamKey};
use convergio_domain::time::Timestamp;
use futures_util::StreamExt;
use futures_util::stream::{self, BoxStream};

use crate::commit::{Commit, Limits};
use crate::error::{AppendError, LogError};
use crate::prepare::Prepared;
use crate::record::{Head, Position, RawRecord, Record};
use crate::seal::Opening;
use crate::signature::ExportSigner;

/// What an acknowledged commit survives.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum Durability {
    /// The end of the caller, not of the process that holds the log.
    Process,
    /// A power cut of this machine.
    Fsync,
    /// The loss of a minority of machines.
    QuorumFsync,
}

impl Durability {
    /// The name shown to people.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Process => "process",
            Self::Fsync => "fsync",
            Self::QuorumFsync => "quorum fsync",
        }
    }
}

/// A page of the whole log.
#[derive(Debug, Clone)]
pub struct Page {
    /// Records in order of position.
    pub records: Vec<Arc<Record>>,
    /// Where to go on.
    pub next: Position,
    /// The last position of the log when the page was read.
    pub tail: Position,
}

/// Which records are read as they are written.
#[derive(Debug, Clone, Copy)]
pub enum Scan<'a> {
    /// Those of all streams after a position.
    All(Position),
    /// Those of one stream whose first event comes after a number.
    Stream(&'a StreamKey, Seq),
}

/// A record of an archive or of a run's file, on its way into a log.
pub struct Archived(Prepared);

impl Archived {
    /// A record that every log can hold.
    pub(crate) fn new(prepared: Prepared) -> Result<Self, LogError> {
        let refuse = |reason: &str| Err(LogError::corrupt(&prepared.stream, reason));
        if prepared.body.events.is_empty() || prepared.body.events.len() > Limits::EVENTS {
            return refuse("a record holds no event, or too many");
        }
        let payloads = prepared.body.payloads.len();
        if payloads > Limits::PAYLOADS || payloads != prepared.sealed.len() {
            return refuse("a record holds too many payloads, or not those that it names");
        }
        Ok(Self(prepared))
    }

    /// What is written.
    pub(crate) fn into_prepared(self) -> Prepared {
        self.0
    }
}

/// A log. Guarantees: `Ok` means durable; a commit is all or nothing; positions only grow and
/// nothing ever appears below one already returned; of n rivals with the same `expected` exactly
/// one wins; the same commit id again returns the first head, for ever; a read after `Ok` sees it;
/// a gap, a hash mismatch or an unreadable record is `Corrupt`; `append` never answers "maybe".
#[async_trait]
pub trait EventLog: Send + Sync + 'static {
    /// What an acknowledged commit survives; proven when the log was opened.
    fn durability(&self) -> Durability;

    /// Appends a commit; gives the stream's new head.
    async fn append(&self, commit: Commit) -> Result<Head, AppendError>;

    /// Whether the log takes commits now. A log whose last write failed tries one that changes
    /// nothing.
    async fn check_writable(&self) -> Result<(), AppendError> {
        Ok(())
    }

    /// The stream's head; linearizable.
    async fn head(&self, stream: &StreamKey) -> Result<Option<Head>, LogError>;

    /// Records of a stream whose first event comes after `after`, in order.
    async fn read_stream(
        &self,
        stream: &StreamKey,
        after: Seq,
        limit: usize,
    ) -> Result<Vec<Arc<Record>>, LogError>;

    /// Records of all streams after a position, in order.
    async fn read_all(&self, after: Position, limit: usize) -> Result<Page, LogError>;

    /// Records as they are written, in order, their hashes checked: for copies of the log.
    async fn read_raw(&self, scan: Scan<'_>, limit: usize) -> Result<Vec<RawRecord>, LogError>;

    /// All records after a position: first what is there, then what arrives. No gap, no repeat.
    fn tail(&self, after: Position) -> BoxStream<'static, Result<Arc<Record>, LogError>>;

    /// All records of one stream that hold events after a number: first what is there, then what
    /// arrives. No gap, no repeat. Others' records cost nothing here.
    fn tail_stream(
        &self,
        stream: &StreamKey,
        after: Seq,
    ) -> BoxStream<'static, Result<Arc<Record>, LogError>>;

    /// First records of streams as the log takes them in, before they are durable. Who goes on from
    /// one may append; nothing may be done in the world before that append is acknowledged, which
    /// makes both durable. Some may be missed, and one whose commit fails is told of in vain.
    fn early(&self) -> BoxStream<'static, Arc<Record>> {
        stream::pending().boxed()
    }

    /// A payload with the salt of its commitment, checked; `None` when it was erased. One that
    /// is missing and was not erased is `Corrupt`.
    async fn opening(
        &self,
        stream: &StreamKey,
        reference: PayloadRef,
    ) -> Result<Option<Opening>, LogError>;

    /// The plaintext of a payload, checked against its commitment; `None` when it was erased.
    async fn payload(
        &self,
        stream: &StreamKey,
        reference: PayloadRef,
    ) -> Result<Option<Bytes>, LogError> {
        Ok(self.opening(stream, reference).await?.map(|opening| opening.bytes))
    }

    /// Erases a payload from the log's files, for ever; true if there was one. The chain still
    /// holds. After an error a part may be gone, and it can be erased again.
    async fn erase_payload(
        &self,
        stream: &StreamKey,
        reference: PayloadRef,
    ) -> Result<bool, AppendError>;

    /// Streams that want to be looked at by now, at most `limit`.
    async fn due(&self, now: Timestamp, limit: usize) -> Result<Vec<StreamKey>, LogError>;

    /// The next time after `now` at which a stream wants to be looked at.
    async fn next_due(&self, now: Timestamp) -> Result<Option<Timestamp>, LogError>;

    /// Appends a record of an archive as it was: with its hash, and without payloads that were
    /// erased.
    async fn restore(&self, archived: Archived) -> Result<Head, AppendError>;

    /// Appends records, each of which follows the one before it in its stream, as they were. Where
    /// a log can write them all or none, it does.
    async fn restore_all(&self, archived: Vec<Archived>) -> Result<(), AppendError> {
        for record in archived {
            let mut prepared = record.into_prepared();
            let actual = self.head(&prepared.stream).await?;
            prepared.follow(actual)?;
            self.restore(Archived::new(prepared)?).await?;
        }
        Ok(())
    }

    /// Who vouches for what is exported from here, if it has a key for that.
    fn export_signer(&self) -> Option<ExportSigner> {
        None
    }

    /// Ends orderly: what was acknowledged is durable, files are released.
    async fn close(&self) -> Result<(), LogError>;
}
