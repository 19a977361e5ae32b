//! Reading answers of Anthropic's messages, streamed or at once.

use convergio_domain::chat::ChatInterface;
use serde_json::{Map, Value, json};

use crate::provider::answer::AnswerBuilder;
use crate::provider::dialect::json_fields::{text_field, unknown_fields};

/// Fields of a message that the platform interprets; all others are kept as native fields.
const KNOWN_MESSAGE_FIELDS: [&str; 8] =
    ["content", "id", "model", "role", "stop_reason", "stop_sequence", "type", "usage"];

/// Reads one event of a stream.
pub(super) fn read_event(piece: &Value, answer: &mut AnswerBuilder) {
    let index = piece["index"].as_u64();
    match text_field(piece, "type") {
        "message_start" => begin_message(&piece["message"], answer),
        "content_block_start" => begin_block(&piece["content_block"], index, answer),
        "content_block_delta" => read_delta(&piece["delta"], index, answer),
        "content_block_stop" => end_block(index, answer),
        "message_delta" => {
            // The counts of a delta are cumulative: they replace earlier ones.
            read_usage(&piece["usage"], answer);
            let delta = &piece["delta"];
            answer.merge_native_fields(unknown_fields(delta, &KNOWN_MESSAGE_FIELDS));
            // Some fields of the event stand beside its delta, such as `context_management`.
            answer.merge_native_fields(unknown_fields(piece, &["delta", "type", "usage"]));
            answer.set_stop_sequence(&delta["stop_sequence"]);
            if let Some(reason) = delta["stop_reason"].as_str() {
                answer.set_finish(map_stop_reason(reason), reason);
            }
        }
        "message_stop" => answer.mark_ended(),
        _ => {}
    }
}

/// Reads the head of a message: model, usage and native fields.
pub(super) fn begin_message(message: &Value, answer: &mut AnswerBuilder) {
    answer.set_model(&message["model"]);
    answer.merge_native_fields(unknown_fields(message, &KNOWN_MESSAGE_FIELDS));
    read_usage(&message["usage"], answer);
}

fn read_usage(usage: &Value, answer: &mut AnswerBuilder) {
    answer.merge_usage(usage);
    answer.set_service_tier(&usage["service_tier"]);
}

/// Begins a content block and reads what it holds already: everything if the answer came at once.
pub(super) fn begin_block(block: &Value, index: Option<u64>, answer: &mut AnswerBuilder) {
    answer.parts.force_new_part();
    match text_field(block, "type") {
        "text" => {
            let fields = unknown_fields(block, &["text", "type"]);
            if !fields.is_empty() {
                answer.parts.continue_text();
            }
            answer.push_text(text_field(block, "text"));
            add_fields(fields, answer);
        }
        "thinking" => {
            answer.push_thinking(text_field(block, "thinking"));
            answer.parts.push_signature(text_field(block, "signature"));
            add_fields(unknown_fields(block, &["signature", "thinking", "type"]), answer);
        }
        "tool_use" => {
            answer.begin_tool_call(index, text_field(block, "id"), text_field(block, "name"));
            // A stream begins with an empty input and sends it in pieces.
            if block["input"].as_object().is_some_and(|input| !input.is_empty()) {
                let place = answer.parts.newest_index();
                answer.parts.push_arguments(place, &block["input"].to_string());
            }
            add_fields(unknown_fields(block, &["id", "input", "name", "type"]), answer);
        }
        _ => answer.parts.open_native(ChatInterface::Anthropic, block.clone(), index),
    }
}

fn add_fields(fields: Map<String, Value>, answer: &mut AnswerBuilder) {
    let (place, delta) = (answer.parts.newest_index(), json!(fields));
    answer.parts.merge_native_fields(place, ChatInterface::Anthropic, fields, &delta);
}

/// Closes a content block.
pub(super) fn end_block(index: Option<u64>, answer: &mut AnswerBuilder) {
    let place = answer.parts.index_of_key(index).or(answer.parts.newest_index());
    if answer.parts.is_unsigned_thought(place) {
        // Compatible servers sign nothing but expect their reasoning back: native fields mark it as
        // this interface's.
        let fields = Map::from_iter([("type".to_owned(), json!("thinking"))]);
        answer.parts.merge_native_fields(place, ChatInterface::Anthropic, fields, &Value::Null);
    }
    answer.parts.close_part_at(place);
}

fn read_delta(delta: &Value, index: Option<u64>, answer: &mut AnswerBuilder) {
    match text_field(delta, "type") {
        "text_delta" => answer.push_text(text_field(delta, "text")),
        "thinking_delta" => answer.push_thinking(text_field(delta, "thinking")),
        "signature_delta" => answer.parts.push_signature(text_field(delta, "signature")),
        "input_json_delta" => {
            let place = answer.parts.index_of_key(index).or(answer.parts.newest_index());
            answer.push_arguments(place, text_field(delta, "partial_json"));
        }
        "citations_delta" => {
            answer.parts.continue_text();
            let citations = json!([delta["citation"]]);
            let fields = Map::from_iter([("citations".to_owned(), citations)]);
            // Citations arrive one by one; lists of native fields are concatenated.
            answer.parts.merge_native_fields(
                answer.parts.newest_index(),
                ChatInterface::Anthropic,
                fields,
                delta,
            );
        }
        _ => {
            let place = answer.parts.index_of_key(index).or(answer.parts.newest_index());
            answer.parts.merge_native_fields(
                place,
                ChatInterface::Anthropic,
                unknown_fields(delta, &["type"]),
                delta,
            );
        }
    }
}

/// Maps stop reasons to the platform's words.
pub(super) fn map_stop_reason(reason: &str) -> Option<&'static str> {
    match reason {
        "end_turn" | "stop_sequence" => Some("stop"),
        "max_tokens" | "model_context_window_exceeded" => Some("length"),
        "tool_use" => Some("tool_calls"),
        "refusal" => Some("content_filter"),
        // A server tool takes longer than one response: the caller continues the turn.
        "pause_turn" => Some("pause"),
        _ => None,
    }
}
