//! A log that cannot be read for a while: the dispatcher says so, does not spin, and goes on.

use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

use async_trait::async_trait;
use convergio_domain::payload::PayloadRef;
use convergio_domain::run::RunPhase;
use convergio_domain::stream::{Seq, StreamKey};
use convergio_domain::time::Timestamp;
use convergio_eventstore::{
    AppendError, ArchivedRecord, Commit, Durability, EventLog, HealthRegistry, LogError, MemoryLog,
    Opening, Position, RawRecord, RawScan, Record, RecordPage, StreamHead,
};
use futures_util::StreamExt;
use futures_util::stream::BoxStream;
use serde_json::json;

use crate::harness::{PATIENCE, Platform};

const MANIFEST: &str = r#"
name: tiny
nodes: [{id: a, tool: text.trim, with: {text: " x "}}]
"#;

/// Appends as ever, and can neither be followed nor asked for its wake index while it is away.
struct Interrupted {
    log: MemoryLog,
    is_away: Arc<AtomicBool>,
    /// When the wake index was asked for in vain.
    refused: Arc<Mutex<Vec<Instant>>>,
}

fn away() -> LogError {
    LogError::Unavailable("it is away".into())
}

#[async_trait]
impl EventLog for Interrupted {
    fn durability(&self) -> Durability {
        self.log.durability()
    }

    async fn append(&self, commit: Commit) -> Result<StreamHead, AppendError> {
        self.log.append(commit).await
    }

    async fn stream_head(&self, stream: &StreamKey) -> Result<Option<StreamHead>, LogError> {
        self.log.stream_head(stream).await
    }

    async fn read_stream(
        &self,
        stream: &StreamKey,
        after: Seq,
        limit: usize,
    ) -> Result<Vec<Arc<Record>>, LogError> {
        self.log.read_stream(stream, after, limit).await
    }

    async fn read_all(&self, after: Position, limit: usize) -> Result<RecordPage, LogError> {
        self.log.read_all(after, limit).await
    }

    async fn read_raw(&self, scan: RawScan<'_>, limit: usize) -> Result<Vec<RawRecord>, LogError> {
        self.log.read_raw(scan, limit).await
    }

    fn tail_all(&self, after: Position) -> BoxStream<'static, Result<Arc<Record>, LogError>> {
        let is_away = Arc::clone(&self.is_away);
        let tail = self.log.tail_all(after);
        tail.map(move |record| if is_away.load(Ordering::SeqCst) { Err(away()) } else { record })
            .boxed()
    }

    fn tail_stream(
        &self,
        stream: &StreamKey,
        after: Seq,
    ) -> BoxStream<'static, Result<Arc<Record>, LogError>> {
        self.log.tail_stream(stream, after)
    }

    async fn open_payload(
        &self,
        stream: &StreamKey,
        reference: PayloadRef,
    ) -> Result<Option<Opening>, LogError> {
        self.log.open_payload(stream, reference).await
    }

    async fn erase_payload(
        &self,
        stream: &StreamKey,
        reference: PayloadRef,
    ) -> Result<bool, AppendError> {
        self.log.erase_payload(stream, reference).await
    }

    async fn due_streams(&self, now: Timestamp, limit: usize) -> Result<Vec<StreamKey>, LogError> {
        if self.is_away.load(Ordering::SeqCst) {
            self.refused.lock().expect("no panic").push(Instant::now());
            return Err(away());
        }
        self.log.due_streams(now, limit).await
    }

    async fn next_due_time(&self, now: Timestamp) -> Result<Option<Timestamp>, LogError> {
        self.log.next_due_time(now).await
    }

    async fn restore_record(&self, archived: ArchivedRecord) -> Result<StreamHead, AppendError> {
        self.log.restore_record(archived).await
    }

    async fn close(&self) -> Result<(), LogError> {
        self.log.close().await
    }
}

async fn eventually(what: &str, holds: impl Fn() -> bool) {
    let begun = Instant::now();
    while !holds() {
        assert!(begun.elapsed() < PATIENCE, "{what}");
        tokio::time::sleep(Duration::from_millis(5)).await;
    }
}

#[tokio::test]
async fn a_dispatcher_that_cannot_read_the_log_for_a_while_says_so_and_goes_on() {
    let (is_away, refused) = (Arc::new(AtomicBool::new(false)), Arc::default());
    let log = Interrupted {
        log: MemoryLog::new(),
        is_away: Arc::clone(&is_away),
        refused: Arc::clone(&refused),
    };
    let registry = HealthRegistry::default();
    let mut platform = Platform::on(Arc::new(log), Vec::new());
    platform.health = registry.component_health("executor");
    platform.start();
    let before = platform.create(MANIFEST, &json!({})).await;
    assert_eq!(platform.ended(&before).await.phase, RunPhase::Completed);
    is_away.store(true, Ordering::SeqCst);
    // It is appended, and the dispatcher cannot hear of it.
    let during = platform.create(MANIFEST, &json!({})).await;
    let asked_again = || refused.lock().expect("no panic").len() >= 2;
    eventually("the wake index is asked for again", asked_again).await;
    assert_eq!(registry.current_failures()[0].component, "executor");
    let times = refused.lock().expect("no panic").clone();
    let waits = times.windows(2).map(|pair| pair[1] - pair[0]);
    let shortest = waits.min().expect("two");
    assert!(shortest > Duration::from_millis(500), "it does not spin: {shortest:?}");
    is_away.store(false, Ordering::SeqCst);
    assert_eq!(platform.ended(&during).await.phase, RunPhase::Completed);
    eventually("it reports success", || registry.current_failures().is_empty()).await;
    platform.stop().await;
}
