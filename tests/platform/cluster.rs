//! Roles in processes of their own, on three real nats-servers, while some of each are killed.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::{Duration, Instant};

use serde_json::json;

use crate::harness::{Server, convergio, text};
use crate::nats::{Cluster, Sync};

/// Runs that are under way while things die; `CONVERGIO_CLUSTER_RUNS` sets another number.
const RUNS: usize = 200;
/// Longest wait for all runs.
const WAIT: Duration = Duration::from_secs(120);

fn runs() -> usize {
    let set = std::env::var("CONVERGIO_CLUSTER_RUNS").ok();
    set.map_or(RUNS, |runs| runs.parse().expect("CONVERGIO_CLUSTER_RUNS is a number"))
}

/// A folder for a process, with the log's key.
fn folder(root: &Path, name: &str) -> PathBuf {
    let folder = root.join(name);
    std::fs::create_dir_all(&folder).expect("a folder");
    let key = root.join("first/payload.key");
    if !folder.join("payload.key").exists() {
        std::fs::copy(key, folder.join("payload.key")).expect("copied");
    }
    folder
}

fn start(root: &Path, url: &str, role: &str, name: &str) -> Server {
    Server::start_as(&folder(root, name), &["--log", url, "--role", role])
}

/// Makes the log; the servers may still be finding each other.
fn create(root: &Path, url: &str) {
    let until = Instant::now() + WAIT;
    loop {
        let create = ["log", "create", "--log-gib", "1", "--payload-gib", "1", "--log", url];
        let made = convergio(&root.join("first"), &create);
        if made.status.success() || text(&made.stderr).contains("exists already") {
            return;
        }
        assert!(Instant::now() < until, "{}", text(&made.stderr));
        std::thread::sleep(Duration::from_millis(200));
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn every_run_completes_once_while_processes_and_servers_are_killed() {
    let root = tempfile::tempdir().expect("a folder");
    let mut cluster = Cluster::start(3, Sync::Always);
    let url = cluster.url("T");
    create(root.path(), &url);
    let gateway = Arc::new(start(root.path(), &url, "gateway", "g1"));
    let other = start(root.path(), &url, "gateway", "g2");
    let mut executors: Vec<Server> =
        ["e1", "e2", "e3"].map(|name| start(root.path(), &url, "executor", name)).into();
    let graph = gateway.register("small.yaml").await;
    let submitter = {
        let (gateway, graph) = (Arc::clone(&gateway), graph.clone());
        tokio::spawn(async move { submit(&gateway, &graph, runs()).await })
    };
    completed(&gateway, runs() / 8).await;
    executors.remove(0).kill();
    completed(&gateway, runs() / 4).await;
    cluster.servers[0].kill();
    completed(&gateway, runs() / 3).await;
    executors.push(start(root.path(), &url, "executor", "e1"));
    other.kill();
    let other = start(root.path(), &url, "gateway", "g2");
    completed(&gateway, runs() / 2).await;
    cluster.servers[0].start();
    let started = submitter.await.expect("every request is answered");
    completed(&gateway, runs()).await;
    assert_eq!(started.len(), runs());
    for (number, run) in started.iter().enumerate().filter(|(n, _)| n % 10 == 0) {
        let view = gateway.ended(run).await;
        assert_eq!(view["output"], json!(format!("run {number} has 2 words")), "{view}");
        once(&gateway, run).await;
    }
    completed(&other, runs()).await;
    drop((executors, other, gateway));

    let verified = convergio(&folder(root.path(), "g1"), &["log", "verify", "--log", &url]);
    assert!(verified.status.success(), "{}{}", text(&verified.stdout), text(&verified.stderr));
    for name in ["g1", "g2"] {
        let checked =
            convergio(&folder(root.path(), name), &["projections", "check", "--log", &url]);
        assert!(checked.status.success(), "{}{}", text(&checked.stdout), text(&checked.stderr));
    }
}

/// Asks for runs; gives their ids.
async fn submit(gateway: &Server, graph: &str, count: usize) -> Vec<String> {
    let mut started = Vec::new();
    for number in 0..count {
        let inputs = json!({"text": format!("run {number}")});
        let key = format!("run-{number}");
        let run = loop {
            // The same key is the same run, whatever happened to the answer.
            let (status, accepted) = gateway.execute(graph, &inputs, Some(&key)).await;
            if status == 202 {
                break accepted["run_id"].as_str().expect("a run").to_owned();
            }
            assert!(status == 503 || status == 429, "{status} {accepted}");
        };
        started.push(run);
    }
    started
}

/// Waits until so many runs have completed.
async fn completed(gateway: &Server, count: usize) {
    let until = Instant::now() + WAIT;
    let mut seen = 0;
    while seen < count {
        assert!(Instant::now() < until, "{seen} of {count} runs are completed");
        tokio::time::sleep(Duration::from_millis(100)).await;
        seen = 0;
        let mut cursor = String::new();
        loop {
            let page = gateway.get(&format!("/v1/runs?status=completed&limit=1000{cursor}")).await;
            seen += page["items"].as_array().expect("a page").len();
            let Some(next) = page["next_cursor"].as_str() else { break };
            cursor = format!("&cursor={next}");
        }
    }
}

/// Each step of a run was recorded once.
async fn once(gateway: &Server, run: &str) {
    let mut ends: BTreeMap<String, u32> = BTreeMap::new();
    for event in gateway.events(run).await {
        let kind = event["type"].as_str().expect("a type").to_owned();
        if kind == "run.step.completed.v1" || kind == "run.completed.v1" {
            let step = event["data"]["step"].as_str().unwrap_or("run").to_owned();
            *ends.entry(step).or_default() += 1;
        }
    }
    assert_eq!(ends.len(), 4, "three steps and the run: {ends:?}");
    assert!(ends.values().all(|count| *count == 1), "{ends:?}");
}

#[test]
fn what_is_wrong_with_a_cluster_is_one_line() {
    let root = tempfile::tempdir().expect("a folder");
    let cases: [(&[&str], &str); 4] = [
        (&["serve", "--role", "executor"], "roles apart need a log in a cluster"),
        (&["log", "verify", "--log", "nats://u:secret@"], "a host is missing"),
        (&["log", "create"], "name a cluster"),
        (&["log", "create", "--log", "nats://u:secret@127.0.0.1:1/X"], "no server of"),
    ];
    for (arguments, expected) in cases {
        let refused = convergio(root.path(), arguments);
        let line = text(&refused.stderr);
        assert!(!refused.status.success());
        assert!(line.contains(expected) && line.lines().count() == 1, "{arguments:?}: {line}");
        assert!(!line.contains("secret"), "{line}");
    }
}
