//! The dialects of providers: how a request is written and an answer is read. No IO.

mod anthropic;
mod gemini;
mod interactions;
mod ollama;
mod openai;
mod responses;
#[cfg(test)]
mod round_trips;

use convergio_domain::chat::{
    ChatField, ChatRequest, FieldSupport, Interface, Message, NativePart, Role, ToolSpec,
};
use convergio_domain::metering::Usage;
use reqwest::StatusCode;
use serde_json::{Map, Value, json};

use super::answer::{Answer, UsageReader};
use super::config::{Api, ProviderConfig};
use super::provider_traits::ProviderTraits;
use super::refusal::Refusal;

/// What is wrong with a piece of an answer.
pub(super) enum ReadError {
    /// The provider tells of an error.
    Refused(Refusal),
    /// It is nothing that the dialect knows.
    Malformed(&'static str),
}

/// A dialect.
pub(super) trait Dialect: Send + Sync {
    /// The interface.
    fn interface(&self) -> Interface;

    /// What becomes of a field of a request.
    fn support(&self, field: ChatField) -> FieldSupport {
        field.support(self.interface())
    }

    /// The path of a chat under the base URL, its query included.
    fn chat_path(&self, model: &str, is_stream: bool) -> String;

    /// A request as the provider wants it: everything that is in it can be written.
    fn write(&self, request: &ChatRequest, traits: &ProviderTraits) -> Value;

    /// Headers that belong to a request.
    fn request_headers(&self, _request: &ChatRequest) -> Vec<(&'static str, String)> {
        Vec::new()
    }

    /// Takes a piece of a stream in.
    fn read_piece(&self, piece: &Value, answer: &mut Answer) -> Result<(), ReadError>;

    /// Takes an answer in that came at once.
    fn read_whole(&self, body: &Value, answer: &mut Answer) -> Result<(), ReadError>;

    /// Reads a usage block.
    fn usage(&self) -> UsageReader;

    /// The path of a request for embeddings under the base URL; `None` when the provider has none.
    fn embed_path(&self, _model: &str) -> Option<String> {
        None
    }

    /// A request for embeddings, of so many numbers if that is said.
    fn write_embed(&self, _model: &str, _texts: &[String], _dimensions: Option<u32>) -> Value {
        Value::Null
    }

    /// Reads embeddings; `None` when they are none.
    fn read_embeddings(&self, _body: &Value) -> Option<Embeddings> {
        None
    }

    /// The path of OpenAI's audio under the base URL; `None` when the provider has none.
    fn audio_path(&self, _model: &str, _end: &str) -> Option<String> {
        None
    }

    /// Headers besides the key's.
    fn headers(&self) -> Vec<(&'static str, String)> {
        Vec::new()
    }
}

/// The dialect of a provider.
pub(super) fn of(config: &ProviderConfig) -> Box<dyn Dialect> {
    match &config.api {
        Api::OpenAiChat => Box::new(openai::Chat::new(config.platform, None)),
        Api::AzureClassic { api_version } => {
            Box::new(openai::Chat::new(config.platform, Some(api_version.clone())))
        }
        Api::OpenAiResponses => Box::new(responses::Responses),
        Api::Anthropic { version } => Box::new(anthropic::Messages::new(version)),
        Api::Gemini => Box::new(gemini::GenerateContent),
        Api::GeminiInteractions => Box::new(interactions::Interactions),
        Api::Ollama => Box::new(ollama::Native),
    }
}

/// The error in a piece, unless there is none.
fn refuse_errors(piece: &Value) -> Result<(), ReadError> {
    match piece.get("error").filter(|error| !error.is_null()) {
        Some(error) => Err(ReadError::Refused(Refusal::of_stream(error))),
        None => Ok(()),
    }
}

/// An error without a status of its own.
fn refused(status: u16, error: &Value) -> ReadError {
    let status = StatusCode::from_u16(status).unwrap_or(StatusCode::SERVICE_UNAVAILABLE);
    ReadError::Refused(Refusal::with_status(status, error))
}

fn text<'a>(value: &'a Value, name: &str) -> &'a str {
    value[name].as_str().unwrap_or("")
}

/// The fields of a value besides these, and besides those that say nothing.
fn rest(value: &Value, known: &[&str]) -> Map<String, Value> {
    let is_empty = |value: &Value| value.is_null() || value.as_array().is_some_and(Vec::is_empty);
    let fields = value.as_object().into_iter().flatten();
    let fields = fields.filter(|(name, value)| !known.contains(&name.as_str()) && !is_empty(value));
    fields.map(|(name, value)| (name.clone(), value.clone())).collect()
}

/// Puts what is there into an object.
fn put<'a>(object: &mut Value, fields: impl IntoIterator<Item = (&'a str, Option<Value>)>) {
    for (name, value) in fields {
        if let Some(value) = value {
            object[name] = value;
        }
    }
}

/// Puts further fields of a request into an object, under their own names.
fn put_options(object: &mut Value, request: &ChatRequest, fields: &[ChatField]) {
    let options = fields.iter().map(|field| (field.name(), request.options.get(field).cloned()));
    put(object, options);
}

/// Puts what the operator lets through into a request.
fn put_extra(body: &mut Value, request: &ChatRequest) {
    for (name, value) in &request.extra_body {
        match (body.get_mut(name), value) {
            (Some(Value::Object(fields)), Value::Object(more)) => fields.extend(more.clone()),
            _ => body[name] = value.clone(),
        }
    }
}

fn is_system(message: &Message) -> bool {
    matches!(message.role, Role::System | Role::Developer)
}

/// The instructions at the beginning of a conversation, and what follows them.
fn split_system(messages: &[Message]) -> (&[Message], &[Message]) {
    messages.split_at(messages.iter().take_while(|message| is_system(message)).count())
}

/// The tools of a request, each as `write` writes it, and those that the provider runs itself.
fn tools_of(request: &ChatRequest, write: impl Fn(&ToolSpec) -> Value) -> Option<Value> {
    let tools = request.tools.iter().map(write);
    let native = request.native_tools.iter().map(|NativePart { block, .. }| block.clone());
    let tools: Vec<Value> = tools.chain(native).collect();
    (!tools.is_empty()).then(|| json!(tools))
}

fn has_tools(request: &ChatRequest) -> bool {
    !request.tools.is_empty() || !request.native_tools.is_empty()
}

/// What a tool is for, unless nobody said it.
fn description(text: &str) -> Option<Value> {
    (!text.is_empty()).then(|| json!(text))
}

/// Bytes as a URL.
fn data_url(media_type: &str, data: &str) -> String {
    format!("data:{media_type};base64,{data}")
}

/// A tool's arguments as a value; an object in any case, for providers that take nothing else.
fn arguments(text: &str) -> Value {
    let value = serde_json::from_str(text).ok().filter(Value::is_object);
    value.unwrap_or_else(|| Value::Object(Map::new()))
}

/// Arguments that came as a value, as a text.
fn arguments_text(value: &Value) -> String {
    match value {
        Value::Null => String::new(),
        Value::String(text) => text.clone(),
        value => value.to_string(),
    }
}

/// A part of a path: a model's name may hold anything.
fn encoded(part: &str) -> String {
    let is_plain = |byte: u8| byte.is_ascii_alphanumeric() || b"-_.:".contains(&byte);
    let encode = |byte: u8| match is_plain(byte) {
        true => char::from(byte).to_string(),
        false => format!("%{byte:02X}"),
    };
    part.bytes().map(encode).collect()
}

/// Texts as vectors, as a provider tells them.
pub(super) struct Embeddings {
    /// One vector for each text, in order.
    pub(super) vectors: Vec<Vec<f32>>,
    /// Quantities in disjoint classes, if they are told.
    pub(super) usage: Option<Usage>,
}

fn vectors<'a>(list: impl Iterator<Item = &'a Value>) -> Option<Vec<Vec<f32>>> {
    #[expect(clippy::cast_possible_truncation, reason = "embeddings are told as f32")]
    let number = |value: &Value| value.as_f64().map(|number| number as f32);
    list.map(|vector| vector.as_array()?.iter().map(number).collect()).collect()
}

#[cfg(test)]
mod tests {
    use super::encoded;

    #[test]
    fn names_stay_within_their_part_of_the_path() {
        assert_eq!(encoded("gpt-4.1:x"), "gpt-4.1:x");
        assert_eq!(encoded("../a?b#c d"), "..%2Fa%3Fb%23c%20d");
    }
}
