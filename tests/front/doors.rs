//! What the doors answer, and what stands in the log after it.

use convergio_test_support::kept_output::{self, CANARY};
use futures_util::StreamExt;
use serde_json::{Value, json};

use crate::harness::{Server, files, until};
use crate::upstream::Upstream;

const CHAT: &str = "/openai/v1/chat/completions";
const MESSAGES: &str = "/anthropic/v1/messages";
const RESPONSES: &str = "/openai/v1/responses";

fn chat(model: &str, text: &str, stream: bool) -> Value {
    json!({"model": model, "stream": stream, "max_tokens": 50,
        "messages": [{"role": "user", "content": text}]})
}

/// The data lines of a stream that has ended.
fn data(text: &str) -> Vec<&str> {
    text.lines().filter_map(|line| line.strip_prefix("data: ")).collect()
}

fn run_of(response: &reqwest::Response) -> String {
    let header = response.headers()["x-convergio-run"].to_str();
    header.expect("text").to_owned()
}

#[tokio::test(flavor = "multi_thread")]
async fn a_call_is_a_run_with_usage_and_ledger() {
    let upstream = Upstream::start().await;
    let server = Server::start(&upstream.url);
    let response = server.post(CHAT, &chat("local/fix", "hi", false)).await;
    let run = run_of(&response);
    let answer: Value = response.json().await.expect("JSON");
    assert_eq!(answer["choices"][0]["message"]["content"], "you said: hi");
    assert_eq!((&answer["model"], &answer["usage"]["total_tokens"]), (&json!("fix-1"), &json!(30)));
    let details = &answer["usage"]["prompt_tokens_details"];
    assert_eq!(details["cached_tokens"], 8);
    let events = server.events_with(&run, "run.completed.v1").await;
    let kinds: Vec<_> = events.iter().filter_map(|event| event["type"].as_str()).collect();
    for kind in ["run.created.v1", "run.model_call.intended.v1", "run.usage.recorded.v1"] {
        assert!(kinds.contains(&kind), "{kinds:?}");
    }
    let view = server.get(&format!("/v1/runs/{run}")).await;
    assert_eq!(
        (&view["status"], &view["output"]["text"]),
        (&json!("completed"), &json!("you said: hi"))
    );
    let ledger = server.get(&format!("/v1/ledger?run={run}")).await;
    assert!(!ledger["entries"].as_array().expect("lines").is_empty(), "{ledger}");
}

#[tokio::test(flavor = "multi_thread")]
async fn streams_have_the_form_of_their_interface() {
    let upstream = Upstream::start().await;
    let server = Server::start(&upstream.url);
    let mut asked = chat("local/fix", "hi", true);
    asked["stream_options"] = json!({"include_usage": true});
    let text = server.post(CHAT, &asked).await.text().await.expect("text");
    let all = data(&text);
    let pieces: Vec<Value> =
        all.iter().filter_map(|data| serde_json::from_str(data).ok()).collect();
    let said: String = pieces
        .iter()
        .filter_map(|piece| piece["choices"][0]["delta"]["content"].as_str())
        .collect();
    assert_eq!((said.as_str(), all.last()), ("you said: hi", Some(&"[DONE]")));
    // Who speaks, the text as it came, why it ended, what it used.
    assert!(pieces.len() >= 4, "it came piece by piece: {text}");
    assert_eq!(pieces.last().expect("pieces")["usage"]["completion_tokens"], 10);

    let asked = json!({"model": "fix", "max_tokens": 50, "stream": true,
        "messages": [{"role": "user", "content": [{"type": "text", "text": "hi"}]}]});
    let text = server.post(MESSAGES, &asked).await.text().await.expect("text");
    let kinds: Vec<&str> = text.lines().filter_map(|line| line.strip_prefix("event: ")).collect();
    assert_eq!((kinds[0], kinds[1]), ("message_start", "content_block_start"));
    assert_eq!(kinds[kinds.len() - 3..], ["content_block_stop", "message_delta", "message_stop"]);

    let asked = json!({"model": "local", "input": "hi", "stream": true});
    let text = server.post(RESPONSES, &asked).await.text().await.expect("text");
    let last: Value = serde_json::from_str(data(&text).last().expect("data")).expect("JSON");
    assert_eq!(last["type"], "response.completed");
    assert_eq!(last["response"]["output"][0]["content"][0]["text"], "you said: hi");
    assert_eq!(last["response"]["usage"]["output_tokens_details"]["reasoning_tokens"], 4);
}

#[tokio::test(flavor = "multi_thread")]
async fn tools_travel_both_ways() {
    let upstream = Upstream::start().await;
    let server = Server::start(&upstream.url);
    let tool = json!({"name": "weather", "input_schema": {"type": "object"}});
    let asked = json!({"model": "local", "max_tokens": 50, "tools": [tool],
        "messages": [{"role": "user", "content": "weather"}]});
    let answer: Value = server.post(MESSAGES, &asked).await.json().await.expect("JSON");
    let call = json!({"type": "tool_use", "id": "call_7", "name": "weather",
        "input": {"city": "Oslo"}});
    assert_eq!((&answer["content"][0], &answer["stop_reason"]), (&call, &json!("tool_use")));
    let asked = json!({"model": "local", "max_tokens": 50, "tools": [tool], "messages": [
        {"role": "user", "content": "weather"}, {"role": "assistant", "content": [call]},
        {"role": "user", "content": [{"type": "tool_result", "tool_use_id": "call_7",
            "content": "snow"}]}]});
    let answer: Value = server.post(MESSAGES, &asked).await.json().await.expect("JSON");
    assert_eq!(answer["content"][0]["text"], "you said: snow");
    let sent = upstream.calls().pop().expect("a call");
    assert_eq!(sent["messages"][2]["role"], "tool");
    assert_eq!(sent["tools"][0]["function"]["name"], "weather");
}

#[tokio::test(flavor = "multi_thread")]
async fn refusals_are_told_by_status_before_anything_is_answered() {
    let upstream = Upstream::start().await;
    let cases = [
        ("money", 429, "provider.quota_exceeded", "insufficient_quota", 1),
        ("long", 400, "provider.context_exceeded", "context_length_exceeded", 1),
        ("filtered", 400, "provider.content_filtered", "content_filter", 1),
        ("busy", 503, "provider.unavailable", "provider.unavailable", 3),
        ("malformed", 503, "provider.unavailable", "provider.unavailable", 3),
    ];
    for (text, status, code, known, calls) in cases {
        // Each on a server of its own: what refuses is left alone for a while.
        let server = Server::start(&upstream.url);
        let before = upstream.calls().len();
        // A stream whose provider is asked again may have begun after a second.
        let streams = calls == 1;
        let response = server.post(CHAT, &chat("local/fix", text, streams)).await;
        assert_eq!(response.status().as_u16(), status, "{text}");
        assert_eq!(response.headers()["x-should-retry"], "false", "{text}");
        let error: Value = response.json().await.expect("JSON");
        assert_eq!(error["error"]["code"], known, "{code}: {error}");
        assert_eq!(upstream.calls().len() - before, calls, "{text}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_pause_that_a_provider_asks_for_is_passed_on() {
    let upstream = Upstream::start().await;
    let server = Server::start(&upstream.url);
    let mut asked = chat("local/fix", "limited", false);
    asked["max_tokens"] = json!(10);
    // The first try is refused; the second one would wait for longer than anybody said it may.
    let response = server.post(CHAT, &asked).await;
    assert_eq!(response.status().as_u16(), 429);
    let pause: u64 =
        response.headers()["retry-after"].to_str().expect("text").parse().expect("seconds");
    assert!((1..=7).contains(&pause), "{pause}");
    assert_eq!(response.headers()["x-should-retry"], "true");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_stream_that_breaks_ends_in_an_error_and_never_cleanly() {
    let upstream = Upstream::start().await;
    let server = Server::start(&upstream.url);
    let response = server.post(CHAT, &chat("local/fix", "cut", true)).await;
    let run = run_of(&response);
    let text = response.text().await.expect("text");
    let last: Value = serde_json::from_str(data(&text).last().expect("data")).expect("JSON");
    assert_eq!(last["error"]["code"], "provider.unavailable", "{text}");
    assert!(!text.contains("[DONE]") && text.contains("half an "), "{text}");
    let events = server.events_with(&run, "run.failed.v1").await;
    let usage = events.iter().find(|event| event["type"] == "run.usage.recorded.v1");
    assert_eq!(usage.expect("what came was made")["data"]["confirmed"], false);
    assert_eq!(upstream.calls().len(), 1, "what was heard is not begun anew");

    let asked = json!({"model": "local", "max_tokens": 9, "stream": true,
        "messages": [{"role": "user", "content": "cut"}]});
    let text = server.post(MESSAGES, &asked).await.text().await.expect("text");
    assert!(text.contains("event: error") && !text.contains("message_stop"), "{text}");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_caller_who_goes_stops_the_model_and_what_it_used_is_recorded() {
    let upstream = Upstream::start().await;
    let server = Server::start(&upstream.url);
    let response = server.post(CHAT, &chat("local/fix", "hang", true)).await;
    let run = run_of(&response);
    let mut body = response.bytes_stream();
    body.next().await.expect("a piece").expect("bytes");
    assert_eq!(upstream.open(), 1);
    drop(body);
    until("the model is stopped", || upstream.open() == 0).await;
    let events = server.events_with(&run, "run.usage.recorded.v1").await;
    assert!(events.iter().any(|event| event["type"] == "run.cancelled.v1"));
    let usage = events.iter().find(|event| event["type"] == "run.usage.recorded.v1");
    let usage = &usage.expect("recorded")["data"];
    assert_eq!(usage["confirmed"], false);
    assert!(usage["usage"]["out_text"].as_u64().is_some_and(|tokens| tokens >= 2), "{usage}");
}

#[tokio::test(flavor = "multi_thread")]
async fn the_same_key_gives_the_same_answer_and_one_call() {
    let upstream = Upstream::start().await;
    let server = Server::start(&upstream.url);
    let asked = chat("local/fix", "once", false);
    let mut answers = Vec::new();
    for _ in 0..2 {
        let response = server.post_as(CHAT, &asked, ("idempotency-key", "k-1")).await;
        let answer: Value = response.json().await.expect("JSON");
        answers.push((answer["id"].clone(), answer["choices"].clone()));
    }
    assert_eq!(answers[0], answers[1]);
    assert_eq!(upstream.calls().len(), 1);
    let other = chat("local/fix", "other", false);
    let response = server.post_as(CHAT, &other, ("idempotency-key", "k-1")).await;
    assert_eq!(response.status().as_u16(), 422);
}

#[tokio::test(flavor = "multi_thread")]
async fn bad_requests_are_refused_with_the_field_that_is_wrong() {
    let upstream = Upstream::start().await;
    let server = Server::start(&upstream.url);
    let user = json!([{"role": "user", "content": "x"}]);
    let cases = [
        (CHAT, json!({"messages": user}), "model"),
        (CHAT, json!({"model": "m", "messages": []}), "messages"),
        (CHAT, json!({"model": "m", "messages": user, "n": 2}), "n"),
        (CHAT, json!({"model": "m", "messages": user, "temperature": 9}), "temperature"),
        (CHAT, json!({"model": "m", "messages": [{"role": "king"}]}), "messages[0].role"),
        (CHAT, json!({"model": "m", "messages": user, "stop": 7}), "stop"),
        (RESPONSES, json!({"model": "m", "input": "x", "conversation": "c"}), "conversation"),
        (MESSAGES, json!({"model": "m", "messages": user}), "max_tokens"),
    ];
    for (path, body, field) in cases {
        let response = server.post(path, &body).await;
        assert_eq!(response.status().as_u16(), 400, "{field}");
        let error: Value = response.json().await.expect("JSON");
        let message = error["error"]["message"].as_str().expect("a message");
        assert!(message.contains(field), "{field}: {message}");
    }
    assert!(upstream.calls().is_empty());
}

#[tokio::test(flavor = "multi_thread")]
async fn every_door_asks_for_a_token() {
    let upstream = Upstream::start().await;
    let server = Server::start(&upstream.url);
    let http = convergio_executor::provider::http_client().expect("a client");
    for path in [CHAT, RESPONSES, MESSAGES] {
        let body = chat("local/fix", "hi", false);
        let ask = || http.post(format!("{}{path}", server.url)).json(&body);
        let none = ask().send().await.expect("an answer").status().as_u16();
        let wrong = ask().header("x-api-key", "cvg_no").send().await.expect("an answer");
        assert_eq!((none, wrong.status().as_u16()), (401, 401), "{path}");
    }
    let listed = http.get(format!("{}/openai/v1/models", server.url)).send().await;
    assert_eq!(listed.expect("an answer").status().as_u16(), 401);
    assert!(upstream.calls().is_empty());
    let asked = json!({"model": "local", "max_tokens": 9,
        "messages": [{"role": "user", "content": "hi"}]});
    let request = http.post(format!("{}{MESSAGES}", server.url)).json(&asked);
    let answer = request.header("x-api-key", &server.token).send().await.expect("an answer");
    assert_eq!(answer.status().as_u16(), 200);
}

#[tokio::test(flavor = "multi_thread")]
async fn privacy_keeps_a_call_from_the_cloud() {
    let upstream = Upstream::start().await;
    let server = Server::start(&upstream.url);
    let asked = chat("openai/fix", "secret", false);
    let denied = server.post_as(CHAT, &asked, ("x-convergio-privacy", "local")).await;
    assert_eq!(denied.status().as_u16(), 403);
    let error: Value = denied.json().await.expect("JSON");
    assert_eq!(error["error"]["code"], "privacy.cloud_denied");
    let held = Server::with(&upstream.url, &[("CONVERGIO_PRIVACY", "local")]);
    assert_eq!(held.post(CHAT, &asked).await.status().as_u16(), 403);
    assert!(upstream.keys().is_empty(), "nobody was shown the key");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_private_tenant_is_kept_from_the_cloud_whatever_it_asks_for() {
    let upstream = Upstream::start().await;
    let data = kept_output::create_folder();
    std::fs::write(data.path().join("privacy.json"), r#"{"default": "local"}"#).expect("written");
    let server = Server::on(data, &upstream.url, &[]);
    let denied = server.post(CHAT, &chat("openai/fix", "secret", false)).await;
    assert_eq!(denied.status().as_u16(), 403);
    assert_eq!(server.post(CHAT, &chat("auto", "hi", false)).await.status().as_u16(), 200);
    let listed = server.get("/openai/v1/models").await;
    let owners: Vec<_> = listed["data"].as_array().expect("a list").iter().collect();
    assert!(owners.iter().all(|model| model["owned_by"] == "local"), "{listed}");
    assert!(upstream.keys().is_empty(), "nobody was shown the key");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_piece_is_passed_on_before_its_event_has_ended() {
    let upstream = Upstream::start().await;
    let server = Server::start(&upstream.url);
    let response = server.post(CHAT, &chat("local/fix", "half an event", true)).await;
    let (mut body, mut text) = (response.bytes_stream(), String::new());
    while !text.contains("a piece") {
        let bytes = body.next().await.expect("it comes").expect("bytes");
        text.push_str(&String::from_utf8_lossy(&bytes));
    }
    assert_eq!(upstream.open(), 1, "the event that it came in has not ended");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_key_stands_in_nothing_that_is_written() {
    let upstream = Upstream::start().await;
    let server = Server::start(&upstream.url);
    let token = server.token.clone();
    let mut asked = Vec::new();
    for text in ["hi", "limited", "long", "cut", "malformed"] {
        let response = server.post(CHAT, &chat("openai/fix", text, false)).await;
        asked.push(run_of(&response));
    }
    assert!(upstream.keys().iter().any(|key| key.ends_with(CANARY)), "the key was used");
    // What is sealed or packed on the disk is looked at as it is told.
    for run in &asked {
        let events = server.get(&format!("/v1/runs/{run}/events?limit=1000&payloads=true")).await;
        let told = format!("{events} {}", server.get(&format!("/v1/runs/{run}")).await);
        assert!(told.contains("run.created.v1") && !told.contains(CANARY), "{told}");
    }
    let folder = server.stop();
    let secrets = [CANARY.as_bytes(), token.as_bytes()];
    for file in files(folder.path()) {
        let bytes = std::fs::read(&file).expect("readable");
        let is_token = file.file_name().is_some_and(|name| name == "token");
        for secret in &secrets[..if is_token { 1 } else { 2 }] {
            let is_in = bytes.windows(secret.len()).any(|window| window == *secret);
            assert!(!is_in, "a secret stands in {}", file.display());
        }
    }
    let log = std::fs::read_to_string(folder.path().join("server.err")).expect("a log");
    assert!(log.contains("TRACE") || log.contains("DEBUG"), "the log was on: {log}");
}
