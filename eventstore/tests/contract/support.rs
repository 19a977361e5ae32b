//! Commits, and the providers that the laws are held against.

use std::sync::Arc;

use bytes::Bytes;
use convergio_domain::decider::Wake;
use convergio_domain::event::{Event, request};
use convergio_domain::payload::Purpose;
use convergio_domain::stream::StreamKey;
use convergio_domain::time::Timestamp;
use convergio_eventstore::embedded::{Config, EmbeddedLog};
use convergio_eventstore::{Commit, EventLog, Head, MemoryLog, Payload};
use uuid::Uuid;

pub(crate) type Log = Arc<dyn EventLog>;

pub(crate) fn stream() -> StreamKey {
    StreamKey::request("default".parse().expect("a name"), Uuid::now_v7())
}

/// A commit of one event that carries its text as a payload too.
pub(crate) fn commit(stream: &StreamKey, expected: Option<Head>, text: &str) -> Commit {
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
    }
}

pub(crate) fn event(text: &str) -> Event {
    Event::RequestAccepted(request::Accepted { request_hash: text.into() })
}

/// Every provider, fresh; the folder lives as long as the test.
pub(crate) fn providers() -> (Vec<Log>, tempfile::TempDir) {
    let folder = tempfile::tempdir().expect("a folder");
    let embedded = EmbeddedLog::open(&Config::new(folder.path())).expect("opens");
    (vec![Arc::new(MemoryLog::new()), Arc::new(embedded)], folder)
}
