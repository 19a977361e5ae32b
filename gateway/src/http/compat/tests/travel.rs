//! Answers of every kind travel through a door and back, and a stream tells what a whole answer
//! does.

use convergio_domain::chat::{
    ChatInterface, ChatReply, MessagePart, NativeFields, NativePart, TextPart, ThinkingPart,
    ToolCall,
};
use proptest::prelude::{Just, Strategy, prop_assert_eq, prop_assume, prop_oneof, proptest};
use serde_json::{Map, Value, json};

use super::super::chat::CompatChatCompletions;
use super::super::compat_run::ReplyHead;
use super::super::dialect::{CompatDialect, WholeReply};
use super::super::messages::CompatMessages;
use super::super::reply_progress::{PartEvent, PartStart, ReplyProgress};
use super::super::responses::CompatResponses;
use super::read_by;

const RUN: &str = "0193a1b2-0000-7000-8000-000000000001";

fn text() -> impl Strategy<Value = String> {
    proptest::string::string_regex("\\PC{1,20}").expect("a pattern")
}

fn native(of: ChatInterface) -> impl Strategy<Value = Option<NativeFields>> {
    let fields = text().prop_map(move |value| {
        let fields = Map::from_iter([("thoughtSignature".to_owned(), json!(value))]);
        NativeFields { interface: of, fields }
    });
    proptest::option::of(fields)
}

fn thinking() -> impl Strategy<Value = MessagePart> {
    let part =
        |(text, signature, native)| MessagePart::Thinking(ThinkingPart { text, signature, native });
    prop_oneof![
        (text(), Just(String::new()), native(ChatInterface::Gemini)).prop_map(part),
        (text(), text(), Just(None)).prop_map(part),
        (Just(String::new()), text(), Just(None)).prop_map(part),
    ]
}

fn said() -> impl Strategy<Value = MessagePart> {
    (text(), native(ChatInterface::Gemini)).prop_map(|(text, native)| {
        MessagePart::Text(TextPart { text, native, ..TextPart::default() })
    })
}

fn call() -> impl Strategy<Value = MessagePart> {
    (text(), native(ChatInterface::Gemini)).prop_map(|(value, native)| {
        let (id, name) = (format!("call_{}", value.len()), "tool".to_owned());
        let arguments = json!({"a": value}).to_string();
        MessagePart::ToolCall(ToolCall { id, name, arguments, native, ..ToolCall::default() })
    })
}

fn opaque() -> impl Strategy<Value = MessagePart> {
    (text(), proptest::sample::select(&ChatInterface::ALL[2..4])).prop_map(|(data, interface)| {
        let block = json!({"type": "redacted_thinking", "data": data});
        MessagePart::Native(NativePart { interface, block })
    })
}

/// Parts in any order.
fn any_parts() -> impl Strategy<Value = Vec<MessagePart>> {
    let part = prop_oneof![thinking(), said(), call(), opaque()];
    proptest::collection::vec(part, 1..8)
}

fn reply(parts: Vec<MessagePart>) -> ChatReply {
    let mut reply = ChatReply { finish: "stop".into(), model: "m".into(), ..ChatReply::default() };
    reply.set_parts(parts);
    reply
}

fn whole<D: CompatDialect>(door: &D, reply: &ChatReply) -> Value {
    door.render_reply(&WholeReply { run: RUN, reply, model: &reply.model })
}

/// The events of a stream of which so many letters were heard before the end.
fn stream<D: CompatDialect>(mut door: D, reply: &ChatReply) -> Vec<Value> {
    let head = ReplyHead { model: reply.model.clone(), ..ReplyHead::default() };
    let mut events = door.render_start(RUN, &head);
    let mut open = PartStart::Text;
    for event in ReplyProgress::default().finish_parts(reply.ordered_parts()).expect("they fit") {
        if let PartEvent::Begin(start) = &event {
            open = start.clone();
        }
        events.extend(door.render_part(&open, &event));
    }
    events.extend(door.render_end(reply));
    events.iter().filter_map(|event| serde_json::from_str(&event.data).ok()).collect()
}

fn chat_door() -> CompatChatCompletions {
    let body = json!({"model": "m", "messages": [{"role": "user", "content": "hi"}]});
    read_by::<CompatChatCompletions>(&body).expect("it is read").1
}

fn messages_door() -> CompatMessages {
    let body =
        json!({"model": "m", "max_tokens": 9, "messages": [{"role": "user", "content": "hi"}]});
    read_by::<CompatMessages>(&body).expect("it is read").1
}

fn responses_door() -> CompatResponses {
    read_by::<CompatResponses>(&json!({"model": "m", "input": "hi"})).expect("it is read").1
}

/// What a client has of a stream of messages, block by block, as Anthropic's SDKs build it.
fn built_message(events: &[Value]) -> Value {
    let mut blocks: Vec<Value> = Vec::new();
    let mut inputs: Vec<String> = Vec::new();
    for event in events {
        let index = usize::try_from(event["index"].as_u64().unwrap_or(0)).expect("small");
        match event["type"].as_str() {
            Some("content_block_start") => {
                assert_eq!(index, blocks.len());
                blocks.push(event["content_block"].clone());
                inputs.push(String::new());
            }
            Some("content_block_delta") => {
                let (delta, block) = (&event["delta"], &mut blocks[index]);
                for name in ["text", "thinking", "signature"] {
                    if let Some(piece) = delta[name].as_str() {
                        block[name] =
                            json!(format!("{}{piece}", block[name].as_str().unwrap_or("")));
                    }
                }
                inputs[index].push_str(delta["partial_json"].as_str().unwrap_or(""));
            }
            Some("content_block_stop") if !inputs[index].is_empty() => {
                blocks[index]["input"] = serde_json::from_str(&inputs[index]).expect("JSON");
            }
            _ => {}
        }
    }
    Value::Array(blocks)
}

/// What a client has of a stream of chat completions.
fn built_completion(events: &[Value]) -> Value {
    let mut message = json!({"role": "assistant", "content": null, "refusal": null});
    for event in events {
        let Value::Object(delta) = &event["choices"][0]["delta"] else { continue };
        for (name, value) in delta {
            match (name.as_str(), value) {
                ("tool_calls", Value::Array(calls)) => {
                    for call in calls {
                        add_call(&mut message, call);
                    }
                }
                ("content" | "reasoning_content", Value::String(piece)) => {
                    let text = format!("{}{piece}", message[name].as_str().unwrap_or(""));
                    // A stream begins with an empty text.
                    message[name] = if text.is_empty() { Value::Null } else { json!(text) };
                }
                ("role", _) => {}
                _ => message[name] = value.clone(),
            }
        }
    }
    message
}

fn add_call(message: &mut Value, call: &Value) {
    let index = usize::try_from(call["index"].as_u64().expect("an index")).expect("small");
    if message["tool_calls"].is_null() {
        message["tool_calls"] = json!([]);
    }
    let calls = message["tool_calls"].as_array_mut().expect("a list");
    if index == calls.len() {
        let mut begun = call.clone();
        begun.as_object_mut().expect("a call").remove("index");
        calls.push(begun);
        return;
    }
    let known = &mut calls[index];
    if let Some(piece) = call["function"]["arguments"].as_str() {
        let text = known["function"]["arguments"].as_str().unwrap_or("").to_owned() + piece;
        known["function"]["arguments"] = json!(text);
    }
    if !call["extra_content"].is_null() {
        known["extra_content"] = call["extra_content"].clone();
    }
}

proptest! {
    #[test]
    fn an_answer_comes_back_through_the_door_of_messages(parts in any_parts()) {
        let content = whole(&messages_door(), &reply(parts.clone()))["content"].clone();
        let body = json!({"model": "m", "max_tokens": 9, "messages": [
            {"role": "user", "content": "hi"}, {"role": "assistant", "content": content}]});
        let (request, _) = read_by::<CompatMessages>(&body).expect("it is read");
        prop_assert_eq!(&request.messages[1].parts, &parts);
    }

    #[test]
    fn an_answer_comes_back_through_the_door_of_responses(parts in any_parts()) {
        let output = whole(&responses_door(), &reply(parts.clone()))["output"].clone();
        let body = json!({"model": "m", "input": output});
        let (request, _) = read_by::<CompatResponses>(&body).expect("it is read");
        prop_assert_eq!(&request.messages[0].parts, &parts);
    }

    #[test]
    fn an_answer_comes_back_through_the_door_of_chat_completions(parts in any_parts()) {
        prop_assume!(!parts.is_empty());
        let message = whole(&chat_door(), &reply(parts.clone()))["choices"][0]["message"].clone();
        let body = json!({"model": "m", "messages": [{"role": "user", "content": "hi"}, message]});
        let (request, _) = read_by::<CompatChatCompletions>(&body).expect("it is read");
        prop_assert_eq!(&request.messages[1].parts, &parts);
    }

    #[test]
    fn a_stream_of_messages_builds_the_whole_answer(parts in any_parts()) {
        let reply = reply(parts);
        let whole = whole(&messages_door(), &reply);
        let events = stream(messages_door(), &reply);
        prop_assert_eq!(&built_message(&events), &whole["content"]);
        let last = &events[events.len() - 2];
        prop_assert_eq!(&last["delta"]["stop_reason"], &whole["stop_reason"]);
        prop_assert_eq!(&last["usage"], &whole["usage"]);
    }

    #[test]
    fn a_stream_of_chat_completions_builds_the_whole_answer(parts in any_parts()) {
        let reply = reply(parts);
        let whole = whole(&chat_door(), &reply);
        let built = built_completion(&stream(chat_door(), &reply));
        prop_assert_eq!(&built, &whole["choices"][0]["message"]);
    }

    #[test]
    fn a_stream_of_responses_ends_with_the_whole_answer(parts in any_parts()) {
        let reply = reply(parts);
        let whole = whole(&responses_door(), &reply);
        let events = stream(responses_door(), &reply);
        let done: Vec<&Value> = events.iter()
            .filter(|event| event["type"] == "response.output_item.done")
            .map(|event| &event["item"])
            .collect();
        prop_assert_eq!(&json!(done), &whole["output"]);
        let last = events.last().expect("events");
        prop_assert_eq!(&last["response"]["output"], &whole["output"]);
        for (number, event) in events.iter().enumerate() {
            prop_assert_eq!(&event["sequence_number"], &json!(number));
        }
    }
}

#[test]
fn arguments_are_an_object_always() {
    for (written, told) in [
        ("", json!({})),
        ("{\"a\":1}", json!({"a": 1})),
        ("[1]", json!({"_raw_arguments": "[1]"})),
        ("{\"a\":", json!({"_raw_arguments": "{\"a\":"})),
    ] {
        let call = ToolCall { id: "c".into(), arguments: written.into(), ..ToolCall::default() };
        let reply = reply(vec![MessagePart::ToolCall(call)]);
        let message = whole(&messages_door(), &reply);
        assert_eq!(message["content"][0]["input"], told);
        let completion = whole(&chat_door(), &reply);
        let call = &completion["choices"][0]["message"]["tool_calls"][0]["function"];
        let text = call["arguments"].as_str().expect("text");
        assert_eq!(serde_json::from_str::<Value>(text).expect("JSON"), told);
    }
}

#[test]
fn why_an_answer_ended_is_told_as_it_is() {
    let told = |finish: &str, native: &str, interface, sequence: Option<&str>| {
        let reply = ChatReply {
            finish: finish.into(),
            native_finish: native.into(),
            interface,
            stop_sequence: sequence.map(str::to_owned),
            model: "m".into(),
            ..ChatReply::default()
        };
        let (chat, message) = (whole(&chat_door(), &reply), whole(&messages_door(), &reply));
        let (finish, stop) = (&chat["choices"][0]["finish_reason"], &message["stop_reason"]);
        let word = |value: &Value| value.as_str().unwrap_or_default().to_owned();
        (word(finish), word(stop), word(&whole(&responses_door(), &reply)["status"]))
    };
    let own = Some(ChatInterface::Anthropic);
    for (asked, chat, message, status) in [
        (told("stop", "", None, None), "stop", "end_turn", "completed"),
        (told("stop", "stop_sequence", own, Some("END")), "stop", "stop_sequence", "completed"),
        (told("length", "", None, None), "length", "max_tokens", "incomplete"),
        (told("tool_calls", "", None, None), "tool_calls", "tool_use", "completed"),
        (told("content_filter", "", None, None), "content_filter", "refusal", "incomplete"),
        (told("pause", "pause_turn", own, None), "pause", "pause_turn", "incomplete"),
        (told("abort", "abort", None, None), "abort", "abort", "incomplete"),
        (
            told("length", "model_context_window_exceeded", own, None),
            "length",
            "model_context_window_exceeded",
            "incomplete",
        ),
    ] {
        assert_eq!(asked, (chat.to_owned(), message.to_owned(), status.to_owned()));
    }
}

#[test]
fn marks_are_for_no_other_text_than_theirs() {
    let fields = Map::from_iter([("thoughtSignature".to_owned(), json!("s"))]);
    let native = NativeFields::from_fields(ChatInterface::Gemini, fields);
    let text = |text: &str, native| {
        MessagePart::Text(TextPart { text: text.into(), cache_control: None, native })
    };
    let parts = vec![text("one ", None), text("two", native)];
    let mut message = whole(&chat_door(), &reply(parts.clone()))["choices"][0]["message"].clone();
    let mut read = |content: &str| {
        message["content"] = json!(content);
        let body = json!({"model": "m", "messages": [message]});
        let (request, _) = read_by::<CompatChatCompletions>(&body).expect("it is read");
        request.messages[0].parts.clone()
    };
    assert_eq!(read("one two"), parts);
    assert_eq!(read("something else"), [MessagePart::from_text("something else")]);
}

#[test]
fn what_chat_completions_say_of_an_answer_goes_back_through_any_door() {
    let details = json!([{"type": "reasoning.encrypted", "data": "sealed"}]);
    let fields = Map::from_iter([
        ("reasoning_details".to_owned(), details.clone()),
        ("system_fingerprint".to_owned(), json!("f")),
    ]);
    let native = NativeFields::from_fields(ChatInterface::OpenAiChat, fields);
    let reply = ChatReply { native, ..reply(vec![MessagePart::from_text("hi")]) };
    let content = whole(&messages_door(), &reply)["content"].clone();
    assert_eq!(built_message(&stream(messages_door(), &reply)), content);
    let body = json!({"model": "m", "max_tokens": 9, "messages": [
        {"role": "user", "content": "hi"}, {"role": "assistant", "content": content}]});
    let messages = read_by::<CompatMessages>(&body).expect("it is read").0.messages;
    let output = whole(&responses_door(), &reply)["output"].clone();
    let body = json!({"model": "m", "input": output});
    let responses = read_by::<CompatResponses>(&body).expect("it is read").0.messages;
    let fields = Map::from_iter([("reasoning_details".to_owned(), details)]);
    for message in [&messages[1], &responses[0]] {
        assert_eq!(
            message.native,
            NativeFields::from_fields(ChatInterface::OpenAiChat, fields.clone())
        );
        assert_eq!(message.parts, [MessagePart::from_text("hi")]);
    }
}
