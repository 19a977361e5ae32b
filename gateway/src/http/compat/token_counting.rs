//! Token counts of requests. They are estimates, and a header says so: providers' tokenizers are
//! not available here.

use axum::extract::rejection::BytesRejection;
use axum::http::{HeaderMap, HeaderName, HeaderValue};
use axum::response::{IntoResponse, Response};
use axum::{Extension, Json};
use bytes::Bytes;
use convergio_application::Caller;
use convergio_domain::chat::{ChatMessage, ChatRequest, ChatToolSpec, MessagePart};
use serde_json::json;

use super::compat_state::{CompatState, RequestIdExtension};
use super::dialect::{CompatDialect, DialectRequest};
use super::error_format::ErrorFormat;
use super::refusal::{CompatRefusal, to_response};
use super::responses::CompatResponses;
use super::serve::read_json_body;
use super::stored_runs::StoredRuns;
use super::{messages, responses};
use crate::problem::RequestId;
use crate::state::CallerExtension;

const ESTIMATED_HEADER: HeaderName = HeaderName::from_static("x-convergio-estimated");
/// Average bytes of text for a token.
const BYTES_PER_TOKEN: usize = 4;
/// Approximate tokens of an image, and of the framing of a message or call.
const IMAGE_TOKENS: usize = 1600;
const FRAME_TOKENS: usize = 4;

/// Handles Anthropic's `count_tokens` endpoint.
pub(super) async fn count_messages_tokens(
    Extension(compat_state): Extension<CompatState>,
    Extension(RequestId(id)): RequestIdExtension,
    headers: HeaderMap,
    body: Result<Bytes, BytesRejection>,
) -> Response {
    let answer = (|| {
        let body = body?;
        let (body, stored) = (read_json_body(&body)?, StoredRuns::default());
        let settings = &compat_state.gateway.compat;
        let dialect_request =
            DialectRequest { body: &body, headers: &headers, settings, stored: &stored };
        let request = messages::read_chat_request(&dialect_request)?;
        Ok(estimate_response(json!({"input_tokens": estimate_tokens(&request)})))
    })();
    to_response(answer, ErrorFormat::Anthropic, &id)
}

/// Handles OpenAI's `input_tokens` endpoint.
pub(super) async fn count_responses_tokens(
    Extension(compat_state): Extension<CompatState>,
    Extension(caller): CallerExtension,
    Extension(RequestId(id)): RequestIdExtension,
    headers: HeaderMap,
    body: Result<Bytes, BytesRejection>,
) -> Response {
    let answer = count_stored_responses(&compat_state, &caller, &headers, body).await;
    to_response(answer, ErrorFormat::OpenAi, &id)
}

async fn count_stored_responses(
    compat_state: &CompatState,
    caller: &Caller,
    headers: &HeaderMap,
    body: Result<Bytes, BytesRejection>,
) -> Result<Response, CompatRefusal> {
    let body = body?;
    let body = read_json_body(&body)?;
    let stored =
        StoredRuns::read_runs(compat_state, caller, &CompatResponses::referenced_runs(&body))
            .await?;
    let settings = &compat_state.gateway.compat;
    let asked = DialectRequest { body: &body, headers, settings, stored: &stored };
    let (request, _) = responses::read_chat_request(&asked)?;
    let counted =
        json!({"object": "response.input_tokens", "input_tokens": estimate_tokens(&request)});
    Ok(estimate_response(counted))
}

fn estimate_response(counted: serde_json::Value) -> Response {
    let mut response = Json(counted).into_response();
    response.headers_mut().insert(ESTIMATED_HEADER, HeaderValue::from_static("true"));
    response
}

/// Estimates the input tokens of a request.
fn estimate_tokens(request: &ChatRequest) -> usize {
    let system = request.system.as_ref().map_or(0, String::len);
    let schema = request.schema.as_ref().map_or(0, |schema| schema.to_string().len());
    let tools: usize = request.tools.iter().map(tool_bytes).sum();
    let native: usize = request.native_tools.iter().map(|tool| tool.block.to_string().len()).sum();
    let messages: usize = request.messages.iter().map(message_tokens).sum();
    (system + schema + tools + native).div_ceil(BYTES_PER_TOKEN) + messages
}

fn tool_bytes(tool: &ChatToolSpec) -> usize {
    tool.name.len() + tool.description.len() + tool.parameters.to_string().len()
}

fn message_tokens(message: &ChatMessage) -> usize {
    FRAME_TOKENS + message.parts.iter().map(part_tokens).sum::<usize>()
}

fn part_tokens(part: &MessagePart) -> usize {
    // Rounds up, so that a short text counts at least one token.
    let tokens_of = |bytes: usize| bytes.div_ceil(BYTES_PER_TOKEN);
    match part {
        MessagePart::Text(part) => tokens_of(part.text.len()),
        MessagePart::Thinking(part) => tokens_of(part.text.len()),
        MessagePart::Refusal(part) => tokens_of(part.text.len()),
        MessagePart::ToolCall(call) => {
            FRAME_TOKENS + tokens_of(call.name.len() + call.arguments.len())
        }
        MessagePart::ToolResult(result) => {
            FRAME_TOKENS
                + tokens_of(result.text.len())
                + result.parts.iter().map(part_tokens).sum::<usize>()
        }
        MessagePart::Image(_) | MessagePart::ImageUrl(_) => IMAGE_TOKENS,
        MessagePart::File(file) => {
            let bytes = file.text.as_ref().or(file.data.as_ref()).map_or(0, String::len);
            IMAGE_TOKENS.max(tokens_of(bytes))
        }
        // About 64 characters of base64 for a token; audio counts at least as much as an image.
        MessagePart::Audio(audio) => IMAGE_TOKENS.max(tokens_of(audio.data.len() / 16)),
        MessagePart::Native(native) => tokens_of(native.block.to_string().len()),
    }
}

#[cfg(test)]
mod tests {
    use convergio_domain::chat::ChatRequest;

    use super::estimate_tokens;

    #[test]
    fn longer_prompts_are_more_tokens() {
        let tokens =
            |letters: usize| estimate_tokens(&ChatRequest::from_prompt("m", "a".repeat(letters)));
        assert_eq!((tokens(0), tokens(400)), (4, 104));
    }
}
