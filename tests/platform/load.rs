//! Many runs at once, and the same request many times.

use std::collections::BTreeSet;
use std::sync::Arc;

use serde_json::json;
use tokio::task::JoinSet;

use crate::harness::Server;

/// Concurrent executes; far above what the executor keeps in memory.
const RUNS: usize = 1000;
/// Memory that all of it may take.
const MEMORY_MIB: u64 = 400;

#[tokio::test(flavor = "multi_thread")]
async fn a_thousand_concurrent_executes_all_complete_in_bounded_memory() {
    let folder = tempfile::tempdir().expect("a folder");
    let server = Arc::new(Server::start(folder.path()));
    let graph = server.register("small.yaml").await;
    let mut executes = JoinSet::new();
    for number in 0..RUNS {
        let (server, graph) = (Arc::clone(&server), graph.clone());
        executes.spawn(async move {
            let inputs = json!({"text": format!("run {number}")});
            let (status, accepted) = server.execute(&graph, &inputs, None).await;
            assert_eq!(status, 202, "{accepted}");
            accepted["run_id"].as_str().expect("a run").to_owned()
        });
    }
    let runs: BTreeSet<String> = executes.join_all().await.into_iter().collect();
    assert_eq!(runs.len(), RUNS);
    for run in &runs {
        let view = server.ended(run).await;
        assert_eq!(view["status"], "completed", "{view}");
    }
    let memory = server.memory_mib();
    assert!(memory < MEMORY_MIB, "{memory} MiB for {RUNS} runs");
}

#[tokio::test(flavor = "multi_thread")]
async fn the_same_key_is_one_run_also_after_a_crash() {
    let folder = tempfile::tempdir().expect("a folder");
    let server = Arc::new(Server::start(folder.path()));
    let graph = server.register("small.yaml").await;
    let inputs = json!({"text": "once"});
    let mut executes = JoinSet::new();
    for _ in 0..50 {
        let (server, graph, inputs) = (Arc::clone(&server), graph.clone(), inputs.clone());
        executes.spawn(async move { server.execute(&graph, &inputs, Some("order-7")).await });
    }
    let answers = executes.join_all().await;
    let (status, first) = answers[0].clone();
    assert_eq!(status, 202);
    assert!(answers.iter().all(|(_, answer)| *answer == first), "{answers:?}");
    let other = server.execute(&graph, &json!({"text": "other"}), Some("order-7")).await;
    assert_eq!((other.0, &other.1["code"]), (422, &json!("idempotency.mismatch")));

    Arc::into_inner(server).expect("alone").kill();
    let server = Server::start(folder.path());
    assert_eq!(server.execute(&graph, &inputs, Some("order-7")).await, (202, first.clone()));
    // The answer is the kept one; the run itself is shown once the read models have come so far.
    let run = first["run_id"].as_str().expect("a run").to_owned();
    assert_eq!(server.get(&format!("/v1/runs/{run}")).await["id"], first["run_id"]);
    let runs = server.get("/v1/runs").await;
    assert_eq!(runs["items"].as_array().map(Vec::len), Some(1));
}
