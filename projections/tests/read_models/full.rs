//! A database without room: the read models fall behind, and catch up when there is some.

use std::io::Write;
use std::process::Command;
use std::sync::Arc;
use std::time::Duration;

use convergio_eventstore::Position;
use convergio_projections::{Projections, rebuild};
use tokio::sync::oneshot;

use crate::support::filled;

/// Long enough for a page that has room.
const A_MOMENT: Duration = Duration::from_millis(500);
const PATIENCE: Duration = Duration::from_secs(60);

/// A folder that is a small file system, until it is dropped. Only root can mount one.
struct Small(tempfile::TempDir);

impl Small {
    fn mount() -> Option<Self> {
        let folder = tempfile::tempdir().expect("a folder");
        let mut mount = Command::new("mount");
        mount.args(["-t", "tmpfs", "-o", "size=8m", "tmpfs"]).arg(folder.path());
        mount.output().is_ok_and(|output| output.status.success()).then(|| Self(folder))
    }
}

impl Drop for Small {
    fn drop(&mut self) {
        let _unmounted = Command::new("umount").arg("--lazy").arg(self.0.path()).status();
    }
}

#[tokio::test]
async fn read_models_without_room_wait_for_it() {
    let Some(disk) = Small::mount() else {
        eprintln!("skipped: mounting a small disk needs root");
        return;
    };
    let log = filled().await;
    let tail = log.read_all(Position::START, 1).await.expect("readable").tail;
    let live = Projections::open(&disk.0.path().join("read.db")).await.expect("opens");
    let filler = disk.0.path().join("filler");
    let mut file = std::fs::File::create(&filler).expect("writable");
    while file.write_all(&[7; 4096]).is_ok() {}
    // What is open keeps its room.
    drop(file);
    let (queries, (_stop, stopped)) = (live.queries(), oneshot::channel());
    let goes_on = async {
        assert!(!queries.wait_for(tail, A_MOMENT).await, "there is no room");
        std::fs::remove_file(&filler).expect("it is there");
        assert!(queries.wait_for(tail, PATIENCE).await, "there is room");
    };
    tokio::select! {
        ended = live.run(Arc::clone(&log), stopped) => panic!("it ended: {ended:?}"),
        () = goes_on => {}
    }
    let folder = tempfile::tempdir().expect("a folder");
    rebuild(&folder.path().join("fresh.db"), &*log, |_, _| {}).await.expect("rebuilds");
    let fresh = Projections::open(&folder.path().join("fresh.db")).await.expect("opens");
    let rows = queries.dump().await.expect("rows");
    assert_eq!(rows, fresh.queries().dump().await.expect("rows"), "nothing is counted twice");
}
