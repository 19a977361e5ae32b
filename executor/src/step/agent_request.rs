//! The chat request of an agent, rendered from its manifest's templates: here a prompt begins.

use convergio_domain::chat::{ChatRequest, SchemaSpec};
use convergio_domain::expr::ExprScope;
use convergio_domain::failure::UnsealedFailure;
use convergio_domain::graph::manifest::Agent;
use convergio_domain::platform_text;
use serde_json::Value;

use super::planner::Planner;
use crate::outputs::OutputError;

impl Planner<'_> {
    /// Renders an agent's templates to a chat request.
    pub(super) async fn render_request(
        &self,
        agent: &Agent,
        scope: &ExprScope,
    ) -> Result<ChatRequest, OutputError> {
        if let Some(template) = &agent.request {
            let value = self.render_value(&Value::String(template.clone()), scope).await?;
            return request_from_value(agent, value).map_err(OutputError::Failure);
        }
        let texts: Vec<&str> =
            agent.system.as_deref().into_iter().chain([agent.prompt.as_str()]).collect();
        let mut texts = self.render_texts(&texts, scope).await?;
        let prompt = texts.pop().unwrap_or_default();
        Ok(request_from_prompt(agent, texts.pop(), prompt))
    }
}

/// Builds the request of an agent from its rendered system prompt and prompt.
fn request_from_prompt(agent: &Agent, system: Option<String>, prompt: String) -> ChatRequest {
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
fn request_from_value(agent: &Agent, value: Value) -> Result<ChatRequest, UnsealedFailure> {
    let request: Result<ChatRequest, _> = serde_json::from_value(value);
    let mut request = request.map_err(|error| {
        let message = platform_text!("agent.request must yield a chat request");
        UnsealedFailure::new("request.invalid", message).with_cause(error)
    })?;
    // The manifest's level is a floor: the rendered request may come from a caller.
    request.privacy = request.privacy.max(agent.privacy);
    Ok(request)
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
