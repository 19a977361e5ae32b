//! An answer as it grows, piece by piece, until it is whole or broken.

use std::time::Instant;

use bytes::Bytes;
use convergio_domain::metering::Usage;
use serde_json::Value;

use super::chat::{ChatAnswer, Sink};
use super::error::ModelError;
use super::{scrub, usage};

/// Bytes of text at most.
const TEXT_LIMIT: usize = 8 << 20;
/// Bytes on the wire at most: a stream wraps each token in about 250 bytes.
const WIRE_LIMIT: usize = 64 << 20;
/// Bytes of a usage block that are kept.
const USAGE_LIMIT: usize = 16 << 10;

/// An answer under way.
pub(super) struct Answer {
    begun: Instant,
    /// Whether the provider may have read the request, and bills it.
    pub(super) is_asked: bool,
    text: String,
    finish: Option<String>,
    model: String,
    refused: bool,
    usage: Option<Value>,
    pieces: u64,
    first_token_ms: Option<u64>,
    received: usize,
}

/// More than any honest answer.
pub(super) struct TooLarge;

impl Answer {
    pub(super) fn new() -> Self {
        Self {
            begun: Instant::now(),
            is_asked: false,
            text: String::new(),
            finish: None,
            model: String::new(),
            refused: false,
            usage: None,
            pieces: 0,
            first_token_ms: None,
            received: 0,
        }
    }

    /// Whether text has begun to come.
    pub(super) fn has_text(&self) -> bool {
        self.first_token_ms.is_some()
    }

    /// Whether the model has said why it stopped: nothing but counts can follow.
    pub(super) fn is_finished(&self) -> bool {
        self.finish.is_some()
    }

    /// Counts bytes that came.
    pub(super) fn receive(&mut self, bytes: usize) -> Result<(), TooLarge> {
        self.received += bytes;
        if self.received > WIRE_LIMIT { Err(TooLarge) } else { Ok(()) }
    }

    /// Takes a piece of a stream in.
    pub(super) fn take_chunk(&mut self, chunk: &Value, sink: Sink<'_>) -> Result<(), TooLarge> {
        self.take(chunk, "delta", sink)
    }

    /// Takes an answer in that came at once. It is whole, so it has a reason to have stopped.
    pub(super) fn take_whole(&mut self, body: &Value, sink: Sink<'_>) -> Result<(), TooLarge> {
        self.take(body, "message", sink)?;
        self.finish.get_or_insert_with(|| "stop".to_owned());
        Ok(())
    }

    /// Usage may stand on any piece; the last one counts.
    fn take(&mut self, piece: &Value, part: &str, sink: Sink<'_>) -> Result<(), TooLarge> {
        let choice = &piece["choices"][0];
        let text = |name: &str| choice[part][name].as_str().filter(|text| !text.is_empty());
        if let Some(text) = text("content") {
            self.pieces += 1;
            self.first_token_ms.get_or_insert(millis(self.begun));
            self.text.push_str(text);
            sink(text, self.pieces);
        }
        self.refused |= text("refusal").is_some();
        if let Some(finish) = choice["finish_reason"].as_str() {
            self.finish = Some(scrub::name(finish, 32));
        }
        if let Some(model) = piece["model"].as_str() {
            self.model = scrub::name(model, 200);
        }
        if piece["usage"].is_object() {
            self.usage = Some(piece["usage"].clone());
        }
        if self.text.len() > TEXT_LIMIT { Err(TooLarge) } else { Ok(()) }
    }

    /// Whether the answer, which has ended, can be used.
    pub(super) fn verdict(&self, provider: &str) -> Result<(), ModelError> {
        let filtered = |why: &str| {
            let message = format!("{provider} {why}: change the prompt");
            Err(ModelError::new("provider.content_filtered", false, message))
        };
        match self.finish.as_deref() {
            // A gateway in between may end a broken stream as if it were whole; it cannot invent
            // a reason why the answer ended.
            None => {
                let message = format!("{provider} broke off: the answer ended in the middle");
                Err(ModelError::unavailable(message))
            }
            Some("content_filter") => filtered("filtered the answer"),
            Some(_) if self.refused && self.text.is_empty() => filtered("refused to answer"),
            Some(_) => Ok(()),
        }
    }

    pub(super) fn finished(self, body: &Bytes) -> ChatAnswer {
        let (usage, confirmed) = self.usage(body);
        let is_small = |usage: &Value| usage.to_string().len() <= USAGE_LIMIT;
        ChatAnswer {
            usage,
            confirmed,
            raw_usage: self.usage.filter(is_small),
            finish: self.finish.unwrap_or_default(),
            model: self.model,
            duration_ms: millis(self.begun),
            first_token_ms: self.first_token_ms,
            text: self.text,
        }
    }

    /// The error with what was used before: it was made, and may be billed.
    pub(super) fn broken(self, error: ModelError, body: &Bytes) -> ModelError {
        let partial_usage = self.is_asked.then(|| self.usage(body).0);
        ModelError { partial_usage, duration_ms: millis(self.begun), ..error }
    }

    /// The usage, and whether the provider told it.
    fn usage(&self, body: &Bytes) -> (Usage, bool) {
        if let Some(told) = self.usage.as_ref().and_then(usage::from_openai) {
            return (told, true);
        }
        let messages = messages(body);
        let messages: Vec<&str> = messages.iter().map(String::as_str).collect();
        (usage::estimate(&messages, &self.text, self.pieces), false)
    }
}

/// The texts of a request, read back from its body.
pub(super) fn messages(body: &Bytes) -> Vec<String> {
    let body: Value = serde_json::from_slice(body).unwrap_or(Value::Null);
    let messages = body["messages"].as_array().into_iter().flatten();
    messages.filter_map(|message| message["content"].as_str().map(str::to_owned)).collect()
}

fn millis(since: Instant) -> u64 {
    u64::try_from(since.elapsed().as_millis()).unwrap_or(u64::MAX)
}
