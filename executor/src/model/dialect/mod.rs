//! The dialects of providers: how a request is written and an answer is read. No IO.

mod anthropic;
mod gemini;
mod interactions;
mod ollama;
mod openai;
mod responses;

use convergio_domain::chat::ChatRequest;
use convergio_domain::metering::Usage;
use reqwest::StatusCode;
use serde_json::Value;

use super::answer::{Answer, UsageReader};
use super::config::{Api, ProviderConfig};
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
    /// The path of a chat under the base URL, its query included.
    fn chat_path(&self, model: &str) -> String;

    /// A request as the provider wants it; the answer is asked for as a stream.
    fn write(&self, request: &ChatRequest) -> Value;

    /// Fields of a request that the interface does not have, or refuses.
    fn unknown(&self) -> &'static [&'static str] {
        &[]
    }

    /// Takes a piece of a stream in.
    fn read_piece(&self, piece: &Value, answer: &mut Answer) -> Result<(), ReadError>;

    /// Takes an answer in that came at once.
    fn read_whole(&self, body: &Value, answer: &mut Answer) -> Result<(), ReadError>;

    /// Reads a usage block.
    fn usage(&self) -> UsageReader;

    /// Path and body of a request for embeddings; `None` when the provider has none.
    fn embed(&self, _model: &str, _texts: &[String]) -> Option<(String, Value)> {
        None
    }

    /// Reads embeddings; `None` when they are none.
    fn read_embeddings(&self, _body: &Value) -> Option<(Vec<Vec<f32>>, Usage)> {
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

/// A tool's arguments as a value; an object in any case, for providers that take nothing else.
fn arguments(text: &str) -> Value {
    let value = serde_json::from_str(text).ok().filter(Value::is_object);
    value.unwrap_or_else(|| Value::Object(serde_json::Map::new()))
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
