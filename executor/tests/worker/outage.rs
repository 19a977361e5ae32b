//! A log that cannot be read for a while: the dispatcher says so, does not spin, and goes on.

use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

use async_trait::async_trait;
use convergio_domain::run::RunPhase;
use convergio_eventstore::{
    HealthRegistry, InterceptedLog, LogError, LogInterceptor, LogRead, MemoryLog, Record,
};
use futures_util::StreamExt;
use futures_util::stream::BoxStream;
use serde_json::json;

use crate::harness::{PATIENCE, Platform};

const MANIFEST: &str = r#"
name: tiny
nodes: [{id: a, tool: text.trim, with: {text: " x "}}]
"#;

/// A log that appends as ever, and can neither be followed nor asked for its wake index while it is
/// away.
struct Interruption {
    is_away: Arc<AtomicBool>,
    /// When the wake index was asked for in vain.
    refused: Arc<Mutex<Vec<Instant>>>,
}

fn away() -> LogError {
    LogError::Unavailable("it is away".into())
}

#[async_trait]
impl LogInterceptor for Interruption {
    async fn before_read(&self, read: LogRead) -> Result<(), LogError> {
        if read == LogRead::DueStreams && self.is_away.load(Ordering::SeqCst) {
            self.refused.lock().expect("no panic").push(Instant::now());
            return Err(away());
        }
        Ok(())
    }

    fn tail_all(
        &self,
        tail: BoxStream<'static, Result<Arc<Record>, LogError>>,
    ) -> BoxStream<'static, Result<Arc<Record>, LogError>> {
        let is_away = Arc::clone(&self.is_away);
        tail.map(move |record| if is_away.load(Ordering::SeqCst) { Err(away()) } else { record })
            .boxed()
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
    let interruption =
        Interruption { is_away: Arc::clone(&is_away), refused: Arc::clone(&refused) };
    let log = InterceptedLog::new(Arc::new(MemoryLog::new()), Arc::new(interruption));
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
