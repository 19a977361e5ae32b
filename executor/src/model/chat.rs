//! A chat: what is asked, what is answered, and who answers.

use std::time::Duration;

use async_trait::async_trait;
use bytes::Bytes;
use convergio_domain::metering::Usage;
use serde_json::{Value, json};
use tokio_util::sync::CancellationToken;

use super::config::{ModelInfo, ProviderConfig};
use super::error::ModelError;

/// A question to a model.
#[derive(Debug, Clone, PartialEq)]
pub struct ChatRequest {
    /// The model.
    pub model: String,
    /// The system prompt.
    pub system: Option<String>,
    /// The user's prompt.
    pub prompt: String,
    /// Most tokens of the answer.
    pub max_tokens: u32,
    /// Sampling temperature.
    pub temperature: Option<f64>,
    /// JSON Schema of the answer.
    pub schema: Option<Value>,
}

/// How a request names the most tokens of the answer.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum LimitName {
    /// `max_tokens`: the only name that every server for one's own machine knows.
    MaxTokens,
    /// `max_completion_tokens`: the only name that OpenAI's reasoning models accept.
    MaxCompletionTokens,
}

impl ChatRequest {
    /// The exact bytes that are sent, and recorded before they are, in the form that every
    /// OpenAI-compatible server understands. [`Provider::body`] knows a provider's own wishes.
    pub fn body(&self) -> Bytes {
        self.body_with(LimitName::MaxTokens)
    }

    pub(super) fn body_with(&self, limit: LimitName) -> Bytes {
        let mut messages = Vec::new();
        if let Some(system) = &self.system {
            messages.push(json!({"role": "system", "content": system}));
        }
        messages.push(json!({"role": "user", "content": self.prompt}));
        let mut body = json!({
            "model": self.model,
            "messages": messages,
            "stream": true,
            "stream_options": {"include_usage": true},
        });
        let limit = match limit {
            LimitName::MaxTokens => "max_tokens",
            LimitName::MaxCompletionTokens => "max_completion_tokens",
        };
        body[limit] = json!(self.max_tokens);
        if let Some(temperature) = self.temperature {
            body["temperature"] = json!(temperature);
        }
        if let Some(schema) = &self.schema {
            let strict = is_strict(schema);
            let schema = json!({"name": "answer", "strict": strict, "schema": schema});
            body["response_format"] = json!({"type": "json_schema", "json_schema": schema});
        }
        Bytes::from(body.to_string())
    }
}

/// Whether OpenAI would take the schema as a strict one: every object closed, every field required.
fn is_strict(schema: &Value) -> bool {
    let fields = schema["properties"].as_object();
    let is_closed = fields.is_none_or(|fields| {
        let required = schema["required"].as_array().map_or(0, Vec::len);
        schema["additionalProperties"] == json!(false) && required == fields.len()
    });
    let mut inner = match schema {
        Value::Object(parts) => parts.values().collect::<Vec<_>>(),
        Value::Array(parts) => parts.iter().collect(),
        _ => Vec::new(),
    };
    inner.retain(|part| part.is_object() || part.is_array());
    is_closed && inner.into_iter().all(is_strict)
}

/// An answer, whole.
#[derive(Debug, Clone, PartialEq)]
pub struct ChatAnswer {
    /// The text.
    pub text: String,
    /// Why the model stopped.
    pub finish: String,
    /// The model, by its own word.
    pub model: String,
    /// Quantities in disjoint classes.
    pub usage: Usage,
    /// False when the provider told no quantities and they are our estimate.
    pub confirmed: bool,
    /// The provider's usage block, as it came.
    pub raw_usage: Option<Value>,
    /// Milliseconds from the request to the last byte.
    pub duration_ms: u64,
    /// Milliseconds to the first piece of text.
    pub first_token_ms: Option<u64>,
}

/// Hears each piece of text as it comes, with the number of pieces so far.
pub type Sink<'a> = &'a (dyn Fn(&str, u64) + Send + Sync);

/// Who answers.
#[async_trait]
pub trait Provider: Send + Sync {
    /// What is known about it.
    fn info(&self) -> &ProviderConfig;

    /// The name used in manifests.
    fn name(&self) -> &str {
        &self.info().name
    }

    /// The exact bytes of a request, as this provider wants them.
    fn body(&self, request: &ChatRequest) -> Bytes;

    /// Sends a request body and waits for the whole answer. Cancelling closes the connection.
    ///
    /// # Errors
    /// There is no answer. What was used nevertheless stands in the error.
    async fn chat(
        &self,
        body: &Bytes,
        timeout: Duration,
        sink: Sink<'_>,
        cancel: &CancellationToken,
    ) -> Result<ChatAnswer, ModelError>;

    /// The models that the provider lists now.
    ///
    /// # Errors
    /// It cannot be asked.
    async fn models(&self) -> Result<Vec<ModelInfo>, ModelError>;
}

#[cfg(test)]
mod tests {
    use serde_json::{Value, json};

    use super::{ChatRequest, LimitName, is_strict};

    fn request() -> ChatRequest {
        ChatRequest {
            model: "m".into(),
            system: None,
            prompt: "p \"quoted\"\n".into(),
            max_tokens: 7,
            temperature: None,
            schema: None,
        }
    }

    #[test]
    fn the_body_is_small_and_its_keys_are_in_order() {
        let body = request().body();
        let expected = r#"{"max_tokens":7,"messages":[{"content":"p \"quoted\"\n","role":"user"}],"#
            .to_owned()
            + r#""model":"m","stream":true,"stream_options":{"include_usage":true}}"#;
        assert_eq!(body, expected.as_bytes());
    }

    #[test]
    fn everything_that_is_asked_stands_in_the_body() {
        let schema = json!({"type": "object", "properties": {"a": {"type": "string"}}});
        let request = ChatRequest {
            system: Some("s".into()),
            temperature: Some(0.5),
            schema: Some(schema.clone()),
            ..request()
        };
        let body = request.body_with(LimitName::MaxCompletionTokens);
        let body: Value = serde_json::from_slice(&body).unwrap();
        assert_eq!(body["messages"][0], json!({"role": "system", "content": "s"}));
        assert_eq!(body["temperature"], json!(0.5));
        assert_eq!(
            (&body["max_completion_tokens"], &body["max_tokens"]),
            (&json!(7), &Value::Null)
        );
        let format = &body["response_format"]["json_schema"];
        assert_eq!((&format["schema"], &format["strict"]), (&schema, &json!(false)));
    }

    #[test]
    fn only_closed_schemas_are_strict() {
        let open = json!({"type": "object", "properties": {"a": {"type": "string"}}});
        let closed = json!({"type": "object", "properties": {"a": {"type": "string"}},
            "required": ["a"], "additionalProperties": false});
        let nested = |inner: &Value| json!({"type": "array", "items": inner});
        assert!(!is_strict(&open) && !is_strict(&nested(&open)));
        assert!(is_strict(&closed) && is_strict(&nested(&closed)) && is_strict(&json!({})));
    }
}
