//! A chat: what is asked, what is answered, and who answers.

use std::time::Duration;

use async_trait::async_trait;
use bytes::Bytes;
use convergio_domain::metering::Usage;
use serde_json::{Value, json};
use tokio_util::sync::CancellationToken;

use super::config::ModelInfo;
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

impl ChatRequest {
    /// The exact bytes that are sent, and recorded before they are.
    pub fn body(&self) -> Bytes {
        let mut messages = Vec::new();
        if let Some(system) = &self.system {
            messages.push(json!({"role": "system", "content": system}));
        }
        messages.push(json!({"role": "user", "content": self.prompt}));
        let mut body = json!({
            "model": self.model,
            "messages": messages,
            "max_tokens": self.max_tokens,
            "stream": true,
            "stream_options": {"include_usage": true},
        });
        if let Some(temperature) = self.temperature {
            body["temperature"] = json!(temperature);
        }
        if let Some(schema) = &self.schema {
            let schema = json!({"name": "answer", "strict": true, "schema": schema});
            body["response_format"] = json!({"type": "json_schema", "json_schema": schema});
        }
        Bytes::from(body.to_string())
    }
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
    /// The name used in manifests.
    fn name(&self) -> &str;

    /// Sends a request body and waits for the whole answer. Cancelling closes the connection.
    async fn chat(
        &self,
        body: &Bytes,
        timeout: Duration,
        sink: Sink<'_>,
        cancel: &CancellationToken,
    ) -> Result<ChatAnswer, ModelError>;

    /// The models that can be asked.
    async fn models(&self) -> Result<Vec<ModelInfo>, ModelError>;
}
