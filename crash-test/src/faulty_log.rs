//! A log that stops answering at one of its appends, as a crash looks to its caller.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use async_trait::async_trait;
use convergio_domain::payload::PayloadRef;
use convergio_domain::stream::{Seq, StreamKey};
use convergio_domain::time::Timestamp;
use convergio_eventstore::{
    AppendError, ArchivedRecord, Commit, Durability, EventLog, LogError, Opening, Position,
    RawRecord, RawScan, Record, RecordPage, StreamHead,
};
use futures_util::stream::BoxStream;
use tokio::sync::watch;

use crate::crash_point::{CrashMoment, CrashPoint};

/// The log of an engine that is to crash at `point`.
pub(crate) struct FaultyLog {
    log: Arc<dyn EventLog>,
    point: Option<CrashPoint>,
    appends: AtomicU64,
    has_crashed: watch::Sender<bool>,
}

impl FaultyLog {
    pub(crate) fn new(log: Arc<dyn EventLog>, point: Option<CrashPoint>) -> Self {
        let (is_dead, _) = watch::channel(false);
        Self { log, point, appends: AtomicU64::new(0), has_crashed: is_dead }
    }

    /// Waits until the log has stopped answering.
    pub(crate) async fn wait_for_crash(&self) {
        let mut is_dead = self.has_crashed.subscribe();
        // The receiver cannot fail: this value owns the sender.
        drop(is_dead.wait_for(|dead| *dead).await);
    }

    /// Number of appends requested so far.
    pub(crate) fn append_count(&self) -> u64 {
        self.appends.load(Ordering::SeqCst)
    }

    /// Never returns after the crash.
    async fn hang_after_crash(&self) {
        if *self.has_crashed.borrow() {
            std::future::pending::<()>().await;
        }
    }

    async fn crash(&self) -> ! {
        self.has_crashed.send_replace(true);
        std::future::pending().await
    }
}

#[async_trait]
impl EventLog for FaultyLog {
    fn durability(&self) -> Durability {
        self.log.durability()
    }

    async fn append(&self, commit: Commit) -> Result<StreamHead, AppendError> {
        self.hang_after_crash().await;
        let number = self.appends.fetch_add(1, Ordering::SeqCst) + 1;
        match self.point.filter(|point| point.commit == number).map(|point| point.moment) {
            None => self.log.append(commit).await,
            Some(CrashMoment::Before) => self.crash().await,
            Some(CrashMoment::During) => {
                let log = Arc::clone(&self.log);
                // The append races with the kill, so that its outcome is unknown, as in a real
                // crash.
                tokio::spawn(async move { log.append(commit).await });
                self.crash().await
            }
            Some(CrashMoment::After) => {
                // The result is lost with the caller.
                let _unheard = self.log.append(commit).await;
                self.crash().await
            }
        }
    }

    async fn stream_head(&self, stream: &StreamKey) -> Result<Option<StreamHead>, LogError> {
        self.hang_after_crash().await;
        self.log.stream_head(stream).await
    }

    async fn read_stream(
        &self,
        stream: &StreamKey,
        after: Seq,
        limit: usize,
    ) -> Result<Vec<Arc<Record>>, LogError> {
        self.hang_after_crash().await;
        self.log.read_stream(stream, after, limit).await
    }

    async fn read_all(&self, after: Position, limit: usize) -> Result<RecordPage, LogError> {
        self.hang_after_crash().await;
        self.log.read_all(after, limit).await
    }

    fn tail_all(&self, after: Position) -> BoxStream<'static, Result<Arc<Record>, LogError>> {
        self.log.tail_all(after)
    }

    fn tail_pending(&self) -> BoxStream<'static, Arc<Record>> {
        self.log.tail_pending()
    }

    // An engine neither reads raw records nor erases or restores: these go through.
    async fn read_raw(&self, scan: RawScan<'_>, limit: usize) -> Result<Vec<RawRecord>, LogError> {
        self.log.read_raw(scan, limit).await
    }

    fn tail_stream(
        &self,
        stream: &StreamKey,
        after: Seq,
    ) -> BoxStream<'static, Result<Arc<Record>, LogError>> {
        self.log.tail_stream(stream, after)
    }

    async fn erase_payload(
        &self,
        stream: &StreamKey,
        reference: PayloadRef,
    ) -> Result<bool, AppendError> {
        self.log.erase_payload(stream, reference).await
    }

    async fn open_payload(
        &self,
        stream: &StreamKey,
        reference: PayloadRef,
    ) -> Result<Option<Opening>, LogError> {
        self.hang_after_crash().await;
        self.log.open_payload(stream, reference).await
    }

    async fn due_streams(&self, now: Timestamp, limit: usize) -> Result<Vec<StreamKey>, LogError> {
        self.hang_after_crash().await;
        self.log.due_streams(now, limit).await
    }

    async fn next_due_time(&self, now: Timestamp) -> Result<Option<Timestamp>, LogError> {
        self.hang_after_crash().await;
        self.log.next_due_time(now).await
    }

    async fn restore_record(&self, archived: ArchivedRecord) -> Result<StreamHead, AppendError> {
        self.log.restore_record(archived).await
    }

    async fn close(&self) -> Result<(), LogError> {
        self.log.close().await
    }
}
