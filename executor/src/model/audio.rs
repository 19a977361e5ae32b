//! Speech as text and text as speech, as OpenAI's interface has them.

use std::time::Duration;

use bytes::Bytes;
use convergio_domain::metering::{Meter, Usage};
use reqwest::header::CONTENT_TYPE;
use serde_json::{Value, json};
use uuid::Uuid;

use super::error::ModelError;
use super::http::HttpProvider;
use super::{listing, usage};

/// Bytes of a recording at most: what OpenAI takes.
const RECORDING_LIMIT: usize = 25 << 20;
/// Bytes of spoken text at most.
const SPEECH_LIMIT: usize = 64 << 20;
/// Characters of a text to be spoken at most: what OpenAI takes.
const TEXT_LIMIT: usize = 4096;
/// Longest wait for either.
const TIMEOUT: Duration = Duration::from_secs(300);

/// Recorded speech.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Recording {
    /// The bytes of the file.
    pub bytes: Bytes,
    /// Its media type, as `audio/wav`.
    pub media_type: String,
    /// What is spoken in it, by ISO 639-1; found out by the model when absent.
    pub language: Option<String>,
}

/// What was said.
#[derive(Debug, Clone, PartialEq)]
pub struct Transcript {
    /// The words.
    pub text: String,
    /// Tokens, or milliseconds of audio, by how the model is billed.
    pub usage: Usage,
    /// False when the provider told no quantities.
    pub confirmed: bool,
    /// The provider's usage block, as it came.
    pub raw_usage: Option<Value>,
}

/// A text to be spoken.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct SpeechRequest {
    /// The text.
    pub text: String,
    /// Whose voice, by the provider's name for it.
    pub voice: String,
    /// `mp3`, `opus`, `aac`, `flac`, `wav` or `pcm`.
    pub format: String,
}

/// Spoken text.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Speech {
    /// The bytes of the file.
    pub bytes: Bytes,
    /// Its media type.
    pub media_type: String,
    /// Characters that were spoken: the provider tells nothing with the sound.
    pub usage: Usage,
}

/// Asks for the words of a recording.
pub(super) async fn transcribe(
    provider: &HttpProvider,
    path: &str,
    model: &str,
    recording: &Recording,
) -> Result<Transcript, ModelError> {
    if recording.bytes.len() > RECORDING_LIMIT {
        let message = format!("a recording has at most {RECORDING_LIMIT} bytes: cut it into parts");
        return Err(ModelError::new("request.too_large", false, message));
    }
    let boundary = format!("convergio-{}", Uuid::now_v7().simple());
    let form = form(&boundary, model, recording)?;
    let kind = format!("multipart/form-data; boundary={boundary}");
    let response = provider.send_bytes(path, &kind, form, TIMEOUT).await?;
    let answer = provider.json(response).await?;
    let text = answer["text"].as_str().ok_or_else(|| provider.malformed("it has no text"))?;
    let told = usage::from_transcription(&answer["usage"]);
    Ok(Transcript {
        text: text.to_owned(),
        confirmed: told.is_some(),
        usage: told.unwrap_or_default(),
        raw_usage: Some(answer["usage"].clone()).filter(Value::is_object),
    })
}

/// A form with a file in it (RFC 7578).
fn form(boundary: &str, model: &str, recording: &Recording) -> Result<Bytes, ModelError> {
    let kind = recording.media_type.as_str();
    let ending = kind.strip_prefix("audio/").unwrap_or_default();
    let is_plain = |text: &str| {
        !text.is_empty() && text.bytes().all(|b| b.is_ascii_alphanumeric() || b"-._/".contains(&b))
    };
    let language = recording.language.as_deref();
    if !is_plain(ending) || !is_plain(model) || !language.is_none_or(is_plain) {
        let message = "a recording has a media type as audio/wav, a language as `en`, and a model";
        return Err(ModelError::new("request.invalid", false, message));
    }
    let fields =
        [("model", Some(model)), ("response_format", Some("json")), ("language", language)];
    let mut form = Vec::with_capacity(recording.bytes.len() + 1024);
    for (name, value) in fields {
        let Some(value) = value else { continue };
        let head = format!("--{boundary}\r\ncontent-disposition: form-data; name=\"{name}\"\r\n");
        form.extend_from_slice(format!("{head}\r\n{value}\r\n").as_bytes());
    }
    let head = format!(
        "--{boundary}\r\ncontent-disposition: form-data; name=\"file\"; \
         filename=\"audio.{ending}\"\r\ncontent-type: {kind}\r\n\r\n"
    );
    form.extend_from_slice(head.as_bytes());
    form.extend_from_slice(&recording.bytes);
    form.extend_from_slice(format!("\r\n--{boundary}--\r\n").as_bytes());
    Ok(form.into())
}

/// Asks for a text to be spoken.
pub(super) async fn speak(
    provider: &HttpProvider,
    path: &str,
    model: &str,
    request: &SpeechRequest,
) -> Result<Speech, ModelError> {
    let characters = request.text.chars().count();
    if !(1..=TEXT_LIMIT).contains(&characters) {
        let message = format!("a text to be spoken has 1 to {TEXT_LIMIT} characters");
        return Err(ModelError::new("request.invalid", false, message));
    }
    let body = json!({"model": model, "input": request.text, "voice": request.voice,
        "response_format": request.format});
    let body = Bytes::from(body.to_string());
    let response = provider.send_bytes(path, "application/json", body, TIMEOUT).await?;
    let kind = response.headers().get(CONTENT_TYPE).and_then(|kind| kind.to_str().ok());
    let media_type = kind.unwrap_or_default().to_owned();
    if !media_type.starts_with("audio/") && media_type != "application/octet-stream" {
        return Err(provider.malformed("it is no sound"));
    }
    let bytes = listing::read_bytes(response, SPEECH_LIMIT).await;
    let bytes = bytes.ok_or_else(|| provider.malformed("the sound broke off"))?;
    if bytes.len() >= SPEECH_LIMIT {
        return Err(provider.malformed("the sound does not end"));
    }
    let usage = Usage([(Meter::Characters, characters as u64)].into());
    Ok(Speech { bytes: bytes.into(), media_type, usage })
}
