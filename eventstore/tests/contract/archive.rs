//! Archives: the same bytes from every provider, and logs made from them.

use std::path::Path;
use std::sync::Arc;

use convergio_domain::payload::PayloadRef;
use convergio_domain::stream::{Seq, StreamKey};
use convergio_eventstore::archive::{self, Import, Inventory};
use convergio_eventstore::conformance::workload::Writers;
use convergio_eventstore::embedded::{Config, EmbeddedLog};
use convergio_eventstore::{Commit, EventLog, LogError, Position};

use crate::crash::Mounted;
use crate::nats::{Cluster, KEY, Sync};
use crate::support::{Log, commit, stream};

/// A folder of an embedded log with the key of the tests.
fn folder() -> tempfile::TempDir {
    let folder = tempfile::tempdir().expect("a folder");
    std::fs::write(folder.path().join("payload.key"), KEY).expect("written");
    folder
}

fn embedded(folder: &Path) -> Log {
    Arc::new(EmbeddedLog::open(&Config::new(folder)).expect("opens"))
}

/// Appends the same commits to a log; they continue what is there.
async fn fill(log: &Log, streams: &[StreamKey], from: usize, count: usize) -> Vec<Commit> {
    let mut done = Vec::new();
    for number in from..from + count {
        let stream = &streams[number % streams.len()];
        let head = log.head(stream).await.expect("readable");
        let commit = commit(stream, head, &format!("text {number}"));
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
    let cluster = Cluster::start(1, Sync::Always);
    let far: Log = Arc::new(cluster.log("A").await);
    let place = folder();
    let near = embedded(place.path());
    let streams: Vec<_> = (0..5).map(|_| stream()).collect();
    for commit in fill(&near, &streams, 0, 40).await {
        let expected = far.head(&commit.stream).await.expect("readable");
        far.append(Commit { expected, ..commit }).await.expect("next");
    }
    let (a, b) = (tempfile::tempdir().unwrap(), tempfile::tempdir().unwrap());
    for (log, to) in [(&near, &a), (&far, &b)] {
        let added = archive::export(&**log, &KEY, to.path(), None).await.unwrap();
        assert_eq!(added, Inventory { segments: 1, records: 40, events: 40 });
    }
    assert!(contents(a.path()) == contents(b.path()), "the same bytes");
    // It goes on where it ended, and adds nothing when there is nothing.
    fill(&near, &streams, 40, 7).await;
    let added = archive::export(&*near, &KEY, a.path(), None).await.unwrap();
    assert_eq!(added.records, 7);
    let none = archive::export(&*near, &KEY, a.path(), None).await.unwrap();
    assert_eq!(none, Inventory::default());
    let whole = Inventory { segments: 2, records: 47, events: 47 };
    assert_eq!(archive::verify(a.path()).unwrap(), whole);

    let other = folder();
    let again = embedded(other.path());
    let fresh: Log = Arc::new(cluster.log("B").await);
    for log in [&again, &fresh] {
        for _ in 0..2 {
            let done = archive::import(&**log, &KEY, a.path(), Import::Restore).await.unwrap();
            assert_eq!(done, whole);
        }
        let copy = tempfile::tempdir().unwrap();
        archive::export(&**log, &KEY, copy.path(), Some(&streams[2])).await.unwrap();
        let original = tempfile::tempdir().unwrap();
        archive::export(&*near, &KEY, original.path(), Some(&streams[2])).await.unwrap();
        assert!(contents(copy.path()) == contents(original.path()));
        let opened = log.payload(&streams[3], PayloadRef { seq: Seq(1), index: 0 }).await;
        assert_eq!(opened.unwrap().unwrap(), "text 3");
        log.append(commit(&streams[0], log.head(&streams[0]).await.unwrap(), "on")).await.unwrap();
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn an_erased_payload_stays_erased_through_an_archive() {
    let cluster = Cluster::start(1, Sync::Always);
    let log = cluster.log("E").await;
    let stream = stream();
    log.append(commit(&stream, None, "private")).await.unwrap();
    let place = PayloadRef { seq: Seq(1), index: 0 };
    log.erase_payload(&stream, place).await.unwrap();
    let to = tempfile::tempdir().unwrap();
    archive::export(&log, &KEY, to.path(), None).await.unwrap();
    let near = folder();
    for log in [embedded(near.path()), Arc::new(cluster.log("F").await)] {
        archive::import(&*log, &KEY, to.path(), Import::Restore).await.unwrap();
        assert_eq!(log.payload(&stream, place).await.unwrap(), None);
    }
}

#[tokio::test]
async fn what_is_wrong_with_an_archive_is_told() {
    let place = folder();
    let log = embedded(place.path());
    let streams = [stream(), stream()];
    let to = tempfile::tempdir().unwrap();
    for round in 0..3 {
        fill(&log, &streams, round * 10, 10).await;
        archive::export(&*log, &KEY, to.path(), None).await.unwrap();
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
                let told = archive::verify(to.path());
                assert!(matches!(told, Err(LogError::Corrupt { .. })), "{told:?}");
            }
        }
        std::fs::remove_file(&path).unwrap();
        // Without its last file an archive is a shorter one, and whole.
        let is_last = *name == files[2].0;
        assert_eq!(archive::verify(to.path()).is_ok(), is_last);
        std::fs::write(&path, bytes).unwrap();
    }
    assert_eq!(archive::verify(to.path()).unwrap().records, 30);
    let wrong = archive::export(&*log, &[1; 32], to.path(), None).await;
    assert!(wrong.unwrap_err().to_string().contains("another payload key"));
    let other = folder();
    let into = embedded(other.path());
    let wrong = archive::import(&*into, &[1; 32], to.path(), Import::Restore).await;
    assert!(wrong.unwrap_err().to_string().contains("another key"));
    fill(&into, &[stream()], 0, 31).await;
    let refused = archive::import(&*into, &KEY, to.path(), Import::Restore).await;
    assert!(refused.unwrap_err().to_string().contains("more than the archive"));
    archive::import(&*into, &KEY, to.path(), Import::Merge).await.unwrap();
    assert_eq!(into.head(&streams[0]).await.unwrap().map(|head| head.seq), Some(Seq(15)));
}

#[tokio::test(flavor = "multi_thread")]
async fn a_folder_is_copied_while_it_is_written_to() {
    let place = folder();
    let log = embedded(place.path());
    let writers = Writers::start(&log, 8);
    writers.more(200).await;
    let before = writers.acknowledged();
    let to = tempfile::tempdir().unwrap();
    archive::backup_embedded(place.path(), to.path()).unwrap();
    let total = writers.finish(Arc::clone(&log)).await;
    let copy = EmbeddedLog::open(&Config::new(to.path())).unwrap();
    let (records, _) = copy.verify().await.unwrap();
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
    fill(&near, &[stream()], 0, 400).await;
    let (archive, backup) = (mount.path().join("archive"), mount.path().join("backup"));
    for _ in 0..2 {
        archive::export(&*near, &KEY, &archive, None).await.expect_err("there is no room");
        archive::backup_embedded(place.path(), &backup).expect_err("there is no room");
        assert_eq!(contents(&archive), [], "nothing half done takes room");
        assert_eq!(contents(&backup), []);
    }
    disk.grow("64m");
    let written = archive::export(&*near, &KEY, &archive, None).await.expect("there is room");
    assert_eq!(archive::verify(&archive).expect("whole"), written);
    archive::backup_embedded(place.path(), &backup).expect("there is room");
    assert_eq!(embedded(&backup).read_all(Position::START, 1).await.unwrap().tail, Position(400));
}
