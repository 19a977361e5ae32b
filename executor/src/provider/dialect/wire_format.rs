//! The interface that all dialects implement, with the errors that a piece of an answer may be or
//! report.

use convergio_domain::billing::Usage;
use convergio_domain::chat::{ChatField, ChatInterface, ChatRequest, FieldSupport};
use reqwest::StatusCode;
use serde_json::Value;

use crate::provider::answer::{AnswerBuilder, UsageReader};
use crate::provider::provider_traits::ProviderTraits;
use crate::provider::refusal::ProviderRefusal;

/// The reason why a piece of an answer could not be read.
pub(in crate::provider) enum ReadError {
    /// The provider reports an error.
    Refused(ProviderRefusal),
    /// The piece has no form that the dialect knows; the text says what is missing.
    Malformed(&'static str),
}

/// The wire format of one interface.
pub(in crate::provider) trait Dialect: Send + Sync {
    /// Returns the interface that the dialect speaks.
    fn wire_interface(&self) -> ChatInterface;

    /// Returns whether a request field is kept, left out or refused.
    fn field_support(&self, field: ChatField) -> FieldSupport {
        field.support_at(self.wire_interface())
    }

    /// Returns the path of a chat below the base URL, including its query.
    fn chat_path(&self, model: &str, is_stream: bool) -> String;

    /// Writes a request. It holds only fields that the dialect supports.
    fn write_request(&self, request: &ChatRequest, traits: &ProviderTraits) -> Value;

    /// Returns headers that belong to this request.
    fn request_headers(&self, _request: &ChatRequest) -> Vec<(&'static str, String)> {
        Vec::new()
    }

    /// Reads a piece that has some text and nothing else, as nearly all pieces do, without building
    /// its tree. Returns false, and has read nothing, if the piece may have more.
    fn read_text_piece(&self, _piece: &str, _answer: &mut AnswerBuilder) -> bool {
        false
    }

    /// Reads one piece of a stream into the answer.
    fn read_piece(&self, piece: &Value, answer: &mut AnswerBuilder) -> Result<(), ReadError>;

    /// Reads an answer that arrived at once.
    fn read_whole(&self, body: &Value, answer: &mut AnswerBuilder) -> Result<(), ReadError>;

    /// Returns the reader of this interface's usage blocks.
    fn usage_reader(&self) -> UsageReader;

    /// Returns the path of an embeddings request; `None` if the interface has none.
    fn embed_path(&self, _model: &str) -> Option<String> {
        None
    }

    /// Writes an embeddings request; `dimensions` is the length of the vectors, if it is to be cut.
    fn write_embed(&self, _model: &str, _texts: &[String], _dimensions: Option<u32>) -> Value {
        Value::Null
    }

    /// Reads embeddings; `None` if the body has none.
    fn read_embeddings(&self, _body: &Value) -> Option<Embeddings> {
        None
    }

    /// Returns the path of OpenAI's audio routes; `None` if the interface has none.
    fn audio_path(&self, _model: &str, _end: &str) -> Option<String> {
        None
    }

    /// Returns headers of every request besides the key's.
    fn provider_headers(&self) -> Vec<(&'static str, String)> {
        Vec::new()
    }
}

/// Returns an error if the piece reports one: streams report errors after their status said
/// success.
pub(super) fn check_error(piece: &Value) -> Result<(), ReadError> {
    match piece.get("error").filter(|error| !error.is_null()) {
        Some(error) => Err(ReadError::Refused(ProviderRefusal::from_stream(error))),
        None => Ok(()),
    }
}

/// Converts an error that has no status of its own.
pub(super) fn refusal_without_status(status: u16, error: &Value) -> ReadError {
    let status = StatusCode::from_u16(status).unwrap_or(StatusCode::SERVICE_UNAVAILABLE);
    ReadError::Refused(ProviderRefusal::with_status(status, error))
}

/// Embeddings as a provider returned them.
pub(in crate::provider) struct Embeddings {
    /// One vector per text, in the order of the texts.
    pub(in crate::provider) vectors: Vec<Vec<f32>>,
    /// Usage in disjoint meters, if the provider reported it.
    pub(in crate::provider) usage: Option<Usage>,
}
