//! What only files can suffer: opening again, two processes, changed bytes.

use std::sync::Arc;

use convergio_domain::payload::PayloadRef;
use convergio_domain::stream::Seq;
use convergio_domain::time::Timestamp;
use convergio_eventstore::embedded::{Config, EmbeddedLog};
use convergio_eventstore::{AppendError, EventLog, LogError, Position};
use futures_util::StreamExt;

use crate::support::{commit, event, stream};

#[tokio::test]
async fn what_was_acknowledged_is_there_after_opening_again() {
    let folder = tempfile::tempdir().unwrap();
    let stream = stream();
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
    other.events = vec![event("?")];
    assert!(matches!(log.append(other).await, Err(AppendError::CommitMismatch)));
    let seen: Vec<_> = log.tail(Position::START).take(10).collect().await;
    assert!(seen.into_iter().enumerate().all(|(i, r)| r.unwrap().position.0 == i as u64 + 1));
    assert_eq!(log.due(Timestamp(5), 10).await.unwrap(), [stream]);
}

#[tokio::test]
async fn a_changed_byte_is_corrupt_and_never_silence() {
    let folder = tempfile::tempdir().unwrap();
    let (stream, config) = (stream(), Config::new(folder.path()));
    let log = EmbeddedLog::open(&config).unwrap();
    let mut head = None;
    for number in 0..5 {
        head = Some(log.append(commit(&stream, head, &number.to_string())).await.unwrap());
    }
    assert_eq!(log.verify().await.unwrap(), (5, 5));
    log.close().await.unwrap();
    let changes = [
        "UPDATE record SET body = zeroblob(length(body)) WHERE position = 3",
        "UPDATE record SET hash = zeroblob(32) WHERE position = 3",
        "UPDATE record SET seq = 7 WHERE position = 3",
        "DELETE FROM record WHERE position = 3",
    ];
    for change in changes {
        let copy = tempfile::tempdir().unwrap();
        for file in ["log.db", "payload.key"] {
            std::fs::copy(folder.path().join(file), copy.path().join(file)).unwrap();
        }
        let database = rusqlite::Connection::open(copy.path().join("log.db")).unwrap();
        assert_eq!(database.execute(change, []).unwrap(), 1);
        drop(database);
        let log = EmbeddedLog::open(&Config::new(copy.path())).unwrap();
        assert!(matches!(log.verify().await, Err(LogError::Corrupt { .. })), "{change}");
        let read = log.read_stream(&stream, Seq(0), 10).await;
        assert!(matches!(read, Err(LogError::Corrupt { .. })), "{change}: {read:?}");
        log.close().await.unwrap();
    }
}

#[tokio::test]
async fn a_log_without_its_key_is_not_opened() {
    let folder = tempfile::tempdir().unwrap();
    let config = Config::new(folder.path());
    EmbeddedLog::open(&config).unwrap().close().await.unwrap();
    std::fs::remove_file(folder.path().join("payload.key")).unwrap();
    assert!(matches!(EmbeddedLog::open(&config), Err(LogError::Corrupt { .. })));
}
