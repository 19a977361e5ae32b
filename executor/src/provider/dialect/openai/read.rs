//! Reading answers of chat completions, streamed or at once.

use convergio_domain::chat::{ChatInterface, NativeFields};
use serde_json::{Map, Value, json};

use crate::provider::answer::AnswerBuilder;
use crate::provider::dialect::json_fields::{arguments_text, text_field, unknown_fields};

/// Fields of a message that the platform interprets; all others are kept as native fields.
const KNOWN_MESSAGE_FIELDS: [&str; 6] =
    ["role", "content", "reasoning_content", "reasoning", "refusal", "tool_calls"];

/// Reads a piece of a stream (`part` is `delta`) or a whole answer (`part` is `message`).
pub(super) fn read_choice(piece: &Value, part: &str, answer: &mut AnswerBuilder) {
    let choice = &piece["choices"][0];
    let message = &choice[part];
    let thoughts = ["reasoning_content", "reasoning"].map(|name| text_field(message, name));
    // Some servers send the same reasoning under both names: only one is read.
    answer.push_thinking(thoughts.into_iter().find(|text| !text.is_empty()).unwrap_or(""));
    read_content(&message["content"], answer);
    answer.push_refusal(text_field(message, "refusal"));
    let is_whole = part == "message";
    for call in message["tool_calls"].as_array().into_iter().flatten() {
        read_tool_call(call, is_whole, answer);
    }
    answer.merge_native_fields(unknown_fields(message, &KNOWN_MESSAGE_FIELDS));
    if let Some(finish) = choice["finish_reason"].as_str() {
        answer.set_finish(map_finish_reason(finish), finish);
    }
    answer.set_model(&piece["model"]);
    answer.set_service_tier(&piece["service_tier"]);
    answer.set_usage(&piece["usage"]);
}

/// Reads content: a text, or a list of parts as some clouds send it.
fn read_content(content: &Value, answer: &mut AnswerBuilder) {
    answer.push_text(content.as_str().unwrap_or(""));
    for part in content.as_array().into_iter().flatten() {
        match text_field(part, "type") {
            "text" | "output_text" => {
                answer.push_text(text_field(part, "text"));
                add_fields(unknown_fields(part, &["type", "text"]), answer);
            }
            "thinking" => read_thought(part, answer),
            "refusal" => answer.push_refusal(text_field(part, "refusal")),
            _ => answer.parts.add_native(ChatInterface::OpenAiChat, part.clone()),
        }
    }
}

/// Reads reasoning among the parts of the content. It is marked to be sent back as such a part.
fn read_thought(part: &Value, answer: &mut AnswerBuilder) {
    let fields = Map::from_iter([("type".to_owned(), json!("thinking"))]);
    let native = NativeFields::from_fields(ChatInterface::OpenAiChat, fields);
    answer.parts.continue_native_thought(native);
    answer.push_thinking(part["thinking"].as_str().unwrap_or(""));
    for piece in part["thinking"].as_array().into_iter().flatten() {
        answer.push_thinking(text_field(piece, "text"));
    }
    add_fields(unknown_fields(part, &["type", "thinking"]), answer);
}

fn add_fields(fields: Map<String, Value>, answer: &mut AnswerBuilder) {
    let (place, delta) = (answer.parts.newest_index(), json!(fields));
    answer.parts.merge_native_fields(place, ChatInterface::OpenAiChat, fields, &delta);
}

/// Reads a tool call or a piece of one. Pieces of two calls are kept apart although servers send an
/// index twice with different ids, or no index, or no id.
fn read_tool_call(call: &Value, is_whole: bool, answer: &mut AnswerBuilder) {
    let index = call["index"].as_u64();
    if call["custom"].is_object() {
        read_custom_call(call, index, answer);
        return;
    }
    let function = &call["function"];
    let (id, name) = (text_field(call, "id"), text_field(function, "name"));
    let pieces = arguments_text(&function["arguments"]);
    let open_call = if is_whole { None } else { find_open_call(index, id, name, answer) };
    let place = match open_call {
        Some(place) => {
            answer.parts.set_call_name(place, name);
            answer.push_arguments(open_call, &pieces);
            open_call
        }
        None => {
            answer.begin_tool_call(index, id, name);
            let place = answer.parts.newest_index();
            answer.parts.push_arguments(place, &pieces);
            place
        }
    };
    let mut fields = unknown_fields(call, &["index", "id", "type", "function"]);
    // Some servers repeat fields as empty strings in every piece.
    fields.retain(|_, value| *value != json!(""));
    let delta = json!(fields);
    answer.parts.merge_native_fields(place, ChatInterface::OpenAiChat, fields, &delta);
}

/// Returns the index of the call that a piece continues, if it continues one.
fn find_open_call(
    index: Option<u64>,
    id: &str,
    name: &str,
    answer: &AnswerBuilder,
) -> Option<usize> {
    let is_of_index = |key: Option<u64>| index.is_none() || key == index;
    // Pieces after the first usually omit the id; the index alone must match then.
    let place = match id {
        "" => answer.parts.find_tool_call(|key, _| is_of_index(key))?,
        _ => {
            answer.parts.find_tool_call(|key, provider_id| is_of_index(key) && provider_id == id)?
        }
    };
    let call = answer.parts.tool_call_at(place)?;
    // A call begins with its name: a name after complete arguments begins another call, even if it
    // is the same name.
    let is_other = !name.is_empty() && !call.name.is_empty() && {
        let is_whole = serde_json::from_str::<Map<String, Value>>(&call.arguments).is_ok();
        name != call.name || (is_whole && id.is_empty())
    };
    (!is_other).then_some(place)
}

/// Reads a call of a custom tool, whose input is free text and not JSON.
fn read_custom_call(call: &Value, index: Option<u64>, answer: &mut AnswerBuilder) {
    let block = unknown_fields(call, &["index"]);
    let place = answer.parts.index_of_key(index);
    if place.is_some() {
        let delta = json!(block);
        answer.parts.merge_native_fields(place, ChatInterface::OpenAiChat, block, &delta);
    } else {
        answer.parts.open_native(ChatInterface::OpenAiChat, json!(block), index);
    }
}

/// Maps finish reasons, also those of other interfaces that compatible servers send.
fn map_finish_reason(word: &str) -> Option<&'static str> {
    match word {
        "stop" | "eos" | "eos_token" | "end_turn" | "stop_sequence" => Some("stop"),
        "length" | "max_tokens" | "model_length" => Some("length"),
        "tool_calls" | "function_call" | "tool_use" => Some("tool_calls"),
        "content_filter" => Some("content_filter"),
        _ => None,
    }
}
