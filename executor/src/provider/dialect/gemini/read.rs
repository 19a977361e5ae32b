//! Reading answers of Google's `generateContent`, streamed or at once: both consist of the same
//! pieces.

use convergio_domain::chat::{ChatInterface, NativeFields};
use serde_json::{Map, Value, json};

use crate::provider::answer::{AnswerBuilder, MALFORMED};
use crate::provider::dialect::json_fields::{text_field, unknown_fields};

/// Reads one piece: model, usage, parts and finish reason.
pub(super) fn read_response(piece: &Value, answer: &mut AnswerBuilder) {
    answer.set_model(&piece["modelVersion"]);
    // Every piece carries the running counts.
    answer.set_usage(&piece["usageMetadata"]);
    // A blocked prompt has no candidates at all.
    if let Some(reason) = piece["promptFeedback"]["blockReason"].as_str() {
        answer.set_finish(Some("content_filter"), reason);
        return;
    }
    let candidate = &piece["candidates"][0];
    for part in candidate["content"]["parts"].as_array().into_iter().flatten() {
        read_part(part, answer);
    }
    if let Some(reason) = candidate["finishReason"].as_str() {
        answer.set_finish(map_finish_reason(reason), reason);
    }
    let known = ["avgLogprobs", "content", "finishReason", "index", "safetyRatings", "tokenCount"];
    answer.merge_native_fields(unknown_fields(candidate, &known));
}

/// Reads a part. Its thought signature stays with this very part, so a marked part is never joined
/// with others.
fn read_part(part: &Value, answer: &mut AnswerBuilder) {
    let fields = unknown_fields(part, &["functionCall", "text", "thought"]);
    let is_marked = !fields.is_empty();
    let call = &part["functionCall"];
    if call.is_object() {
        let args = &call["args"];
        // A call without parameters may lack `args`.
        let args = if args.is_object() { args.to_string() } else { "{}".to_owned() };
        answer.push_tool_call(text_field(call, "id"), text_field(call, "name"), &args);
    } else if let Some(text) = part["text"].as_str() {
        if is_marked {
            // A signed part must not be appended to the one before.
            answer.parts.force_new_part();
        }
        if part["thought"] == json!(true) {
            // Reasoning without a signature belongs to this interface too.
            let thought_field = Map::from_iter([("thought".to_owned(), json!(true))]);
            if is_marked || !text.is_empty() {
                answer.parts.continue_native_thought(NativeFields::from_fields(
                    ChatInterface::Gemini,
                    thought_field,
                ));
            }
            answer.push_thinking(text);
        } else {
            if is_marked {
                answer.parts.continue_text();
            }
            answer.push_text(text);
        }
    } else {
        answer.parts.add_native(ChatInterface::Gemini, part.clone());
        return;
    }
    if is_marked {
        let (place, delta) = (answer.parts.newest_index(), json!(fields));
        answer.parts.merge_native_fields(place, ChatInterface::Gemini, fields, &delta);
        answer.parts.force_new_part();
    }
}

/// Maps finish reasons. Blocked content becomes `content_filter`; malformed calls are retried.
fn map_finish_reason(reason: &str) -> Option<&'static str> {
    match reason {
        "STOP" => Some("stop"),
        "MAX_TOKENS" => Some("length"),
        "SAFETY"
        | "RECITATION"
        | "LANGUAGE"
        | "BLOCKLIST"
        | "PROHIBITED_CONTENT"
        | "SPII"
        | "MODEL_ARMOR"
        | "IMAGE_SAFETY"
        | "IMAGE_PROHIBITED_CONTENT"
        | "IMAGE_RECITATION" => Some("content_filter"),
        "MALFORMED_FUNCTION_CALL"
        | "MALFORMED_RESPONSE"
        | "UNEXPECTED_TOOL_CALL"
        | "TOO_MANY_TOOL_CALLS" => Some(MALFORMED),
        _ => None,
    }
}
