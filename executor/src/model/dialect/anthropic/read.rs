//! Reading answers of Anthropic's messages, streamed or at once.

use serde_json::{Map, Value, json};

use super::super::{rest, text};
use super::INTERFACE;
use crate::model::answer::Answer;

/// Fields of a message that the platform interprets; all others are kept as native fields.
const KNOWN: [&str; 8] =
    ["content", "id", "model", "role", "stop_reason", "stop_sequence", "type", "usage"];

/// Reads one event of a stream.
pub(super) fn piece(piece: &Value, answer: &mut Answer) {
    let index = piece["index"].as_u64();
    match text(piece, "type") {
        "message_start" => begin_message(&piece["message"], answer),
        "content_block_start" => begin_block(&piece["content_block"], index, answer),
        "content_block_delta" => read_delta(&piece["delta"], index, answer),
        "content_block_stop" => end_block(index, answer),
        "message_delta" => {
            // The counts of a delta are cumulative: they replace earlier ones.
            count(&piece["usage"], answer);
            let delta = &piece["delta"];
            answer.add_fields(rest(delta, &KNOWN));
            // Some fields of the event stand beside its delta, such as `context_management`.
            answer.add_fields(rest(piece, &["delta", "type", "usage"]));
            answer.stop_at(&delta["stop_sequence"]);
            if let Some(reason) = delta["stop_reason"].as_str() {
                answer.finish(known_stop(reason), reason);
            }
        }
        "message_stop" => answer.end(),
        _ => {}
    }
}

/// Reads the head of a message: model, usage and native fields.
pub(super) fn begin_message(message: &Value, answer: &mut Answer) {
    answer.name(&message["model"]);
    answer.add_fields(rest(message, &KNOWN));
    count(&message["usage"], answer);
}

fn count(usage: &Value, answer: &mut Answer) {
    answer.count_more(usage);
    answer.serve_by(&usage["service_tier"]);
}

/// Begins a content block and reads what it holds already: everything if the answer came at once.
pub(super) fn begin_block(block: &Value, index: Option<u64>, answer: &mut Answer) {
    answer.parts.separate();
    match text(block, "type") {
        "text" => {
            let fields = rest(block, &["text", "type"]);
            if !fields.is_empty() {
                answer.parts.continue_text();
            }
            answer.say(text(block, "text"));
            add_fields(fields, answer);
        }
        "thinking" => {
            answer.think(text(block, "thinking"));
            answer.parts.sign(text(block, "signature"));
            add_fields(rest(block, &["signature", "thinking", "type"]), answer);
        }
        "tool_use" => {
            answer.begin_call(index, text(block, "id"), text(block, "name"));
            // A stream begins with an empty input and sends it in pieces.
            if block["input"].as_object().is_some_and(|input| !input.is_empty()) {
                let place = answer.parts.newest();
                answer.parts.write_arguments(place, &block["input"].to_string());
            }
            add_fields(rest(block, &["id", "input", "name", "type"]), answer);
        }
        _ => answer.parts.open_native(INTERFACE, block.clone(), index),
    }
}

fn add_fields(fields: Map<String, Value>, answer: &mut Answer) {
    let (place, delta) = (answer.parts.newest(), json!(fields));
    answer.parts.add_fields(place, INTERFACE, fields, &delta);
}

/// Closes a content block.
pub(super) fn end_block(index: Option<u64>, answer: &mut Answer) {
    let place = answer.parts.keyed(index).or(answer.parts.newest());
    if answer.parts.is_unsigned_thought(place) {
        // Compatible servers sign nothing but expect their reasoning back: native fields mark it as
        // this interface's.
        let fields = Map::from_iter([("type".to_owned(), json!("thinking"))]);
        answer.parts.add_fields(place, INTERFACE, fields, &Value::Null);
    }
    answer.parts.close(place);
}

fn read_delta(delta: &Value, index: Option<u64>, answer: &mut Answer) {
    match text(delta, "type") {
        "text_delta" => answer.say(text(delta, "text")),
        "thinking_delta" => answer.think(text(delta, "thinking")),
        "signature_delta" => answer.parts.sign(text(delta, "signature")),
        "input_json_delta" => {
            let place = answer.parts.keyed(index).or(answer.parts.newest());
            answer.write_arguments(place, text(delta, "partial_json"));
        }
        "citations_delta" => {
            answer.parts.continue_text();
            let citations = json!([delta["citation"]]);
            let fields = Map::from_iter([("citations".to_owned(), citations)]);
            // Citations arrive one by one; lists of native fields are concatenated.
            answer.parts.add_fields(answer.parts.newest(), INTERFACE, fields, delta);
        }
        _ => {
            let place = answer.parts.keyed(index).or(answer.parts.newest());
            answer.parts.add_fields(place, INTERFACE, rest(delta, &["type"]), delta);
        }
    }
}

/// Maps stop reasons to the platform's words.
pub(super) fn known_stop(reason: &str) -> Option<&'static str> {
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
