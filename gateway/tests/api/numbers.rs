//! Whole numbers beyond 64 bits are refused at every door, with their place, and those that fit are
//! kept.

use convergio_domain::run::Run;
use convergio_domain::stream::StreamKey;
use reqwest::Method;
use serde_json::{Value, json};

use crate::harness::{Api, TOKEN, parts};

const LARGE: &str = "12345678901234567890123";

const OPEN: &str = r#"
name: open
inputs: {type: object}
output: "{{ inputs.n }}"
nodes: [{id: paid, signal: payment}]
"#;

/// Sends a text as it is.
async fn send(api: &Api, path: &str, body: String) -> (u16, Value) {
    let request = api.request(Method::POST, path, Some(TOKEN)).body(body);
    let request = request.header("content-type", "application/json");
    parts(request.send().await.expect("an answer")).await
}

#[tokio::test]
async fn a_number_that_would_be_rounded_is_refused_with_its_place_at_every_door() {
    let api = Api::start().await;
    let graph = api.register(OPEN).await;
    let run = api.run_of(OPEN).await;
    let schema = format!(r#"{{"name": "tutor", "system": "s", "schema": {{"maximum": {LARGE}}}}}"#);
    let doors = [
        (format!("/v1/graphs/{graph}/execute"), format!(r#"{{"inputs": {{"n": [1, {LARGE}]}}}}"#)),
        (
            format!("/v1/runs/{run}/signal"),
            format!(r#"{{"name": "payment", "payload": {{"n": [1, {LARGE}]}}}}"#),
        ),
        (
            format!("/v1/runs/{run}/resolve"),
            format!(r#"{{"step": "paid", "as": "completed", "output": {{"n": [1, {LARGE}]}}}}"#),
        ),
        (format!("/v1/runs/{run}/fork"), format!(r#"{{"inputs": {{"n": [1, {LARGE}]}}}}"#)),
        ("/v1/agents".to_owned(), schema),
    ];
    let places = ["inputs.n[1]", "payload.n[1]", "output.n[1]", "inputs.n[1]", "schema.maximum"];
    for ((path, body), place) in doors.into_iter().zip(places) {
        let (status, problem) = send(&api, &path, body).await;
        assert_eq!((status, &problem["code"]), (400, &json!("request.invalid")), "{path}");
        let detail = problem["detail"].as_str().expect("a text");
        let expected = format!("{place}: a whole number of 23 digits is beyond 64 bits");
        assert!(detail.starts_with(&expected), "{path}: {detail}");
    }
}

#[tokio::test]
async fn a_manifest_is_held_to_the_same() {
    let api = Api::start().await;
    for manifest in [
        format!("name: a\noutput: {LARGE}\nnodes: [{{id: x, sleep: 1s}}]"),
        format!(r#"{{"name": "a", "output": [{LARGE}], "nodes": [{{"id": "x", "sleep": "1s"}}]}}"#),
    ] {
        let (status, problem) = send(&api, "/v1/graphs", manifest).await;
        assert_eq!((status, &problem["code"]), (400, &json!("graph.invalid")));
        let message = problem["mistakes"][0]["message"].as_str().expect("a text");
        assert!(message.contains("beyond 64 bits"), "{message}");
    }
}

#[tokio::test]
async fn the_front_doors_are_held_to_the_same() {
    let api = Api::start().await;
    let tool = format!(r#"{{"name": "t", "parameters": {{"maximum": {LARGE}}}}}"#);
    let body = format!(
        r#"{{"model": "auto", "messages": [{{"role": "user", "content": "hi"}}],
        "tools": [{{"type": "function", "function": {tool}}}]}}"#
    );
    let (status, refused) = send(&api, "/openai/v1/chat/completions", body).await;
    assert_eq!(status, 400, "{refused}");
    let message = refused["error"]["message"].as_str().expect("a text");
    assert!(message.contains("tools[0].function.parameters.maximum"), "{message}");
}

#[tokio::test]
async fn what_64_bits_hold_is_kept() {
    let api = Api::start().await;
    let run = api.run_of(OPEN).await;
    let numbers = ["9007199254740993", "18446744073709551615", "-9223372036854775808", "0.1"];
    for number in numbers {
        let body = format!(r#"{{"name": "payment", "payload": {number}}}"#);
        let (status, view) = send(&api, &format!("/v1/runs/{run}/signal"), body).await;
        assert_eq!(status, 200, "{number}: {view}");
    }
    let stream = StreamKey::for_run("one".parse().expect("a name"), run.parse().expect("an id"));
    let state = api.repository.load::<Run>(&stream).await.expect("the log works").state;
    let signals = state.signals.values().flatten();
    for (reference, number) in signals.zip(numbers) {
        let bytes = api.repository.read_payload(&stream, *reference).await.expect("the log works");
        assert_eq!(bytes.expect("not erased"), number.as_bytes());
    }
}
