//! The contract of a log as code that every provider is held against: laws, writers that go on
//! whatever happens, and random histories compared with the log in memory. Only with the feature
//! `test-util`.
//!
//! Everything here panics where a log is not as it must be.

pub mod laws;
pub mod model;
pub mod workload;

use std::sync::Arc;
use std::time::{Duration, Instant};

use bytes::Bytes;
use convergio_domain::decider::Wake;
use convergio_domain::event::{Event, request};
use convergio_domain::payload::Purpose;
use convergio_domain::stream::StreamKey;
use convergio_domain::time::Timestamp;
use uuid::Uuid;

use crate::{Commit, EventLog, Head, Payload};

/// A log under test.
pub type Log = Arc<dyn EventLog>;

/// Longest wait for something that must come.
pub const READY: Duration = Duration::from_secs(120);

/// A stream of its own.
pub fn stream() -> StreamKey {
    StreamKey::request("default".parse().expect("a name"), Uuid::now_v7())
}

/// A commit of one event that carries its text as a payload too.
pub fn commit(stream: &StreamKey, expected: Option<Head>, text: &str) -> Commit {
    Commit {
        stream: stream.clone(),
        id: Uuid::now_v7(),
        expected,
        time: Timestamp(1),
        actor: "tester".parse().expect("a name"),
        events: vec![event(text)],
        fold: None,
        payloads: vec![Payload {
            bytes: Bytes::from(text.as_bytes().to_vec()),
            media_type: "text/plain".into(),
            purpose: Purpose::Output,
            subject: None,
        }],
        reuse: Vec::new(),
        wake: Wake::Now,
        is_continued: false,
    }
}

/// An event with a text in it.
pub fn event(text: &str) -> Event {
    Event::RequestAccepted(request::Accepted { request_hash: text.into() })
}

/// Asks until there is an answer.
///
/// # Panics
/// There is none within [`READY`].
pub async fn eventually<T>(what: &str, ask: impl AsyncFn() -> Option<T>) -> T {
    let until = Instant::now() + READY;
    loop {
        if let Some(found) = ask().await {
            return found;
        }
        assert!(Instant::now() < until, "it did not come to this: {what}");
        tokio::time::sleep(Duration::from_millis(50)).await;
    }
}
