//! What a request requires of a model, and the restrictions on service requests.

use convergio_domain::chat::{
    ChatRequest, FilePart, MessagePart, ModelService, TextPart, ToolResultPart,
};
use convergio_domain::failure::UnsealedFailure;
use convergio_domain::platform_text;

use crate::catalog::ModelRequirements;

/// Output tokens assumed for an answer whose length the request does not limit.
const LEAST_ANSWER_TOKENS: u32 = 256;

/// Tokens of a picture of usual size.
const IMAGE_TOKENS: u64 = 1600;

/// Checks that a service request (embeddings, transcription, speech) has nothing but a model beside
/// it: other fields would be ignored silently.
///
/// # Errors
/// `request.invalid`: there are further fields, or this is not the first turn of an agent.
pub(super) fn check_service(request: &ChatRequest, turn: u32) -> Result<(), UnsealedFailure> {
    let Some(service) = &request.service else { return Ok(()) };
    let bare_request = ChatRequest {
        model: request.model.clone(),
        fallbacks: request.fallbacks.clone(),
        privacy: request.privacy,
        service: Some(service.clone()),
        ..ChatRequest::default()
    };
    if turn == 0 && *request == bare_request {
        return Ok(());
    }
    let message = platform_text!(
        "a request for a service has a model and no messages, tools or settings beside it"
    );
    Err(UnsealedFailure::new("request.invalid", message))
}

/// Returns what a request requires of a model: room for its tokens, privacy, and whether the
/// provider must fetch URLs. Token counts are estimates.
pub(super) fn requirements_of(request: &ChatRequest) -> ModelRequirements {
    if let Some(service) = &request.service {
        let privacy = request.privacy;
        let input_tokens = service_context_tokens(service);
        return ModelRequirements { input_tokens, output_tokens: 0, privacy, fetches_urls: false };
    }
    let parts = || request.messages.iter().flat_map(|message| &message.parts);
    let message_tokens: u64 = parts().map(part_tokens).sum();
    let tool_tokens: u64 =
        request.tools.iter().map(|tool| estimate_tokens(&tool.parameters.to_string())).sum();
    ModelRequirements {
        input_tokens: estimate_tokens(request.system.as_deref().unwrap_or(""))
            + message_tokens
            + tool_tokens,
        output_tokens: request.max_tokens.unwrap_or(LEAST_ANSWER_TOKENS),
        privacy: request.privacy,
        fetches_urls: parts().any(|part| matches!(part, MessagePart::ImageUrl(_))),
    }
}

/// Estimated tokens that a model must hold in its context at once for a service.
fn service_context_tokens(service: &ModelService) -> u64 {
    match service {
        // Each text is embedded on its own, so only the longest must fit.
        ModelService::Embed { texts, .. } => {
            texts.iter().map(|text| estimate_tokens(text)).max().unwrap_or(0)
        }
        // A recording's share of the context is known to its provider only; the prompt alone is
        // counted.
        ModelService::Transcribe { prompt, .. } => prompt.as_deref().map_or(0, estimate_tokens),
        ModelService::Speak { text, .. } => estimate_tokens(text),
    }
}

/// Estimated tokens of one part of a message.
fn part_tokens(part: &MessagePart) -> u64 {
    match part {
        MessagePart::Text(TextPart { text, .. }) => estimate_tokens(text),
        MessagePart::Thinking(thinking) => estimate_tokens(&thinking.text),
        MessagePart::Refusal(refusal) => estimate_tokens(&refusal.text),
        MessagePart::ToolResult(ToolResultPart { text, parts, .. }) => {
            estimate_tokens(text) + parts.iter().map(part_tokens).sum::<u64>()
        }
        MessagePart::Image(_) | MessagePart::ImageUrl(_) => IMAGE_TOKENS,
        // Base64 bytes overestimate a document, whose pages are read as text and as pictures.
        MessagePart::File(FilePart { data, text, .. }) => {
            estimate_tokens(text.as_deref().unwrap_or(""))
                + estimate_tokens(data.as_deref().unwrap_or(""))
        }
        MessagePart::Audio(audio) => estimate_tokens(&audio.data),
        MessagePart::ToolCall(call) => {
            estimate_tokens(&call.arguments) + estimate_tokens(&call.name)
        }
        MessagePart::Native(native) => estimate_tokens(&native.block.to_string()),
    }
}

/// Estimated tokens of a text: one for every four bytes, as in English, and four for the chat
/// template. An underestimate only delays an error: the provider reports itself that a prompt is
/// too long.
fn estimate_tokens(text: &str) -> u64 {
    text.len() as u64 / 4 + 4
}
