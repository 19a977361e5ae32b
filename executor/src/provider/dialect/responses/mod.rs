//! OpenAI's responses, used without storage at the provider.
//!
//! `write` makes the request, `read` takes the answer in; embeddings and audio are those of chat
//! completions.

mod read;
mod write;

use convergio_domain::chat::{ChatInterface, ChatRequest};
use serde_json::Value;

use super::json_fields::text_field;
use super::openai::{read_embeddings, write_embed};
use super::wire_format::{Dialect, Embeddings, ReadError, check_error};
use crate::provider::answer::{AnswerBuilder, UsageReader};
use crate::provider::provider_traits::ProviderTraits;
use crate::provider::usage;

/// The dialect of OpenAI's responses.
pub(super) struct ResponsesDialect;

impl Dialect for ResponsesDialect {
    fn wire_interface(&self) -> ChatInterface {
        ChatInterface::OpenAiResponses
    }

    fn chat_path(&self, _model: &str, _is_stream: bool) -> String {
        "/responses".to_owned()
    }

    fn write_request(&self, request: &ChatRequest, traits: &ProviderTraits) -> Value {
        write::write_body(request, traits.is_stream())
    }

    fn read_piece(&self, piece: &Value, answer: &mut AnswerBuilder) -> Result<(), ReadError> {
        match text_field(piece, "type") {
            "response.completed" | "response.incomplete" | "response.failed" => {
                answer.set_model(&piece["response"]["model"]);
                read::read_end(&piece["response"], answer)
            }
            "error" => Err(read::error_event(piece)),
            _ => {
                check_error(piece)?;
                read::read_event(piece, answer);
                Ok(())
            }
        }
    }

    fn read_whole(&self, body: &Value, answer: &mut AnswerBuilder) -> Result<(), ReadError> {
        check_error(body)?;
        let output = body["output"].as_array();
        let output = output.ok_or(ReadError::Malformed("it has no output"))?;
        for item in output {
            read::read_item(item, answer);
        }
        answer.set_model(&body["model"]);
        read::read_end(body, answer)
    }

    fn usage_reader(&self) -> UsageReader {
        usage::from_responses
    }

    fn embed_path(&self, _model: &str) -> Option<String> {
        Some("/embeddings".to_owned())
    }

    fn write_embed(&self, model: &str, texts: &[String], dimensions: Option<u32>) -> Value {
        write_embed(model, texts, dimensions)
    }

    fn read_embeddings(&self, body: &Value) -> Option<Embeddings> {
        read_embeddings(body)
    }

    fn audio_path(&self, _model: &str, end: &str) -> Option<String> {
        Some(format!("/audio/{end}"))
    }
}
