//! A full disk: one clear answer, nothing lost, and everything goes on by itself when there is
//! space again: log, executor and read models. Readiness says so meanwhile.
//!
//! `CONVERGIO_SOAK_FULL_DISK` sets rounds and seconds, as `20x1,20x10,20x60`.

use std::io::Write;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

use convergio_eventstore::archive::backup_embedded;
use convergio_eventstore::embedded::{EmbeddedConfig, EmbeddedLog};
use convergio_projections::{Projections, rebuild_read_models};
use serde_json::json;
use tokio::task::JoinSet;

use crate::harness::{Server, convergio, text};

/// Who asks for runs at once, and how long each pauses between two.
const CLIENTS: usize = 3;
const PAUSE: Duration = Duration::from_millis(50);
/// How often readiness is looked at, and freed space is taken again.
const LOOK: Duration = Duration::from_millis(25);
/// Room for what all rounds of the long form write: an hour of runs.
const DISK: &str = "512m";
/// Longest wait for a server that should be ready again.
const PATIENCE: Duration = Duration::from_secs(120);

/// A small file system of its own. Only root can mount one.
struct SmallDisk(PathBuf);

impl SmallDisk {
    fn mount(folder: &Path, size: &str) -> Option<Self> {
        let mut mount = Command::new("mount");
        mount.args(["-t", "tmpfs", "-o", &format!("size={size}"), "tmpfs"]).arg(folder);
        let is_mounted = mount.output().is_ok_and(|output| output.status.success());
        if !is_mounted {
            eprintln!("skipped: mounting a small disk needs root");
        }
        is_mounted.then(|| Self(folder.to_owned()))
    }

    /// Takes all the space there is, also what was freed since.
    fn fill(&self) {
        let mut options = std::fs::File::options();
        let file = options.create(true).append(true).open(self.0.join("filler"));
        let Ok(mut file) = file else { return };
        for block in [1 << 20, 4096] {
            let block = vec![7; block];
            while file.write_all(&block).is_ok() {}
        }
    }

    fn free(&self) {
        std::fs::remove_file(self.0.join("filler")).expect("it is there");
    }
}

impl Drop for SmallDisk {
    fn drop(&mut self) {
        let _unmounted = Command::new("umount").arg("--lazy").arg(&self.0).status();
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn nothing_is_lost_on_a_full_disk_and_work_goes_on_when_it_is_not() {
    let folder = tempfile::tempdir().expect("a folder");
    let Some(disk) = SmallDisk::mount(folder.path(), "12m") else { return };
    let server = Server::start(folder.path());
    let graph = server.register("small.yaml").await;
    disk.fill();
    let inputs = json!({"text": "x".repeat(20_000)});
    let mut accepted = Vec::new();
    let refused = loop {
        let (status, answer) = server.execute(&graph, &inputs, None).await;
        if status != 202 {
            break (status, answer);
        }
        accepted.push(answer["run_id"].as_str().expect("a run").to_owned());
    };
    assert_eq!((refused.0, &refused.1["code"]), (507, &json!("log.full")));
    let detail = refused.1["detail"].as_str().expect("a text");
    assert!(detail.contains("full") && detail.lines().count() == 1, "{detail}");
    disk.free();
    let (status, answer) = server.execute(&graph, &inputs, None).await;
    assert_eq!(status, 202, "{answer}");
    accepted.push(answer["run_id"].as_str().expect("a run").to_owned());
    for run in &accepted {
        assert_eq!(server.ended(run).await["status"], "completed");
    }
    server.kill();
    for check in [["log", "verify"], ["projections", "check"]] {
        let checked = convergio(folder.path(), &check);
        assert!(checked.status.success(), "{}", text(&checked.stderr));
    }
    drop(disk);
}

/// How often the disk is full, and for how long.
fn rounds() -> Vec<Duration> {
    let setting = std::env::var("CONVERGIO_SOAK_FULL_DISK").unwrap_or_else(|_| "1x1".into());
    let rounds = setting.split(',').flat_map(|part| {
        let (count, seconds) = part.split_once('x').expect("as 20x1");
        let (count, seconds) =
            (count.parse().expect("a number"), seconds.parse().expect("seconds"));
        std::iter::repeat_n(Duration::from_secs(seconds), count)
    });
    rounds.collect()
}

#[tokio::test(flavor = "multi_thread")]
async fn log_and_read_models_come_back_by_themselves_from_a_full_disk() {
    let data = tempfile::tempdir().expect("a folder");
    let Some(disk) = SmallDisk::mount(data.path(), DISK) else { return };
    survive(&disk, data.path(), data.path()).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn read_models_come_back_by_themselves_when_only_their_disk_was_full() {
    let (data, place) = (tempfile::tempdir().expect("a folder"), tempfile::tempdir());
    let place = place.expect("a folder");
    let Some(disk) = SmallDisk::mount(place.path(), DISK) else { return };
    survive(&disk, data.path(), place.path()).await;
}

/// One server under load lives through every round; after each its read models are whole.
async fn survive(disk: &SmallDisk, data: &Path, place: &Path) {
    let read_models = place.join("read.db");
    let option = ["--read-models-file", read_models.to_str().expect("a path")];
    let server = Arc::new(Server::start_as(data, &option));
    let graph = server.register("small.yaml").await;
    for (number, duration) in rounds().into_iter().enumerate() {
        let is_over = Arc::new(AtomicBool::new(false));
        let load = start_load(&server, &graph, &is_over);
        let red = fill_for(disk, &server, duration).await;
        let freed = Instant::now();
        wait_until_ready(&server).await;
        let ready_again = freed.elapsed();
        is_over.store(true, Ordering::Relaxed);
        let runs: Vec<String> = load.join_all().await.into_iter().flatten().collect();
        for run in &runs {
            assert_eq!(server.ended(run).await["status"], "completed");
        }
        wait_until_ready(&server).await;
        let reason = red.first().expect("readiness was red while the disk was full");
        println!(
            "round {number}: full for {duration:?}, red {} times ({reason}), ready {} ms after, {} \
             runs",
            red.len(),
            ready_again.as_millis(),
            runs.len()
        );
        assert_equal_to_a_rebuild(data, &read_models).await;
    }
}

/// Asks for runs until it is over; gives those that were accepted.
fn start_load(
    server: &Arc<Server>,
    graph: &str,
    is_over: &Arc<AtomicBool>,
) -> JoinSet<Vec<String>> {
    let mut load = JoinSet::new();
    for _ in 0..CLIENTS {
        let (server, graph, is_over) = (Arc::clone(server), graph.to_owned(), Arc::clone(is_over));
        load.spawn(async move {
            let (inputs, mut accepted) = (json!({"text": "y".repeat(2000)}), Vec::new());
            while !is_over.load(Ordering::Relaxed) {
                let (status, answer) = server.execute(&graph, &inputs, None).await;
                assert!([202, 507, 503].contains(&status), "{answer}");
                accepted.extend(answer["run_id"].as_str().map(str::to_owned));
                tokio::time::sleep(PAUSE).await;
            }
            accepted
        });
    }
    load
}

/// Keeps the disk full for so long, and at least until readiness is red; gives what readiness said
/// whenever it was.
async fn fill_for(disk: &SmallDisk, server: &Server, duration: Duration) -> Vec<String> {
    let (begun, mut red) = (Instant::now(), Vec::new());
    while begun.elapsed() < duration || (red.is_empty() && begun.elapsed() < PATIENCE) {
        disk.fill();
        let readiness = server.get("/readyz").await;
        if readiness["code"] == "server.not_ready" {
            red.push(readiness["detail"].as_str().expect("a reason").to_owned());
        }
        tokio::time::sleep(LOOK).await;
    }
    disk.free();
    red
}

async fn wait_until_ready(server: &Server) {
    let begun = Instant::now();
    loop {
        let readiness = server.get("/readyz").await;
        if readiness["status"] == "ok" {
            return;
        }
        assert!(begun.elapsed() < PATIENCE, "it is not ready again: {readiness}");
        tokio::time::sleep(LOOK).await;
    }
}

/// The rows in use, read beside the running server, against those that a copy of its log gives.
async fn assert_equal_to_a_rebuild(data: &Path, read_models: &Path) {
    let copy = tempfile::tempdir().expect("a folder");
    let live = Projections::open(read_models).await.expect("opens");
    let rows = live.query_handle().dump_tables().await.expect("rows");
    live.close().await;
    let log = copy.path().join("log");
    backup_embedded(data, &log).expect("a copy of the log");
    let log = EmbeddedLog::open(&EmbeddedConfig::new(&log)).expect("opens");
    let file = copy.path().join("read.db");
    rebuild_read_models(&file, &log, |_, _| {}).await.expect("rebuilds");
    let fresh = Projections::open(&file).await.expect("opens");
    assert!(
        rows == fresh.query_handle().dump_tables().await.expect("rows"),
        "read models equal a rebuild"
    );
}
