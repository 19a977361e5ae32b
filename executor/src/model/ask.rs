//! What an agent asks: a request from its manifest, what it needs of a model, and its limit.

use convergio_domain::chat::{ChatRequest, Part};
use convergio_domain::failure::UnsealedFailure;
use convergio_domain::graph::manifest::Agent;
use convergio_domain::platform_text;
use serde_json::Value;

use super::route::{Choice, Need};

/// Least room for an answer whose length nobody limited.
const LEAST_ANSWER: u32 = 256;
/// Most tokens of an answer whose length nobody limited: what is not limited cannot be reserved.
const DEFAULT_ANSWER: u32 = 4096;
/// Tokens of a picture, at most what the providers count for one of usual size.
const IMAGE_TOKENS: u64 = 1600;

/// The request of an agent with a prompt, rendered.
pub(crate) fn of_prompt(agent: &Agent, system: Option<String>, prompt: String) -> ChatRequest {
    ChatRequest {
        system,
        max_tokens: Some(agent.max_tokens),
        temperature: agent.temperature,
        schema: agent.schema.clone(),
        privacy: agent.privacy,
        ..ChatRequest::prompt(&agent.model, prompt)
    }
}

/// The request of an agent that is given a whole one.
pub(crate) fn of_value(agent: &Agent, value: Value) -> Result<ChatRequest, UnsealedFailure> {
    let request: Result<ChatRequest, _> = serde_json::from_value(value);
    let mut request = request.map_err(|error| {
        let message = platform_text!("agent.request must yield a chat request");
        UnsealedFailure::new("request.invalid", message).with_cause(error)
    })?;
    request.privacy = request.privacy.max(agent.privacy);
    Ok(request)
}

/// What a request needs of a model.
pub(crate) fn need(request: &ChatRequest) -> Need {
    let parts = || request.messages.iter().flat_map(|message| &message.parts);
    let said: u64 = parts().map(tokens_of).sum();
    let tools: u64 = request.tools.iter().map(|tool| tokens(&tool.parameters.to_string())).sum();
    Need {
        input_tokens: tokens(request.system.as_deref().unwrap_or("")) + said + tools,
        output_tokens: request.max_tokens.unwrap_or(LEAST_ANSWER),
        privacy: request.privacy,
        fetches: parts().any(|part| matches!(part, Part::ImageUrl { .. })),
    }
}

/// The request as it goes to the model that was chosen, with a limit in any case.
pub(crate) fn addressed(request: ChatRequest, need: &Need, choice: &Choice) -> ChatRequest {
    let room = choice.context_tokens.map(|context| context.saturating_sub(need.input_tokens));
    let room = room.and_then(|room| u32::try_from(room).ok()).unwrap_or(DEFAULT_ANSWER);
    let default = room.clamp(LEAST_ANSWER, DEFAULT_ANSWER);
    let max_tokens = Some(request.max_tokens.unwrap_or(default));
    ChatRequest { model: choice.model.clone(), max_tokens, ..request }
}

fn tokens_of(part: &Part) -> u64 {
    match part {
        Part::Text { text } | Part::Thinking { text, .. } | Part::ToolResult { text, .. } => {
            tokens(text)
        }
        Part::Image { .. } | Part::ImageUrl { .. } => IMAGE_TOKENS,
        Part::ToolCall(call) => tokens(&call.arguments) + tokens(&call.name),
    }
}

/// Tokens of a text, estimated high: one for every three bytes, and some for the chat's frame.
fn tokens(text: &str) -> u64 {
    text.len() as u64 / 3 + 16
}
