//! Google's `generateContent` for Gemini.

mod read;
mod write;

use convergio_domain::chat::{ChatRequest, Interface};
use convergio_domain::metering::{Meter, Usage};
use serde_json::{Value, json};

use super::{Dialect, ReadError, encoded, refuse_errors, vectors};
use crate::model::answer::{Answer, UsageReader};
use crate::model::provider_traits::ProviderTraits;
use crate::model::usage;

const INTERFACE: Interface = Interface::Gemini;

/// `generateContent`.
pub(super) struct GenerateContent;

impl Dialect for GenerateContent {
    fn interface(&self) -> Interface {
        INTERFACE
    }

    fn chat_path(&self, model: &str, is_stream: bool) -> String {
        let model = encoded(model);
        if is_stream {
            // Without `alt=sse` it streams one long list.
            format!("/models/{model}:streamGenerateContent?alt=sse")
        } else {
            format!("/models/{model}:generateContent")
        }
    }

    fn write(&self, request: &ChatRequest, _traits: &ProviderTraits) -> Value {
        write::body(request)
    }

    fn read_piece(&self, piece: &Value, answer: &mut Answer) -> Result<(), ReadError> {
        refuse_errors(piece)?;
        read::piece(piece, answer);
        Ok(())
    }

    fn read_whole(&self, body: &Value, answer: &mut Answer) -> Result<(), ReadError> {
        // Without `alt=sse`, or from a gateway in between, the pieces come as a list.
        let pieces = body.as_array().map_or(std::slice::from_ref(body), Vec::as_slice);
        if !pieces.iter().all(Value::is_object) || pieces.is_empty() {
            return Err(ReadError::Malformed("it has no candidate"));
        }
        pieces.iter().try_for_each(|piece| self.read_piece(piece, answer))
    }

    fn usage(&self) -> UsageReader {
        usage::from_gemini
    }

    fn embed(&self, model: &str, texts: &[String]) -> Option<(String, Value)> {
        Some(embed(model, texts))
    }

    fn read_embeddings(&self, body: &Value) -> Option<(Vec<Vec<f32>>, Usage)> {
        read_embeddings(body)
    }
}

/// Path and body of a request for embeddings, whichever interface is used for chats.
pub(super) fn embed(model: &str, texts: &[String]) -> (String, Value) {
    let name = format!("models/{model}");
    let requests =
        texts.iter().map(|text| json!({"model": name, "content": {"parts": [{"text": text}]}}));
    let body = json!({"requests": requests.collect::<Vec<_>>()});
    (format!("/models/{}:batchEmbedContents", encoded(model)), body)
}

pub(super) fn read_embeddings(body: &Value) -> Option<(Vec<Vec<f32>>, Usage)> {
    let vectors = vectors(body["embeddings"].as_array()?.iter().map(|entry| &entry["values"]))?;
    let tokens = body["usageMetadata"]["promptTokenCount"].as_u64();
    let usage = tokens.map(|tokens| Usage([(Meter::InFresh, tokens)].into()));
    Some((vectors, usage.unwrap_or_default()))
}
