//! OpenAI's responses.

use convergio_domain::chat::ChatRequest;
use convergio_domain::metering::Meter;
use convergio_executor::model::{Api, ProviderConfig, Secret};
use serde_json::{Value, json};

use super::{KEY, answer_of, conversation, meters, weather, written};
use crate::server::{Server, json, raw_sse};

fn config() -> ProviderConfig {
    ProviderConfig { api: Api::OpenAiResponses, ..ProviderConfig::openai(Secret::new(KEY)) }
}

fn events(events: &[Value]) -> String {
    let line = |event: &Value| format!("event: {}\ndata: {event}\n\n", event["type"]);
    events.iter().map(line).collect()
}

fn usage() -> Value {
    json!({"input_tokens": 75, "input_tokens_details": {"cached_tokens": 32,
        "cache_write_tokens": 3}, "output_tokens": 1186,
        "output_tokens_details": {"reasoning_tokens": 1024}, "total_tokens": 1261})
}

fn stream() -> Vec<Value> {
    vec![
        json!({"type": "response.created", "sequence_number": 0,
            "response": {"model": "gpt-r", "status": "in_progress"}}),
        json!({"type": "response.reasoning_summary_text.delta", "delta": "hm"}),
        json!({"type": "response.output_item.added", "output_index": 0,
            "item": {"type": "message"}}),
        json!({"type": "response.output_text.delta", "delta": "Good "}),
        json!({"type": "response.output_text.delta", "delta": "day"}),
        json!({"type": "response.output_text.done", "text": "Good day"}),
        json!({"type": "response.completed", "response": {"model": "gpt-r",
            "status": "completed", "usage": usage()}}),
    ]
}

#[test]
fn a_whole_conversation_is_written_in_its_words_and_not_stored() {
    let asked = ChatRequest { stop: Vec::new(), ..conversation() };
    let body = written(&config(), &asked);
    assert_eq!((&body["store"], &body["instructions"]), (&json!(false), &json!("be brief")));
    let kinds: Vec<_> = body["input"].as_array().expect("items").iter().collect();
    assert_eq!(kinds[0]["content"][1]["image_url"], "data:image/png;base64,aGk=");
    assert_eq!(
        (&kinds[1]["type"], &kinds[1]["call_id"]),
        (&json!("function_call"), &json!("call_1"))
    );
    let output = json!({"type": "function_call_output", "call_id": "call_1", "output": "snow"});
    assert_eq!(kinds[2], &output);
    assert_eq!(body["tool_choice"], json!({"type": "function", "name": "weather"}));
    assert_eq!(body["max_output_tokens"], 64);
}

#[tokio::test]
async fn a_stream_is_put_together() {
    let server = Server::chatting(|| raw_sse(events(&stream()))).await;
    let answer = answer_of(&server, &config()).await.expect("an answer");
    assert_eq!((answer.text().as_str(), answer.thinking().as_str()), ("Good day", "hm"));
    assert_eq!((answer.finish.as_str(), answer.model.as_str()), ("stop", "gpt-r"));
    let expected = [
        (Meter::InFresh, 40),
        (Meter::InCacheRead, 32),
        (Meter::InCacheWrite5m, 3),
        (Meter::OutText, 162),
        (Meter::OutReasoning, 1024),
    ];
    assert_eq!(meters(&answer), expected);
    assert_eq!(answer.raw_usage, Some(usage()));
    assert_eq!(server.seen()[0].path, "/v1/responses");
}

#[tokio::test]
async fn a_call_of_a_tool_is_an_item() {
    let item = json!({"type": "function_call", "call_id": "c7", "name": "weather",
        "arguments": "{\"city\":\"Oslo\"}"});
    let mut pieces = vec![
        json!({"type": "response.function_call_arguments.delta", "delta": "{\"ci"}),
        json!({"type": "response.output_item.done", "output_index": 0, "item": item}),
    ];
    pieces.extend(stream().pop());
    let server = Server::chatting(move || raw_sse(events(&pieces))).await;
    let answer = answer_of(&server, &config()).await.expect("an answer");
    assert_eq!((answer.tool_calls(), answer.finish.as_str()), (weather("c7"), "tool_calls"));
}

#[tokio::test]
async fn an_answer_that_comes_at_once_is_taken_too() {
    let body = json!({"object": "response", "model": "gpt-r", "status": "incomplete",
        "incomplete_details": {"reason": "max_output_tokens"}, "error": null,
        "output": [{"type": "reasoning", "summary": []},
            {"type": "message", "content": [{"type": "output_text", "text": "Good"}]}],
        "usage": usage()});
    let server = Server::chatting(move || json(200, &body)).await;
    let answer = answer_of(&server, &config()).await.expect("an answer");
    assert_eq!((answer.text().as_str(), answer.finish.as_str()), ("Good", "length"));
}

#[tokio::test]
async fn errors_in_the_stream_are_errors() {
    let cases = [
        (
            json!({"type": "error", "code": "rate_limit_exceeded", "message": "slow"}),
            ("provider.rate_limited", true),
        ),
        (
            json!({"type": "response.failed", "response": {"status": "failed",
                "error": {"code": "server_error", "message": "x"}, "usage": null}}),
            ("provider.unavailable", true),
        ),
    ];
    for (event, expected) in cases {
        let server = Server::chatting(move || raw_sse(events(std::slice::from_ref(&event)))).await;
        let error = answer_of(&server, &config()).await.expect_err("an error");
        assert_eq!((error.code, error.retryable), expected);
    }
    let filtered = json!({"type": "response.incomplete", "response": {"status": "incomplete",
        "incomplete_details": {"reason": "content_filter"}}});
    let server = Server::chatting(move || raw_sse(events(std::slice::from_ref(&filtered)))).await;
    let answer = answer_of(&server, &config()).await.expect("what was said");
    assert_eq!(answer.finish, "content_filter");
    let cut = Server::chatting(|| raw_sse(events(&stream()[..5]))).await;
    let error = answer_of(&cut, &config()).await.expect_err("no end");
    assert_eq!((error.code, error.has_begun), ("provider.unavailable", true));
}
