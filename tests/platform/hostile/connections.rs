//! Sockets that say nothing, and readers that do not read.

use std::time::Duration;

use axum::routing::{get, post};
use axum::{Json, Router};
use rustix::process::{Resource, Rlimit, getrlimit, setrlimit};
use serde_json::{Value, json};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;

use crate::harness::Server;

/// Open files that the server is allowed.
const OPEN_FILES: usize = 1_024;
/// Sockets that strangers open: more than that.
const HALF_OPEN: usize = 1_100;

const GRAPH: &str = r#"
name: under-way
nodes:
  - id: m
    map:
      over: "{{ inputs.words }}"
      max_parallel: 4
      agent: {model: local, prompt: "{{ item }}", max_tokens: 20}
"#;

/// A model server that answers every call; gives its URL.
async fn start_model() -> String {
    let answer = async || {
        tokio::time::sleep(Duration::from_millis(20)).await;
        let message = json!({"role": "assistant", "content": "fine"});
        let choice = json!({"index": 0, "message": message, "finish_reason": "stop"});
        let usage = json!({"prompt_tokens": 3, "completion_tokens": 1, "total_tokens": 4});
        Json(json!({"id": "1", "model": "fix", "choices": [choice], "usage": usage}))
    };
    let models = async || Json(json!({"data": [{"id": "fix", "max_model_len": 8192}]}));
    let app =
        Router::new().route("/v1/chat/completions", post(answer)).route("/v1/models", get(models));
    let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.expect("a free port");
    let address = listener.local_addr().expect("bound");
    tokio::spawn(async move { axum::serve(listener, app).await });
    format!("http://{address}/v1")
}

/// This process holds the other ends.
fn raise_own_limit() {
    let Rlimit { maximum, .. } = getrlimit(Resource::Nofile);
    setrlimit(Resource::Nofile, Rlimit { current: maximum, maximum }).expect("allowed");
}

async fn open_half_a_request(address: &str) -> TcpStream {
    let mut stream = TcpStream::connect(address).await.expect("it listens");
    stream.write_all(b"GET /v1/runs HTTP/1.1\r\nhost: localhost\r\nx-").await.expect("written");
    stream
}

#[tokio::test(flavor = "multi_thread")]
async fn half_open_sockets_keep_nobody_out_who_signs_in_and_break_no_run() {
    raise_own_limit();
    let model = start_model().await;
    let data = tempfile::tempdir().expect("a folder");
    let server = Server::start_with_open_files(data.path(), OPEN_FILES, &model);
    let graph = server.register_text(GRAPH).await;
    let words: Vec<String> = (0..60).map(|n| format!("word {n}")).collect();
    let (status, begun) = server.execute(&graph, &json!({ "words": words }), None).await;
    assert_eq!(status, 202, "{begun}");
    let address = server.url.trim_start_matches("http://").to_owned();
    let mut sockets = Vec::new();
    for _ in 0..HALF_OPEN {
        sockets.push(open_half_a_request(&address).await);
    }
    for _ in 0..20 {
        let http = reqwest::Client::new();
        let health = http.get(format!("{}/healthz", server.url)).send().await.expect("an answer");
        assert_eq!(health.status().as_u16(), 200);
        assert!(server.get("/v1/runs").await["items"].is_array());
        sockets.push(open_half_a_request(&address).await);
    }
    let run = begun["run_id"].as_str().expect("a run");
    let view: Value = server.ended(run).await;
    assert_eq!(view["status"], "completed", "{view}");
    let ended = sockets.first_mut().expect("many").read(&mut [0; 64]).await;
    assert!(matches!(ended, Ok(0) | Err(_)), "the first stranger made room");
}

#[tokio::test]
async fn a_server_that_may_open_too_few_files_says_so() {
    let data = tempfile::tempdir().expect("a folder");
    let output = Server::try_start_with_open_files(data.path(), 200);
    assert!(!output.status.success());
    let error = String::from_utf8_lossy(&output.stderr).into_owned();
    assert!(error.contains("ulimit -n") && error.contains("320"), "{error}");
}
