//! An answer as it grows, piece by piece, until it is whole or broken.

use std::time::Instant;

use bytes::Bytes;
use convergio_domain::chat::ToolCall;
use convergio_domain::metering::Usage;
use serde_json::{Map, Value};

use super::chat::ChatAnswer;
use super::error::ModelError;
use super::{scrub, usage};

/// Bytes of text, thought and arguments at most.
const TEXT_LIMIT: usize = 8 << 20;
/// Bytes on the wire at most: a stream wraps each token in about 250 bytes.
const WIRE_LIMIT: usize = 64 << 20;
/// Bytes of a usage block that are kept.
const USAGE_LIMIT: usize = 16 << 10;
/// Tools that one answer may ask for.
const TOOLS_LIMIT: usize = 128;
/// The tool by which a provider without structured output is made to answer in a schema.
pub(super) const ANSWER_TOOL: &str = "convergio_answer";

/// An answer under way.
pub(super) struct Answer {
    begun: Instant,
    /// Whether the provider may have read the request, and bills it.
    pub(super) is_asked: bool,
    text: String,
    /// Bytes of the text that the listener has heard.
    heard: usize,
    thinking: String,
    signature: String,
    tools: Vec<ToolCall>,
    finish: Option<&'static str>,
    /// The provider's own word for why it stopped, when it is none of the usual ones.
    odd_finish: String,
    model: String,
    refused: bool,
    usage: Option<Value>,
    pieces: u64,
    first_token_ms: Option<u64>,
    received: usize,
    ended: bool,
}

/// More than any honest answer.
pub(super) struct TooLarge;

impl Answer {
    pub(super) fn new() -> Self {
        Self {
            begun: Instant::now(),
            is_asked: false,
            text: String::new(),
            heard: 0,
            thinking: String::new(),
            signature: String::new(),
            tools: Vec::new(),
            finish: None,
            odd_finish: String::new(),
            model: String::new(),
            refused: false,
            usage: None,
            pieces: 0,
            first_token_ms: None,
            received: 0,
            ended: false,
        }
    }

    /// Whether the model has begun to answer.
    pub(super) fn has_begun(&self) -> bool {
        self.first_token_ms.is_some()
    }

    /// Whether the model has said why it stopped: nothing but counts can follow.
    pub(super) fn is_finished(&self) -> bool {
        self.finish.is_some()
    }

    /// Whether the provider has said that nothing follows.
    pub(super) fn is_ended(&self) -> bool {
        self.ended
    }

    /// Nothing follows.
    pub(super) fn end(&mut self) {
        self.ended = true;
    }

    /// Counts bytes that came.
    pub(super) fn receive(&mut self, bytes: usize) -> Result<(), TooLarge> {
        self.received += bytes;
        if self.received > WIRE_LIMIT { Err(TooLarge) } else { Ok(()) }
    }

    /// Whether what was taken in is within its limits.
    pub(super) fn check(&self) -> Result<(), TooLarge> {
        let written: usize = self.tools.iter().map(|tool| tool.arguments.len()).sum();
        let kept = self.text.len() + self.thinking.len() + self.signature.len() + written;
        if kept > TEXT_LIMIT || self.tools.len() > TOOLS_LIMIT { Err(TooLarge) } else { Ok(()) }
    }

    fn begin(&mut self) {
        self.pieces += 1;
        self.first_token_ms.get_or_insert(millis(self.begun));
    }

    /// A piece of the text.
    pub(super) fn say(&mut self, text: &str) {
        if !text.is_empty() {
            self.begin();
            self.text.push_str(text);
        }
    }

    /// A piece of the thought.
    pub(super) fn think(&mut self, text: &str) {
        if !text.is_empty() {
            self.begin();
            self.thinking.push_str(text);
        }
    }

    /// A piece of the mark that the thought carries.
    pub(super) fn sign(&mut self, text: &str) {
        self.signature.push_str(text);
    }

    /// The tool asked for as the `index`-th of the answer; a gap is filled with the next one.
    pub(super) fn tool(&mut self, index: usize) -> &mut ToolCall {
        self.begin();
        let at = index.min(self.tools.len());
        if at == self.tools.len() {
            self.tools.push(ToolCall::default());
        }
        &mut self.tools[at]
    }

    /// How many tools are asked for so far.
    pub(super) fn tools(&self) -> usize {
        self.tools.len()
    }

    /// The model will not answer, and says so in words that are no answer.
    pub(super) fn refuse(&mut self) {
        self.refused = true;
    }

    /// Why the model stopped, in our word if there is one: `stop`, `length`, `tool_calls`,
    /// `content_filter`, `malformed`.
    pub(super) fn finish(&mut self, known: Option<&'static str>, said: &str) {
        self.finish = Some(known.unwrap_or("other"));
        self.odd_finish = if known.is_some() { String::new() } else { scrub::name(said, 32) };
    }

    /// The model's name, by its own word.
    pub(super) fn name(&mut self, model: &Value) {
        if let Some(model) = model.as_str() {
            self.model = scrub::name(model, 200);
        }
    }

    /// A usage block: the last one counts.
    pub(super) fn count(&mut self, block: &Value) {
        if block.is_object() {
            self.usage = Some(block.clone());
        }
    }

    /// A part of the usage block: what it names replaces what was told before.
    pub(super) fn count_more(&mut self, block: &Value) {
        let Value::Object(more) = block else { return };
        let told = self.usage.get_or_insert_with(|| Value::Object(Map::new()));
        if let Value::Object(told) = told {
            let known = more.iter().filter(|(_, value)| !value.is_null());
            told.extend(known.map(|(name, value)| (name.clone(), value.clone())));
        }
    }

    /// Text that the listener has not heard, and how many pieces there are.
    pub(super) fn fresh(&mut self) -> Option<(&str, u64)> {
        let fresh = &self.text[self.heard..];
        self.heard = self.text.len();
        (!fresh.is_empty()).then_some((fresh, self.pieces))
    }

    /// Whether the answer, which has ended, can be used.
    pub(super) fn verdict(&self, provider: &str) -> Result<(), ModelError> {
        let filtered = |why: &str| {
            let message = format!("{provider} {why}: change the prompt");
            Err(ModelError::new("provider.content_filtered", false, message))
        };
        match self.finish {
            // A gateway in between may end a broken stream as if it were whole; it cannot invent
            // a reason why the answer ended.
            None => {
                let message = format!("{provider} broke off: the answer ended in the middle");
                Err(ModelError::unavailable(message))
            }
            Some("content_filter") => filtered("filtered the answer"),
            Some("malformed") => {
                let message = format!("{provider} says that its model answered nonsense");
                Err(ModelError::new("provider.invalid_answer", true, message))
            }
            Some(_) if self.refused && self.text.is_empty() => filtered("refused to answer"),
            Some(_) => Ok(()),
        }
    }

    /// The whole answer. `read` reads the provider's usage block.
    pub(super) fn finished(mut self, body: &Bytes, read: UsageReader) -> ChatAnswer {
        self.unwrap_answer();
        let (usage, confirmed) = self.usage(body, read);
        let is_small = |usage: &Value| usage.to_string().len() <= USAGE_LIMIT;
        let finish = match self.finish {
            Some("stop") if !self.tools.is_empty() => "tool_calls".to_owned(),
            Some("other") => self.odd_finish,
            finish => finish.unwrap_or_default().to_owned(),
        };
        ChatAnswer {
            usage,
            confirmed,
            raw_usage: self.usage.filter(is_small),
            finish,
            model: self.model,
            duration_ms: millis(self.begun),
            first_token_ms: self.first_token_ms,
            text: self.text,
            thinking: self.thinking,
            signature: self.signature,
            tool_calls: self.tools,
        }
    }

    /// An answer that came as the arguments of our own tool is the text that was asked for.
    fn unwrap_answer(&mut self) {
        if let [tool] = self.tools.as_mut_slice()
            && tool.name == ANSWER_TOOL
        {
            self.text = std::mem::take(&mut tool.arguments);
            self.tools.clear();
            if self.finish == Some("tool_calls") {
                self.finish = Some("stop");
            }
        }
    }

    /// The error with what was used before: it was made, and may be billed.
    pub(super) fn broken(self, error: ModelError, body: &Bytes, read: UsageReader) -> ModelError {
        let partial_usage = self.is_asked.then(|| self.usage(body, read).0);
        let has_begun = self.has_begun();
        ModelError { partial_usage, has_begun, duration_ms: millis(self.begun), ..error }
    }

    /// The usage, and whether the provider told it.
    fn usage(&self, body: &Bytes, read: UsageReader) -> (Usage, bool) {
        if let Some(told) = self.usage.as_ref().and_then(read) {
            return (told, true);
        }
        let texts = texts(body);
        let texts: Vec<&str> = texts.iter().map(String::as_str).collect();
        let tools: String = self.tools.iter().map(|tool| tool.arguments.as_str()).collect();
        let made = [self.text.as_str(), &self.thinking, &tools].concat();
        (usage::estimate(&texts, &made, self.pieces), false)
    }
}

/// Reads a provider's usage block into disjoint classes.
pub(super) type UsageReader = fn(&Value) -> Option<Usage>;

/// The texts of a request, read back from its body, whatever its dialect.
pub(super) fn texts(body: &Bytes) -> Vec<String> {
    const PARTS: [&str; 6] =
        ["system", "systemInstruction", "instructions", "messages", "contents", "input"];
    let body: Value = serde_json::from_slice(body).unwrap_or(Value::Null);
    let mut texts = Vec::new();
    for part in PARTS {
        collect(&body[part], &mut texts);
    }
    texts
}

/// Every text in a value that is not a word of the dialect or a picture.
fn collect(value: &Value, texts: &mut Vec<String>) {
    const WORDS: [&str; 7] = ["role", "type", "id", "media_type", "mimeType", "data", "image_url"];
    match value {
        Value::String(text) => texts.push(text.clone()),
        Value::Array(list) => list.iter().for_each(|value| collect(value, texts)),
        Value::Object(fields) => {
            let said = fields.iter().filter(|(name, _)| !WORDS.contains(&name.as_str()));
            said.for_each(|(_, value)| collect(value, texts));
        }
        _ => {}
    }
}

fn millis(since: Instant) -> u64 {
    u64::try_from(since.elapsed().as_millis()).unwrap_or(u64::MAX)
}
