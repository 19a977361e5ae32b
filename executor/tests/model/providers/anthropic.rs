//! Anthropic's messages.

use convergio_domain::billing::Meter;
use convergio_domain::chat::{
    ChatInterface, ChatMessage, ChatRequest, MessagePart, MessageRole, NativePart, ThinkingPart,
};
use convergio_eventstore::LiveKind;
use convergio_executor::provider::{
    AnswerPiece, HttpProvider, ModelInfo, Provider, ProviderApi, ProviderConfig, Secret,
};
use serde_json::{Value, json};

use super::{KEY, answer_of, conversation, led_to, meters, weather, written};
use crate::server::{PATIENCE, Server, ask_service, body_of, call, embed, json, raw_sse, request};

fn config() -> ProviderConfig {
    ProviderConfig::for_anthropic(Secret::new(KEY))
}

fn events(events: &[Value]) -> String {
    let line = |event: &Value| format!("event: {}\ndata: {event}\n\n", event["type"]);
    events.iter().map(line).collect()
}

fn start() -> Value {
    json!({"type": "message_start", "message": {"id": "msg_1", "role": "assistant",
        "model": "claude-x", "content": [], "stop_reason": null,
        "usage": {"input_tokens": 6, "cache_creation_input_tokens": 159_217,
            "cache_read_input_tokens": 40, "cache_creation":
                {"ephemeral_5m_input_tokens": 159_000, "ephemeral_1h_input_tokens": 217},
            "output_tokens": 1, "service_tier": "standard"}}})
}

fn end(reason: &str) -> [Value; 2] {
    let usage = json!({"output_tokens": 2745, "output_tokens_details": {"thinking_tokens": 900}});
    [
        json!({"type": "message_delta", "delta": {"stop_reason": reason, "stop_sequence": null},
            "usage": usage}),
        json!({"type": "message_stop"}),
    ]
}

fn block(index: u64, start: &Value, deltas: &[Value]) -> Vec<Value> {
    let mut events =
        vec![json!({"type": "content_block_start", "index": index, "content_block": start})];
    events.extend(
        deltas
            .iter()
            .map(|delta| json!({"type": "content_block_delta", "index": index, "delta": delta})),
    );
    events.push(json!({"type": "content_block_stop", "index": index}));
    events
}

fn stream() -> Vec<Value> {
    let thought = block(
        0,
        &json!({"type": "thinking", "thinking": "", "signature": ""}),
        &[
            json!({"type": "thinking_delta", "thinking": "let me see"}),
            json!({"type": "signature_delta", "signature": "EqQB"}),
        ],
    );
    let said = block(
        1,
        &json!({"type": "text", "text": ""}),
        &[
            json!({"type": "text_delta", "text": "Good "}),
            json!({"type": "text_delta", "text": "day"}),
        ],
    );
    let ping = json!({"type": "ping"});
    [vec![start(), ping], thought, said, end("end_turn").to_vec()].concat()
}

#[test]
fn a_whole_conversation_is_written_in_its_words() {
    let body = written(&config(), &conversation());
    assert_eq!(body["system"], "be brief");
    let source = json!({"type": "base64", "media_type": "image/png", "data": "aGk="});
    assert_eq!(body["messages"][0]["content"][1]["source"], source);
    let call = json!({"type": "tool_use", "id": "call_1", "name": "weather",
        "input": {"city": "Oslo"}});
    assert_eq!(body["messages"][1]["content"][0], call);
    assert_eq!(body["messages"][2]["content"][0]["tool_use_id"], "call_1");
    assert_eq!(body["tool_choice"], json!({"type": "tool", "name": "weather"}));
    assert_eq!((&body["max_tokens"], &body["stop_sequences"]), (&json!(64), &json!(["END"])));
    // The newest version refuses them.
    assert_eq!((&body["temperature"], &body["top_p"]), (&Value::Null, &Value::Null));
    let first = ProviderApi::Anthropic { version: "2023-06-01".into() };
    let body = written(&ProviderConfig { api: first, ..config() }, &conversation());
    assert_eq!(body["temperature"], 0.5);
}

fn thought(text: &str, signature: &str) -> MessagePart {
    let (text, signature) = (text.to_owned(), signature.to_owned());
    MessagePart::Thinking(ThinkingPart { text, signature, native: None })
}

#[test]
fn a_thought_goes_back_with_its_mark() {
    let messages = vec![ChatMessage::new(MessageRole::Assistant, vec![thought("hm", "EqQB")])];
    let body = written(&config(), &ChatRequest { messages, ..conversation() });
    let expected = json!({"type": "thinking", "thinking": "hm", "signature": "EqQB"});
    assert_eq!(body["messages"][0]["content"][0], expected);
}

#[tokio::test]
async fn a_stream_is_put_together_and_its_counts_replace_each_other() {
    let server = Server::chatting(|| raw_sse(events(&stream()))).await;
    let answer = answer_of(&server, &config()).await.expect("an answer");
    assert_eq!((answer.joined_text().as_str(), answer.finish.as_str()), ("Good day", "stop"));
    assert_eq!(answer.parts, [thought("let me see", "EqQB"), MessagePart::from_text("Good day")]);
    let expected = [
        (Meter::InFresh, 6),
        (Meter::InCacheRead, 40),
        (Meter::InCacheWrite5m, 159_000),
        (Meter::InCacheWrite1h, 217),
        (Meter::OutText, 1845),
        (Meter::OutReasoning, 900),
    ];
    assert_eq!(meters(&answer), expected);
    let seen = &server.seen()[0];
    assert_eq!(
        (seen.path.as_str(), &seen.headers["x-api-key"]),
        ("/v1/messages", &KEY.parse().expect("a header"))
    );
    assert_eq!(seen.headers["anthropic-version"], "2026-10-21");
}

#[tokio::test]
async fn a_tool_call_is_put_together_from_its_fragments() {
    let call = block(
        0,
        &json!({"type": "tool_use", "id": "toolu_1", "name": "weather", "input": {}}),
        &[
            json!({"type": "input_json_delta", "partial_json": ""}),
            json!({"type": "input_json_delta", "partial_json": "{\"city\":"}),
            json!({"type": "input_json_delta", "partial_json": "\"Oslo\"}"}),
        ],
    );
    let all = [vec![start()], call, end("tool_use").to_vec()].concat();
    let server = Server::chatting(move || raw_sse(events(&all))).await;
    let answer = answer_of(&server, &config()).await.expect("an answer");
    assert_eq!((answer.tool_calls(), answer.finish.as_str()), (weather("toolu_1"), "tool_calls"));
}

fn whole(content: &Value, reason: &str) -> Value {
    json!({"id": "msg_1", "type": "message", "role": "assistant", "model": "claude-x",
        "content": content, "stop_reason": reason,
        "usage": {"input_tokens": 20, "output_tokens": 8}})
}

#[tokio::test]
async fn an_answer_that_comes_at_once_is_taken_too() {
    let content = json!([{"type": "text", "text": "Let me look."},
        {"type": "tool_use", "id": "t", "name": "weather", "input": {"city": "Oslo"}}]);
    let server = Server::chatting(move || json(200, &whole(&content, "tool_use"))).await;
    let answer = answer_of(&server, &config()).await.expect("an answer");
    assert_eq!(
        (answer.joined_text().as_str(), answer.tool_calls()),
        ("Let me look.", weather("t"))
    );
    assert_eq!(meters(&answer), [(Meter::InFresh, 20), (Meter::OutText, 8)]);
}

#[tokio::test]
async fn an_answer_in_a_schema_is_the_arguments_of_a_tool() {
    let schema = json!({"type": "object", "properties": {"city": {"type": "string"}}});
    let request =
        ChatRequest { schema: Some(schema.clone()), ..ChatRequest::from_prompt("m", "p") };
    let body = written(&config(), &request);
    assert_eq!(body["tools"][0]["input_schema"], schema);
    let name = body["tools"][0]["name"].clone();
    assert_eq!(body["tool_choice"], json!({"type": "tool", "name": name}));
    let content = json!([{"type": "tool_use", "id": "t", "name": name, "input": {"city": "Oslo"}}]);
    let server = Server::chatting(move || json(200, &whole(&content, "tool_use"))).await;
    let answer = answer_of(&server, &config()).await.expect("an answer");
    assert_eq!(
        (answer.joined_text().as_str(), answer.finish.as_str()),
        (r#"{"city":"Oslo"}"#, "stop")
    );
    assert!(answer.tool_calls().is_empty());
}

#[tokio::test]
async fn errors_in_the_stream_are_errors() {
    let overloaded = json!({"type": "error",
        "error": {"type": "overloaded_error", "message": "Overloaded"}});
    let cases = [
        (vec![start(), overloaded], ("provider.unavailable", true)),
        (stream()[..8].to_vec(), ("provider.unavailable", true)),
    ];
    for (all, expected) in cases {
        let server = Server::chatting(move || raw_sse(events(&all))).await;
        let error = answer_of(&server, &config()).await.expect_err("an error");
        assert_eq!((error.code, error.retryable), expected);
        let told = error.partial_usage.expect("the prompt was read");
        assert_eq!(told.tokens_in(), 6 + 40 + 159_217);
    }
}

/// A stream with blocks of every kind.
fn rich_stream() -> Vec<Value> {
    let blocks = [
        (
            json!({"type": "thinking", "thinking": "", "signature": ""}),
            vec![
                json!({"type": "thinking_delta", "thinking": "let me"}),
                json!({"type": "signature_delta", "signature": "SIG-A"}),
            ],
        ),
        (json!({"type": "redacted_thinking", "data": "RED-1"}), vec![]),
        (
            json!({"type": "thinking", "thinking": "", "signature": ""}),
            vec![json!({"type": "signature_delta", "signature": "SIG-B"})],
        ),
        (
            json!({"type": "server_tool_use", "id": "s1", "name": "web_search", "input": {}}),
            vec![
                json!({"type": "input_json_delta", "partial_json": "{\"query\":"}),
                json!({"type": "input_json_delta", "partial_json": "\"x\"}"}),
            ],
        ),
        (
            json!({"type": "text", "text": "", "citations": []}),
            vec![
                json!({"type": "text_delta", "text": "it is"}),
                json!({"type": "citations_delta", "citation": {"cited_text": "c"}}),
            ],
        ),
        (json!({"type": "tool_use", "id": "t1", "name": "f", "input": {}}), vec![]),
        (
            json!({"type": "tool_use", "id": "t2", "name": "g", "input": {}}),
            vec![json!({"type": "input_json_delta", "partial_json": "{\"a\":1}"})],
        ),
    ];
    let mut all = vec![start()];
    for (index, (start, deltas)) in (0..).zip(blocks) {
        all.extend(block(index, &start, &deltas));
    }
    all.extend(end("tool_use"));
    all
}

#[tokio::test]
async fn every_block_is_told_as_it_comes_and_goes_back_as_it_came() {
    let server = Server::chatting(|| raw_sse(events(&rich_stream()))).await;
    let provider = HttpProvider::new(led_to(&server, config())).expect("a valid URL");
    let heard = std::sync::Mutex::new(Vec::new());
    let sink = |piece: AnswerPiece| heard.lock().expect("not poisoned").push(piece);
    let token = tokio_util::sync::CancellationToken::new();
    let body = body_of(&provider, &request());
    let answer =
        provider.complete_chat(call(&body, PATIENCE), &sink, &token).await.expect("an answer");
    let heard = heard.into_inner().expect("not poisoned");
    assert_eq!(heard[0], AnswerPiece::default(), "it has begun");
    let LiveKind::Begin { model, usage } = &heard[1].kind else { panic!("{:?}", heard[1]) };
    assert_eq!((model.as_str(), usage.tokens_in()), ("claude-x", 159_263));
    let part = |place: u32| {
        let pieces = heard[2..].iter().filter(move |piece| piece.part == place);
        pieces.map(|piece| (piece.kind.clone(), piece.offset, piece.text.clone()))
    };
    let told: Vec<_> = part(0).collect();
    assert_eq!(
        told,
        [
            (LiveKind::Thinking, 0, "let me".to_owned()),
            (LiveKind::Signature, 6, "SIG-A".to_owned())
        ]
    );
    let redacted = json!({"type": "redacted_thinking", "data": "RED-1"});
    let whole: Vec<_> = part(1).collect();
    assert_eq!((whole.len(), &whole[0].0), (1, &LiveKind::Whole));
    let whole: MessagePart = serde_json::from_str(&whole[0].2).expect("a part");
    let native = |block: Value| {
        MessagePart::Native(NativePart { interface: ChatInterface::Anthropic, block })
    };
    assert_eq!(whole, native(redacted.clone()));
    let citation = json!({"type": "citations_delta", "citation": {"cited_text": "c"}});
    let told: Vec<_> = part(4).collect();
    assert_eq!(told[1], (LiveKind::Native(ChatInterface::Anthropic), 5, citation.to_string()));
    let kind = LiveKind::ToolArguments { id: "t1".into(), name: "f".into() };
    assert!(part(5).all(|(it, ..)| it == kind));
    assert_eq!(part(5).map(|(_, _, text)| text).collect::<String>(), "{}");
    assert_eq!((answer.parts.len(), answer.finish.as_str()), (7, "tool_calls"));
    let messages = vec![ChatMessage::new(MessageRole::Assistant, answer.parts)];
    let body = written(&config(), &ChatRequest { messages, ..ChatRequest::default() });
    let expected = json!([
        {"type": "thinking", "thinking": "let me", "signature": "SIG-A"},
        redacted,
        {"type": "thinking", "thinking": "", "signature": "SIG-B"},
        {"type": "server_tool_use", "id": "s1", "name": "web_search", "input": {"query": "x"}},
        {"type": "text", "text": "it is", "citations": [{"cited_text": "c"}]},
        {"type": "tool_use", "id": "t1", "name": "f", "input": {}},
        {"type": "tool_use", "id": "t2", "name": "g", "input": {"a": 1}},
    ]);
    assert_eq!(body["messages"][0]["content"], expected);
}

#[tokio::test]
async fn why_a_model_stops_is_told_as_it_is() {
    for (reason, finish) in [
        ("end_turn", "stop"),
        ("stop_sequence", "stop"),
        ("max_tokens", "length"),
        ("model_context_window_exceeded", "length"),
        ("pause_turn", "pause"),
        ("refusal", "content_filter"),
        ("a_new_reason", "a_new_reason"),
    ] {
        let mut all = stream();
        all.truncate(all.len() - 2);
        let mut end = end(reason);
        end[0]["delta"]["stop_sequence"] = json!("END");
        all.extend(end);
        let server = Server::chatting(move || raw_sse(events(&all))).await;
        let answer = answer_of(&server, &config()).await.expect("an answer");
        assert_eq!((answer.finish.as_str(), answer.native_finish.as_str()), (finish, reason));
        assert_eq!(answer.stop_sequence.as_deref(), Some("END"));
        assert_eq!(answer.service_tier.as_deref(), Some("standard"));
        assert_eq!(answer.check_use("p").is_err(), finish == "content_filter");
    }
}

#[tokio::test]
async fn models_are_listed_and_embeddings_are_not_had() {
    let list = json!({"data": [{"type": "model", "id": "claude-x", "max_input_tokens": 200_000}],
        "has_more": false});
    let server = Server::chatting(move || json(200, &list)).await;
    let provider = HttpProvider::new(led_to(&server, config())).expect("a valid URL");
    let expected = ModelInfo::new("claude-x", Some(200_000));
    assert_eq!(provider.list_models().await.expect("a list"), [expected]);
    let error = ask_service(&provider, "m", embed(&["x"])).await.expect_err("none");
    assert_eq!((error.code, server.seen().len()), ("request.unsupported", 1));
    assert!(error.message.contains("has no embeddings"), "{error}");
}
