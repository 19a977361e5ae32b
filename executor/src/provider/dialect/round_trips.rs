//! Property tests: what an interface answered is sent back to it unchanged, block for block, over
//! many turns.

use bytes::Bytes;
use convergio_domain::chat::{ChatField, ChatInterface, ChatMessage, ChatRequest, MessageRole};
use convergio_kernel_c::KernelPlatform;
use proptest::prelude::{
    Just, ProptestConfig, Strategy, any, prop, prop_assert_eq, prop_oneof, proptest,
};
use serde_json::{Value, json};

use super::anthropic::MessagesDialect;
use super::gemini::GenerateContentDialect;
use super::interactions::InteractionsDialect;
use super::ollama::OllamaDialect;
use super::openai::ChatCompletionsDialect;
use super::responses::ResponsesDialect;
use super::wire_format::{Dialect, ReadError};
use crate::provider::answer::AnswerBuilder;
use crate::provider::provider_traits::ProviderTraits;
use crate::provider::request_adapter::RequestAdapter;

/// Reads an answer and returns it as a message of the conversation.
fn assistant_turn(dialect: &dyn Dialect, answer: &Value) -> ChatMessage {
    let mut draft = AnswerBuilder::new();
    if let Err(ReadError::Malformed(what)) = dialect.read_whole(answer, &mut draft) {
        panic!("{what}: {answer}");
    }
    let answer = draft.into_answer(dialect.wire_interface(), &Bytes::new(), dialect.usage_reader());
    let native = answer.native.filter(|_| dialect.wire_interface() == ChatInterface::OpenAiChat);
    ChatMessage { native, ..ChatMessage::new(MessageRole::Assistant, answer.parts) }
}

/// Writes the request of a conversation that consists of these answers.
fn write_conversation(dialect: &dyn Dialect, answers: &[Value]) -> Value {
    let messages = answers.iter().map(|answer| assistant_turn(dialect, answer)).collect();
    let request = ChatRequest { messages, ..ChatRequest::default() };
    let support = |field: ChatField| dialect.field_support(field);
    let fit =
        RequestAdapter { provider: "p", interface: dialect.wire_interface(), support: &support };
    let (request, left_out) = fit.adapt_request(request).expect("it is all its own");
    assert_eq!(left_out.fields, []);
    dialect.write_request(&request, &ProviderTraits::default())
}

fn any_text() -> impl Strategy<Value = String> {
    "[a-zA-Z0-9 é好\\n\"]{1,12}"
}

fn any_word() -> impl Strategy<Value = String> {
    "[a-z]{1,8}"
}

fn any_object() -> impl Strategy<Value = Value> {
    prop_oneof![
        Just(json!({})),
        (any_word(), any_text()).prop_map(|(name, value)| json!({name: value})),
        (any_word(), any::<i32>(), prop::collection::vec(any_text(), 0..3))
            .prop_map(|(name, number, list)| json!({name: {"n": number, "list": list}})),
    ]
}

fn any_turns(
    block: impl Strategy<Value = Value> + 'static,
) -> impl Strategy<Value = Vec<Vec<Value>>> {
    let block = block.boxed();
    prop::collection::vec(prop::collection::vec(block, 1..6), 1..40)
}

fn anthropic_block() -> impl Strategy<Value = Value> {
    let cited = json!([{"type": "char_location", "cited_text": "c", "document_index": 0,
        "document_title": "t", "start_char_index": 0, "end_char_index": 1}]);
    prop_oneof![
        any_text().prop_map(|text| json!({"type": "text", "text": text})),
        any_text().prop_map(move |text| json!({"type": "text", "text": text, "citations": cited})),
        (any_text(), any_word())
            .prop_map(|(text, mark)| json!({"type": "thinking", "thinking": text,
            "signature": mark})),
        any_word().prop_map(|mark| json!({"type": "thinking", "thinking": "", "signature": mark})),
        any_word().prop_map(|data| json!({"type": "redacted_thinking", "data": data})),
        (any_word(), any_object()).prop_map(|(name, input)| json!({"type": "tool_use", "id": "",
            "name": name, "input": input, "caller": {"type": "direct"}})),
        (any_word(), any_object())
            .prop_map(|(id, input)| json!({"type": "server_tool_use", "id": id,
            "name": "web_search", "input": input})),
        (any_word(), any_text()).prop_map(|(id, title)| json!({"type": "web_search_tool_result",
            "tool_use_id": id, "content": [{"type": "web_search_result", "title": title}]})),
    ]
}

fn responses_item() -> impl Strategy<Value = Value> {
    let message = |text: String, phase: &str| {
        json!({"type": "message", "role": "assistant", "phase": phase,
            "content": [{"type": "output_text", "text": text}]})
    };
    let reasoning = (any_word(), prop::collection::vec(any_text(), 0..3), any_word());
    prop_oneof![
        any_text().prop_map(move |text| message(text, "commentary")),
        (any_text(), any_text()).prop_map(|(one, other)| json!({"type": "message",
            "role": "assistant", "phase": "final_answer",
            "content": [{"type": "output_text", "text": one,
                "annotations": [{"type": "url_citation", "url": "https://a"}]},
                {"type": "refusal", "refusal": other}]})),
        reasoning.prop_map(|(id, texts, sealed)| {
            let summary: Vec<Value> =
                texts.iter().map(|text| json!({"type": "summary_text", "text": text})).collect();
            json!({"type": "reasoning", "id": id, "summary": summary, "encrypted_content": sealed})
        }),
        (any_word(), any_object()).prop_map(|(name, input)| json!({"type": "function_call",
            "call_id": "", "name": name, "arguments": input.to_string()})),
        any_word().prop_map(|id| json!({"type": "web_search_call", "id": id,
            "status": "completed"})),
        (any_word(), any_text()).prop_map(|(id, input)| json!({"type": "custom_tool_call",
            "call_id": id, "name": "apply_patch", "input": input})),
    ]
}

fn gemini_part() -> impl Strategy<Value = Value> {
    prop_oneof![
        (any_text(), any_word())
            .prop_map(|(text, mark)| json!({"text": text, "thoughtSignature": mark})),
        any_word().prop_map(|mark| json!({"text": "", "thoughtSignature": mark})),
        (any_text(), any_word()).prop_map(|(text, mark)| json!({"text": text, "thought": true,
            "thoughtSignature": mark})),
        (any_word(), any_object(), any_word())
            .prop_map(|(name, args, mark)| json!({"functionCall":
            {"id": "", "name": name, "args": args}, "thoughtSignature": mark})),
        any_text().prop_map(|code| json!({"executableCode": {"language": "PYTHON", "code": code}})),
    ]
}

fn interactions_step() -> impl Strategy<Value = Value> {
    prop_oneof![
        prop::collection::vec(any_text(), 1..2).prop_map(|texts| {
            let content: Vec<Value> =
                texts.iter().map(|text| json!({"type": "text", "text": text})).collect();
            json!({"type": "model_output", "content": content})
        }),
        (any_text(), any_word())
            .prop_map(|(text, mark)| json!({"type": "thought", "signature": mark,
            "summary": [{"type": "text", "text": text}]})),
        any_word().prop_map(|mark| json!({"type": "thought", "signature": mark})),
        (any_word(), any_object()).prop_map(|(name, arguments)| json!({"type": "function_call",
            "id": "", "name": name, "arguments": arguments})),
        any_word().prop_map(|id| json!({"type": "google_search_call", "id": id})),
    ]
}

fn chat_message() -> impl Strategy<Value = Value> {
    let call = (any_word(), any_object()).prop_map(|(name, input)| {
        json!({"id": "", "type": "function", "extra_content": {"google": {"x": 1}},
            "function": {"name": name, "arguments": input.to_string()}})
    });
    let details = |mark: String| json!([{"type": "reasoning.encrypted", "data": mark, "index": 0}]);
    let calls = prop::collection::vec(call, 0..3);
    let parts = (
        prop::option::of(any_text()),
        prop::option::of(any_text()),
        calls,
        any_word(),
        any::<bool>(),
    );
    parts.prop_map(move |(content, thought, calls, mark, has_details)| {
        let mut message = json!({"role": "assistant", "content": content});
        if let Some(thought) = thought {
            message["reasoning_content"] = json!(thought);
        }
        if !calls.is_empty() {
            message["tool_calls"] = json!(calls);
        }
        if has_details {
            message["reasoning_details"] = details(mark);
        }
        if message == json!({"role": "assistant", "content": null}) {
            message["content"] = json!("a");
        }
        message
    })
}

fn ollama_message() -> impl Strategy<Value = Value> {
    let call = (any_word(), any_object())
        .prop_map(|(name, input)| json!({"function": {"name": name, "arguments": input}}));
    let calls = prop::collection::vec(call, 0..3);
    (any_text(), prop::option::of(any_text()), calls).prop_map(|(content, thought, calls)| {
        let mut message = json!({"role": "assistant", "content": content});
        if let Some(thought) = thought {
            message["thinking"] = json!(thought);
        }
        if !calls.is_empty() {
            message["tool_calls"] = json!(calls);
        }
        message
    })
}

/// Gives every call a unique id, as providers do.
fn number_calls(turns: &mut [Vec<Value>], place: &str) {
    let calls = turns.iter_mut().flatten().filter_map(|block| block.pointer_mut(place));
    for (number, id) in calls.filter(|id| *id == "").enumerate() {
        *id = json!(format!("call_{number}"));
    }
}

/// Returns the blocks of a content, which is a string if it is one plain text.
fn content_blocks(content: &Value) -> Vec<Value> {
    match content {
        Value::String(text) => vec![json!({"type": "text", "text": text})],
        content => content.as_array().cloned().unwrap_or_default(),
    }
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(64))]

    #[test]
    fn anthropics_blocks(mut turns in any_turns(anthropic_block())) {
        number_calls(&mut turns, "/id");
        let answers: Vec<Value> = turns.iter()
            .map(|content| json!({"content": content, "stop_reason": "end_turn"})).collect();
        let body = write_conversation(&MessagesDialect::new("2026-10-21"), &answers);
        let sent = body["messages"].as_array().expect("messages");
        prop_assert_eq!(sent.len(), turns.len());
        for (sent, turn) in sent.iter().zip(&turns) {
            prop_assert_eq!(&content_blocks(&sent["content"]), turn);
        }
    }

    #[test]
    fn items_of_responses(mut turns in any_turns(responses_item())) {
        number_calls(&mut turns, "/call_id");
        let answers: Vec<Value> = turns.iter()
            .map(|output| json!({"output": output, "status": "completed"})).collect();
        let body = write_conversation(&ResponsesDialect, &answers);
        prop_assert_eq!(body["input"].as_array().expect("items"), &turns.concat());
    }

    #[test]
    fn geminis_parts(mut turns in any_turns(gemini_part())) {
        number_calls(&mut turns, "/functionCall/id");
        let answers: Vec<Value> = turns.iter().map(|parts| json!({"candidates": [
            {"content": {"parts": parts}, "finishReason": "STOP"}]})).collect();
        let body = write_conversation(&GenerateContentDialect, &answers);
        let sent = body["contents"].as_array().expect("contents");
        for (sent, turn) in sent.iter().zip(&turns) {
            prop_assert_eq!(sent["parts"].as_array().expect("parts"), turn);
        }
    }

    #[test]
    fn steps_of_interactions(mut turns in any_turns(interactions_step())) {
        number_calls(&mut turns, "/id");
        // Two outputs in a row are read as one.
        for turn in &mut turns {
            turn.dedup_by(|one, other| {
                one["type"] == "model_output" && other["type"] == "model_output"
            });
        }
        let answers: Vec<Value> = turns.iter()
            .map(|steps| json!({"steps": steps, "status": "completed"})).collect();
        let body = write_conversation(&InteractionsDialect, &answers);
        prop_assert_eq!(body["input"].as_array().expect("steps"), &turns.concat());
    }

    #[test]
    fn messages_of_chat_completions(message in prop::collection::vec(chat_message(), 1..40)) {
        let mut turns: Vec<Vec<Value>> = message.into_iter().map(|message| vec![message]).collect();
        for (turn, message) in turns.iter_mut().flatten().enumerate() {
            let calls = message.get_mut("tool_calls").and_then(Value::as_array_mut);
            let calls = calls.into_iter().flatten();
            for (place, call) in calls.enumerate() {
                call["id"] = json!(format!("call_{turn}_{place}"));
            }
        }
        let answers: Vec<Value> = turns.iter().flatten()
            .map(|message| json!({"choices": [{"message": message, "finish_reason": "stop"}]}))
            .collect();
        let dialect = ChatCompletionsDialect::new(KernelPlatform::CloudApi, None);
        let body = write_conversation(&dialect, &answers);
        prop_assert_eq!(body["messages"].as_array().expect("messages"), &turns.concat());
    }

    #[test]
    fn messages_of_ollama(turns in prop::collection::vec(ollama_message(), 1..40)) {
        let answers: Vec<Value> = turns.iter()
            .map(|message| json!({"message": message, "done": true, "done_reason": "stop"}))
            .collect();
        let mut body = write_conversation(&OllamaDialect, &answers);
        // Calls without an id got a generated one.
        let messages = body["messages"].as_array_mut().expect("messages");
        let calls = messages.iter_mut().filter_map(|it| it.get_mut("tool_calls")?.as_array_mut());
        for call in calls.flatten() {
            call.as_object_mut().expect("a call").remove("id");
        }
        prop_assert_eq!(messages, &turns);
    }
}
