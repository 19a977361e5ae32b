//! Chat completions with tools, and Azure's two forms of them.

use convergio_domain::billing::Meter;
use convergio_domain::chat::{ChatMessage, ChatRequest, MessageRole, ToolCall, ToolChoice};
use convergio_executor::provider::{HttpProvider, Provider, ProviderConfig, Secret};
use serde_json::{Value, json};

use super::{KEY, answer_of, conversation, led_to, meters, weather, written};
use crate::server::{Server, ask_service, delta, embed, json, sse, stop, vectors};

fn config() -> ProviderConfig {
    ProviderConfig::for_openai(Secret::new(KEY))
}

#[test]
fn a_whole_conversation_is_written_in_its_words() {
    let body = written(&config(), &conversation());
    let roles: Vec<_> = body["messages"].as_array().expect("a list").iter().collect();
    assert_eq!(roles[0], &json!({"role": "system", "content": "be brief"}));
    assert_eq!(roles[1]["content"][1]["image_url"]["url"], "data:image/png;base64,aGk=");
    assert_eq!(roles[2]["tool_calls"][0]["function"]["arguments"], r#"{"city":"Oslo"}"#);
    let result = json!({"role": "tool", "tool_call_id": "call_1", "content": "snow"});
    assert_eq!(roles[3], &result);
    let choice = json!({"type": "function", "function": {"name": "weather"}});
    assert_eq!((&body["tool_choice"], &body["stop"]), (&choice, &json!(["END"])));
    assert_eq!(body["tools"][0]["function"]["name"], "weather");
    let required = ChatRequest { tool_choice: ToolChoice::Required, ..conversation() };
    assert_eq!(written(&config(), &required)["tool_choice"], "required");
}

fn piece(delta: &Value, finish: &Value) -> Value {
    json!({"model": "gpt", "choices": [{"index": 0, "delta": delta, "finish_reason": finish}]})
}

#[tokio::test]
async fn a_tool_call_is_put_together_from_its_fragments() {
    let call = |function: Value| {
        let mut call = json!({"index": 0, "function": function});
        if call["function"]["name"].is_string() {
            call["id"] = json!("call_9");
        }
        piece(&json!({"tool_calls": [call]}), &Value::Null)
    };
    let pieces = [
        call(json!({"name": "weather", "arguments": ""})),
        call(json!({"arguments": "{\"city\":"})),
        call(json!({"arguments": "\"Oslo\"}"})),
        piece(&json!({}), &json!("tool_calls")),
    ];
    let server = Server::chatting(move || sse(&pieces)).await;
    let answer = answer_of(&server, &config()).await.expect("an answer");
    assert_eq!((answer.tool_calls(), answer.finish.as_str()), (weather("call_9"), "tool_calls"));
}

#[tokio::test]
async fn tool_calls_side_by_side_are_kept_apart() {
    let call = |index: u64, id: &str, arguments: &str| {
        piece(
            &json!({"tool_calls": [{"index": index, "id": id,
                "function": {"name": "f", "arguments": arguments}}]}),
            &Value::Null,
        )
    };
    let more = |index: u64, arguments: &str| {
        let call = json!({"index": index, "function": {"arguments": arguments}});
        piece(&json!({"tool_calls": [call]}), &Value::Null)
    };
    let pieces =
        [call(0, "a", "{\"x\""), call(1, "b", "{\"y\""), more(0, ":1}"), more(1, ":2}"), stop()];
    let server = Server::chatting(move || sse(&pieces)).await;
    let answer = answer_of(&server, &config()).await.expect("an answer");
    let calls: Vec<_> = answer.tool_calls().into_iter().map(|call| call.arguments).collect();
    assert_eq!(calls, ["{\"x\":1}", "{\"y\":2}"]);
    assert_eq!(answer.finish, "tool_calls");
}

/// A piece of one call.
fn call_piece(call: &Value) -> Value {
    piece(&json!({"tool_calls": [call]}), &Value::Null)
}

async fn calls_of(calls: &[Value]) -> Vec<ToolCall> {
    let mut pieces: Vec<Value> = calls.iter().map(call_piece).collect();
    pieces.push(stop());
    let server = Server::chatting(move || sse(&pieces)).await;
    answer_of(&server, &config()).await.expect("an answer").tool_calls()
}

#[tokio::test]
async fn two_calls_never_run_together_whatever_a_server_numbers_them() {
    let whole = |index: Value, id: &str, name: &str| {
        let function = json!({"name": name, "arguments": "{\"a\":1}"});
        json!({"index": index, "id": id, "function": function})
    };
    let cases = [
        [whole(json!(0), "a", "f"), whole(json!(0), "b", "f")],
        [whole(Value::Null, "a", "f"), whole(Value::Null, "b", "g")],
        [whole(json!(0), "", "f"), whole(json!(0), "", "f")],
        [whole(Value::Null, "", "f"), whole(Value::Null, "", "g")],
        [whole(json!(0), "same", "f"), whole(json!(1), "same", "f")],
    ];
    for case in cases {
        let calls = calls_of(&case).await;
        assert_eq!(calls.len(), 2, "{case:?}");
        assert_ne!(calls[0].id, calls[1].id, "{case:?}");
        assert!(calls.iter().all(|call| call.arguments == "{\"a\":1}" && !call.id.is_empty()));
    }
    // Some servers repeat id and name in every piece.
    let repeats = |arguments: &str| {
        let function = json!({"name": "f", "arguments": arguments});
        json!({"index": 0, "id": "a", "function": function})
    };
    let calls = calls_of(&[repeats("{\"a\""), repeats(":1}")]).await;
    assert_eq!((calls.len(), calls[0].arguments.as_str()), (1, "{\"a\":1}"));
}

#[tokio::test]
async fn a_call_without_arguments_has_an_empty_object() {
    let none = json!({"index": 0, "id": "a", "function": {"name": "f", "arguments": ""}});
    let null = json!({"index": 0, "id": "a", "function": {"name": "f", "arguments": null}});
    for call in [none, null] {
        let calls = calls_of(&[call]).await;
        assert_eq!(calls[0].arguments, "{}");
    }
}

#[tokio::test]
async fn content_in_parts_is_read_in_order_and_goes_back_as_it_came() {
    let thought = json!({"type": "thinking", "thinking": [{"type": "text", "text": "hmm"}]});
    let whole = json!({"model": "m", "choices": [{"index": 0, "finish_reason": "stop",
        "message": {"role": "assistant",
            "content": [thought.clone(), {"type": "text", "text": "forty-two"}]}}]});
    let stream = [
        piece(&json!({"content": [thought.clone()]}), &Value::Null),
        piece(&json!({"content": [{"type": "text", "text": "forty"}]}), &Value::Null),
        piece(&json!({"content": "-two"}), &Value::Null),
        stop(),
    ];
    for is_stream in [false, true] {
        let (whole, stream) = (whole.clone(), stream.clone());
        let server =
            Server::chatting(move || if is_stream { sse(&stream) } else { json(200, &whole) });
        let answer = answer_of(&server.await, &config()).await.expect("an answer");
        assert_eq!(
            (answer.joined_thinking().as_str(), answer.joined_text().as_str()),
            ("hmm", "forty-two")
        );
        let messages = vec![ChatMessage::new(MessageRole::Assistant, answer.parts)];
        let body = written(&config(), &ChatRequest { messages, ..ChatRequest::default() });
        let text = json!({"type": "text", "text": "forty-two"});
        assert_eq!(body["messages"][0]["content"], json!([thought, text]));
    }
}

#[tokio::test]
async fn tool_calls_that_come_at_once_are_taken_too() {
    let body = json!({"model": "gpt", "choices": [{"index": 0, "finish_reason": "tool_calls",
        "message": {"role": "assistant", "content": null, "tool_calls": [{"id": "c",
            "type": "function", "function": {"name": "weather",
                "arguments": "{\"city\":\"Oslo\"}"}}]}}],
        "usage": {"prompt_tokens": 9, "completion_tokens": 5}});
    let server = Server::chatting(move || json(200, &body)).await;
    let answer = answer_of(&server, &config()).await.expect("an answer");
    assert_eq!(answer.tool_calls(), weather("c"));
    assert_eq!(meters(&answer), [(Meter::InFresh, 9), (Meter::OutText, 5)]);
}

fn azure(version: Option<&str>) -> ProviderConfig {
    let endpoint = "https://res.openai.azure.com";
    ProviderConfig::for_azure(Secret::new(KEY), endpoint, version, &["tiny"])
}

#[tokio::test]
async fn azure_is_spoken_to_by_its_v1_and_its_classic_urls() {
    let filtered = json!({"choices": [], "prompt_filter_results": [{"prompt_index": 0}]});
    let cases = [
        (azure(None), "https://res.openai.azure.com/openai/v1", "/v1/chat/completions"),
        (
            azure(Some("2024-10-21")),
            "https://res.openai.azure.com/openai",
            "/v1/deployments/tiny/chat/completions",
        ),
    ];
    for (config, base_url, path) in cases {
        assert_eq!(config.base_url, base_url);
        let filtered = filtered.clone();
        let server = Server::chatting(move || sse(&[filtered.clone(), delta("ok"), stop()])).await;
        let answer = answer_of(&server, &config).await.expect("an answer");
        assert_eq!((answer.joined_text().as_str(), server.seen()[0].path.as_str()), ("ok", path));
        assert_eq!(server.seen()[0].headers["api-key"], KEY);
    }
}

#[tokio::test]
async fn texts_become_vectors() {
    let body = json!({"data": [{"index": 0, "embedding": [0.5, -1.0]}],
        "usage": {"prompt_tokens": 3, "total_tokens": 3}});
    let server = Server::chatting(move || json(200, &body)).await;
    let provider = HttpProvider::new(led_to(&server, config())).expect("a valid URL");
    let answer = ask_service(&provider, "e", embed(&["hi"])).await.expect("vectors");
    assert_eq!((vectors(&answer), answer.usage.total_tokens()), (vec![vec![0.5, -1.0]], 3));
    assert!(answer.confirmed);
    let seen = &server.seen()[0];
    let expected = json!({"model": "e", "input": ["hi"], "encoding_format": "float"});
    assert_eq!(serde_json::from_slice::<Value>(&seen.body).expect("JSON"), expected);
    assert_eq!(seen.headers["idempotency-key"], "the-same-call");
    let error = ask_service(&provider, "e", embed(&["a", "b"])).await.expect_err("one vector");
    assert_eq!(error.code, "provider.unavailable");
    let used = error.partial_usage.expect("it was made, and may be billed");
    assert_eq!(used.tokens_in(), 2);
}

#[tokio::test]
async fn a_key_is_validated_by_a_call_that_costs_nothing() {
    let server = Server::start(|path| match path {
        "/v1/models" => json(401, &json!({"error": {"code": "invalid_api_key"}})),
        _ => json(500, &json!({})),
    });
    let server = server.await;
    let provider = HttpProvider::new(led_to(&server, config())).expect("a valid URL");
    assert_eq!(provider.validate_key().await.expect_err("bad").code, "byok.bad_key");
    assert_eq!(server.seen().len(), 1);
}
