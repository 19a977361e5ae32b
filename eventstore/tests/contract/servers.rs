//! Servers that lose their disk, have no room, or damaged files; engines that are killed.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use async_nats::jetstream::stream::Info;
use convergio_eventstore::conformance::workload::Writers;
use convergio_eventstore::jetstream::{JetStreamConfig, JetStreamLog};
use convergio_eventstore::{AppendError, EventLog, LogReader, LogWriter, verify_log};
use convergio_test_support::nats::{Cluster, READY, SyncMode, eventually, open_log};
use serde_json::json;

use crate::crash::{Mounted, check, round_of, rounds};
use crate::support::{Log, new_commit, new_stream};

/// Longer than the log is patient with a server that refuses.
const NO_ANSWER: Duration = Duration::from_secs(20);

/// A client beside the log, of the log's account or of the servers'.
async fn beside(cluster: &Cluster, user: &str, password: &str) -> async_nats::Client {
    let hosts: Vec<async_nats::ServerAddr> = cluster
        .servers
        .iter()
        .map(|server| format!("127.0.0.1:{}", server.client_port).parse().expect("an address"))
        .collect();
    let options = async_nats::ConnectOptions::with_user_and_password(user.into(), password.into());
    eventually("a server can be reached", async || options.clone().connect(&hosts[..]).await.ok())
        .await
}

async fn info(cluster: &Cluster, stream: &str) -> Option<Info> {
    let context = async_nats::jetstream::new(beside(cluster, "cvg", "secret").await);
    Some(context.get_stream(stream).await.ok()?.cached_info().clone())
}

#[tokio::test(flavor = "multi_thread")]
async fn a_server_that_lost_its_disk_is_replaced_under_a_new_name() {
    let mut cluster = Cluster::start(3, SyncMode::Always);
    let config = cluster.create("N").await;
    let log: Log = Arc::new(open_log(&config).await);
    let writers = Writers::start(&log, 16);
    writers.wait_for_commits(300).await;
    cluster.servers[2].kill();
    std::fs::remove_dir_all(cluster.servers[2].store()).expect("it is ours");
    writers.wait_for_commits(50).await;
    // The old name is struck off, so that the new server can take its place.
    let system = beside(&cluster, "sys", "sys").await;
    eventually("the old server is struck off", async || {
        let request = json!({"peer": "n2"}).to_string();
        let answer = system.request("$JS.API.SERVER.REMOVE", request.into()).await.ok()?;
        String::from_utf8_lossy(&answer.payload).contains("\"success\":true").then_some(())
    })
    .await;
    cluster.rename(2, "n3");
    cluster.servers[2].start();
    for stream in ["N_LOG", "N_PAYLOAD", "N_DERIVED"] {
        eventually("the new server has everything", async || {
            let state = info(&cluster, stream).await?.cluster?;
            let is_there = state.leader.as_deref() == Some("n3")
                || state.replicas.iter().any(|peer| peer.name == "n3");
            let current = state.replicas.iter().all(|peer| peer.current && !peer.offline);
            (is_there && current && state.replicas.len() == 2).then_some(())
        })
        .await;
    }
    // Now the new one is needed for a majority.
    cluster.servers[0].kill();
    writers.wait_for_commits(50).await;
    cluster.servers[0].start();
    let commits = writers.finish_and_check(Arc::clone(&log)).await;
    let found = verify_log(&open_log(&config).await, true).await.expect("whole");
    assert_eq!(found.records, commits);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_full_disk_of_a_server_loses_nothing_that_was_acknowledged() {
    let mut cluster = Cluster::prepare(1, SyncMode::Always);
    let store = cluster.servers[0].store();
    std::fs::create_dir_all(&store).expect("a folder");
    let Some(mounted) = Mounted::tmpfs(&store, "24m") else {
        println!("skipped: a small file system can be mounted by root only");
        return;
    };
    cluster.start_all();
    let config = cluster.create("F").await;
    let log: Log = Arc::new(open_log(&config).await);
    let (stream, mut head, mut appended) = (new_stream(), None, 0);
    // The server says that it is full, says nothing, or stops: then the commit waits.
    let waiting = loop {
        let mut next = new_commit(&stream, head, "x");
        let mut bytes = vec![0; 200_000];
        blake3::Hasher::new().update(next.id.as_bytes()).finalize_xof().fill(&mut bytes);
        next.payloads[0].bytes = bytes.into();
        let (log, again) = (Arc::clone(&log), next.clone());
        let mut append = tokio::spawn(async move { log.append(again).await });
        match tokio::time::timeout(NO_ANSWER, &mut append).await {
            Ok(answer) => match answer.expect("no panic") {
                Ok(done) => (head, appended) = (Some(done), appended + 1),
                Err(AppendError::Full | AppendError::Unavailable(_)) => break None,
                Err(error) => panic!("{error}"),
            },
            Err(_) => break Some(append),
        }
    };
    assert!(appended > 3, "there was room for some");
    println!("full after {appended} commits; the next one waits: {}", waiting.is_some());
    // More room, and the server again: a full disk stops it.
    cluster.kill_all();
    mounted.grow("64m");
    cluster.start_all();
    if let Some(append) = waiting {
        let settled = tokio::time::timeout(READY, append).await.expect("it is settled");
        if let Ok(done) = settled.expect("no panic") {
            (head, appended) = (Some(done), appended + 1);
        }
    }
    log.close().await.expect("ends");
    let log = open_log(&config).await;
    assert_eq!(
        log.stream_head(&stream).await.expect("readable"),
        head,
        "what was acknowledged is there"
    );
    log.append(new_commit(&stream, head, "y")).await.expect("it goes on");
    assert_eq!(verify_log(&log, true).await.expect("whole").records, appended + 1);
    log.close().await.expect("ends");
    cluster.kill_all();
}

#[tokio::test(flavor = "multi_thread")]
async fn a_killed_engine_loses_and_doubles_nothing_in_a_cluster() {
    let cluster = Cluster::start(1, SyncMode::Always);
    let config = cluster.create("X").await;
    let url = cluster.url("X");
    let (mut told, mut commits) = (BTreeMap::new(), 0);
    for number in 0..rounds() {
        round_of(&[("CONVERGIO_TEST_CHILD_URL", url.as_ref())], 20 + number * 37 % 200, &mut told);
        let log = open_log(&config).await;
        let known = told.len();
        check(&log, &mut told).await;
        assert!(told.len() - known <= 8, "at most one commit a writer that nobody was told of");
        commits = verify_log(&log, true).await.expect("whole").records;
        log.close().await.expect("ends");
    }
    assert_eq!(commits as usize, told.len());
    println!("{} kills: {commits} commits", rounds());
}

/// Why a log is not whole, or how many records it has.
async fn outcome(config: &JetStreamConfig) -> Result<u64, String> {
    let opening =
        eventually("the log opens, or tells why not", async || {
            match JetStreamLog::open(config).await {
                Ok(log) => Some(Ok(log)),
                Err(error) => {
                    let line = error.to_string();
                    let not_yet = ["no server of", "no responders", "timed out", "temporarily"];
                    (!not_yet.iter().any(|part| line.contains(part))).then_some(Err(line))
                }
            }
        });
    let log = opening.await?;
    let verified = verify_log(&log, true).await.map(|found| found.records);
    log.close().await.expect("ends");
    verified.map_err(|error| error.to_string())
}

/// Every file below a folder.
fn files(folder: &Path) -> Vec<PathBuf> {
    let entries = std::fs::read_dir(folder).expect("a folder");
    let paths = entries.map(|entry| entry.expect("an entry").path());
    paths.flat_map(|path| if path.is_dir() { files(&path) } else { vec![path] }).collect()
}

#[tokio::test(flavor = "multi_thread")]
async fn damage_in_any_file_of_a_server_is_told_or_recovered_from() {
    let mut cluster = Cluster::start(1, SyncMode::Always);
    let config = cluster.create("B").await;
    let log: Log = Arc::new(open_log(&config).await);
    let writers = Writers::start(&log, 8);
    writers.wait_for_commits(400).await;
    let commits = writers.finish_and_check(Arc::clone(&log)).await;
    log.close().await.expect("ends");
    cluster.kill_all();
    let store = cluster.servers[0].store();
    let good = tempfile::tempdir().expect("a folder");
    copy(&store, good.path());
    let mut seen: BTreeMap<String, [u32; 2]> = BTreeMap::new();
    for file in files(good.path()) {
        let name = file.strip_prefix(good.path()).expect("below").to_owned();
        let bytes = std::fs::read(&file).expect("readable");
        for damaged in damages(&bytes) {
            std::fs::remove_dir_all(&store).expect("it is ours");
            copy(good.path(), &store);
            std::fs::write(store.join(&name), damaged).expect("written");
            cluster.start_all();
            let outcome = outcome(&config).await;
            cluster.kill_all();
            let counts = seen.entry(name.display().to_string()).or_default();
            match outcome {
                Ok(records) if records == commits => counts[1] += 1,
                Ok(records) => panic!("silence: {records} of {commits}, {}", name.display()),
                Err(_) => counts[0] += 1,
            }
        }
    }
    for (name, [told, recovered]) in &seen {
        println!("{name}: {told} told, {recovered} recovered from");
    }
    assert!(seen.values().any(|[told, _]| *told > 0));
}

/// A bit changed at three places, the end cut off, and nothing left.
fn damages(bytes: &[u8]) -> Vec<Vec<u8>> {
    let places = [bytes.len() / 9, bytes.len() / 2, bytes.len().saturating_sub(20)];
    let flipped = places.iter().filter(|place| **place < bytes.len()).map(|place| {
        let mut bad = bytes.to_vec();
        bad[*place] ^= 4;
        bad
    });
    flipped.chain([bytes[..bytes.len() * 2 / 3].to_vec(), Vec::new()]).collect()
}

fn copy(from: &Path, to: &Path) {
    for file in files(from) {
        let target = to.join(file.strip_prefix(from).expect("below"));
        std::fs::create_dir_all(target.parent().expect("a folder")).expect("a folder");
        std::fs::copy(file, target).expect("copied");
    }
}
