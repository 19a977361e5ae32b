//! Google's interactions.

use convergio_domain::billing::Meter;
use convergio_domain::chat::{
    ChatInterface, ChatMessage, ChatRequest, MessagePart, MessageRole, NativeFields, ThinkingPart,
};
use convergio_executor::provider::{ProviderApi, ProviderConfig, Secret};
use serde_json::{Value, json};

use super::{KEY, answer_of, conversation, meters, weather, written};
use crate::server::{Server, json, raw_sse};

fn config() -> ProviderConfig {
    ProviderConfig {
        api: ProviderApi::GeminiInteractions,
        ..ProviderConfig::for_gemini(Secret::new(KEY))
    }
}

fn events(events: &[Value]) -> String {
    let event = |event: &Value| format!("event: {}\ndata: {event}\n\n", event["event_type"]);
    events.iter().map(event).collect()
}

fn usage() -> Value {
    json!({"total_input_tokens": 1000, "total_cached_tokens": 600, "total_output_tokens": 50,
        "total_thought_tokens": 70, "total_tool_use_tokens": 30, "total_tokens": 1150,
        "input_tokens_by_modality": [{"modality": "text", "tokens": 500},
            {"modality": "image", "tokens": 258}, {"modality": "audio", "tokens": 242}],
        "cached_tokens_by_modality": [{"modality": "image", "tokens": 258},
            {"modality": "text", "tokens": 342}],
        "output_tokens_by_modality": [{"modality": "text", "tokens": 50}],
        "grounding_tool_count": []})
}

fn ended(status: &str) -> Value {
    json!({"event_type": "interaction.completed", "interaction": {"id": "int_1", "status": status,
        "model": "gemini-x", "usage": usage()}})
}

fn delta(delta: &Value) -> Value {
    json!({"event_type": "step.delta", "index": 1, "delta": delta})
}

fn stream() -> Vec<Value> {
    let created = json!({"event_type": "interaction.created",
        "interaction": {"id": "int_1", "status": "in_progress", "model": "gemini-x"}});
    let start =
        |kind: &str| json!({"event_type": "step.start", "index": 1, "step": {"type": kind}});
    vec![
        created,
        start("thought"),
        delta(
            &json!({"type": "thought_summary", "content": {"type": "text", "text": "let me see"}}),
        ),
        delta(&json!({"type": "thought_signature", "signature": "CpQB"})),
        json!({"event_type": "step.stop", "index": 0}),
        start("model_output"),
        delta(&json!({"type": "text", "text": "Good "})),
        delta(&json!({"type": "text", "text": "day"})),
        ended("completed"),
    ]
}

#[test]
fn a_whole_conversation_is_written_as_a_timeline_and_nothing_is_stored() {
    let body = written(&config(), &conversation());
    assert_eq!((&body["store"], &body["stream"]), (&json!(false), &json!(true)));
    assert_eq!(body["system_instruction"], "be brief");
    let image = json!({"type": "image", "mime_type": "image/png", "data": "aGk="});
    assert_eq!(body["input"][0]["type"], "user_input");
    assert_eq!(body["input"][0]["content"][1], image);
    let call = json!({"type": "function_call", "id": "call_1", "name": "weather",
        "arguments": {"city": "Oslo"}});
    assert_eq!(body["input"][1], call);
    let result = json!({"type": "function_result", "call_id": "call_1", "name": "weather",
        "result": "snow", "is_error": false});
    assert_eq!(body["input"][2], result);
    let generation = &body["generation_config"];
    assert_eq!(generation["max_output_tokens"], 64);
    let choice = json!({"allowed_tools": {"mode": "any", "tools": ["weather"]}});
    assert_eq!(generation["tool_choice"], choice);
    assert_eq!(
        (&body["tools"][0]["type"], &body["tools"][0]["name"]),
        (&json!("function"), &json!("weather"))
    );
}

/// A thought that the interface has signed.
fn thought(text: &str, signature: &str) -> MessagePart {
    let fields = [("signature".to_owned(), json!(signature))];
    let native =
        NativeFields::from_fields(ChatInterface::GeminiInteractions, fields.into_iter().collect());
    let (text, signature) = (text.to_owned(), signature.to_owned());
    MessagePart::Thinking(ThinkingPart { text, signature, native })
}

#[test]
fn thoughts_go_back_where_they_stood() {
    let schema = json!({"type": "object"});
    let said = ChatMessage::new(
        MessageRole::Assistant,
        vec![thought("hm", "CpQB"), MessagePart::from_text("a")],
    );
    let asked = ChatRequest { schema: Some(schema.clone()), ..ChatRequest::from_prompt("m", "p") };
    let asked = ChatRequest { messages: vec![asked.messages[0].clone(), said], ..asked };
    let body = written(&config(), &asked);
    let kinds: Vec<_> = body["input"].as_array().expect("a list").iter().collect();
    assert_eq!((&kinds[1]["type"], &kinds[1]["signature"]), (&json!("thought"), &json!("CpQB")));
    assert_eq!(kinds[2]["type"], "model_output");
    assert_eq!(body["response_format"]["schema"], schema);
}

#[tokio::test]
async fn a_stream_is_put_together_and_counted_in_classes() {
    let server = Server::chatting(|| raw_sse(events(&stream()))).await;
    let answer = answer_of(&server, &config()).await.expect("an answer");
    assert_eq!(
        (answer.joined_text().as_str(), answer.joined_thinking().as_str()),
        ("Good day", "let me see")
    );
    assert_eq!(answer.parts, [thought("let me see", "CpQB"), MessagePart::from_text("Good day")]);
    assert_eq!(answer.model, "gemini-x");
    assert_eq!(answer.finish, "stop");
    let expected = [
        (Meter::InFresh, 158 + 30),
        (Meter::InCacheRead, 600),
        (Meter::InAudio, 242),
        (Meter::OutText, 50),
        (Meter::OutReasoning, 70),
    ];
    assert_eq!((meters(&answer), answer.usage.total_tokens()), (expected.to_vec(), 1150));
    let seen = &server.seen()[0];
    assert_eq!(
        (seen.path.as_str(), &seen.headers["x-goog-api-key"]),
        ("/v1/interactions", &KEY.parse().expect("text"))
    );
}

#[tokio::test]
async fn a_tool_call_comes_in_pieces_or_whole() {
    let start = |arguments: Value| {
        json!({"event_type": "step.start", "index": 0, "step": {"type": "function_call",
            "id": "g1", "name": "weather", "arguments": arguments}})
    };
    let fragment = |text: &str| delta(&json!({"type": "arguments_delta", "arguments": text}));
    let pieces = vec![
        start(json!({})),
        fragment("{\"city\":"),
        fragment("\"Oslo\"}"),
        ended("requires_action"),
    ];
    let whole = vec![start(json!({"city": "Oslo"})), ended("requires_action")];
    for stream in [pieces, whole] {
        let server = Server::chatting(move || raw_sse(events(&stream))).await;
        let answer = answer_of(&server, &config()).await.expect("an answer");
        assert_eq!((answer.tool_calls(), answer.finish.as_str()), (weather("g1"), "tool_calls"));
    }
}

#[tokio::test]
async fn an_answer_that_comes_at_once_is_taken_too() {
    let body = json!({"id": "int_1", "status": "completed", "model": "gemini-x", "steps": [
        {"type": "thought", "signature": "CpQB", "summary": [{"type": "text", "text": "hm"}]},
        {"type": "model_output", "content": [{"type": "text", "text": "hello"}]}],
        "usage": usage()});
    let server = Server::chatting(move || json(200, &body)).await;
    let answer = answer_of(&server, &config()).await.expect("an answer");
    assert_eq!((answer.joined_text().as_str(), answer.joined_thinking().as_str()), ("hello", "hm"));
    assert_eq!(answer.usage.total_tokens(), 1150);
}

#[tokio::test]
async fn ends_that_are_none_are_told() {
    let failed = json!({"event_type": "interaction.completed",
        "interaction": {"status": "failed", "error": {"code": "unavailable", "message": "down"}}});
    let error = json!({"event_type": "error",
        "error": {"code": "resource_exhausted", "message": "slow"}});
    let cases = [
        (failed, ("provider.unavailable", true)),
        (error, ("provider.rate_limited", true)),
        (ended("in_progress"), ("provider.unavailable", true)),
    ];
    for (event, expected) in cases {
        let server = Server::chatting(move || raw_sse(events(std::slice::from_ref(&event)))).await;
        let error = answer_of(&server, &config()).await.expect_err("an error");
        assert_eq!((error.code, error.retryable), expected);
    }
    let server = Server::chatting(|| raw_sse(events(&stream()[..8]))).await;
    let error = answer_of(&server, &config()).await.expect_err("cut");
    assert_eq!((error.code, error.has_begun), ("provider.unavailable", true));
    let server = Server::chatting(|| raw_sse(events(&[ended("incomplete")]))).await;
    assert_eq!(answer_of(&server, &config()).await.expect("cut by its limit").finish, "length");
}
