//! The embedded log, opened, written, read and opened again.

use std::sync::Arc;

use bytes::Bytes;
use convergio_domain::decider::Wake;
use convergio_domain::event::{Event, request};
use convergio_domain::payload::{PayloadRef, Purpose};
use convergio_domain::stream::{Seq, StreamKey};
use convergio_domain::time::Timestamp;
use convergio_eventstore::embedded::{Config, EmbeddedLog};
use convergio_eventstore::{AppendError, Commit, EventLog, Head, LogError, Payload, Position};
use futures_util::StreamExt;
use uuid::Uuid;

fn commit(stream: &StreamKey, expected: Option<Head>, text: &str) -> Commit {
    Commit {
        stream: stream.clone(),
        id: Uuid::now_v7(),
        expected,
        time: Timestamp(1),
        actor: "tester".parse().expect("a name"),
        events: vec![Event::RequestAccepted(request::Accepted { request_hash: text.into() })],
        payloads: vec![Payload {
            bytes: Bytes::from(text.as_bytes().to_vec()),
            media_type: "text/plain".into(),
            purpose: Purpose::Output,
            subject: None,
        }],
        wake: Wake::Now,
    }
}

#[tokio::test]
async fn what_was_acknowledged_is_there_after_opening_again() {
    let folder = tempfile::tempdir().unwrap();
    let stream = StreamKey::request("default".parse().unwrap(), Uuid::now_v7());
    let config = Config::new(folder.path());
    let log = EmbeddedLog::open(&config).unwrap();
    let mut head = None;
    let mut first = None;
    for number in 0..10 {
        let commit = commit(&stream, head, &format!("text {number}"));
        head = Some(log.append(commit.clone()).await.unwrap());
        first.get_or_insert((commit, head.unwrap()));
    }
    assert!(matches!(EmbeddedLog::open(&config), Err(LogError::InUse(Some(_)))));
    log.close().await.unwrap();

    let log: Arc<dyn EventLog> = Arc::new(EmbeddedLog::open(&config).unwrap());
    assert_eq!(log.head(&stream).await.unwrap(), head);
    let records = log.read_stream(&stream, Seq(4), 3).await.unwrap();
    assert_eq!(records.iter().map(|r| r.first_seq().0).collect::<Vec<_>>(), [5, 6, 7]);
    let reference = PayloadRef { seq: Seq(5), index: 0 };
    assert_eq!(log.payload(&stream, reference).await.unwrap().unwrap(), "text 4");
    let (commit, known) = first.unwrap();
    assert_eq!(log.append(commit.clone()).await.unwrap(), known, "the same commit, for ever");
    let mut other = commit;
    other.events = vec![Event::RequestAccepted(request::Accepted { request_hash: "?".into() })];
    assert!(matches!(log.append(other).await, Err(AppendError::CommitMismatch)));
    let seen: Vec<_> = log.tail(Position::START).take(10).collect().await;
    assert!(seen.into_iter().enumerate().all(|(i, r)| r.unwrap().position.0 == i as u64 + 1));
    assert_eq!(log.due(Timestamp(5), 10).await.unwrap(), [stream]);
}
