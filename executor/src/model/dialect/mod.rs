//! Dialects: how each interface of a provider writes a request and how its answer is read. Pure
//! functions over JSON, without IO.
//!
//! - `openai`: chat completions, of OpenAI, Azure, llama.cpp, MLX and many others
//! - `responses`: OpenAI's responses
//! - `anthropic`: Anthropic's messages
//! - `gemini`: Google's `generateContent`
//! - `interactions`: Google's interactions
//! - `ollama`: Ollama's native chat
//! - `round_trips`: property tests that an answer sent back is unchanged
//!
//! The transport (`http`, `service`) asks [`dialect_for`] for a provider's dialect. Requests arrive
//! here after the request adapter: what a dialect is given, it can write. Answers go piece by piece
//! into an [`AnswerBuilder`](super::answer::AnswerBuilder). What several dialects share is below;
//! they do not call one another, except for embeddings and schemas of the same maker.

mod anthropic;
mod gemini;
mod interactions;
mod ollama;
mod openai;
mod responses;
#[cfg(test)]
mod round_trips;

use convergio_domain::chat::{
    ChatField, ChatInterface, ChatMessage, ChatRequest, ChatToolSpec, FieldSupport, MessageRole,
    NativePart,
};
use convergio_domain::metering::Usage;
use reqwest::StatusCode;
use serde_json::{Map, Value, json};

use super::answer::{AnswerBuilder, UsageReader};
use super::config::{ProviderApi, ProviderConfig};
use super::provider_traits::ProviderTraits;
use super::refusal::ProviderRefusal;

/// The reason why a piece of an answer could not be read.
pub(super) enum ReadError {
    /// The provider reports an error.
    Refused(ProviderRefusal),
    /// The piece has no form that the dialect knows; the text says what is missing.
    Malformed(&'static str),
}

/// The wire format of one interface.
pub(super) trait Dialect: Send + Sync {
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

/// Returns the dialect of a provider.
pub(super) fn dialect_for(config: &ProviderConfig) -> Box<dyn Dialect> {
    match &config.api {
        ProviderApi::OpenAiChat => {
            Box::new(openai::ChatCompletionsDialect::new(config.platform, None))
        }
        ProviderApi::AzureClassic { api_version } => Box::new(openai::ChatCompletionsDialect::new(
            config.platform,
            Some(api_version.clone()),
        )),
        ProviderApi::OpenAiResponses => Box::new(responses::ResponsesDialect),
        ProviderApi::Anthropic { version } => Box::new(anthropic::MessagesDialect::new(version)),
        ProviderApi::Gemini => Box::new(gemini::GenerateContentDialect),
        ProviderApi::GeminiInteractions => Box::new(interactions::InteractionsDialect),
        ProviderApi::Ollama => Box::new(ollama::OllamaDialect),
    }
}

/// Returns an error if the piece reports one: streams report errors after their status said
/// success.
fn check_error(piece: &Value) -> Result<(), ReadError> {
    match piece.get("error").filter(|error| !error.is_null()) {
        Some(error) => Err(ReadError::Refused(ProviderRefusal::from_stream(error))),
        None => Ok(()),
    }
}

/// Converts an error that has no status of its own.
fn refusal_without_status(status: u16, error: &Value) -> ReadError {
    let status = StatusCode::from_u16(status).unwrap_or(StatusCode::SERVICE_UNAVAILABLE);
    ReadError::Refused(ProviderRefusal::with_status(status, error))
}

/// Returns a string field, or an empty text if it is absent.
fn text_field<'a>(value: &'a Value, name: &str) -> &'a str {
    value[name].as_str().unwrap_or("")
}

/// Returns the fields of a value other than the known ones, without null and empty lists.
fn unknown_fields(value: &Value, known: &[&str]) -> Map<String, Value> {
    let is_empty = |value: &Value| value.is_null() || value.as_array().is_some_and(Vec::is_empty);
    let fields = value.as_object().into_iter().flatten();
    // Null and empty lists carry no information and would only bloat the log.
    let fields = fields.filter(|(name, value)| !known.contains(&name.as_str()) && !is_empty(value));
    fields.map(|(name, value)| (name.clone(), value.clone())).collect()
}

/// Sets those fields of an object that have a value.
fn put_present<'a>(object: &mut Value, fields: impl IntoIterator<Item = (&'a str, Option<Value>)>) {
    for (name, value) in fields {
        if let Some(value) = value {
            object[name] = value;
        }
    }
}

/// Sets options of the request under their own names.
fn put_options(object: &mut Value, request: &ChatRequest, fields: &[ChatField]) {
    let options = fields.iter().map(|field| (field.name(), request.options.get(field).cloned()));
    put_present(object, options);
}

/// Merges fields that the operator's policy lets through unknown to the platform.
fn put_extra_body(body: &mut Value, request: &ChatRequest) {
    for (name, value) in &request.extra_body {
        match (body.get_mut(name), value) {
            // One level of merging: the operator may extend `options` without replacing it.
            (Some(Value::Object(fields)), Value::Object(more)) => fields.extend(more.clone()),
            _ => body[name] = value.clone(),
        }
    }
}

/// Returns whether a message holds instructions of the operator or developer.
fn is_system_message(message: &ChatMessage) -> bool {
    matches!(message.role, MessageRole::System | MessageRole::Developer)
}

/// Splits a conversation into its leading instructions and the rest.
fn split_system(messages: &[ChatMessage]) -> (&[ChatMessage], &[ChatMessage]) {
    messages.split_at(messages.iter().take_while(|message| is_system_message(message)).count())
}

/// Writes the tools of a request, each by `write`, followed by the tools that the provider runs
/// itself.
fn write_tools(request: &ChatRequest, write: impl Fn(&ChatToolSpec) -> Value) -> Option<Value> {
    let tools = request.tools.iter().map(write);
    let native = request.native_tools.iter().map(|NativePart { block, .. }| block.clone());
    let tools: Vec<Value> = tools.chain(native).collect();
    (!tools.is_empty()).then(|| json!(tools))
}

fn has_tools(request: &ChatRequest) -> bool {
    !request.tools.is_empty() || !request.native_tools.is_empty()
}

/// Returns a tool's description unless it is empty.
fn description_value(text: &str) -> Option<Value> {
    (!text.is_empty()).then(|| json!(text))
}

/// Returns base64 data as a data URL (RFC 2397).
fn data_url(media_type: &str, data: &str) -> String {
    format!("data:{media_type};base64,{data}")
}

/// Parses a tool call's arguments; an empty object if they are no object, for interfaces that
/// accept nothing else.
fn arguments_object(text: &str) -> Value {
    // Models sometimes write arguments that are not JSON; the request must be valid nevertheless.
    let value = serde_json::from_str(text).ok().filter(Value::is_object);
    value.unwrap_or_else(|| Value::Object(Map::new()))
}

/// Returns arguments that arrived as a JSON value as text.
fn arguments_text(value: &Value) -> String {
    match value {
        Value::Null => String::new(),
        Value::String(text) => text.clone(),
        value => value.to_string(),
    }
}

/// Percent-encodes a path segment: a model's name may contain anything.
fn encode_segment(part: &str) -> String {
    // A `/` in a name would lead to another route.
    let is_plain = |byte: u8| byte.is_ascii_alphanumeric() || b"-_.:".contains(&byte);
    let encode = |byte: u8| match is_plain(byte) {
        true => char::from(byte).to_string(),
        false => format!("%{byte:02X}"),
    };
    part.bytes().map(encode).collect()
}

/// Embeddings as a provider returned them.
pub(super) struct Embeddings {
    /// One vector per text, in the order of the texts.
    pub(super) vectors: Vec<Vec<f32>>,
    /// Usage in disjoint meters, if the provider reported it.
    pub(super) usage: Option<Usage>,
}

/// Parses lists of numbers; `None` if one of them is malformed.
fn parse_vectors<'a>(list: impl Iterator<Item = &'a Value>) -> Option<Vec<Vec<f32>>> {
    #[expect(clippy::cast_possible_truncation, reason = "embeddings are told as f32")]
    let number = |value: &Value| value.as_f64().map(|number| number as f32);
    list.map(|vector| vector.as_array()?.iter().map(number).collect()).collect()
}

#[cfg(test)]
mod tests {
    use super::encode_segment;

    #[test]
    fn names_stay_within_their_part_of_the_path() {
        assert_eq!(encode_segment("gpt-4.1:x"), "gpt-4.1:x");
        assert_eq!(encode_segment("../a?b#c d"), "..%2Fa%3Fb%23c%20d");
    }
}
