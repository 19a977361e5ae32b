//! The front doors, with a test in the place of an executor.

use std::sync::Arc;

use convergio_domain::event::Event;
use convergio_domain::run::event::RunEvent;
use convergio_eventstore::{LiveKind, LiveNote, Position};
use futures_util::StreamExt;
use reqwest::{Method, Response};
use serde_json::{Value, json};

use crate::harness::{Api, parts, run_stream};

const CHAT: &str = "/openai/v1/chat/completions";
const MESSAGES: &str = "/anthropic/v1/messages";
const RESPONSES: &str = "/openai/v1/responses";

fn reply(text: &str) -> Value {
    json!({"text": text, "finish": "stop", "provider": "p", "model": "m-1", "confirmed": true,
        "usage": {"in_fresh": 5, "in_cache_read": 3, "in_cache_write_1h": 2, "out_text": 4}})
}

/// Answers every call from now on.
fn answer_calls(api: &Arc<Api>, text: &'static str) {
    answer_calls_with(api, reply(text));
}

/// The same, with a whole reply.
pub(crate) fn answer_calls_with(api: &Arc<Api>, reply: Value) {
    let api = Arc::clone(api);
    tokio::spawn(async move {
        let log = api.repository.event_log();
        let mut records = log.tail_all(Position::default());
        while let Some(Ok(record)) = records.next().await {
            let is_new = |event: &Event| matches!(event, Event::Run(RunEvent::RunCreated(_)));
            if record.body.events.iter().any(is_new) {
                api.answer_call(&record.stream.id.to_string(), &reply).await;
            }
        }
    });
}

async fn answering(text: &'static str) -> Arc<Api> {
    let api = Arc::new(Api::start().await);
    answer_calls(&api, text);
    api
}

fn run_of(response: &Response) -> String {
    response.headers()["x-convergio-run"].to_str().expect("text").to_owned()
}

fn chat(text: &str) -> Value {
    json!({"model": "m", "messages": [{"role": "user", "content": text}]})
}

#[tokio::test]
async fn what_is_not_there_says_so_in_the_form_of_the_door() {
    let api = Api::start().await;
    for (method, path, token, status) in [
        (Method::POST, "/openai/v1/batches", Some("cvg_one"), 404),
        (Method::POST, CHAT, Some("wrong"), 401),
        (Method::PUT, CHAT, Some("cvg_one"), 405),
        (Method::DELETE, "/openai/v1/responses/resp_1", Some("cvg_one"), 501),
        (Method::GET, "/openai/v1/responses/resp_1", Some("cvg_one"), 404),
        (Method::GET, "/openai/v1/chat/completions/chatcmpl-1", Some("cvg_one"), 404),
        (Method::GET, "/openai/v1/models/openai/gpt-5", Some("cvg_one"), 404),
        (Method::GET, "/openai/v1/models?limit=1&x=2", None, 401),
    ] {
        let response = api.request(method, path, token).send().await.expect("an answer");
        let (told, body) = parts(response).await;
        assert_eq!(told, status, "{path}: {body}");
        assert!(body["error"]["message"].is_string(), "{path}: {body}");
    }
    for (method, path, token, status) in [
        (Method::POST, "/anthropic/v1/files", Some("cvg_one"), 404),
        (Method::POST, MESSAGES, None, 401),
        (Method::GET, MESSAGES, Some("cvg_one"), 405),
        (Method::GET, "/anthropic/v1/models/x", Some("cvg_one"), 404),
        (Method::GET, "/anthropic/v1/models?nope=1", Some("cvg_one"), 400),
    ] {
        let response = api.request(method, path, token).send().await.expect("an answer");
        let id = response.headers()["request-id"].to_str().expect("text").to_owned();
        let (told, body) = parts(response).await;
        assert_eq!((told, &body["type"]), (status, &json!("error")), "{path}: {body}");
        assert_eq!(body["request_id"], id, "{path}");
    }
    let (_, body) = parts(
        api.request(Method::POST, "/openai/v1/batches", None).send().await.expect("an answer"),
    )
    .await;
    let message = body["error"]["message"].as_str().expect("text");
    assert!(message.contains("POST /openai/v1/batches"), "{message}");
}

#[tokio::test]
async fn clients_may_look_whether_there_is_a_door() {
    let api = Api::start().await;
    for path in ["/openai", "/anthropic"] {
        let response = api.request(Method::HEAD, path, None).send().await.expect("an answer");
        assert_eq!(response.status().as_u16(), 200);
        let got = api.request(Method::GET, path, None).send().await.expect("an answer");
        assert_eq!(got.status().as_u16(), 405);
    }
    let (status, listed) = api.get("/anthropic/v1/models").await;
    assert_eq!((status, &listed["data"]), (200, &json!([])));
}

#[tokio::test]
async fn an_answer_has_the_id_of_its_run_and_all_its_counts() {
    let api = answering("hello").await;
    let body = json!({"model": "m", "max_tokens": 128_000, "messages": [
        {"role": "user", "content": "hi"}]});
    let request = api.request(Method::POST, MESSAGES, Some("cvg_one")).json(&body);
    let response = request.send().await.expect("an answer");
    assert_eq!(response.headers()["request-id"], response.headers()["x-convergio-run"]);
    let answer: Value = response.json().await.expect("JSON");
    let usage = json!({"input_tokens": 5, "cache_read_input_tokens": 3,
        "cache_creation_input_tokens": 2, "output_tokens": 4, "cache_creation":
            {"ephemeral_5m_input_tokens": 0, "ephemeral_1h_input_tokens": 2}});
    assert_eq!(answer["usage"], usage);
    assert_eq!(answer["content"], json!([{"type": "text", "text": "hello"}]));
    let request = api.request(Method::POST, CHAT, Some("cvg_one")).json(&chat("hi"));
    let response = request.send().await.expect("an answer");
    assert_eq!(response.headers()["x-request-id"], response.headers()["x-convergio-run"]);
    let answer: Value = response.json().await.expect("JSON");
    assert_eq!((&answer["model"], &answer["usage"]["total_tokens"]), (&json!("m-1"), &json!(14)));
}

#[tokio::test]
async fn a_response_of_earlier_is_a_read_of_the_log() {
    let api = answering("hello").await;
    let asked = json!({"model": "m", "input": "hi", "instructions": "be kind",
        "metadata": {"k": "v"}, "client_metadata": {"x": "y"},
        "text": {"format": {"type": "text"}, "verbosity": "low"}});
    let request = api.request(Method::POST, RESPONSES, Some("cvg_one")).json(&asked);
    let response = request.send().await.expect("an answer");
    assert_eq!(response.headers()["x-convergio-left-out"], "client_metadata");
    let first: Value = response.json().await.expect("JSON");
    assert_eq!((&first["metadata"], &first["text"]), (&asked["metadata"], &asked["text"]));
    let id = first["id"].as_str().expect("an id").to_owned();
    let (status, read) = api.get(&format!("{RESPONSES}/{id}")).await;
    assert_eq!(status, 200, "{read}");
    for field in ["output", "usage", "metadata", "text", "instructions", "status", "model"] {
        assert_eq!(read[field], first[field], "{field}");
    }
    let item = first["output"][0]["id"].clone();
    let next = json!({"model": "m", "previous_response_id": id, "input": [
        {"role": "user", "content": "again"}, {"type": "item_reference", "id": item}]});
    let (status, second) = api.post(RESPONSES, &next, None).await;
    assert_eq!((status, &second["previous_response_id"]), (200, &json!(id)), "{second}");
    let id = second["id"].as_str().expect("an id");
    let (_, items) = api.get(&format!("{RESPONSES}/{id}/input_items?order=asc")).await;
    let items = items["data"].as_array().expect("a list");
    let texts = items.iter().map(|item| item["content"][0]["text"].as_str().unwrap_or(""));
    assert_eq!(texts.collect::<Vec<_>>(), ["hi", "hello", "again", "hello"]);
    let other = api.request(Method::GET, &format!("{RESPONSES}/{id}"), Some("cvg_two"));
    assert_eq!(parts(other.send().await.expect("an answer")).await.0, 404, "another tenant");
    let unknown = json!({"model": "m", "input": "x",
        "previous_response_id": "resp_0193a1b2-0000-7000-8000-000000000001"});
    let (status, body) = api.post(RESPONSES, &unknown, None).await;
    let code = &body["error"]["code"];
    assert_eq!((status, code), (404, &json!("previous_response_not_found")));
}

#[tokio::test]
async fn completions_that_were_to_be_stored_are_listed() {
    let api = answering("hello").await;
    let mut kept = Vec::new();
    for (place, store) in [true, false, true].into_iter().enumerate() {
        let mut body = chat("hi");
        body["store"] = json!(store);
        body["metadata"] = json!({"place": place.to_string()});
        let (status, answer) = api.post(CHAT, &body, None).await;
        assert_eq!(status, 200, "{answer}");
        if store {
            kept.insert(0, answer["id"].clone());
        }
    }
    let id = kept[0].as_str().expect("an id");
    let (status, read) = api.get(&format!("{CHAT}/{id}")).await;
    assert_eq!((status, &read["metadata"]["place"]), (200, &json!("2")));
    let mut ids = Vec::new();
    for _ in 0..500 {
        let (_, listed) = api.get(CHAT).await;
        let data = listed["data"].as_array().cloned().unwrap_or_default();
        ids = data.iter().map(|item| item["id"].clone()).collect();
        // The read models follow the log.
        if ids.len() == 2 {
            break;
        }
        tokio::time::sleep(std::time::Duration::from_millis(10)).await;
    }
    assert_eq!(ids, kept);
}

#[tokio::test]
async fn a_key_belongs_to_who_sent_it_and_to_all_that_was_asked() {
    let api = answering("hello").await;
    let send = async |token: &str, header: Option<(&str, &str)>| {
        let request = api.request(Method::POST, CHAT, Some(token)).json(&chat("hi"));
        let request = request.header("idempotency-key", "k");
        let request = match header {
            Some((name, value)) => request.header(name, value),
            None => request,
        };
        let response = request.send().await.expect("an answer");
        let run = response.headers().get("x-convergio-run").cloned();
        (response.status().as_u16(), run)
    };
    let (status, first) = send("cvg_one", None).await;
    assert_eq!(status, 200);
    assert_eq!(send("cvg_one", None).await, (200, first.clone()));
    let (status, other) = send("cvg_teacher", None).await;
    assert!(status == 200 && other != first, "another person");
    for header in [("x-convergio-privacy", "local"), ("x-convergio-models", "a,b")] {
        assert_eq!(send("cvg_one", Some(header)).await.0, 422, "{header:?}");
    }
}

#[tokio::test]
async fn counts_are_said_to_be_estimates() {
    let api = Api::start().await;
    let body = json!({"model": "m", "messages": [{"role": "user", "content": "hello"}]});
    let path = "/anthropic/v1/messages/count_tokens";
    let request = api.request(Method::POST, path, Some("cvg_one")).json(&body);
    let response = request.send().await.expect("an answer");
    assert_eq!(response.headers()["x-convergio-estimated"], "true");
    let counted: Value = response.json().await.expect("JSON");
    assert!(counted["input_tokens"].as_u64().is_some_and(|tokens| tokens > 0), "{counted}");
    let body = json!({"model": "m", "input": "hello"});
    let (status, counted) = api.post("/openai/v1/responses/input_tokens", &body, None).await;
    assert_eq!((status, &counted["object"]), (200, &json!("response.input_tokens")));
}

fn note(kind: LiveKind, part: u32, offset: u64, text: &str) -> LiveNote {
    let (step, text) = ("reply".to_owned(), text.to_owned());
    LiveNote { step, attempt: 1, kind, part, offset, text, ..LiveNote::default() }
}

#[tokio::test]
async fn a_stream_speaks_before_the_answer_is_whole() {
    let api = Api::start().await;
    let mut body = chat("hi");
    body["stream"] = json!(true);
    let request = api.request(Method::POST, CHAT, Some("cvg_one")).json(&body);
    let begun = std::time::Instant::now();
    let response = request.send().await.expect("an answer");
    assert!(begun.elapsed().as_secs() < 5, "the head does not wait for the answer");
    let run = run_of(&response);
    let stream = run_stream(&run);
    let mut body = response.bytes_stream();
    let mut heard = String::new();
    api.live.publish_note(&stream, note(LiveKind::Thinking, 0, 0, "let me see"));
    api.live.publish_note(&stream, note(LiveKind::Text, 1, 0, "hel"));
    while !heard.contains("\"hel\"") {
        let bytes = body.next().await.expect("it goes on").expect("bytes");
        heard.push_str(&String::from_utf8_lossy(&bytes));
    }
    assert!(heard.starts_with(':') && heard.contains("\"reasoning_content\":\"let me see\""));
    // What is missed comes from the log.
    api.live.publish_note(&stream, note(LiveKind::Text, 1, 99, "!"));
    let mut whole = reply("hello");
    whole["thinking"] = json!("let me see");
    api.answer_call(&run, &whole).await;
    while let Some(bytes) = body.next().await {
        heard.push_str(&String::from_utf8_lossy(&bytes.expect("bytes")));
    }
    let pieces = heard.lines().filter_map(|line| line.strip_prefix("data: "));
    let pieces = pieces.filter_map(|data| serde_json::from_str::<Value>(data).ok());
    let text: String = pieces
        .filter_map(|piece| piece["choices"][0]["delta"]["content"].as_str().map(str::to_owned))
        .collect();
    assert_eq!(text, "hello");
    assert!(heard.trim_end().ends_with("data: [DONE]"), "{heard}");
}

#[tokio::test]
async fn a_stream_that_does_not_fit_is_no_clean_end() {
    let api = Api::start().await;
    let mut body = json!({"model": "m", "max_tokens": 9, "stream": true});
    body["messages"] = json!([{"role": "user", "content": "hi"}]);
    let request = api.request(Method::POST, MESSAGES, Some("cvg_one")).json(&body);
    let response = request.send().await.expect("an answer");
    let run = run_of(&response);
    api.live.publish_note(&run_stream(&run), note(LiveKind::Text, 0, 0, "good-bye"));
    tokio::time::sleep(std::time::Duration::from_millis(50)).await;
    api.answer_call(&run, &reply("hello")).await;
    let text = response.text().await.expect("text");
    assert!(text.contains("event: error") && !text.contains("message_stop"), "{text}");
}

#[tokio::test]
async fn a_field_that_nobody_knows_is_a_400_that_names_it() {
    let api = Api::start().await;
    let mut body = chat("hi");
    body["messages"][0]["contents"] = json!("x");
    let (status, error) = api.post(CHAT, &body, None).await;
    assert_eq!((status, &error["error"]["param"]), (400, &json!("messages[0].contents")));
    let body = json!({"model": "m", "max_tokens": 9, "messages": [
        {"role": "user", "content": [{"type": "text", "text": "x", "foo": 1}]}]});
    let (status, error) = api.post(MESSAGES, &body, None).await;
    let message = error["error"]["message"].as_str().expect("text");
    assert!(status == 400 && message.contains("messages[0].content[0].foo"), "{error}");
}
