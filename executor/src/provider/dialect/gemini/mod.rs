//! Google's `generateContent` for Gemini.
//!
//! `write` makes the request, `read` takes the answer in; embeddings are here and shared with the
//! interactions dialect.

mod read;
mod write;

use convergio_domain::billing::{Meter, Usage};
use convergio_domain::chat::{ChatInterface, ChatRequest};
use serde_json::{Value, json};

use super::json_fields::{encode_segment, parse_vectors, put_present};
use super::wire_format::{Dialect, Embeddings, ReadError, check_error};
use crate::provider::answer::{AnswerBuilder, UsageReader};
use crate::provider::provider_traits::ProviderTraits;
use crate::provider::usage;

/// The dialect of `generateContent`.
pub(super) struct GenerateContentDialect;

impl Dialect for GenerateContentDialect {
    fn wire_interface(&self) -> ChatInterface {
        ChatInterface::Gemini
    }

    fn chat_path(&self, model: &str, is_stream: bool) -> String {
        let model = encode_segment(model);
        if is_stream {
            // Without `alt=sse` the stream is one long JSON list.
            format!("/models/{model}:streamGenerateContent?alt=sse")
        } else {
            format!("/models/{model}:generateContent")
        }
    }

    fn write_request(&self, request: &ChatRequest, _traits: &ProviderTraits) -> Value {
        write::write_body(request)
    }

    fn read_piece(&self, piece: &Value, answer: &mut AnswerBuilder) -> Result<(), ReadError> {
        check_error(piece)?;
        read::read_response(piece, answer);
        Ok(())
    }

    fn read_whole(&self, body: &Value, answer: &mut AnswerBuilder) -> Result<(), ReadError> {
        // A gateway in between may drop `alt=sse`: then the pieces arrive as a list.
        let pieces = body.as_array().map_or(std::slice::from_ref(body), Vec::as_slice);
        if !pieces.iter().all(Value::is_object) || pieces.is_empty() {
            return Err(ReadError::Malformed("it has no candidate"));
        }
        pieces.iter().try_for_each(|piece| self.read_piece(piece, answer))
    }

    fn usage_reader(&self) -> UsageReader {
        usage::from_gemini
    }

    fn embed_path(&self, model: &str) -> Option<String> {
        Some(embed_path(model))
    }

    fn write_embed(&self, model: &str, texts: &[String], dimensions: Option<u32>) -> Value {
        write_embed(model, texts, dimensions)
    }

    fn read_embeddings(&self, body: &Value) -> Option<Embeddings> {
        read_embeddings(body)
    }
}

/// Returns the path of an embeddings request, whichever interface is used for chats.
pub(super) fn embed_path(model: &str) -> String {
    format!("/models/{}:batchEmbedContents", encode_segment(model))
}

pub(super) fn write_embed(model: &str, texts: &[String], dimensions: Option<u32>) -> Value {
    let name = format!("models/{model}");
    let request = |text: &String| {
        let mut request = json!({"model": name, "content": {"parts": [{"text": text}]}});
        put_present(&mut request, [("outputDimensionality", dimensions.map(Value::from))]);
        request
    };
    json!({"requests": texts.iter().map(request).collect::<Vec<_>>()})
}

pub(super) fn read_embeddings(body: &Value) -> Option<Embeddings> {
    let vectors =
        parse_vectors(body["embeddings"].as_array()?.iter().map(|entry| &entry["values"]))?;
    let tokens = body["usageMetadata"]["promptTokenCount"].as_u64();
    let usage = tokens.map(|tokens| Usage([(Meter::InFresh, tokens)].into()));
    Some(Embeddings { vectors, usage })
}
