//! Reading answers of OpenAI's responses, streamed or at once.

use serde_json::{Map, Value, json};

use super::super::{ReadError, refused, rest, text};
use super::INTERFACE;
use crate::model::answer::Answer;

/// Separator between parts of a reasoning summary.
const PARAGRAPH: &str = "\n\n";

/// Reads one event of a stream. Item events carry the whole item again at the end; the deltas are
/// what listeners get.
pub(super) fn piece(piece: &Value, answer: &mut Answer) {
    let index = piece["output_index"].as_u64();
    let delta = text(piece, "delta");
    match text(piece, "type") {
        "response.output_item.added" => begin_item(&piece["item"], index, answer),
        "response.content_part.added" => answer.parts.separate(),
        "response.output_text.delta" => answer.say(delta),
        "response.refusal.delta" => answer.refuse(delta),
        "response.reasoning_summary_part.added" => {
            let number = piece["summary_index"].as_u64().unwrap_or(0);
            answer.think(if number == 0 { "" } else { PARAGRAPH });
        }
        "response.reasoning_summary_text.delta" | "response.reasoning_text.delta" => {
            answer.think(delta);
        }
        "response.function_call_arguments.delta" => {
            let place = answer.parts.keyed(index).or(answer.parts.newest());
            answer.write_arguments(place, delta);
        }
        "response.output_item.done" => end_item(&piece["item"], index, answer),
        _ => {}
    }
    answer.name(&piece["response"]["model"]);
    answer.serve_by(&piece["response"]["service_tier"]);
}

fn begin_item(item: &Value, index: Option<u64>, answer: &mut Answer) {
    answer.parts.begin_item();
    if item["type"] == "function_call" {
        answer.begin_call(index, text(item, "call_id"), text(item, "name"));
    }
}

/// Reads the end of an item, which repeats the whole of it: only what the deltas lacked is added.
fn end_item(item: &Value, index: Option<u64>, answer: &mut Answer) {
    match text(item, "type") {
        "message" => {
            add_message_fields(item, answer);
            answer.parts.separate();
        }
        "reasoning" if answer.parts.is_open_thought() => {
            add_reasoning(item, answer);
            answer.parts.separate();
        }
        "function_call" if place_of_call(item, index, answer).is_some() => {
            let place = place_of_call(item, index, answer);
            let whole = text(item, "arguments");
            // The done event has the full arguments: append only what the deltas did not bring.
            let missing = whole.strip_prefix(answer.parts.arguments(place)).unwrap_or("");
            answer.parts.write_arguments(place, missing);
            answer.parts.close(place);
        }
        _ => self::item(item, answer),
    }
}

/// Returns the index of a call that began already, by its output index or its id.
fn place_of_call(item: &Value, index: Option<u64>, answer: &Answer) -> Option<usize> {
    let id = text(item, "call_id");
    answer.parts.keyed(index).or_else(|| answer.parts.find_call(|_, provider_id| provider_id == id))
}

/// Reads a whole item.
pub(super) fn item(item: &Value, answer: &mut Answer) {
    answer.parts.begin_item();
    match text(item, "type") {
        "function_call" => {
            answer.call(text(item, "call_id"), text(item, "name"), text(item, "arguments"));
            answer.parts.close(answer.parts.newest());
        }
        "message" => {
            for part in item["content"].as_array().into_iter().flatten() {
                answer.parts.separate();
                match text(part, "type") {
                    "output_text" => answer.say(text(part, "text")),
                    "refusal" => answer.refuse(text(part, "refusal")),
                    _ => answer.parts.add_native(INTERFACE, part.clone()),
                }
            }
            add_message_fields(item, answer);
        }
        "reasoning" => {
            for list in ["summary", "content"] {
                let parts = item[list].as_array().into_iter().flatten();
                for (number, part) in parts.enumerate() {
                    answer.think(if number == 0 { "" } else { PARAGRAPH });
                    answer.think(text(part, "text"));
                }
            }
            add_reasoning(item, answer);
        }
        _ => answer.parts.add_native(INTERFACE, item.clone()),
    }
    answer.parts.separate();
}

/// Keeps a reasoning item's fields with the reasoning part: the item must be sent back as it came.
fn add_reasoning(item: &Value, answer: &mut Answer) {
    let mut fields = rest(item, &["type", "status"]);
    let summary = item.get("summary").cloned().unwrap_or_else(|| json!([]));
    fields.insert("summary".to_owned(), summary);
    let delta = json!(fields);
    answer.parts.continue_thought();
    answer.parts.add_fields(answer.parts.newest(), INTERFACE, fields, &delta);
}

/// Adds the fields of a message beside its texts: its phase, to its first part, and the annotations
/// of each part.
fn add_message_fields(item: &Value, answer: &mut Answer) {
    let places = answer.parts.item();
    let parts = item["content"].as_array().map_or(&[][..], Vec::as_slice);
    // If parts were dropped on the way, positions do not match and annotations would go astray.
    let are_alike = parts.len() == places.len();
    for (number, place) in places.enumerate() {
        let mut fields = match parts.get(number).filter(|_| are_alike) {
            Some(part) if part["type"] == "output_text" => rest(part, &["text", "type"]),
            _ => Map::new(),
        };
        if let Some(phase) = item["phase"].as_str().filter(|_| number == 0) {
            fields.insert("phase".to_owned(), json!(phase));
        }
        let delta = json!(fields);
        answer.parts.add_fields(Some(place), INTERFACE, fields, &delta);
    }
}

/// Reads an error event, which may have its fields at the top level.
pub(super) fn error_event(piece: &Value) -> ReadError {
    match piece.get("error").filter(|error| error.is_object()) {
        Some(error) => refused(503, error),
        None => {
            let error = json!({"code": piece["code"], "message": piece["message"],
                "param": piece["param"]});
            refused(503, &error)
        }
    }
}

/// Reads the final response object: usage and finish reason.
pub(super) fn end(response: &Value, answer: &mut Answer) -> Result<(), ReadError> {
    answer.count(&response["usage"]);
    answer.serve_by(&response["service_tier"]);
    match text(response, "status") {
        "completed" => answer.finish(Some("stop"), "completed"),
        "incomplete" => {
            let why = text(&response["incomplete_details"], "reason");
            let known = match why {
                "max_output_tokens" => Some("length"),
                "content_filter" => Some("content_filter"),
                _ => None,
            };
            answer.finish(known, if why.is_empty() { "incomplete" } else { why });
        }
        "failed" => return Err(refused(503, &response["error"])),
        _ => return Err(ReadError::Malformed("it ended in no known status")),
    }
    answer.end();
    Ok(())
}
