//! Streams word for word, as SDKs read them: a thought with its mark, a text, a call of a tool.

use convergio_domain::chat::{ChatReply, MessagePart, ThinkingPart, ToolCall};
use convergio_eventstore::{LiveKind, LiveNote};
use serde_json::{Value, json};

use super::super::chat::CompatChatCompletions;
use super::super::compat_run::ReplyHead;
use super::super::dialect::{CompatDialect, DialectEvent};
use super::super::messages::CompatMessages;
use super::super::refusal::CallFailure;
use super::super::reply_progress::{PartEvent, PartStart, ReplyProgress};
use super::super::responses::CompatResponses;
use super::read_by;

fn note(kind: LiveKind, part: u32, offset: u64, text: &str) -> LiveNote {
    LiveNote { kind, part, offset, text: text.to_owned(), ..LiveNote::default() }
}

fn notes() -> Vec<LiveNote> {
    let tool = LiveKind::ToolArguments { id: "c".into(), name: "t".into() };
    vec![
        note(LiveKind::Thinking, 0, 0, "hm"),
        note(LiveKind::Signature, 0, 2, "S"),
        note(LiveKind::Text, 1, 0, "a"),
        note(LiveKind::Text, 1, 1, "b"),
        note(tool.clone(), 2, 0, ""),
        note(tool, 2, 0, "{\"x\":1}"),
    ]
}

fn reply() -> ChatReply {
    let thinking = ThinkingPart { text: "hm".into(), signature: "S".into(), native: None };
    let arguments = "{\"x\":1}".to_owned();
    let call = ToolCall { id: "c".into(), name: "t".into(), arguments, ..ToolCall::default() };
    let mut reply = ChatReply { finish: "tool_calls".into(), ..ChatReply::default() };
    reply.set_parts(vec![
        MessagePart::Thinking(thinking),
        MessagePart::from_text("ab"),
        MessagePart::ToolCall(call),
    ]);
    reply
}

/// All events of a stream that was heard as it was made.
fn stream<D: CompatDialect>(mut door: D) -> Vec<DialectEvent> {
    let reply = reply();
    let (mut progress, mut parts) = (ReplyProgress::default(), Vec::new());
    for note in notes() {
        parts.extend(progress.apply_note(note));
    }
    parts.extend(progress.finish_parts(reply.ordered_parts()).expect("they fit"));
    let head = ReplyHead { model: "m-1".into(), ..ReplyHead::default() };
    let (mut events, mut open) = (door.render_start("r", &head), PartStart::Text);
    for part in parts {
        if let PartEvent::Begin(start) = &part {
            open = start.clone();
        }
        events.extend(door.render_part(&open, &part));
    }
    events.extend(door.render_end(&reply));
    events
}

fn data(event: &DialectEvent) -> Value {
    serde_json::from_str(&event.data).unwrap_or_else(|_| json!(event.data))
}

#[test]
fn a_stream_of_messages() {
    let body =
        json!({"model": "m", "max_tokens": 9, "messages": [{"role": "user", "content": "hi"}]});
    let events = stream(read_by::<CompatMessages>(&body).expect("it is read").1);
    let written: Vec<Value> = events.iter().map(data).collect();
    let usage = json!({"input_tokens": 0, "cache_read_input_tokens": 0,
        "cache_creation_input_tokens": 0, "output_tokens": 0, "cache_creation":
            {"ephemeral_5m_input_tokens": 0, "ephemeral_1h_input_tokens": 0}});
    let start = |index: u64, block: Value| {
        let kind = "content_block_start";
        json!({"type": kind, "index": index, "content_block": block})
    };
    let delta = |index: u64, delta: Value| {
        let kind = "content_block_delta";
        json!({"type": kind, "index": index, "delta": delta})
    };
    let stop = |index: u64| json!({"type": "content_block_stop", "index": index});
    let expected = vec![
        json!({"type": "message_start", "message": {"id": "msg_r", "type": "message",
            "role": "assistant", "model": "m-1", "content": [], "stop_reason": null,
            "stop_sequence": null, "usage": usage}}),
        start(0, json!({"type": "thinking", "thinking": "", "signature": ""})),
        delta(0, json!({"type": "thinking_delta", "thinking": "hm"})),
        delta(0, json!({"type": "signature_delta", "signature": "S"})),
        stop(0),
        start(1, json!({"type": "text", "text": ""})),
        delta(1, json!({"type": "text_delta", "text": "a"})),
        delta(1, json!({"type": "text_delta", "text": "b"})),
        stop(1),
        start(2, json!({"type": "tool_use", "id": "c", "name": "t", "input": {}})),
        delta(2, json!({"type": "input_json_delta", "partial_json": "{\"x\":1}"})),
        stop(2),
        json!({"type": "message_delta", "usage": usage,
            "delta": {"stop_reason": "tool_use", "stop_sequence": null}}),
        json!({"type": "message_stop"}),
    ];
    assert_eq!(written, expected);
    for (event, data) in events.iter().zip(&expected) {
        assert_eq!(event.name, data["type"].as_str());
    }
}

#[test]
fn a_stream_of_chat_completions() {
    let body = json!({"model": "m", "stream_options": {"include_usage": true},
        "messages": [{"role": "user", "content": "hi"}]});
    let events = stream(read_by::<CompatChatCompletions>(&body).expect("it is read").1);
    let written: Vec<Value> = events.iter().map(data).collect();
    let deltas: Vec<&Value> = written.iter().map(|piece| &piece["choices"][0]["delta"]).collect();
    let call = json!({"index": 0, "id": "c", "type": "function",
        "function": {"name": "t", "arguments": ""}});
    let arguments = json!({"index": 0, "function": {"arguments": "{\"x\":1}"}});
    assert_eq!(
        deltas[..6],
        [
            &json!({"role": "assistant", "content": ""}),
            &json!({"reasoning_content": "hm"}),
            &json!({"content": "a"}),
            &json!({"content": "b"}),
            &json!({"tool_calls": [call]}),
            &json!({"tool_calls": [arguments]}),
        ]
    );
    let detail = &deltas[6]["reasoning_details"][0];
    assert_eq!((&detail["type"], &detail["index"]), (&json!("reasoning.encrypted"), &json!(0)));
    assert_eq!(written[7]["choices"][0]["finish_reason"], "tool_calls");
    assert_eq!(
        (&written[8]["choices"], &written[8]["usage"]["total_tokens"]),
        (&json!([]), &json!(0))
    );
    assert_eq!(written[9], "[DONE]");
    assert!(written[..9].iter().all(|piece| piece["model"] == "m-1"));
}

#[test]
fn a_stream_of_responses() {
    let body = json!({"model": "m", "input": "hi"});
    let events = stream(read_by::<CompatResponses>(&body).expect("it is read").1);
    let names: Vec<&str> = events.iter().filter_map(|event| event.name).collect();
    assert_eq!(
        names,
        [
            "response.created",
            "response.in_progress",
            "response.output_item.added",
            "response.reasoning_summary_part.added",
            "response.reasoning_summary_text.delta",
            "response.reasoning_summary_text.done",
            "response.reasoning_summary_part.done",
            "response.output_item.done",
            "response.output_item.added",
            "response.content_part.added",
            "response.output_text.delta",
            "response.output_text.delta",
            "response.output_text.done",
            "response.content_part.done",
            "response.output_item.done",
            "response.output_item.added",
            "response.function_call_arguments.delta",
            "response.function_call_arguments.done",
            "response.output_item.done",
            "response.completed",
        ]
    );
    for (number, event) in events.iter().enumerate() {
        let data = data(event);
        assert_eq!((&data["sequence_number"], data["type"].as_str()), (&json!(number), event.name));
    }
    let items = [3, 9, 16].map(|place: usize| data(&events[place])["item_id"].clone());
    assert_eq!(items, [json!("rs_r_0"), json!("msg_r_1"), json!("fc_r_2")]);
}

#[test]
fn a_stream_that_breaks_off_says_why() {
    let failure = CallFailure {
        code: "provider.unavailable".into(),
        text: "it broke off".into(),
        is_retryable: false,
        param: None,
    };
    let body = json!({"model": "m", "input": "hi"});
    let event = read_by::<CompatResponses>(&body).expect("it is read").1.render_failure(&failure);
    assert_eq!((event.name, &data(&event)["type"]), (Some("error"), &json!("error")));
    let body =
        json!({"model": "m", "max_tokens": 9, "messages": [{"role": "user", "content": "hi"}]});
    let event = read_by::<CompatMessages>(&body).expect("it is read").1.render_failure(&failure);
    assert_eq!(data(&event)["error"]["type"], "overloaded_error");
}
