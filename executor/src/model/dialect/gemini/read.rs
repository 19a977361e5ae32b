//! Reading answers of Google's `generateContent`, streamed or at once: both consist of the same
//! pieces.

use convergio_domain::chat::NativeFields;
use serde_json::{Map, Value, json};

use super::super::{rest, text};
use super::INTERFACE;
use crate::model::answer::{Answer, MALFORMED};

/// Reads one piece: model, usage, parts and finish reason.
pub(super) fn piece(piece: &Value, answer: &mut Answer) {
    answer.name(&piece["modelVersion"]);
    // Every piece carries the running counts.
    answer.count(&piece["usageMetadata"]);
    // A blocked prompt has no candidates at all.
    if let Some(reason) = piece["promptFeedback"]["blockReason"].as_str() {
        answer.finish(Some("content_filter"), reason);
        return;
    }
    let candidate = &piece["candidates"][0];
    for part in candidate["content"]["parts"].as_array().into_iter().flatten() {
        read_part(part, answer);
    }
    if let Some(reason) = candidate["finishReason"].as_str() {
        answer.finish(known_finish(reason), reason);
    }
    let known = ["avgLogprobs", "content", "finishReason", "index", "safetyRatings", "tokenCount"];
    answer.add_fields(rest(candidate, &known));
}

/// Reads a part. Its thought signature stays with this very part, so a marked part is never joined
/// with others.
fn read_part(part: &Value, answer: &mut Answer) {
    let fields = rest(part, &["functionCall", "text", "thought"]);
    let is_marked = !fields.is_empty();
    let call = &part["functionCall"];
    if call.is_object() {
        let args = &call["args"];
        // A call without parameters may lack `args`.
        let args = if args.is_object() { args.to_string() } else { "{}".to_owned() };
        answer.call(text(call, "id"), text(call, "name"), &args);
    } else if let Some(text) = part["text"].as_str() {
        if is_marked {
            // A signed part must not be appended to the one before.
            answer.parts.separate();
        }
        if part["thought"] == json!(true) {
            // Reasoning without a signature belongs to this interface too.
            let own = Map::from_iter([("thought".to_owned(), json!(true))]);
            if is_marked || !text.is_empty() {
                answer.parts.continue_thought_of(NativeFields::of(INTERFACE, own));
            }
            answer.think(text);
        } else {
            if is_marked {
                answer.parts.continue_text();
            }
            answer.say(text);
        }
    } else {
        answer.parts.add_native(INTERFACE, part.clone());
        return;
    }
    if is_marked {
        let (place, delta) = (answer.parts.newest(), json!(fields));
        answer.parts.add_fields(place, INTERFACE, fields, &delta);
        answer.parts.separate();
    }
}

/// Maps finish reasons. Blocked content becomes `content_filter`; malformed calls are retried.
fn known_finish(reason: &str) -> Option<&'static str> {
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
