//! [`InterceptedLog`]: a log in front of another one, for tests of what happens when a log is slow,
//! fails or stops answering. It hands everything on but what its [`LogInterceptor`] changes.

use std::sync::Arc;

use async_trait::async_trait;
use convergio_domain::payload::PayloadRef;
use convergio_domain::stream::{Seq, StreamKey};
use convergio_domain::time::Timestamp;
use futures_util::stream::BoxStream;

use crate::commit::Commit;
use crate::error::{AppendError, LogError};
use crate::log::{
    ArchivedRecord, Durability, EventLog, LogReader, LogWriter, PayloadReader, RawScan, RecordPage,
    WakeIndex,
};
use crate::record::{Position, RawRecord, Record, StreamHead};
use crate::seal::Opening;
use crate::signature::ExportSigner;

/// Kind of a read that passes an interceptor.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum LogRead {
    /// The head of a stream.
    Head,
    /// Records of a stream.
    Stream,
    /// Records of all streams.
    All,
    /// A payload.
    Payload,
    /// Streams whose wake time has come.
    DueStreams,
    /// The next wake time.
    NextDueTime,
}

/// A change of what a log answers. Each method hands on by default.
#[async_trait]
pub trait LogInterceptor: Send + Sync + 'static {
    /// Called before a read, which it may delay, or refuse by an error.
    async fn before_read(&self, _read: LogRead) -> Result<(), LogError> {
        Ok(())
    }

    /// Appends a commit to the log behind. A repository has made the commit: an interceptor can
    /// lose, delay or refuse it, but has no other to append.
    async fn append(
        &self,
        log: &Arc<dyn LogWriter>,
        commit: Commit,
    ) -> Result<StreamHead, AppendError> {
        log.append(commit).await
    }

    /// Returns the tail of the log, made of the one that the log behind gives.
    fn tail_all(
        &self,
        tail: BoxStream<'static, Result<Arc<Record>, LogError>>,
    ) -> BoxStream<'static, Result<Arc<Record>, LogError>> {
        tail
    }

    /// Returns the pending records, made of those that the log behind gives.
    fn tail_pending(
        &self,
        tail: BoxStream<'static, Arc<Record>>,
    ) -> BoxStream<'static, Arc<Record>> {
        tail
    }
}

/// A log that is asked through an interceptor.
pub struct InterceptedLog<I> {
    log: Arc<dyn LogWriter>,
    interceptor: Arc<I>,
}

impl<I: LogInterceptor> InterceptedLog<I> {
    /// Puts an interceptor in front of a log; the caller may keep a handle of both.
    pub fn new(log: Arc<dyn LogWriter>, interceptor: Arc<I>) -> Self {
        Self { log, interceptor }
    }
}

#[async_trait]
impl<I: LogInterceptor> LogReader for InterceptedLog<I> {
    async fn stream_head(&self, stream: &StreamKey) -> Result<Option<StreamHead>, LogError> {
        self.interceptor.before_read(LogRead::Head).await?;
        self.log.stream_head(stream).await
    }

    async fn read_stream(
        &self,
        stream: &StreamKey,
        after: Seq,
        limit: usize,
    ) -> Result<Vec<Arc<Record>>, LogError> {
        self.interceptor.before_read(LogRead::Stream).await?;
        self.log.read_stream(stream, after, limit).await
    }

    async fn read_all(&self, after: Position, limit: usize) -> Result<RecordPage, LogError> {
        self.interceptor.before_read(LogRead::All).await?;
        self.log.read_all(after, limit).await
    }

    async fn read_raw(&self, scan: RawScan<'_>, limit: usize) -> Result<Vec<RawRecord>, LogError> {
        self.log.read_raw(scan, limit).await
    }

    fn tail_all(&self, after: Position) -> BoxStream<'static, Result<Arc<Record>, LogError>> {
        self.interceptor.tail_all(self.log.tail_all(after))
    }

    fn tail_stream(
        &self,
        stream: &StreamKey,
        after: Seq,
    ) -> BoxStream<'static, Result<Arc<Record>, LogError>> {
        self.log.tail_stream(stream, after)
    }

    fn tail_pending(&self) -> BoxStream<'static, Arc<Record>> {
        self.interceptor.tail_pending(self.log.tail_pending())
    }
}

#[async_trait]
impl<I: LogInterceptor> PayloadReader for InterceptedLog<I> {
    async fn open_payload(
        &self,
        stream: &StreamKey,
        reference: PayloadRef,
    ) -> Result<Option<Opening>, LogError> {
        self.interceptor.before_read(LogRead::Payload).await?;
        self.log.open_payload(stream, reference).await
    }
}

#[async_trait]
impl<I: LogInterceptor> WakeIndex for InterceptedLog<I> {
    async fn due_streams(&self, now: Timestamp, limit: usize) -> Result<Vec<StreamKey>, LogError> {
        self.interceptor.before_read(LogRead::DueStreams).await?;
        self.log.due_streams(now, limit).await
    }

    async fn next_due_time(&self, now: Timestamp) -> Result<Option<Timestamp>, LogError> {
        self.interceptor.before_read(LogRead::NextDueTime).await?;
        self.log.next_due_time(now).await
    }
}

#[async_trait]
impl<I: LogInterceptor> EventLog for InterceptedLog<I> {
    fn durability(&self) -> Durability {
        self.log.durability()
    }

    fn export_signer(&self) -> Option<ExportSigner> {
        self.log.export_signer()
    }

    async fn close(&self) -> Result<(), LogError> {
        self.log.close().await
    }
}

#[async_trait]
impl<I: LogInterceptor> LogWriter for InterceptedLog<I> {
    async fn append(&self, commit: Commit) -> Result<StreamHead, AppendError> {
        self.interceptor.append(&self.log, commit).await
    }

    async fn check_writable(&self) -> Result<(), AppendError> {
        self.log.check_writable().await
    }

    async fn erase_payload(
        &self,
        stream: &StreamKey,
        reference: PayloadRef,
    ) -> Result<bool, AppendError> {
        self.log.erase_payload(stream, reference).await
    }

    async fn restore_record(&self, archived: ArchivedRecord) -> Result<StreamHead, AppendError> {
        self.log.restore_record(archived).await
    }

    async fn restore_records(&self, archived: Vec<ArchivedRecord>) -> Result<(), AppendError> {
        self.log.restore_records(archived).await
    }
}
