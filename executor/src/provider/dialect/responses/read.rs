//! Reading answers of OpenAI's responses, streamed or at once.

use convergio_domain::chat::ChatInterface;
use serde_json::{Map, Value, json};

use crate::provider::answer::AnswerBuilder;
use crate::provider::dialect::json_fields::{text_field, unknown_fields};
use crate::provider::dialect::wire_format::{ReadError, refusal_without_status};

/// Separator between parts of a reasoning summary.
const PARAGRAPH: &str = "\n\n";

/// Reads one event of a stream. Item events carry the whole item again at the end; the deltas are
/// what listeners get.
pub(super) fn read_event(piece: &Value, answer: &mut AnswerBuilder) {
    let index = piece["output_index"].as_u64();
    let delta = text_field(piece, "delta");
    match text_field(piece, "type") {
        "response.output_item.added" => begin_item(&piece["item"], index, answer),
        "response.content_part.added" => answer.parts.force_new_part(),
        "response.output_text.delta" => answer.push_text(delta),
        "response.refusal.delta" => answer.push_refusal(delta),
        "response.reasoning_summary_part.added" => {
            let number = piece["summary_index"].as_u64().unwrap_or(0);
            answer.push_thinking(if number == 0 { "" } else { PARAGRAPH });
        }
        "response.reasoning_summary_text.delta" | "response.reasoning_text.delta" => {
            answer.push_thinking(delta);
        }
        "response.function_call_arguments.delta" => {
            let place = answer.parts.index_of_key(index).or(answer.parts.newest_index());
            answer.push_arguments(place, delta);
        }
        "response.output_item.done" => end_item(&piece["item"], index, answer),
        _ => {}
    }
    answer.set_model(&piece["response"]["model"]);
    answer.set_service_tier(&piece["response"]["service_tier"]);
}

fn begin_item(item: &Value, index: Option<u64>, answer: &mut AnswerBuilder) {
    answer.parts.begin_item();
    if item["type"] == "function_call" {
        answer.begin_tool_call(index, text_field(item, "call_id"), text_field(item, "name"));
    }
}

/// Reads the end of an item, which repeats the whole of it: only what the deltas lacked is added.
fn end_item(item: &Value, index: Option<u64>, answer: &mut AnswerBuilder) {
    match text_field(item, "type") {
        "message" => {
            add_message_fields(item, answer);
            answer.parts.force_new_part();
        }
        "reasoning" if answer.parts.is_open_thought() => {
            add_reasoning(item, answer);
            answer.parts.force_new_part();
        }
        "function_call" if index_of_call(item, index, answer).is_some() => {
            let place = index_of_call(item, index, answer);
            let whole = text_field(item, "arguments");
            // The done event has the full arguments: append only what the deltas did not bring.
            let missing = whole.strip_prefix(answer.parts.arguments_at(place)).unwrap_or("");
            answer.parts.push_arguments(place, missing);
            answer.parts.close_part_at(place);
        }
        _ => self::read_item(item, answer),
    }
}

/// Returns the index of a call that began already, by its output index or its id.
fn index_of_call(item: &Value, index: Option<u64>, answer: &AnswerBuilder) -> Option<usize> {
    let id = text_field(item, "call_id");
    answer
        .parts
        .index_of_key(index)
        .or_else(|| answer.parts.find_tool_call(|_, provider_id| provider_id == id))
}

/// Reads a whole item.
pub(super) fn read_item(item: &Value, answer: &mut AnswerBuilder) {
    answer.parts.begin_item();
    match text_field(item, "type") {
        "function_call" => {
            answer.push_tool_call(
                text_field(item, "call_id"),
                text_field(item, "name"),
                text_field(item, "arguments"),
            );
            answer.parts.close_part_at(answer.parts.newest_index());
        }
        "message" => {
            for part in item["content"].as_array().into_iter().flatten() {
                answer.parts.force_new_part();
                match text_field(part, "type") {
                    "output_text" => answer.push_text(text_field(part, "text")),
                    "refusal" => answer.push_refusal(text_field(part, "refusal")),
                    _ => answer.parts.add_native(ChatInterface::OpenAiResponses, part.clone()),
                }
            }
            add_message_fields(item, answer);
        }
        "reasoning" => {
            for list in ["summary", "content"] {
                let parts = item[list].as_array().into_iter().flatten();
                for (number, part) in parts.enumerate() {
                    answer.push_thinking(if number == 0 { "" } else { PARAGRAPH });
                    answer.push_thinking(text_field(part, "text"));
                }
            }
            add_reasoning(item, answer);
        }
        _ => answer.parts.add_native(ChatInterface::OpenAiResponses, item.clone()),
    }
    answer.parts.force_new_part();
}

/// Keeps a reasoning item's fields with the reasoning part: the item must be sent back as it came.
fn add_reasoning(item: &Value, answer: &mut AnswerBuilder) {
    let mut fields = unknown_fields(item, &["type", "status"]);
    let summary = item.get("summary").cloned().unwrap_or_else(|| json!([]));
    fields.insert("summary".to_owned(), summary);
    let delta = json!(fields);
    answer.parts.continue_thought();
    answer.parts.merge_native_fields(
        answer.parts.newest_index(),
        ChatInterface::OpenAiResponses,
        fields,
        &delta,
    );
}

/// Adds the fields of a message beside its texts: its phase, to its first part, and the annotations
/// of each part.
fn add_message_fields(item: &Value, answer: &mut AnswerBuilder) {
    let places = answer.parts.item_range();
    let parts = item["content"].as_array().map_or(&[][..], Vec::as_slice);
    // If parts were dropped on the way, positions do not match and annotations would go astray.
    let is_same_length = parts.len() == places.len();
    for (number, place) in places.enumerate() {
        let mut fields = match parts.get(number).filter(|_| is_same_length) {
            Some(part) if part["type"] == "output_text" => unknown_fields(part, &["text", "type"]),
            _ => Map::new(),
        };
        if let Some(phase) = item["phase"].as_str().filter(|_| number == 0) {
            fields.insert("phase".to_owned(), json!(phase));
        }
        let delta = json!(fields);
        answer.parts.merge_native_fields(
            Some(place),
            ChatInterface::OpenAiResponses,
            fields,
            &delta,
        );
    }
}

/// Reads an error event, which may have its fields at the top level.
pub(super) fn error_event(piece: &Value) -> ReadError {
    match piece.get("error").filter(|error| error.is_object()) {
        Some(error) => refusal_without_status(503, error),
        None => {
            let error = json!({"code": piece["code"], "message": piece["message"],
                "param": piece["param"]});
            refusal_without_status(503, &error)
        }
    }
}

/// Reads the final response object: usage and finish reason.
pub(super) fn read_end(response: &Value, answer: &mut AnswerBuilder) -> Result<(), ReadError> {
    answer.set_usage(&response["usage"]);
    answer.set_service_tier(&response["service_tier"]);
    match text_field(response, "status") {
        "completed" => answer.set_finish(Some("stop"), "completed"),
        "incomplete" => {
            let reason = text_field(&response["incomplete_details"], "reason");
            let finish = match reason {
                "max_output_tokens" => Some("length"),
                "content_filter" => Some("content_filter"),
                _ => None,
            };
            answer.set_finish(finish, if reason.is_empty() { "incomplete" } else { reason });
        }
        "failed" => return Err(refusal_without_status(503, &response["error"])),
        _ => return Err(ReadError::Malformed("it ended in no known status")),
    }
    answer.mark_ended();
    Ok(())
}
