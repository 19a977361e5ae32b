//! OpenAI's responses.

use convergio_domain::billing::Meter;
use convergio_domain::chat::{
    ChatField, ChatInterface, ChatMessage, ChatRequest, MessagePart, MessageRole, NativeFields,
    ThinkingPart,
};
use convergio_executor::provider::{ProviderApi, ProviderConfig, Secret};
use serde_json::{Value, json};

use super::{KEY, answer_of, conversation, meters, weather, written};
use crate::server::{Server, json, raw_sse};

fn config() -> ProviderConfig {
    ProviderConfig {
        api: ProviderApi::OpenAiResponses,
        ..ProviderConfig::for_openai(Secret::new(KEY))
    }
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
    assert_eq!(
        (answer.joined_text().as_str(), answer.joined_thinking().as_str()),
        ("Good day", "hm")
    );
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

/// A stream of a thought that is sealed, two messages and a call.
fn rich_stream(items: &[Value]) -> Vec<Value> {
    let event = |kind: &str, index: usize, fields: Value| {
        let mut event = json!({"type": kind, "output_index": index});
        let more = fields.as_object().expect("an object").clone();
        event.as_object_mut().expect("an object").extend(more);
        event
    };
    let mut all = vec![stream().remove(0)];
    for (index, item) in items.iter().enumerate() {
        let mut begun = item.clone();
        for name in ["arguments", "content", "summary", "encrypted_content"] {
            begun.as_object_mut().expect("an object").remove(name);
        }
        all.push(event("response.output_item.added", index, json!({"item": begun})));
        for (number, part) in item["summary"].as_array().into_iter().flatten().enumerate() {
            let place = json!({"summary_index": number});
            all.push(event("response.reasoning_summary_part.added", index, place));
            let delta = json!({"delta": part["text"]});
            all.push(event("response.reasoning_summary_text.delta", index, delta));
        }
        for part in item["content"].as_array().into_iter().flatten() {
            all.push(event("response.content_part.added", index, json!({})));
            let delta = json!({"delta": part["text"]});
            all.push(event("response.output_text.delta", index, delta));
        }
        if let Some(arguments) = item["arguments"].as_str() {
            let (one, other) = arguments.split_at(4);
            for delta in [one, other] {
                let delta = json!({"delta": delta});
                all.push(event("response.function_call_arguments.delta", index, delta));
            }
        }
        all.push(event("response.output_item.done", index, json!({"item": item})));
    }
    all.extend(stream().pop());
    all
}

#[tokio::test]
async fn every_item_goes_back_as_it_came_streamed_or_whole() {
    let text = |text: &str| json!({"type": "output_text", "text": text});
    let items = vec![
        json!({"type": "reasoning", "id": "rs_1", "encrypted_content": "SEALED",
            "summary": [{"type": "summary_text", "text": "a"},
                {"type": "summary_text", "text": "b"}]}),
        json!({"type": "message", "role": "assistant", "phase": "commentary",
            "content": [text("one"), text("two")]}),
        json!({"type": "message", "role": "assistant", "phase": "final_answer",
            "content": [text("three")]}),
        json!({"type": "function_call", "call_id": "c1", "name": "f",
            "arguments": "{\"city\":\"Oslo\"}"}),
        json!({"type": "web_search_call", "id": "ws_1", "status": "completed"}),
    ];
    let whole = json!({"model": "gpt-r", "status": "completed", "output": items,
        "usage": usage()});
    let streamed = rich_stream(&items);
    for is_stream in [true, false] {
        let (whole, streamed) = (whole.clone(), streamed.clone());
        let server = Server::chatting(move || {
            if is_stream { raw_sse(events(&streamed)) } else { json(200, &whole) }
        });
        let answer = answer_of(&server.await, &config()).await.expect("an answer");
        assert_eq!(
            (answer.joined_thinking().as_str(), answer.joined_text().as_str()),
            ("a\n\nb", "onetwothree")
        );
        assert_eq!((answer.tool_calls().len(), answer.finish.as_str()), (1, "tool_calls"));
        let messages = vec![ChatMessage::new(MessageRole::Assistant, answer.parts)];
        let body = written(&config(), &ChatRequest { messages, ..ChatRequest::default() });
        assert_eq!(body["input"], json!(items), "streamed: {is_stream}");
    }
}

#[test]
fn a_thought_that_is_not_sealed_cannot_be_found_again() {
    let fields = json!({"type": "reasoning", "id": "rs_1", "summary": []});
    let native = NativeFields {
        interface: ChatInterface::OpenAiResponses,
        fields: fields.as_object().expect("an object").clone(),
    };
    let thought =
        MessagePart::Thinking(ThinkingPart { native: Some(native), ..ThinkingPart::default() });
    let messages =
        vec![ChatMessage::new(MessageRole::Assistant, vec![thought, MessagePart::from_text("t")])];
    let request = ChatRequest { messages, ..ChatRequest::default() };
    let kept = json!([{"type": "message", "role": "assistant",
        "content": [{"type": "output_text", "text": "t"}]}]);
    assert_eq!(written(&config(), &request)["input"], kept);
    let options = [(ChatField::Store, json!(true))].into();
    let stored = written(&config(), &ChatRequest { options, ..request });
    assert_eq!(stored["input"][0], fields);
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
    assert_eq!((answer.joined_text().as_str(), answer.finish.as_str()), ("Good", "length"));
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
