//! Embeddings, transcriptions and speech through the real binary: each a run, with its usage.

use reqwest::Response;
use serde_json::{Value, json};

use crate::harness::Server;
use crate::upstream::Upstream;
use crate::upstream_services::SOUND;

const EMBEDDINGS: &str = "/openai/v1/embeddings";
const SPEECH: &str = "/openai/v1/audio/speech";

fn run_of(response: &Response) -> String {
    response.headers()["x-convergio-run"].to_str().expect("text").to_owned()
}

/// The usage of a run's one call.
async fn usage_of(server: &Server, run: &str) -> Value {
    let events = server.events_with(run, "run.completed.v1").await;
    let kinds: Vec<_> = events.iter().filter_map(|event| event["type"].as_str()).collect();
    assert!(kinds.contains(&"run.model_call.intended.v1"), "{kinds:?}");
    let used = events.iter().find(|event| event["type"] == "run.usage.recorded.v1");
    used.expect("it was metered")["data"].clone()
}

/// Waits until the ledger has a line of a run: the read models follow the log.
async fn entered(server: &Server, run: &str) {
    for _ in 0..1_000 {
        let ledger = server.get(&format!("/v1/ledger?run={run}")).await;
        if ledger["entries"].as_array().is_some_and(|lines| !lines.is_empty()) {
            return;
        }
        tokio::time::sleep(std::time::Duration::from_millis(10)).await;
    }
    panic!("the ledger has no line of {run}");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_service_is_a_run_with_usage_and_ledger() {
    let upstream = Upstream::start().await;
    let server = Server::start(&upstream.url);
    let body = json!({"model": "local/fix-embed", "input": ["abc", "é"]});
    let response = server.post(EMBEDDINGS, &body).await;
    let run = run_of(&response);
    let answer: Value = response.json().await.expect("JSON");
    assert_eq!(answer["data"][1]["embedding"], json!([2.0, f64::from(0.1_f32)]), "{answer}");
    assert_eq!(answer["model"], "fix-embed-1");
    assert_eq!(usage_of(&server, &run).await["usage"], json!({"in_fresh": 3}));
    entered(&server, &run).await;
    let replayed = server.post(&format!("/v1/runs/{run}/replay"), &json!({})).await;
    assert_eq!(replayed.status().as_u16(), 200);
    let replayed: Value = replayed.json().await.expect("JSON");
    assert_eq!(replayed["divergence"], Value::Null, "{replayed}");

    let body = json!({"model": "fix-tts", "input": "Grüße", "voice": "alloy"});
    let response = server.post(SPEECH, &body).await;
    let run = run_of(&response);
    assert_eq!(response.bytes().await.expect("bytes").as_ref(), SOUND);
    assert_eq!(usage_of(&server, &run).await["usage"], json!({"characters": 5}));
    assert_eq!(upstream.calls().len(), 2);
}

#[tokio::test(flavor = "multi_thread")]
async fn what_cannot_be_asked_is_told_in_the_form_of_the_door() {
    let upstream = Upstream::start().await;
    let server = Server::start(&upstream.url);
    for (model, status, code) in
        [("auto", 400, "request.invalid"), ("nowhere/fix-embed", 404, "model_not_found")]
    {
        let response = server.post(EMBEDDINGS, &json!({"model": model, "input": "a"})).await;
        let _run = run_of(&response);
        let told = response.status().as_u16();
        let answer: Value = response.json().await.expect("JSON");
        assert_eq!((told, &answer["error"]["code"]), (status, &json!(code)), "{answer}");
    }
    let private = ("x-convergio-privacy", "local");
    let body = json!({"model": "openai/fix-embed", "input": "a"});
    let response = server.post_as(EMBEDDINGS, &body, private).await;
    assert_eq!(response.status().as_u16(), 403);
    assert!(upstream.calls().is_empty());
}
