//! A run whose places are all taken leaves the server awake.

use std::time::{Duration, Instant};

use serde_json::json;

use crate::harness::Server;
use crate::upstream::Upstream;

/// Longest time that an answer of an idle server may take, on a machine that others use too.
const ANSWER_LIMIT: Duration = Duration::from_secs(2);
/// How long the server is watched after the retry has fallen due.
const WATCH: Duration = Duration::from_millis(1500);

/// One call of many fails, and its retry falls due while calls that never end have all places.
const CROWDED: &str = r#"
name: crowded
nodes:
  - id: m
    retry: {max: 3, backoff: 100ms}
    timeout: 10m
    map:
      over: "{{ inputs.words }}"
      max_parallel: 12
      agent: {model: local, prompt: "{{ item }}", max_tokens: 20}
"#;

#[tokio::test(flavor = "multi_thread")]
async fn a_retry_that_falls_due_while_all_places_are_taken_leaves_the_server_awake() {
    let upstream = Upstream::start().await;
    let server = Server::start(&upstream.url);
    let graph = server.register(CROWDED).await;
    let id = graph["id"].as_str().unwrap_or_else(|| panic!("{graph}"));
    let words: Vec<&str> = std::iter::once("busy").chain(std::iter::repeat_n("hang", 11)).collect();
    let body = json!({"inputs": {"words": words}});
    let begun = server.post(&format!("/v1/graphs/{id}/execute"), &body).await;
    let run: serde_json::Value = begun.json().await.expect("JSON");
    let run = run["run_id"].as_str().expect("a run").to_owned();
    server.events_with(&run, "run.step.retried.v1").await;
    let watched = Instant::now();
    while watched.elapsed() < WATCH {
        let answered = tokio::time::timeout(ANSWER_LIMIT, server.get("/healthz")).await;
        answered.expect("the server answers while the run waits for a place");
    }
    let cancelled = server.post(&format!("/v1/runs/{run}/cancel"), &json!({})).await;
    assert_eq!(cancelled.status().as_u16(), 200);
    server.events_with(&run, "run.cancelled.v1").await;
    server.stop();
}
