//! Archives: the same bytes from every provider, and logs made from them.

use std::path::{Path, PathBuf};
use std::sync::Arc;

use convergio_domain::chat::Privacy;
use convergio_domain::decider::Wake;
use convergio_domain::event::Event;
use convergio_domain::id::{GraphId, GraphVersion, RunId};
use convergio_domain::payload::PayloadRef;
use convergio_domain::run::Budget;
use convergio_domain::run::event::{RunCreated, RunEvent};
use convergio_domain::stream::{Seq, StreamKey};
use convergio_domain::time::Timestamp;
use convergio_eventstore::archive::{self, ImportMode, Inventory};
use convergio_eventstore::conformance::workload::Writers;
use convergio_eventstore::embedded::{EmbeddedConfig, EmbeddedLog};
use convergio_eventstore::{Commit, LogError, LogWriter, Position};
use convergio_test_support::nats::{Cluster, KEY, SyncMode};
use uuid::Uuid;

use crate::crash::Mounted;
use crate::support::{Log, new_commit, new_stream};

/// A folder of an embedded log with the key of the tests.
fn folder() -> tempfile::TempDir {
    let folder = tempfile::tempdir().expect("a folder");
    std::fs::write(folder.path().join("payload.key"), KEY).expect("written");
    folder
}

fn embedded(folder: &Path) -> Log {
    Arc::new(EmbeddedLog::open(&EmbeddedConfig::new(folder)).expect("opens"))
}

/// Appends the same commits to a log; they continue what is there.
async fn fill(log: &Log, streams: &[StreamKey], from: usize, count: usize) -> Vec<Commit> {
    let mut done = Vec::new();
    for number in from..from + count {
        let stream = &streams[number % streams.len()];
        let head = log.stream_head(stream).await.expect("readable");
        let commit = new_commit(stream, head, &format!("text {number}"));
        log.append(commit.clone()).await.expect("next");
        done.push(commit);
    }
    done
}

fn contents(folder: &Path) -> Vec<(std::ffi::OsString, Vec<u8>)> {
    let entries = std::fs::read_dir(folder).expect("a folder").map(|entry| entry.expect("one"));
    let mut files: Vec<_> = entries
        .map(|entry| (entry.file_name(), std::fs::read(entry.path()).expect("readable")))
        .collect();
    files.sort();
    files
}

#[tokio::test(flavor = "multi_thread")]
async fn providers_export_the_same_bytes_and_are_made_from_each_others() {
    let cluster = Cluster::start(1, SyncMode::Always);
    let far: Log = Arc::new(cluster.log("A").await);
    let place = folder();
    let near = embedded(place.path());
    let streams: Vec<_> = (0..5).map(|_| new_stream()).collect();
    for commit in fill(&near, &streams, 0, 40).await {
        let mut commit = commit;
        commit.expected = far.stream_head(&commit.stream).await.expect("readable");
        far.append(commit).await.expect("next");
    }
    let (a, b) = (tempfile::tempdir().unwrap(), tempfile::tempdir().unwrap());
    for (log, to) in [(&near, &a), (&far, &b)] {
        let added = archive::export_archive(&**log, &KEY, to.path(), None).await.unwrap();
        assert_eq!(added, Inventory { segments: 1, records: 40, events: 40 });
    }
    assert!(contents(a.path()) == contents(b.path()), "the same bytes");
    // It goes on where it ended, and adds nothing when there is nothing.
    fill(&near, &streams, 40, 7).await;
    let added = archive::export_archive(&*near, &KEY, a.path(), None).await.unwrap();
    assert_eq!(added.records, 7);
    let none = archive::export_archive(&*near, &KEY, a.path(), None).await.unwrap();
    assert_eq!(none, Inventory::default());
    let whole = Inventory { segments: 2, records: 47, events: 47 };
    assert_eq!(archive::verify_archive(a.path()).unwrap(), whole);

    let other = folder();
    let again = embedded(other.path());
    let fresh: Log = Arc::new(cluster.log("B").await);
    for log in [&again, &fresh] {
        for _ in 0..2 {
            let done =
                archive::import_archive(&**log, &KEY, a.path(), ImportMode::Restore).await.unwrap();
            assert_eq!((done.inventory, done.is_authentic), (whole, true));
        }
        let copy = tempfile::tempdir().unwrap();
        archive::export_archive(&**log, &KEY, copy.path(), Some(&streams[2])).await.unwrap();
        let original = tempfile::tempdir().unwrap();
        archive::export_archive(&*near, &KEY, original.path(), Some(&streams[2])).await.unwrap();
        assert!(contents(copy.path()) == contents(original.path()));
        let opened = log.read_payload(&streams[3], PayloadRef { seq: Seq(1), index: 0 }).await;
        assert_eq!(opened.unwrap().unwrap(), "text 3");
        log.append(new_commit(&streams[0], log.stream_head(&streams[0]).await.unwrap(), "on"))
            .await
            .unwrap();
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn an_erased_payload_stays_erased_through_an_archive() {
    let cluster = Cluster::start(1, SyncMode::Always);
    let log = cluster.log("E").await;
    let stream = new_stream();
    log.append(new_commit(&stream, None, "private")).await.unwrap();
    let place = PayloadRef { seq: Seq(1), index: 0 };
    log.erase_payload(&stream, place).await.unwrap();
    let to = tempfile::tempdir().unwrap();
    archive::export_archive(&log, &KEY, to.path(), None).await.unwrap();
    let near = folder();
    for log in [embedded(near.path()), Arc::new(cluster.log("F").await)] {
        archive::import_archive(&*log, &KEY, to.path(), ImportMode::Restore).await.unwrap();
        assert_eq!(log.read_payload(&stream, place).await.unwrap(), None);
    }
}

#[tokio::test]
async fn what_is_wrong_with_an_archive_is_told() {
    let place = folder();
    let log = embedded(place.path());
    let streams = [new_stream(), new_stream()];
    let to = tempfile::tempdir().unwrap();
    for round in 0..3 {
        fill(&log, &streams, round * 10, 10).await;
        archive::export_archive(&*log, &KEY, to.path(), None).await.unwrap();
    }
    let files = contents(to.path());
    assert_eq!(files.len(), 3);
    for (name, bytes) in &files {
        let path = to.path().join(name);
        for at in [0, 9, 45, 60, 100, bytes.len() / 2, bytes.len() - 1] {
            let mut bad = bytes.clone();
            bad[at] ^= 1;
            for bad in [bad, bytes[..at].to_vec()] {
                std::fs::write(&path, bad).unwrap();
                let told = archive::verify_archive(to.path());
                assert!(matches!(told, Err(LogError::Corrupt { .. })), "{told:?}");
            }
        }
        std::fs::remove_file(&path).unwrap();
        // Without its last file an archive is a shorter one, and whole.
        let is_last = *name == files[2].0;
        assert_eq!(archive::verify_archive(to.path()).is_ok(), is_last);
        std::fs::write(&path, bytes).unwrap();
    }
    assert_eq!(archive::verify_archive(to.path()).unwrap().records, 30);
    let wrong = archive::export_archive(&*log, &[1; 32], to.path(), None).await;
    assert!(wrong.unwrap_err().to_string().contains("another payload key"));
    let other = folder();
    let into = embedded(other.path());
    let wrong = archive::import_archive(&*into, &[1; 32], to.path(), ImportMode::Restore).await;
    assert!(wrong.unwrap_err().to_string().contains("another key"));
    fill(&into, &[new_stream()], 0, 31).await;
    let refused = archive::import_archive(&*into, &KEY, to.path(), ImportMode::Restore).await;
    assert!(refused.unwrap_err().to_string().contains("more than the archive"));
    archive::import_archive(&*into, &KEY, to.path(), ImportMode::Merge).await.unwrap();
    assert_eq!(into.stream_head(&streams[0]).await.unwrap().map(|head| head.seq), Some(Seq(15)));
}

/// A run that has work, in a log.
async fn waking_run(log: &Log) -> StreamKey {
    let stream = StreamKey::for_run("default".parse().expect("done"), RunId(Uuid::now_v7()));
    let created = RunCreated {
        graph: GraphId(Uuid::from_u128(1)),
        version: GraphVersion::from_manifest(b"{}"),
        input: PayloadRef { seq: Seq(1), index: 0 },
        budget: Budget::default(),
        privacy: Privacy::Any,
        request_hash: "r".into(),
        origin: None,
    };
    let events = vec![Event::Run(RunEvent::RunCreated(created))];
    let mut first = new_commit(&stream, None, "a secret");
    (first.events, first.wake) = (events, Wake::Now);
    log.append(first).await.expect("done");
    stream
}

/// The file of an archive with one file.
fn only_file(archive: &Path) -> (PathBuf, Vec<u8>) {
    let mut files = contents(archive);
    assert_eq!(files.len(), 1);
    let (name, bytes) = files.remove(0);
    (archive.join(name), bytes)
}

/// Ends a file as who has no key would: with the right hash.
fn end_without_key(content: &[u8], records: &[u8], word: &[u8]) -> Vec<u8> {
    let length = u32::try_from(records.len() + word.len() + 32).expect("done");
    let trailer = [&[9][..], &length.to_le_bytes(), records, word].concat();
    let hashed = [content, &trailer[..]].concat();
    let hash = match word {
        [] => blake3::hash(content),
        _ => blake3::hash(&hashed),
    };
    [&hashed[..], hash.as_bytes()].concat()
}

#[tokio::test]
async fn an_archive_that_somebody_without_the_key_made_is_refused() {
    let (place, to) = (folder(), tempfile::tempdir().unwrap());
    let near = embedded(place.path());
    let run = waking_run(&near).await;
    archive::export_archive(&*near, &KEY, to.path(), None).await.unwrap();
    let (path, bytes) = only_file(to.path());
    let (content, trailer) = bytes.split_at(bytes.len() - 77);
    let forged = end_without_key(content, &trailer[5..13], &[7; 32]);
    std::fs::write(&path, forged).unwrap();
    assert_eq!(archive::verify_archive(to.path()).unwrap().records, 1, "its hashes are right");
    for how in [ImportMode::Merge, ImportMode::Restore] {
        let other = folder();
        let into = embedded(other.path());
        let refused = archive::import_archive(&*into, &KEY, to.path(), how).await.unwrap_err();
        assert!(refused.to_string().contains("who has the payload key"), "{refused}");
        assert_eq!(into.stream_head(&run).await.unwrap(), None, "nothing was written");
    }
}

#[tokio::test]
async fn runs_of_an_archive_wake_only_if_it_is_known_who_wrote_it() {
    let (place, to) = (folder(), tempfile::tempdir().unwrap());
    let near = embedded(place.path());
    let run = waking_run(&near).await;
    archive::export_archive(&*near, &KEY, to.path(), None).await.unwrap();
    let (path, bytes) = only_file(to.path());
    let due = async |how| {
        let other = folder();
        let into = embedded(other.path());
        let done = archive::import_archive(&*into, &KEY, to.path(), how).await.unwrap();
        let payload = into.read_payload(&run, PayloadRef { seq: Seq(1), index: 0 }).await.unwrap();
        assert_eq!(payload.unwrap(), "a secret");
        let due = into.due_streams(Timestamp(i64::MAX), 10).await.unwrap();
        into.close().await.unwrap();
        (done.is_authentic, due == std::slice::from_ref(&run))
    };
    assert_eq!(due(ImportMode::Merge).await, (true, true));
    // As earlier programs wrote it.
    let (content, trailer) = bytes.split_at(bytes.len() - 77);
    let before = [b"CVGARCH1", &content[8..]].concat();
    std::fs::write(&path, end_without_key(&before, &trailer[5..13], &[])).unwrap();
    assert_eq!(due(ImportMode::Merge).await, (false, false));
    assert_eq!(due(ImportMode::Restore).await, (false, true));
}

#[tokio::test]
async fn a_record_of_an_archive_that_holds_no_event_is_refused() {
    let (place, to) = (folder(), tempfile::tempdir().unwrap());
    let near = embedded(place.path());
    waking_run(&near).await;
    archive::export_archive(&*near, &KEY, to.path(), None).await.unwrap();
    let (path, bytes) = only_file(to.path());
    let body = bytes.windows(10).position(|window| window == b"\"events\":[").unwrap() + 10;
    let end = bytes.windows(8).position(|window| window == b"],\"paylo").unwrap();
    let content = &bytes[..bytes.len() - 77];
    let empty = [&content[64 + 5 + 64..body], &content[end..]].concat();
    let record_end = 64 + 5 + u32::from_le_bytes(content[65..69].try_into().unwrap()) as usize;
    let canonical = &empty[..empty.len() - (content.len() - record_end)];
    let hash = blake3::Hasher::new().update(&[0; 32]).update(canonical).finalize();
    let length = u32::try_from(64 + canonical.len()).unwrap().to_le_bytes();
    let record = [&[1][..], &length, &[0; 32], hash.as_bytes(), canonical].concat();
    let forged = [&content[..64], &record, &content[record_end..]].concat();
    let forged = [b"CVGARCH1", &forged[8..]].concat();
    std::fs::write(&path, end_without_key(&forged, &1_u64.to_le_bytes(), &[])).unwrap();
    let told = archive::verify_archive(to.path()).unwrap_err().to_string();
    assert!(told.contains("holds no event"), "{told}");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_folder_is_copied_while_it_is_written_to() {
    let place = folder();
    let log = embedded(place.path());
    let writers = Writers::start(&log, 8);
    writers.wait_for_commits(200).await;
    let before = writers.acknowledged_count();
    let to = tempfile::tempdir().unwrap();
    archive::backup_embedded(place.path(), to.path()).unwrap();
    let total = writers.finish_and_check(Arc::clone(&log)).await;
    let copy = EmbeddedLog::open(&EmbeddedConfig::new(to.path())).unwrap();
    let (records, _) = copy.verify_chains().await.unwrap();
    assert!((before..=total).contains(&records), "{before} {records} {total}");
    assert!(archive::backup_embedded(place.path(), to.path()).is_err(), "it is not overwritten");
}

#[tokio::test]
async fn archives_and_backups_that_found_a_full_disk_are_made_once_there_is_room() {
    let mount = tempfile::tempdir().unwrap();
    let Some(disk) = Mounted::tmpfs(mount.path(), "64k") else {
        println!("skipped: a small file system can be mounted by root only");
        return;
    };
    let place = folder();
    let near = embedded(place.path());
    fill(&near, &[new_stream()], 0, 400).await;
    let (archive, backup) = (mount.path().join("archive"), mount.path().join("backup"));
    for _ in 0..2 {
        archive::export_archive(&*near, &KEY, &archive, None).await.expect_err("there is no room");
        archive::backup_embedded(place.path(), &backup).expect_err("there is no room");
        assert_eq!(contents(&archive), [], "nothing half done takes room");
        assert_eq!(contents(&backup), []);
    }
    disk.grow("64m");
    let written =
        archive::export_archive(&*near, &KEY, &archive, None).await.expect("there is room");
    assert_eq!(archive::verify_archive(&archive).expect("whole"), written);
    archive::backup_embedded(place.path(), &backup).expect("there is room");
    assert_eq!(embedded(&backup).read_all(Position::START, 1).await.unwrap().tail, Position(400));
}
