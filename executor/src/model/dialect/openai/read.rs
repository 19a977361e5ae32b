//! How an answer of chat completions is read, in pieces and at once.

use convergio_domain::chat::NativeFields;
use serde_json::{Map, Value, json};

use super::super::{arguments_text, rest, text};
use super::INTERFACE;
use crate::model::answer::Answer;

/// Fields of a message that the platform has a place for.
const KNOWN: [&str; 6] =
    ["role", "content", "reasoning_content", "reasoning", "refusal", "tool_calls"];

/// Takes a piece in, or a whole answer: what was said is its `part`.
pub(super) fn take(piece: &Value, part: &str, answer: &mut Answer) {
    let choice = &piece["choices"][0];
    let message = &choice[part];
    let thoughts = ["reasoning_content", "reasoning"].map(|name| text(message, name));
    // Some servers say the same under both names.
    answer.think(thoughts.into_iter().find(|text| !text.is_empty()).unwrap_or(""));
    take_content(&message["content"], answer);
    answer.refuse(text(message, "refusal"));
    let is_whole = part == "message";
    for call in message["tool_calls"].as_array().into_iter().flatten() {
        take_call(call, is_whole, answer);
    }
    answer.add_fields(rest(message, &KNOWN));
    if let Some(finish) = choice["finish_reason"].as_str() {
        answer.finish(known_finish(finish), finish);
    }
    answer.name(&piece["model"]);
    answer.serve_by(&piece["service_tier"]);
    answer.count(&piece["usage"]);
}

/// Some clouds answer with content as a list of parts.
fn take_content(content: &Value, answer: &mut Answer) {
    answer.say(content.as_str().unwrap_or(""));
    for part in content.as_array().into_iter().flatten() {
        match text(part, "type") {
            "text" | "output_text" => {
                answer.say(text(part, "text"));
                add_fields(rest(part, &["type", "text"]), answer);
            }
            "thinking" => take_thought(part, answer),
            "refusal" => answer.refuse(text(part, "refusal")),
            _ => answer.parts.add_native(INTERFACE, part.clone()),
        }
    }
}

/// A thought among the parts of the content goes back as one.
fn take_thought(part: &Value, answer: &mut Answer) {
    let marks = Map::from_iter([("type".to_owned(), json!("thinking"))]);
    let native = NativeFields::of(INTERFACE, marks);
    answer.parts.continue_thought_of(native);
    answer.think(part["thinking"].as_str().unwrap_or(""));
    for piece in part["thinking"].as_array().into_iter().flatten() {
        answer.think(text(piece, "text"));
    }
    add_fields(rest(part, &["type", "thinking"]), answer);
}

fn add_fields(fields: Map<String, Value>, answer: &mut Answer) {
    let (place, delta) = (answer.parts.newest(), json!(fields));
    answer.parts.add_fields(place, INTERFACE, fields, &delta);
}

/// A call, or a piece of one. Two calls never run together: servers send the same index with
/// another id, or no index, or no id.
fn take_call(call: &Value, is_whole: bool, answer: &mut Answer) {
    let index = call["index"].as_u64();
    if call["custom"].is_object() {
        take_custom(call, index, answer);
        return;
    }
    let function = &call["function"];
    let (id, name) = (text(call, "id"), text(function, "name"));
    let pieces = arguments_text(&function["arguments"]);
    let open = if is_whole { None } else { find_open(index, id, name, answer) };
    let place = match open {
        Some(place) => {
            answer.parts.name_call(place, name);
            answer.write_arguments(open, &pieces);
            open
        }
        None => {
            answer.begin_call(index, id, name);
            let place = answer.parts.newest();
            answer.parts.write_arguments(place, &pieces);
            place
        }
    };
    let mut fields = rest(call, &["index", "id", "type", "function"]);
    fields.retain(|_, value| *value != json!(""));
    let delta = json!(fields);
    answer.parts.add_fields(place, INTERFACE, fields, &delta);
}

/// The place of the call that a piece goes on with, if it does.
fn find_open(index: Option<u64>, id: &str, name: &str, answer: &Answer) -> Option<usize> {
    let is_of_index = |key: Option<u64>| index.is_none() || key == index;
    let place = match id {
        "" => answer.parts.find_call(|key, _| is_of_index(key))?,
        _ => answer.parts.find_call(|key, provider_id| is_of_index(key) && provider_id == id)?,
    };
    let call = answer.parts.call_at(place)?;
    // A name stands at the beginning: a whole call before it is another.
    let is_other = !name.is_empty() && !call.name.is_empty() && {
        let is_whole = serde_json::from_str::<Map<String, Value>>(&call.arguments).is_ok();
        name != call.name || (is_whole && id.is_empty())
    };
    (!is_other).then_some(place)
}

/// A call of a tool that takes free text.
fn take_custom(call: &Value, index: Option<u64>, answer: &mut Answer) {
    let block = rest(call, &["index"]);
    let place = answer.parts.keyed(index);
    if place.is_some() {
        let delta = json!(block);
        answer.parts.add_fields(place, INTERFACE, block, &delta);
    } else {
        answer.parts.open_native(INTERFACE, json!(block), index);
    }
}

fn known_finish(word: &str) -> Option<&'static str> {
    match word {
        "stop" | "eos" | "eos_token" | "end_turn" | "stop_sequence" => Some("stop"),
        "length" | "max_tokens" | "model_length" => Some("length"),
        "tool_calls" | "function_call" | "tool_use" => Some("tool_calls"),
        "content_filter" => Some("content_filter"),
        _ => None,
    }
}
