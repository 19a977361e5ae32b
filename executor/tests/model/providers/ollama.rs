//! Ollama's own interface.

use axum::http::header;
use axum::response::{IntoResponse, Response};
use convergio_domain::billing::Meter;
use convergio_domain::chat::{ChatRequest, ToolChoice};
use convergio_executor::provider::{HttpProvider, ProviderConfig};
use convergio_kernel_c::{KernelPlatform, ProviderClass};
use serde_json::{Value, json};

use super::{answer_of, conversation, led_to, meters, weather, written};
use crate::server::{Server, ask_service, embed, json, vectors};

fn config() -> ProviderConfig {
    let url = "http://127.0.0.1:11434/v1";
    ProviderConfig::without_key("local", url, ProviderClass::Local, KernelPlatform::Ollama)
}

fn lines(lines: &[Value]) -> Response {
    let text: String = lines.iter().map(|line| format!("{line}\n")).collect();
    ([(header::CONTENT_TYPE, "application/x-ndjson")], text).into_response()
}

fn piece(message: &Value) -> Value {
    json!({"model": "qwen3:8b", "created_at": "2026-11-21T00:00:00Z", "message": message,
        "done": false})
}

fn last() -> Value {
    json!({"model": "qwen3:8b", "created_at": "2026-11-21T00:00:01Z",
        "message": {"role": "assistant", "content": ""}, "done": true, "done_reason": "stop",
        "total_duration": 5_000_000, "load_duration": 1_000, "prompt_eval_count": 26,
        "prompt_eval_duration": 10_000, "eval_count": 298, "eval_duration": 4_000_000})
}

#[test]
fn a_whole_conversation_is_written_in_its_words_and_never_cut() {
    let asked = ChatRequest { tool_choice: ToolChoice::Auto, ..conversation() };
    let body = written(&config(), &asked);
    assert_eq!(body["truncate"], false);
    assert_eq!(body["messages"][1]["images"], json!(["aGk="]));
    let call =
        json!({"id": "call_1", "function": {"name": "weather", "arguments": {"city": "Oslo"}}});
    assert_eq!(body["messages"][2]["tool_calls"][0], call);
    let result = json!({"role": "tool", "tool_name": "weather", "tool_call_id": "call_1",
        "content": "snow"});
    assert_eq!(body["messages"][3], result);
    let options = json!({"num_predict": 64, "temperature": 0.5, "top_p": 0.9, "stop": ["END"]});
    assert_eq!(body["options"], options);
}

#[tokio::test]
async fn a_stream_of_lines_is_put_together() {
    let say = |text: &str| piece(&json!({"role": "assistant", "content": text}));
    let thought = piece(&json!({"role": "assistant", "content": "", "thinking": "hm"}));
    let all = [thought, say("Good "), say("day"), last()];
    let server = Server::chatting(move || lines(&all)).await;
    let answer = answer_of(&server, &config()).await.expect("an answer");
    assert_eq!(
        (answer.joined_text().as_str(), answer.joined_thinking().as_str()),
        ("Good day", "hm")
    );
    assert_eq!((answer.finish.as_str(), answer.model.as_str()), ("stop", "qwen3:8b"));
    assert_eq!(meters(&answer), [(Meter::InFresh, 26), (Meter::OutText, 298)]);
    assert_eq!(answer.raw_usage.expect("kept")["eval_duration"], 4_000_000);
    assert_eq!(server.seen()[0].path, "/api/chat");
}

#[tokio::test]
async fn a_count_that_is_left_out_is_zero_and_told() {
    let mut cached = last();
    let fields = cached.as_object_mut().expect("an object");
    fields.remove("prompt_eval_count");
    let server = Server::chatting(move || lines(std::slice::from_ref(&cached))).await;
    let answer = answer_of(&server, &config()).await.expect("an answer");
    assert_eq!((meters(&answer), answer.confirmed), (vec![(Meter::OutText, 298)], true));
}

#[tokio::test]
async fn a_tool_call_comes_whole() {
    let call = json!([{"function": {"name": "weather", "arguments": {"city": "Oslo"}}}]);
    let said = piece(&json!({"role": "assistant", "content": "", "tool_calls": call}));
    let all = [said, last()];
    let server = Server::chatting(move || lines(&all)).await;
    let answer = answer_of(&server, &config()).await.expect("an answer");
    let calls = answer.tool_calls();
    assert_eq!(calls, weather(&calls[0].id));
    assert!(calls[0].id.starts_with("call_") && calls[0].id.len() > 24, "{}", calls[0].id);
    assert_eq!(answer.finish, "tool_calls");
}

#[tokio::test]
async fn an_answer_that_comes_at_once_is_taken_too() {
    let mut whole = last();
    whole["message"]["content"] = json!("Good day");
    whole["done_reason"] = json!("length");
    let server = Server::chatting(move || json(200, &whole)).await;
    let answer = answer_of(&server, &config()).await.expect("an answer");
    assert_eq!((answer.joined_text().as_str(), answer.finish.as_str()), ("Good day", "length"));
}

#[tokio::test]
async fn errors_come_as_a_status_or_as_a_line() {
    let begun = piece(&json!({"role": "assistant", "content": "half"}));
    let failed = [begun, json!({"error": "an error was encountered while running the model"})];
    let server = Server::chatting(move || lines(&failed)).await;
    let error = answer_of(&server, &config()).await.expect_err("an error");
    assert_eq!(
        (error.code, error.retryable, error.has_begun),
        ("provider.unavailable", true, true)
    );
    let missing = || json(404, &json!({"error": "model 'x' not found"}));
    let server = Server::chatting(missing).await;
    let error = answer_of(&server, &config()).await.expect_err("an error");
    assert_eq!((error.code, error.retryable), ("model.not_found", false));
    assert!(error.message.contains("not found"), "{error}");
}

#[tokio::test]
async fn texts_become_vectors() {
    let body = json!({"embeddings": [[0.5, 0.25]], "prompt_eval_count": 4});
    let server = Server::chatting(move || json(200, &body)).await;
    let provider = HttpProvider::new(led_to(&server, config())).expect("a valid URL");
    let answer = ask_service(&provider, "e", embed(&["hi"])).await.expect("vectors");
    assert_eq!((vectors(&answer), answer.usage.total_tokens()), (vec![vec![0.5, 0.25]], 4));
    assert_eq!(server.seen()[0].path, "/api/embed");
}
