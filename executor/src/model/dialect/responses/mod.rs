//! OpenAI's responses, used without storage at the provider.
//!
//! `write` makes the request, `read` takes the answer in; embeddings and audio are those of chat
//! completions.

mod read;
mod write;

use convergio_domain::chat::{ChatRequest, Interface};
use serde_json::Value;

use super::openai::{read_embeddings, write_embed};
use super::{Dialect, Embeddings, ReadError, refuse_errors, text};
use crate::model::answer::{Answer, UsageReader};
use crate::model::provider_traits::ProviderTraits;
use crate::model::usage;

const INTERFACE: Interface = Interface::OpenAiResponses;

/// The dialect of OpenAI's responses.
pub(super) struct Responses;

impl Dialect for Responses {
    fn interface(&self) -> Interface {
        INTERFACE
    }

    fn chat_path(&self, _model: &str, _is_stream: bool) -> String {
        "/responses".to_owned()
    }

    fn write(&self, request: &ChatRequest, traits: &ProviderTraits) -> Value {
        write::body(request, traits.is_stream())
    }

    fn read_piece(&self, piece: &Value, answer: &mut Answer) -> Result<(), ReadError> {
        match text(piece, "type") {
            "response.completed" | "response.incomplete" | "response.failed" => {
                answer.name(&piece["response"]["model"]);
                read::end(&piece["response"], answer)
            }
            "error" => Err(read::error_event(piece)),
            _ => {
                refuse_errors(piece)?;
                read::piece(piece, answer);
                Ok(())
            }
        }
    }

    fn read_whole(&self, body: &Value, answer: &mut Answer) -> Result<(), ReadError> {
        refuse_errors(body)?;
        let output = body["output"].as_array();
        let output = output.ok_or(ReadError::Malformed("it has no output"))?;
        for item in output {
            read::item(item, answer);
        }
        answer.name(&body["model"]);
        read::end(body, answer)
    }

    fn usage(&self) -> UsageReader {
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
