//! What only files can suffer: opening again, two processes, changed bytes.

use std::sync::Arc;

use convergio_domain::decider::Wake;
use convergio_domain::payload::PayloadRef;
use convergio_domain::stream::Seq;
use convergio_domain::time::Timestamp;
use convergio_eventstore::embedded::{EmbeddedConfig, EmbeddedLog};
use convergio_eventstore::{
    AppendError, EventLog, LogError, LogReader, LogWriter, PayloadReader, Position, WakeIndex,
};
use futures_util::StreamExt;

use crate::support::{new_commit, new_event, new_stream};

#[tokio::test]
async fn what_was_acknowledged_is_there_after_opening_again() {
    let folder = tempfile::tempdir().unwrap();
    let stream = new_stream();
    let config = EmbeddedConfig::new(folder.path());
    let log = EmbeddedLog::open(&config).unwrap();
    let mut head = None;
    let mut first = None;
    for number in 0..10 {
        let commit = new_commit(&stream, head, &format!("text {number}"));
        head = Some(log.append(commit.clone()).await.unwrap());
        first.get_or_insert((commit, head.unwrap()));
    }
    assert!(matches!(EmbeddedLog::open(&config), Err(LogError::InUse(Some(_)))));
    log.close().await.unwrap();

    let log: Arc<dyn LogWriter> = Arc::new(EmbeddedLog::open(&config).unwrap());
    assert_eq!(log.stream_head(&stream).await.unwrap(), head);
    let records = log.read_stream(&stream, Seq(4), 3).await.unwrap();
    assert_eq!(records.iter().map(|r| r.first_seq().0).collect::<Vec<_>>(), [5, 6, 7]);
    let reference = PayloadRef { seq: Seq(5), index: 0 };
    assert_eq!(log.read_payload(&stream, reference).await.unwrap().unwrap(), "text 4");
    let (commit, known) = first.unwrap();
    assert_eq!(log.append(commit.clone()).await.unwrap(), known, "the same commit, for ever");
    let mut other = commit;
    other.events = vec![new_event("?")];
    assert!(matches!(log.append(other).await, Err(AppendError::CommitMismatch)));
    let seen: Vec<_> = log.tail_all(Position::START).take(10).collect().await;
    assert!(seen.into_iter().enumerate().all(|(i, r)| r.unwrap().position.0 == i as u64 + 1));
    assert_eq!(log.due_streams(Timestamp(5), 10).await.unwrap(), [stream]);
}

#[tokio::test]
async fn a_transaction_that_does_not_commit_leaves_nothing_and_the_next_one_does() {
    let folder = tempfile::tempdir().unwrap();
    let stream = new_stream();
    let log = EmbeddedLog::open(&EmbeddedConfig::new(folder.path())).unwrap();
    let head = log.append(new_commit(&stream, None, "before")).await.unwrap();
    // The statements pass, the COMMIT does not, and the transaction stays open.
    let outside = rusqlite::Connection::open(folder.path().join("log.db")).unwrap();
    let trouble = "CREATE TABLE absent (id INTEGER PRIMARY KEY);
        CREATE TABLE trouble (id INTEGER REFERENCES absent DEFERRABLE INITIALLY DEFERRED);
        CREATE TRIGGER fail AFTER INSERT ON record BEGIN INSERT INTO trouble VALUES (1); END";
    outside.execute_batch(trouble).unwrap();
    for text in ["refused", "refused again"] {
        let refused = log.append(new_commit(&stream, Some(head), text)).await;
        assert!(matches!(refused, Err(AppendError::Unavailable(_))), "{refused:?}");
        assert_eq!(log.stream_head(&stream).await.unwrap(), Some(head));
    }
    outside.execute_batch("DROP TRIGGER fail").unwrap();
    log.check_writable().await.expect("a write passes");
    let next = log.append(new_commit(&stream, Some(head), "after")).await.unwrap();
    assert_eq!(next.position, Position(2));
    assert_eq!(log.verify_chains().await.unwrap(), (2, 2));
}

#[tokio::test]
async fn a_changed_byte_is_corrupt_and_never_silence() {
    let folder = tempfile::tempdir().unwrap();
    let (stream, config) = (new_stream(), EmbeddedConfig::new(folder.path()));
    let log = EmbeddedLog::open(&config).unwrap();
    let mut head = None;
    for number in 0..5 {
        head = Some(log.append(new_commit(&stream, head, &number.to_string())).await.unwrap());
    }
    assert_eq!(log.verify_chains().await.unwrap(), (5, 5));
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
        let log = EmbeddedLog::open(&EmbeddedConfig::new(copy.path())).unwrap();
        assert!(matches!(log.verify_chains().await, Err(LogError::Corrupt { .. })), "{change}");
        let read = log.read_stream(&stream, Seq(0), 10).await;
        assert!(matches!(read, Err(LogError::Corrupt { .. })), "{change}: {read:?}");
        log.close().await.unwrap();
    }
}

#[tokio::test]
async fn a_log_without_its_key_is_not_opened() {
    let folder = tempfile::tempdir().unwrap();
    let config = EmbeddedConfig::new(folder.path());
    EmbeddedLog::open(&config).unwrap().close().await.unwrap();
    std::fs::remove_file(folder.path().join("payload.key")).unwrap();
    assert!(matches!(EmbeddedLog::open(&config), Err(LogError::Corrupt { .. })));
}

/// What a log of version 2 had and this version has not.
const AS_VERSION_2: &str = "
ALTER TABLE stream ADD COLUMN position INTEGER NOT NULL DEFAULT 0;
ALTER TABLE stream ADD COLUMN seq INTEGER NOT NULL DEFAULT 0;
CREATE INDEX record_dedup ON record (dedup);
INSERT INTO wake SELECT stream, 0 FROM wake_now;
DROP TABLE wake_now;
PRAGMA user_version = 2;
";

#[tokio::test]
async fn a_log_of_the_version_before_is_brought_up() {
    let folder = tempfile::tempdir().unwrap();
    let config = EmbeddedConfig::new(folder.path());
    let log = EmbeddedLog::open(&config).unwrap();
    let (now, later) = (new_stream(), new_stream());
    let first = new_commit(&now, None, "first");
    let head = log.append(first.clone()).await.unwrap();
    let mut sleeping = new_commit(&later, None, "asleep");
    sleeping.wake = Wake::At(Timestamp(70));
    log.append(sleeping).await.unwrap();
    log.close().await.unwrap();
    let database = rusqlite::Connection::open(folder.path().join("log.db")).unwrap();
    database.execute_batch(AS_VERSION_2).unwrap();
    drop(database);

    let log = EmbeddedLog::open(&config).unwrap();
    assert_eq!(log.verify_chains().await.unwrap(), (2, 2));
    assert_eq!(log.append(first).await.unwrap(), head, "the same commit, for ever");
    assert_eq!(log.due_streams(Timestamp(5), 10).await.unwrap(), std::slice::from_ref(&now));
    assert_eq!(log.due_streams(Timestamp(70), 10).await.unwrap(), [now.clone(), later.clone()]);
    assert_eq!(log.next_due_time(Timestamp(5)).await.unwrap(), Some(Timestamp(70)));
    let mut ended = new_commit(&now, Some(head), "second");
    ended.wake = Wake::Done;
    log.append(ended).await.unwrap();
    let other = log.stream_head(&later).await.unwrap();
    let mut woken = new_commit(&later, other, "awake");
    woken.wake = Wake::Now;
    log.append(woken).await.unwrap();
    assert_eq!(log.due_streams(Timestamp(70), 10).await.unwrap(), [later]);
    assert_eq!(log.next_due_time(Timestamp(5)).await.unwrap(), None);
    log.close().await.unwrap();
}

#[tokio::test]
async fn a_log_of_version_3_becomes_one_of_version_4() {
    let folder = tempfile::tempdir().unwrap();
    let config = EmbeddedConfig::new(folder.path());
    let log = EmbeddedLog::open(&config).unwrap();
    log.append(new_commit(&new_stream(), None, "text")).await.unwrap();
    log.close().await.unwrap();
    let database = || rusqlite::Connection::open(folder.path().join("log.db")).unwrap();
    let version = || database().query_row("PRAGMA user_version", [], |row| row.get::<_, i64>(0));
    database().execute_batch("PRAGMA user_version = 3").unwrap();
    let log = EmbeddedLog::open(&config).unwrap();
    assert_eq!(log.verify_chains().await.unwrap(), (1, 1));
    log.close().await.unwrap();
    assert_eq!(version().unwrap(), 4);
    database().execute_batch("PRAGMA user_version = 5").unwrap();
    let refused = EmbeddedLog::open(&config).map(drop).unwrap_err().to_string();
    assert!(refused.contains("its version is 5, this program reads 4"), "{refused}");
}

#[tokio::test]
async fn a_commit_that_goes_on_from_one_that_is_not_durable_yet_makes_both_durable() {
    let folder = tempfile::tempdir().unwrap();
    let log = EmbeddedLog::open(&EmbeddedConfig::new(folder.path())).unwrap();
    let mut early = log.tail_pending();
    let stream = new_stream();
    let mut first = new_commit(&stream, None, "first");
    first.is_continued = true;
    let goes_on = async {
        let record = early.next().await.unwrap();
        log.append(new_commit(&stream, Some(record.stream_head()), "second")).await.unwrap()
    };
    let (begun, head) = tokio::join!(log.append(first), goes_on);
    assert_eq!((begun.unwrap().seq, head.seq), (Seq(1), Seq(2)));
    assert_eq!(log.stream_head(&stream).await.unwrap(), Some(head));
    // Whoever goes on never comes: it is durable all the same.
    let alone = crate::support::new_stream();
    let mut first = new_commit(&alone, None, "alone");
    first.is_continued = true;
    log.append(first).await.unwrap();
    assert!(log.stream_head(&alone).await.unwrap().is_some());
    log.close().await.unwrap();
}

#[tokio::test]
async fn a_payload_that_was_just_written_is_gone_once_it_is_erased() {
    let folder = tempfile::tempdir().unwrap();
    let log = EmbeddedLog::open(&EmbeddedConfig::new(folder.path())).unwrap();
    let stream = new_stream();
    let head = log.append(new_commit(&stream, None, "a secret")).await.unwrap();
    let reference = PayloadRef { seq: head.seq, index: 0 };
    assert_eq!(log.read_payload(&stream, reference).await.unwrap().unwrap(), "a secret");
    assert!(log.erase_payload(&stream, reference).await.unwrap());
    assert_eq!(log.read_payload(&stream, reference).await.unwrap(), None);
    log.close().await.unwrap();
}
