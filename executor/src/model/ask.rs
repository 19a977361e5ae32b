//! The chat request of an agent: built from its manifest, with what it requires of a model and the
//! restrictions on service requests.

use convergio_domain::chat::{
    ChatRequest, FilePart, ModelService, Part, SchemaSpec, TextPart, ToolResultPart,
};
use convergio_domain::failure::UnsealedFailure;
use convergio_domain::graph::manifest::Agent;
use convergio_domain::platform_text;
use serde_json::Value;

use super::route::Need;

/// Output tokens assumed for an answer whose length the request does not limit.
const LEAST_ANSWER: u32 = 256;
/// Tokens of a picture of usual size.
const IMAGE_TOKENS: u64 = 1600;

/// Builds the request of an agent from its rendered system prompt and prompt.
pub(crate) fn of_prompt(agent: &Agent, system: Option<String>, prompt: String) -> ChatRequest {
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
            .filter(|schema| is_strict(schema))
            .map(|_| SchemaSpec { strict: Some(true), ..SchemaSpec::default() }),
        privacy: agent.privacy,
        ..ChatRequest::prompt(&agent.model, prompt)
    }
}

/// Builds the request of an agent whose manifest yields a complete request as a value. The agent's
/// privacy may only be tightened.
///
/// # Errors
/// `request.invalid`: the value is not a chat request.
pub(crate) fn of_value(agent: &Agent, value: Value) -> Result<ChatRequest, UnsealedFailure> {
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
    let alone = ChatRequest {
        model: request.model.clone(),
        fallbacks: request.fallbacks.clone(),
        privacy: request.privacy,
        service: Some(service.clone()),
        ..ChatRequest::default()
    };
    if turn == 0 && *request == alone {
        return Ok(());
    }
    let message = platform_text!(
        "a request for a service has a model and no messages, tools or settings beside it"
    );
    Err(UnsealedFailure::new("request.invalid", message))
}

/// Returns what a request requires of a model: room for its tokens, privacy, and whether the
/// provider must fetch URLs. Token counts are estimates.
pub(crate) fn need(request: &ChatRequest) -> Need {
    if let Some(service) = &request.service {
        let privacy = request.privacy;
        let input_tokens = service_tokens(service);
        return Need { input_tokens, output_tokens: 0, privacy, fetches: false };
    }
    let parts = || request.messages.iter().flat_map(|message| &message.parts);
    let said: u64 = parts().map(tokens_of).sum();
    let tools: u64 = request.tools.iter().map(|tool| tokens(&tool.parameters.to_string())).sum();
    Need {
        input_tokens: tokens(request.system.as_deref().unwrap_or("")) + said + tools,
        output_tokens: request.max_tokens.unwrap_or(LEAST_ANSWER),
        privacy: request.privacy,
        fetches: parts().any(|part| matches!(part, Part::ImageUrl(_))),
    }
}

/// Estimated tokens that a model must hold in its context at once for a service.
fn service_tokens(service: &ModelService) -> u64 {
    match service {
        // Each text is embedded on its own, so only the longest must fit.
        ModelService::Embed { texts, .. } => {
            texts.iter().map(|text| tokens(text)).max().unwrap_or(0)
        }
        // A recording's share of the context is known to its provider only; the prompt alone is
        // counted.
        ModelService::Transcribe { prompt, .. } => prompt.as_deref().map_or(0, tokens),
        ModelService::Speak { text, .. } => tokens(text),
    }
}

/// Estimated tokens of one part of a message.
fn tokens_of(part: &Part) -> u64 {
    match part {
        Part::Text(TextPart { text, .. }) => tokens(text),
        Part::Thinking(thinking) => tokens(&thinking.text),
        Part::Refusal(refusal) => tokens(&refusal.text),
        Part::ToolResult(ToolResultPart { text, parts, .. }) => {
            tokens(text) + parts.iter().map(tokens_of).sum::<u64>()
        }
        Part::Image(_) | Part::ImageUrl(_) => IMAGE_TOKENS,
        // Base64 bytes overestimate a document, whose pages are read as text and as pictures.
        Part::File(FilePart { data, text, .. }) => {
            tokens(text.as_deref().unwrap_or("")) + tokens(data.as_deref().unwrap_or(""))
        }
        Part::Audio(audio) => tokens(&audio.data),
        Part::ToolCall(call) => tokens(&call.arguments) + tokens(&call.name),
        Part::Native(native) => tokens(&native.block.to_string()),
    }
}

/// Estimated tokens of a text: one for every four bytes, as in English, and four for the chat
/// template. An underestimate only delays an error: the provider reports itself that a prompt is
/// too long.
fn tokens(text: &str) -> u64 {
    text.len() as u64 / 4 + 4
}

/// Returns whether providers accept the schema in strict mode: an object, every object in it closed
/// (`additionalProperties: false`) and every property required.
fn is_strict(schema: &Value) -> bool {
    schema["type"] == "object" && is_closed(schema)
}

/// Returns whether the schema and all schemas within it describe closed objects or no objects.
fn is_closed(schema: &Value) -> bool {
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
    (is_closed_object || !is_object) && inner.all(is_closed)
}

#[cfg(test)]
mod tests {
    use serde_json::{Value, json};

    use super::is_strict;

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
            assert!(!is_strict(&schema) && !is_strict(&with(&schema)), "{schema}");
        }
        assert!(is_strict(&closed) && is_strict(&with(&closed)));
        assert!(!is_strict(&json!({})) && !is_strict(&json!({"type": "array", "items": closed})));
    }
}
