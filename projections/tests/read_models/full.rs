//! A database without room: the read models fall behind, say so, and catch up when there is some.

use std::io::Write;
use std::process::Command;
use std::sync::Arc;
use std::time::{Duration, Instant};

use convergio_eventstore::{EventLog, HealthRegistry, LogWriter, Position};
use convergio_projections::{Projections, Queries, rebuild_read_models};
use tokio::sync::oneshot;

use crate::support::{filled, more};

/// How often the disk is full: while the projector begins, and while it follows.
const ROUNDS: usize = 4;
const LOOK: Duration = Duration::from_millis(10);
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

    fn fill(&self) {
        let filler = self.0.path().join("filler");
        let mut file = std::fs::File::create(filler).expect("writable");
        while file.write_all(&[7; 4096]).is_ok() {}
    }

    fn free(&self) {
        std::fs::remove_file(self.0.path().join("filler")).expect("it is there");
    }
}

impl Drop for Small {
    fn drop(&mut self) {
        let _unmounted = Command::new("umount").arg("--lazy").arg(self.0.path()).status();
    }
}

async fn tail(log: &dyn EventLog) -> Position {
    log.read_all(Position::START, 1).await.expect("readable").tail
}

/// Waits until something holds.
async fn eventually(what: &str, mut holds: impl AsyncFnMut() -> bool) {
    let begun = Instant::now();
    while !holds().await {
        assert!(begun.elapsed() < PATIENCE, "{what}");
        tokio::time::sleep(LOOK).await;
    }
}

/// The disk is full until the projector has failed; then readers see everything again.
async fn survive_rounds(
    disk: &Small,
    log: &Arc<dyn LogWriter>,
    queries: &Queries,
    registry: &HealthRegistry,
) {
    for _ in 0..ROUNDS {
        eventually("it reports that it fails", async || {
            more(log).await;
            !registry.current_failures().is_empty()
        })
        .await;
        let failure = registry.current_failures().remove(0);
        assert_eq!(failure.component, "read models");
        disk.free();
        let tail = tail(&**log).await;
        // As a reader sees it, not by the projector's word.
        let reached = async || queries.read_position().await.expect("readable") >= tail;
        eventually("it catches up", reached).await;
        eventually("it reports success", async || registry.current_failures().is_empty()).await;
        disk.fill();
    }
    disk.free();
}

#[tokio::test]
async fn read_models_without_room_wait_for_it() {
    let Some(disk) = Small::mount() else {
        eprintln!("skipped: mounting a small disk needs root");
        return;
    };
    let log = filled().await;
    let registry = HealthRegistry::default();
    let live = Projections::open(&disk.0.path().join("read.db")).await.expect("opens");
    let live = live.with_health(registry.component_health("read models"));
    disk.fill();
    let (queries, (_stop, stopped)) = (live.query_handle(), oneshot::channel());
    tokio::select! {
        ended = live.run(log.clone(), stopped) => panic!("it ended: {ended:?}"),
        () = survive_rounds(&disk, &log, &queries, &registry) => {}
    }
    let folder = tempfile::tempdir().expect("a folder");
    rebuild_read_models(&folder.path().join("fresh.db"), &*log, |_, _| {}).await.expect("rebuilds");
    let fresh = Projections::open(&folder.path().join("fresh.db")).await.expect("opens");
    let rows = queries.dump_tables().await.expect("rows");
    assert_eq!(
        rows,
        fresh.query_handle().dump_tables().await.expect("rows"),
        "nothing is counted twice"
    );
}
