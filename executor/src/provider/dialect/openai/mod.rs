//! OpenAI's chat completions, as served by OpenAI, Azure, llama.cpp, MLX and many others.
//!
//! `write` makes the request, `read` takes the answer in, `read_text` the pieces of a stream that
//! are only text; this file has the paths and embeddings, which the responses dialect shares.

mod read;
mod read_text;
mod write;

use convergio_domain::chat::{ChatInterface, ChatRequest};
use convergio_kernel_c::KernelPlatform;
use serde_json::{Value, json};

use super::json_fields::{encode_segment, parse_vectors, put_present};
use super::wire_format::{Dialect, Embeddings, ReadError, check_error};
use crate::provider::answer::{AnswerBuilder, UsageReader};
use crate::provider::provider_traits::ProviderTraits;
use crate::provider::usage;

pub(super) use write::schema_fields;

/// The dialect of chat completions.
pub(super) struct ChatCompletionsDialect {
    /// Decides details that servers on one's own machine do not know.
    platform: KernelPlatform,
    /// The version in Azure's classic URLs; absent for all others.
    api_version: Option<String>,
}

impl ChatCompletionsDialect {
    pub(super) fn new(platform: KernelPlatform, api_version: Option<String>) -> Self {
        Self { platform, api_version }
    }

    /// Returns the path of an operation. Azure's classic URLs name deployment and version.
    fn operation_path(&self, model: &str, operation: &str) -> String {
        match &self.api_version {
            None => format!("/{operation}"),
            Some(version) => {
                let (model, version) = (encode_segment(model), encode_segment(version));
                format!("/deployments/{model}/{operation}?api-version={version}")
            }
        }
    }
}

impl Dialect for ChatCompletionsDialect {
    fn wire_interface(&self) -> ChatInterface {
        ChatInterface::OpenAiChat
    }

    fn chat_path(&self, model: &str, _is_stream: bool) -> String {
        self.operation_path(model, "chat/completions")
    }

    fn write_request(&self, request: &ChatRequest, traits: &ProviderTraits) -> Value {
        write::write_body(self.platform, request, traits)
    }

    fn read_text_piece(&self, piece: &str, answer: &mut AnswerBuilder) -> bool {
        read_text::read_text_piece(piece, answer)
    }

    fn read_piece(&self, piece: &Value, answer: &mut AnswerBuilder) -> Result<(), ReadError> {
        check_error(piece)?;
        read::read_choice(piece, "delta", answer);
        Ok(())
    }

    fn read_whole(&self, body: &Value, answer: &mut AnswerBuilder) -> Result<(), ReadError> {
        check_error(body)?;
        if !body["choices"][0].is_object() {
            return Err(ReadError::Malformed("it has no choice"));
        }
        read::read_choice(body, "message", answer);
        // Some servers omit the finish reason; an answer that arrived whole did not break off.
        if !answer.is_finished() {
            answer.set_finish(Some("stop"), "");
        }
        Ok(())
    }

    fn usage_reader(&self) -> UsageReader {
        usage::from_openai
    }

    fn embed_path(&self, model: &str) -> Option<String> {
        Some(self.operation_path(model, "embeddings"))
    }

    fn write_embed(&self, model: &str, texts: &[String], dimensions: Option<u32>) -> Value {
        write_embed(model, texts, dimensions)
    }

    fn read_embeddings(&self, body: &Value) -> Option<Embeddings> {
        read_embeddings(body)
    }

    fn audio_path(&self, model: &str, end: &str) -> Option<String> {
        Some(self.operation_path(model, &format!("audio/{end}")))
    }
}

pub(super) fn read_embeddings(body: &Value) -> Option<Embeddings> {
    let vectors = parse_vectors(body["data"].as_array()?.iter().map(|entry| &entry["embedding"]))?;
    Some(Embeddings { vectors, usage: usage::from_openai(&body["usage"]) })
}

pub(super) fn write_embed(model: &str, texts: &[String], dimensions: Option<u32>) -> Value {
    let mut body = json!({"model": model, "input": texts, "encoding_format": "float"});
    put_present(&mut body, [("dimensions", dimensions.map(Value::from))]);
    body
}

#[cfg(test)]
mod tests {
    use convergio_domain::chat::{
        ChatInterface, ChatMessage, ChatRequest, MessagePart, MessageRole, NativeFields,
        SchemaSpec, TextPart, ToolResultPart,
    };
    use convergio_kernel_c::KernelPlatform;
    use serde_json::json;

    use super::{ChatCompletionsDialect, Dialect};
    use crate::provider::provider_traits::{LimitField, ProviderTraits};

    fn request() -> ChatRequest {
        ChatRequest { max_tokens: Some(7), ..ChatRequest::from_prompt("m", "p \"quoted\"\n") }
    }

    #[test]
    fn the_body_is_small_and_its_keys_are_in_order() {
        let body = ChatCompletionsDialect::new(KernelPlatform::LlamaCpp, None)
            .write_request(&request(), &ProviderTraits::default());
        let expected = r#"{"max_tokens":7,"messages":[{"content":"p \"quoted\"\n","role":"user"}],"#
            .to_owned()
            + r#""model":"m","stream":true,"stream_options":{"include_usage":true}}"#;
        assert_eq!(body.to_string(), expected);
    }

    #[test]
    fn strictness_and_names_are_the_callers() {
        let schema = json!({"type": "object", "properties": {"a": {"type": "string"}}});
        let chat = ChatCompletionsDialect::new(KernelPlatform::CloudApi, None);
        let format = |spec: Option<SchemaSpec>, json_object: bool| {
            let schema = (!json_object).then(|| schema.clone());
            let request = ChatRequest { schema, schema_spec: spec, json_object, ..request() };
            chat.write_request(&request, &ProviderTraits::default())["response_format"].clone()
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
        let body = ChatCompletionsDialect::new(KernelPlatform::CloudApi, None)
            .write_request(&request, &traits);
        let expected = json!({"model": "m", "max_tokens": 7, "random_seed": 3,
            "messages": [{"role": "user", "content": "p \"quoted\"\n"}]});
        assert_eq!(body, expected);
    }

    #[test]
    fn the_own_fields_of_a_tool_results_only_text_are_kept() {
        let mark = json!({"mode": "explicit"});
        let fields = serde_json::Map::from_iter([("prompt_cache_breakpoint".into(), mark.clone())]);
        let native = NativeFields::from_fields(ChatInterface::OpenAiChat, fields);
        let text = TextPart { text: "r".into(), native, ..TextPart::default() };
        let result = ToolResultPart {
            id: "1".into(),
            parts: vec![MessagePart::Text(text)],
            ..ToolResultPart::default()
        };
        let message = ChatMessage::new(MessageRole::User, vec![MessagePart::ToolResult(result)]);
        let request = ChatRequest { messages: vec![message], ..request() };
        let body = ChatCompletionsDialect::new(KernelPlatform::CloudApi, None)
            .write_request(&request, &ProviderTraits::default());
        let expected = json!([{"type": "text", "text": "r", "prompt_cache_breakpoint": mark}]);
        assert_eq!(body["messages"][0]["content"], expected);
    }

    #[test]
    fn a_classic_url_names_deployment_and_version() {
        let chat = ChatCompletionsDialect::new(KernelPlatform::CloudApi, Some("2024-10-21".into()));
        let expected = "/deployments/my-gpt/chat/completions?api-version=2024-10-21";
        assert_eq!(chat.chat_path("my-gpt", true), expected);
    }
}
