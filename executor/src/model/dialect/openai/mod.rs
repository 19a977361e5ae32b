//! OpenAI's chat completions, as OpenAI, Azure, llama.cpp, MLX and many others serve them.

mod read;
mod write;

use convergio_domain::chat::{ChatRequest, Interface};
use convergio_domain::metering::Usage;
use convergio_kernel_c::Platform;
use serde_json::{Value, json};

use super::{Dialect, ReadError, encoded, refuse_errors, vectors};
use crate::model::answer::{Answer, UsageReader};
use crate::model::usage;

pub(super) use write::schema_fields;

const INTERFACE: Interface = Interface::OpenAiChat;

/// Chat completions.
pub(super) struct Chat {
    platform: Platform,
    /// The version that Azure's classic URLs name.
    api_version: Option<String>,
}

impl Chat {
    pub(super) fn new(platform: Platform, api_version: Option<String>) -> Self {
        Self { platform, api_version }
    }

    fn path(&self, model: &str, end: &str) -> String {
        match &self.api_version {
            None => format!("/{end}"),
            Some(version) => {
                let (model, version) = (encoded(model), encoded(version));
                format!("/deployments/{model}/{end}?api-version={version}")
            }
        }
    }
}

impl Dialect for Chat {
    fn interface(&self) -> Interface {
        INTERFACE
    }

    fn chat_path(&self, model: &str, _is_stream: bool) -> String {
        self.path(model, "chat/completions")
    }

    fn write(&self, request: &ChatRequest, is_stream: bool) -> Value {
        write::body(self.platform, request, is_stream)
    }

    fn read_piece(&self, piece: &Value, answer: &mut Answer) -> Result<(), ReadError> {
        refuse_errors(piece)?;
        read::take(piece, "delta", answer);
        Ok(())
    }

    fn read_whole(&self, body: &Value, answer: &mut Answer) -> Result<(), ReadError> {
        refuse_errors(body)?;
        if !body["choices"][0].is_object() {
            return Err(ReadError::Malformed("it has no choice"));
        }
        read::take(body, "message", answer);
        // It is whole, so it has a reason to have stopped.
        if !answer.is_finished() {
            answer.finish(Some("stop"), "");
        }
        Ok(())
    }

    fn usage(&self) -> UsageReader {
        usage::from_openai
    }

    fn embed(&self, model: &str, texts: &[String]) -> Option<(String, Value)> {
        Some((self.path(model, "embeddings"), embeddings_body(model, texts)))
    }

    fn read_embeddings(&self, body: &Value) -> Option<(Vec<Vec<f32>>, Usage)> {
        read_embeddings(body)
    }

    fn audio_path(&self, model: &str, end: &str) -> Option<String> {
        Some(self.path(model, &format!("audio/{end}")))
    }
}

pub(super) fn read_embeddings(body: &Value) -> Option<(Vec<Vec<f32>>, Usage)> {
    let vectors = vectors(body["data"].as_array()?.iter().map(|entry| &entry["embedding"]))?;
    Some((vectors, usage::from_openai(&body["usage"]).unwrap_or_default()))
}

pub(super) fn embeddings_body(model: &str, texts: &[String]) -> Value {
    json!({"model": model, "input": texts, "encoding_format": "float"})
}

#[cfg(test)]
mod tests {
    use convergio_kernel_c::Platform;

    use super::{Chat, Dialect};

    #[test]
    fn a_classic_url_names_deployment_and_version() {
        let chat = Chat::new(Platform::CloudApi, Some("2024-10-21".into()));
        let expected = "/deployments/my-gpt/chat/completions?api-version=2024-10-21";
        assert_eq!(chat.chat_path("my-gpt", true), expected);
    }
}
