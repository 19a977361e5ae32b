//! Reading answers of chat completions, streamed or at once.

use convergio_domain::chat::NativeFields;
use serde_json::{Map, Value, json};

use super::super::{arguments_text, rest, text};
use super::INTERFACE;
use crate::model::answer::Answer;

/// Fields of a message that the platform interprets; all others are kept as native fields.
const KNOWN: [&str; 6] =
    ["role", "content", "reasoning_content", "reasoning", "refusal", "tool_calls"];

/// Reads a piece of a stream (`part` is `delta`) or a whole answer (`part` is `message`).
pub(super) fn take(piece: &Value, part: &str, answer: &mut Answer) {
    let choice = &piece["choices"][0];
    let message = &choice[part];
    let thoughts = ["reasoning_content", "reasoning"].map(|name| text(message, name));
    // Some servers send the same reasoning under both names: only one is read.
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

/// Reads content: a text, or a list of parts as some clouds send it.
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

/// Reads reasoning among the parts of the content. It is marked to be sent back as such a part.
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

/// Reads a tool call or a piece of one. Pieces of two calls are kept apart although servers send an
/// index twice with different ids, or no index, or no id.
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
    // Some servers repeat fields as empty strings in every piece.
    fields.retain(|_, value| *value != json!(""));
    let delta = json!(fields);
    answer.parts.add_fields(place, INTERFACE, fields, &delta);
}

/// Returns the index of the call that a piece continues, if it continues one.
fn find_open(index: Option<u64>, id: &str, name: &str, answer: &Answer) -> Option<usize> {
    let is_of_index = |key: Option<u64>| index.is_none() || key == index;
    // Pieces after the first usually omit the id; the index alone must match then.
    let place = match id {
        "" => answer.parts.find_call(|key, _| is_of_index(key))?,
        _ => answer.parts.find_call(|key, provider_id| is_of_index(key) && provider_id == id)?,
    };
    let call = answer.parts.call_at(place)?;
    // A call begins with its name: a name after complete arguments begins another call, even if it
    // is the same name.
    let is_other = !name.is_empty() && !call.name.is_empty() && {
        let is_whole = serde_json::from_str::<Map<String, Value>>(&call.arguments).is_ok();
        name != call.name || (is_whole && id.is_empty())
    };
    (!is_other).then_some(place)
}

/// Reads a call of a custom tool, whose input is free text and not JSON.
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

/// Maps finish reasons, also those of other interfaces that compatible servers send.
fn known_finish(word: &str) -> Option<&'static str> {
    match word {
        "stop" | "eos" | "eos_token" | "end_turn" | "stop_sequence" => Some("stop"),
        "length" | "max_tokens" | "model_length" => Some("length"),
        "tool_calls" | "function_call" | "tool_use" => Some("tool_calls"),
        "content_filter" => Some("content_filter"),
        _ => None,
    }
}
