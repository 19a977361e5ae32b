//! A log that cannot be read for a while: the dispatcher says so, does not spin, and goes on.

use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

use async_trait::async_trait;
use convergio_domain::payload::PayloadRef;
use convergio_domain::run::Phase;
use convergio_domain::stream::{Seq, StreamKey};
use convergio_domain::time::Timestamp;
use convergio_eventstore::{
    AppendError, Archived, Commit, Durability, EventLog, Head, HealthRegistry, LogError, MemoryLog,
    Opening, Page, Position, RawRecord, Record, Scan,
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

    async fn append(&self, commit: Commit) -> Result<Head, AppendError> {
        self.log.append(commit).await
    }

    async fn head(&self, stream: &StreamKey) -> Result<Option<Head>, LogError> {
        self.log.head(stream).await
    }

    async fn read_stream(
        &self,
        stream: &StreamKey,
        after: Seq,
        limit: usize,
    ) -> Result<Vec<Arc<Record>>, LogError> {
        self.log.read_stream(stream, after, limit).await
    }

    async fn read_all(&self, after: Position, limit: usize) -> Result<Page, LogError> {
        self.log.read_all(after, limit).await
    }

    async fn read_raw(&self, scan: Scan<'_>, limit: usize) -> Result<Vec<RawRecord>, LogError> {
        self.log.read_raw(scan, limit).await
    }

    fn tail(&self, after: Position) -> BoxStream<'static, Result<Arc<Record>, LogError>> {
        let is_away = Arc::clone(&self.is_away);
        let tail = self.log.tail(after);
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

    async fn opening(
        &self,
        stream: &StreamKey,
        reference: PayloadRef,
    ) -> Result<Option<Opening>, LogError> {
        self.log.opening(stream, reference).await
    }

    async fn erase_payload(
        &self,
        stream: &StreamKey,
        reference: PayloadRef,
    ) -> Result<bool, AppendError> {
        self.log.erase_payload(stream, reference).await
    }

    async fn due(&self, now: Timestamp, limit: usize) -> Result<Vec<StreamKey>, LogError> {
        if self.is_away.load(Ordering::SeqCst) {
            self.refused.lock().expect("no panic").push(Instant::now());
            return Err(away());
        }
        self.log.due(now, limit).await
    }

    async fn next_due(&self, now: Timestamp) -> Result<Option<Timestamp>, LogError> {
        self.log.next_due(now).await
    }

    async fn restore(&self, archived: Archived) -> Result<Head, AppendError> {
        self.log.restore(archived).await
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
    platform.health = registry.component("executor");
    platform.start();
    let before = platform.create(MANIFEST, &json!({})).await;
    assert_eq!(platform.ended(&before).await.phase, Phase::Completed);
    is_away.store(true, Ordering::SeqCst);
    // It is appended, and the dispatcher cannot hear of it.
    let during = platform.create(MANIFEST, &json!({})).await;
    let asked_again = || refused.lock().expect("no panic").len() >= 2;
    eventually("the wake index is asked for again", asked_again).await;
    assert_eq!(registry.failures()[0].component, "executor");
    let times = refused.lock().expect("no panic").clone();
    let waits = times.windows(2).map(|pair| pair[1] - pair[0]);
    let shortest = waits.min().expect("two");
    assert!(shortest > Duration::from_millis(500), "it does not spin: {shortest:?}");
    is_away.store(false, Ordering::SeqCst);
    assert_eq!(platform.ended(&during).await.phase, Phase::Completed);
    eventually("it reports success", || registry.failures().is_empty()).await;
    platform.stop().await;
}
