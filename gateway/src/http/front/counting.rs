//! Token counts of requests. They are estimates, and a header says so: providers' tokenizers are
//! not available here.

use axum::extract::rejection::BytesRejection;
use axum::http::{HeaderMap, HeaderName, HeaderValue};
use axum::response::{IntoResponse, Response};
use axum::{Extension, Json};
use bytes::Bytes;
use convergio_domain::chat::{ChatRequest, Message, Part, ToolSpec};
use serde_json::json;

use super::endpoints::{Id, respond};
use super::refusal::Refusal;
use super::responses::Responses;
use super::serve::read_body;
use super::stored::StoredRuns;
use super::{Door, DoorRequest, Form, Front, messages, responses};
use crate::app::Caller;
use crate::auth::Identity;
use crate::problem::RequestId;

const ESTIMATED: HeaderName = HeaderName::from_static("x-convergio-estimated");
/// Average bytes of text for a token.
const BYTES_A_TOKEN: usize = 4;
/// Approximate tokens of an image, and of the framing of a message or call.
const IMAGE_TOKENS: usize = 1600;
const FRAME_TOKENS: usize = 4;

/// Handles Anthropic's `count_tokens` endpoint.
pub(super) async fn messages(
    Extension(front): Extension<Front>,
    Extension(RequestId(id)): Id,
    headers: HeaderMap,
    body: Result<Bytes, BytesRejection>,
) -> Response {
    let answer = (|| {
        let body = body.map_err(|rejection| Refusal::of_body(&rejection))?;
        let (body, stored) = (read_body(&body)?, StoredRuns::default());
        let settings = &front.gateway.doors;
        let asked = DoorRequest { body: &body, headers: &headers, settings, stored: &stored };
        let request = messages::read_request(&asked)?;
        Ok(estimated(json!({"input_tokens": count(&request)})))
    })();
    respond(answer, Form::Anthropic, &id)
}

/// Handles OpenAI's `input_tokens` endpoint.
pub(super) async fn responses(
    Extension(front): Extension<Front>,
    Extension(caller): Caller,
    Extension(RequestId(id)): Id,
    headers: HeaderMap,
    body: Result<Bytes, BytesRejection>,
) -> Response {
    let answer = count_responses(&front, &caller, &headers, body).await;
    respond(answer, Form::OpenAi, &id)
}

async fn count_responses(
    front: &Front,
    caller: &Identity,
    headers: &HeaderMap,
    body: Result<Bytes, BytesRejection>,
) -> Result<Response, Refusal> {
    let body = body.map_err(|rejection| Refusal::of_body(&rejection))?;
    let body = read_body(&body)?;
    let stored = StoredRuns::read(front, caller, &Responses::references(&body)).await?;
    let settings = &front.gateway.doors;
    let asked = DoorRequest { body: &body, headers, settings, stored: &stored };
    let (request, _) = responses::read_request(&asked)?;
    let counted = json!({"object": "response.input_tokens", "input_tokens": count(&request)});
    Ok(estimated(counted))
}

fn estimated(counted: serde_json::Value) -> Response {
    let mut response = Json(counted).into_response();
    response.headers_mut().insert(ESTIMATED, HeaderValue::from_static("true"));
    response
}

/// Estimates the input tokens of a request.
fn count(request: &ChatRequest) -> usize {
    let system = request.system.as_ref().map_or(0, String::len);
    let schema = request.schema.as_ref().map_or(0, |schema| schema.to_string().len());
    let tools: usize = request.tools.iter().map(tool_bytes).sum();
    let native: usize = request.native_tools.iter().map(|tool| tool.block.to_string().len()).sum();
    let messages: usize = request.messages.iter().map(message_tokens).sum();
    (system + schema + tools + native).div_ceil(BYTES_A_TOKEN) + messages
}

fn tool_bytes(tool: &ToolSpec) -> usize {
    tool.name.len() + tool.description.len() + tool.parameters.to_string().len()
}

fn message_tokens(message: &Message) -> usize {
    FRAME_TOKENS + message.parts.iter().map(part_tokens).sum::<usize>()
}

fn part_tokens(part: &Part) -> usize {
    // Rounds up, so that a short text counts at least one token.
    let of = |bytes: usize| bytes.div_ceil(BYTES_A_TOKEN);
    match part {
        Part::Text(part) => of(part.text.len()),
        Part::Thinking(part) => of(part.text.len()),
        Part::Refusal(part) => of(part.text.len()),
        Part::ToolCall(call) => FRAME_TOKENS + of(call.name.len() + call.arguments.len()),
        Part::ToolResult(result) => {
            FRAME_TOKENS
                + of(result.text.len())
                + result.parts.iter().map(part_tokens).sum::<usize>()
        }
        Part::Image(_) | Part::ImageUrl(_) => IMAGE_TOKENS,
        Part::File(file) => {
            let bytes = file.text.as_ref().or(file.data.as_ref()).map_or(0, String::len);
            IMAGE_TOKENS.max(of(bytes))
        }
        // About 64 characters of base64 for a token; audio counts at least as much as an image.
        Part::Audio(audio) => IMAGE_TOKENS.max(of(audio.data.len() / 16)),
        Part::Native(native) => of(native.block.to_string().len()),
    }
}

#[cfg(test)]
mod tests {
    use convergio_domain::chat::ChatRequest;

    use super::count;

    #[test]
    fn longer_prompts_are_more_tokens() {
        let tokens = |letters: usize| count(&ChatRequest::prompt("m", "a".repeat(letters)));
        assert_eq!((tokens(0), tokens(400)), (4, 104));
    }
}
