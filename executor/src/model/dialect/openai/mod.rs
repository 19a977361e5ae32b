//! OpenAI's chat completions, as served by OpenAI, Azure, llama.cpp, MLX and many others.
//!
//! `write` makes the request, `read` takes the answer in; this file has the paths and embeddings,
//! which the responses dialect shares.

mod read;
mod write;

use convergio_domain::chat::{ChatRequest, Interface};
use convergio_kernel_c::Platform;
use serde_json::{Value, json};

use super::{Dialect, Embeddings, ReadError, encoded, put, refuse_errors, vectors};
use crate::model::answer::{Answer, UsageReader};
use crate::model::provider_traits::ProviderTraits;
use crate::model::usage;

pub(super) use write::schema_fields;

const INTERFACE: Interface = Interface::OpenAiChat;

/// The dialect of chat completions.
pub(super) struct Chat {
    /// Decides details that servers on one's own machine do not know.
    platform: Platform,
    /// The version in Azure's classic URLs; absent for all others.
    api_version: Option<String>,
}

impl Chat {
    pub(super) fn new(platform: Platform, api_version: Option<String>) -> Self {
        Self { platform, api_version }
    }

    /// Returns the path of an operation. Azure's classic URLs name deployment and version.
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

    fn write(&self, request: &ChatRequest, traits: &ProviderTraits) -> Value {
        write::body(self.platform, request, traits)
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
        // Some servers omit the finish reason; an answer that arrived whole did not break off.
        if !answer.is_finished() {
            answer.finish(Some("stop"), "");
        }
        Ok(())
    }

    fn usage(&self) -> UsageReader {
        usage::from_openai
    }

    fn embed_path(&self, model: &str) -> Option<String> {
        Some(self.path(model, "embeddings"))
    }

    fn write_embed(&self, model: &str, texts: &[String], dimensions: Option<u32>) -> Value {
        write_embed(model, texts, dimensions)
    }

    fn read_embeddings(&self, body: &Value) -> Option<Embeddings> {
        read_embeddings(body)
    }

    fn audio_path(&self, model: &str, end: &str) -> Option<String> {
        Some(self.path(model, &format!("audio/{end}")))
    }
}

pub(super) fn read_embeddings(body: &Value) -> Option<Embeddings> {
    let vectors = vectors(body["data"].as_array()?.iter().map(|entry| &entry["embedding"]))?;
    Some(Embeddings { vectors, usage: usage::from_openai(&body["usage"]) })
}

pub(super) fn write_embed(model: &str, texts: &[String], dimensions: Option<u32>) -> Value {
    let mut body = json!({"model": model, "input": texts, "encoding_format": "float"});
    put(&mut body, [("dimensions", dimensions.map(Value::from))]);
    body
}

#[cfg(test)]
mod tests {
    use convergio_domain::chat::{ChatRequest, SchemaSpec};
    use convergio_kernel_c::Platform;
    use serde_json::json;

    use super::{Chat, Dialect};
    use crate::model::provider_traits::{LimitField, ProviderTraits};

    fn request() -> ChatRequest {
        ChatRequest { max_tokens: Some(7), ..ChatRequest::prompt("m", "p \"quoted\"\n") }
    }

    #[test]
    fn the_body_is_small_and_its_keys_are_in_order() {
        let body =
            Chat::new(Platform::LlamaCpp, None).write(&request(), &ProviderTraits::default());
        let expected = r#"{"max_tokens":7,"messages":[{"content":"p \"quoted\"\n","role":"user"}],"#
            .to_owned()
            + r#""model":"m","stream":true,"stream_options":{"include_usage":true}}"#;
        assert_eq!(body.to_string(), expected);
    }

    #[test]
    fn strictness_and_names_are_the_callers() {
        let schema = json!({"type": "object", "properties": {"a": {"type": "string"}}});
        let chat = Chat::new(Platform::CloudApi, None);
        let format = |spec: Option<SchemaSpec>, json_object: bool| {
            let schema = (!json_object).then(|| schema.clone());
            let request = ChatRequest { schema, schema_spec: spec, json_object, ..request() };
            chat.write(&request, &ProviderTraits::default())["response_format"].clone()
        };
        let plain = json!({"type": "json_schema",
            "json_schema": {"name": "answer", "schema": schema}});
        assert_eq!(format(None, false), plain);
        let spec = SchemaSpec {
            name: Some("mine".into()),
            description: Some("d".into()),
            strict: Some(false),
        };
        let own = json!({"type": "json_schema", "json_schema": {"name": "mine",
            "description": "d", "strict": false, "schema": schema}});
        assert_eq!(format(Some(spec), false), own);
        assert_eq!(format(None, true), json!({"type": "json_object"}));
    }

    #[test]
    fn what_a_provider_calls_otherwise_is_called_so() {
        let traits = ProviderTraits {
            streams: Some(false),
            limit_field: Some(LimitField::MaxTokens),
            seed_field: Some("random_seed".into()),
            ..ProviderTraits::default()
        };
        let request = ChatRequest { seed: Some(3), ..request() };
        let body = Chat::new(Platform::CloudApi, None).write(&request, &traits);
        let expected = json!({"model": "m", "max_tokens": 7, "random_seed": 3,
            "messages": [{"role": "user", "content": "p \"quoted\"\n"}]});
        assert_eq!(body, expected);
    }

    #[test]
    fn a_classic_url_names_deployment_and_version() {
        let chat = Chat::new(Platform::CloudApi, Some("2024-10-21".into()));
        let expected = "/deployments/my-gpt/chat/completions?api-version=2024-10-21";
        assert_eq!(chat.chat_path("my-gpt", true), expected);
    }
}
