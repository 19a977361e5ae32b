//! The contract of a log as code that every provider is held against. Only with the feature
//! `test-util`. Everything here panics where a log violates the contract.
//!
//! Map: `laws` are single properties, `workload` runs writers through crashes and restarts, `model`
//! compares random histories with the log in memory. Providers' tests call them; nothing here may
//! know a provider other than [`MemoryLog`](crate::MemoryLog).

pub mod laws;
pub mod model;
pub mod workload;

use std::sync::Arc;
use std::time::{Duration, Instant};

use bytes::Bytes;
use convergio_domain::decider::Wake;
use convergio_domain::event::Event;
use convergio_domain::payload::PayloadPurpose;
use convergio_domain::request::event::{RequestAccepted, RequestEvent};
use convergio_domain::stream::StreamKey;
use convergio_domain::time::Timestamp;
use uuid::Uuid;

use crate::{Commit, LogWriter, Payload, StreamHead};

/// The log under test.
pub type Log = Arc<dyn LogWriter>;

/// Maximum time to wait for something that must happen.
pub const READY_TIMEOUT: Duration = Duration::from_secs(120);

/// Returns the key of a new stream.
pub fn new_stream() -> StreamKey {
    StreamKey::for_request("default".parse().expect("a name"), Uuid::now_v7())
}

/// Builds a commit of one event that carries its text as a payload too.
pub fn new_commit(stream: &StreamKey, expected: Option<StreamHead>, text: &str) -> Commit {
    Commit {
        stream: stream.clone(),
        id: Uuid::now_v7(),
        expected,
        time: Timestamp(1),
        actor: "tester".parse().expect("a name"),
        events: vec![new_event(text)],
        fingerprint: None,
        payloads: vec![Payload {
            bytes: Bytes::from(text.as_bytes().to_vec()),
            media_type: "text/plain".into(),
            purpose: PayloadPurpose::Output,
            subject: None,
        }],
        deltas: Vec::new(),
        wake: Wake::Now,
        is_continued: false,
    }
}

/// Builds an event that holds a text.
pub fn new_event(text: &str) -> Event {
    Event::Request(RequestEvent::RequestAccepted(RequestAccepted { request_hash: text.into() }))
}

/// Polls until there is a value.
///
/// # Panics
/// There is no value within [`READY_TIMEOUT`].
pub async fn eventually<T>(what: &str, ask: impl AsyncFn() -> Option<T>) -> T {
    let until = Instant::now() + READY_TIMEOUT;
    loop {
        if let Some(found) = ask().await {
            return found;
        }
        assert!(Instant::now() < until, "it did not come to this: {what}");
        tokio::time::sleep(Duration::from_millis(50)).await;
    }
}
