//! The chat request of an agent: built from its manifest, with what it requires of a model and the
//! restrictions on service requests.

use convergio_domain::chat::{
    ChatRequest, FilePart, MessagePart, ModelService, SchemaSpec, TextPart, ToolResultPart,
};
use convergio_domain::failure::UnsealedFailure;
use convergio_domain::graph::manifest::Agent;
use convergio_domain::platform_text;
use serde_json::Value;

use crate::catalog::ModelRequirements;

/// Output tokens assumed for an answer whose length the request does not limit.
const LEAST_ANSWER_TOKENS: u32 = 256;
/// Tokens of a picture of usual size.
const IMAGE_TOKENS: u64 = 1600;

/// Builds the request of an agent from its rendered system prompt and prompt.
pub(crate) fn request_from_prompt(
    agent: &Agent,
    system: Option<String>,
    prompt: String,
) -> ChatRequest {
    ChatRequest {
        system,
        max_tokens: Some(agent.max_tokens),
        temperature: agent.temperature,
        schema: agent.schema.clone(),
        schema_spec: agent
            .schema
            .as_ref()
            // A provider refuses the whole request if the schema cannot be strict: only such a
            // schema asks for it.
            .filter(|schema| is_strict_schema(schema))
            .map(|_| SchemaSpec { strict: Some(true), ..SchemaSpec::default() }),
        privacy: agent.privacy,
        ..ChatRequest::from_prompt(&agent.model, prompt)
    }
}

/// Builds the request of an agent whose manifest yields a complete request as a value. The agent's
/// privacy may only be tightened.
///
/// # Errors
/// `request.invalid`: the value is not a chat request.
pub(crate) fn request_from_value(
    agent: &Agent,
    value: Value,
) -> Result<ChatRequest, UnsealedFailure> {
    let request: Result<ChatRequest, _> = serde_json::from_value(value);
    let mut request = request.map_err(|error| {
        let message = platform_text!("agent.request must yield a chat request");
        UnsealedFailure::new("request.invalid", message).with_cause(error)
    })?;
    // The manifest's level is a floor: the rendered request may come from a caller.
    request.privacy = request.privacy.max(agent.privacy);
    Ok(request)
}

/// Checks that a service request (embeddings, transcription, speech) has nothing but a model beside
/// it: other fields would be ignored silently.
///
/// # Errors
/// `request.invalid`: there are further fields, or this is not the first turn of an agent.
pub(crate) fn check_service(request: &ChatRequest, turn: u32) -> Result<(), UnsealedFailure> {
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
pub(crate) fn requirements_of(request: &ChatRequest) -> ModelRequirements {
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

/// Returns whether providers accept the schema in strict mode: an object, every object in it closed
/// (`additionalProperties: false`) and every property required.
fn is_strict_schema(schema: &Value) -> bool {
    schema["type"] == "object" && is_closed_schema(schema)
}

/// Returns whether the schema and all schemas within it describe closed objects or no objects.
fn is_closed_schema(schema: &Value) -> bool {
    let kind = &schema["type"];
    // `type` may be a list, such as `["object", "null"]`.
    let names_object = |kind: &Value| *kind == "object";
    let is_object = names_object(kind)
        || kind.as_array().is_some_and(|kinds| kinds.iter().any(names_object))
        || schema.get("properties").is_some();
    let fields = schema["properties"].as_object().map_or(0, serde_json::Map::len);
    let required = schema["required"].as_array().map_or(0, Vec::len);
    let is_closed_object = schema["additionalProperties"] == false && required == fields;
    // All values are searched, also below keywords such as `enum`: a false "open" only gives up
    // strict mode.
    let inner: Vec<&Value> = match schema {
        Value::Object(parts) => parts.values().collect(),
        Value::Array(parts) => parts.iter().collect(),
        _ => Vec::new(),
    };
    let mut inner = inner.into_iter().filter(|part| part.is_object() || part.is_array());
    (is_closed_object || !is_object) && inner.all(is_closed_schema)
}

#[cfg(test)]
mod tests {
    use serde_json::{Value, json};

    use super::is_strict_schema;

    #[test]
    fn only_closed_schemas_are_strict() {
        let closed = json!({"type": "object", "properties": {"a": {"type": "string"}},
            "required": ["a"], "additionalProperties": false});
        let with = |inner: &Value| {
            json!({"type": "object", "properties": {"list": {"type": "array", "items": inner}},
                "required": ["list"], "additionalProperties": false})
        };
        let open = [
            json!({"type": "object", "properties": {"a": {"type": "string"}}}),
            json!({"type": "object", "additionalProperties": {"type": "integer"}}),
            json!({"type": ["object", "null"]}),
            json!({"type": "object"}),
        ];
        for schema in open {
            assert!(!is_strict_schema(&schema) && !is_strict_schema(&with(&schema)), "{schema}");
        }
        assert!(is_strict_schema(&closed) && is_strict_schema(&with(&closed)));
        assert!(
            !is_strict_schema(&json!({}))
                && !is_strict_schema(&json!({"type": "array", "items": closed}))
        );
    }
}
