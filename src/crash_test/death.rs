//! A log that stops answering at one of its appends, as a crash looks to its caller.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use async_trait::async_trait;
use convergio_domain::payload::PayloadRef;
use convergio_domain::stream::{Seq, StreamKey};
use convergio_domain::time::Timestamp;
use convergio_eventstore::{
    AppendError, Archived, Commit, Durability, EventLog, Head, LogError, Opening, Page, Position,
    RawRecord, Record, Scan,
};
use futures_util::stream::BoxStream;
use tokio::sync::watch;

use super::{Moment, Point};

/// The log of an engine that is to crash at `point`.
pub(super) struct Mortal {
    log: Arc<dyn EventLog>,
    point: Option<Point>,
    appends: AtomicU64,
    is_dead: watch::Sender<bool>,
}

impl Mortal {
    pub(super) fn new(log: Arc<dyn EventLog>, point: Option<Point>) -> Self {
        let (is_dead, _) = watch::channel(false);
        Self { log, point, appends: AtomicU64::new(0), is_dead }
    }

    /// Waits until the log has stopped answering.
    pub(super) async fn died(&self) {
        let mut is_dead = self.is_dead.subscribe();
        // The receiver cannot fail: this value owns the sender.
        drop(is_dead.wait_for(|dead| *dead).await);
    }

    /// Number of appends requested so far.
    pub(super) fn appends(&self) -> u64 {
        self.appends.load(Ordering::SeqCst)
    }

    /// Never returns after the crash.
    async fn breathe(&self) {
        if *self.is_dead.borrow() {
            std::future::pending::<()>().await;
        }
    }

    async fn die(&self) -> ! {
        self.is_dead.send_replace(true);
        std::future::pending().await
    }
}

#[async_trait]
impl EventLog for Mortal {
    fn durability(&self) -> Durability {
        self.log.durability()
    }

    async fn append(&self, commit: Commit) -> Result<Head, AppendError> {
        self.breathe().await;
        let number = self.appends.fetch_add(1, Ordering::SeqCst) + 1;
        match self.point.filter(|point| point.commit == number).map(|point| point.moment) {
            None => self.log.append(commit).await,
            Some(Moment::Before) => self.die().await,
            Some(Moment::During) => {
                let log = Arc::clone(&self.log);
                // The append races with the kill, so that its outcome is unknown, as in a real
                // crash.
                tokio::spawn(async move { log.append(commit).await });
                self.die().await
            }
            Some(Moment::After) => {
                // The result is lost with the caller.
                let _unheard = self.log.append(commit).await;
                self.die().await
            }
        }
    }

    async fn head(&self, stream: &StreamKey) -> Result<Option<Head>, LogError> {
        self.breathe().await;
        self.log.head(stream).await
    }

    async fn read_stream(
        &self,
        stream: &StreamKey,
        after: Seq,
        limit: usize,
    ) -> Result<Vec<Arc<Record>>, LogError> {
        self.breathe().await;
        self.log.read_stream(stream, after, limit).await
    }

    async fn read_all(&self, after: Position, limit: usize) -> Result<Page, LogError> {
        self.breathe().await;
        self.log.read_all(after, limit).await
    }

    fn tail(&self, after: Position) -> BoxStream<'static, Result<Arc<Record>, LogError>> {
        self.log.tail(after)
    }

    fn early(&self) -> BoxStream<'static, Arc<Record>> {
        self.log.early()
    }

    // An engine neither reads raw records nor erases or restores: these go through.
    async fn read_raw(&self, scan: Scan<'_>, limit: usize) -> Result<Vec<RawRecord>, LogError> {
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

    async fn opening(
        &self,
        stream: &StreamKey,
        reference: PayloadRef,
    ) -> Result<Option<Opening>, LogError> {
        self.breathe().await;
        self.log.opening(stream, reference).await
    }

    async fn due(&self, now: Timestamp, limit: usize) -> Result<Vec<StreamKey>, LogError> {
        self.breathe().await;
        self.log.due(now, limit).await
    }

    async fn next_due(&self, now: Timestamp) -> Result<Option<Timestamp>, LogError> {
        self.breathe().await;
        self.log.next_due(now).await
    }

    async fn restore(&self, archived: Archived) -> Result<Head, AppendError> {
        self.log.restore(archived).await
    }

    async fn close(&self) -> Result<(), LogError> {
        self.log.close().await
    }
}
