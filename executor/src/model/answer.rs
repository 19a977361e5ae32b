//! An answer as it grows, piece by piece, until it is whole or broken.

use std::time::Instant;

use bytes::Bytes;
use convergio_domain::chat::{Interface, NativeFields};
use convergio_domain::json_piece::merge;
use convergio_domain::metering::{Meter, Usage};
use convergio_eventstore::LiveKind;
use serde_json::{Map, Value};

use super::chat::{ChatAnswer, Piece};
use super::draft::{Drafts, TooLarge};
use super::error::ModelError;
use super::json_piece::size;
use super::{scrub, usage};

/// Bytes on the wire at most: a stream wraps each token in about 250 bytes.
const WIRE_LIMIT: usize = 64 << 20;
/// Bytes of a usage block that are kept.
const USAGE_LIMIT: usize = 16 << 10;
/// Letters of the name of a model.
pub(super) const NAME_LIMIT: usize = 200;
/// The finish of an answer that is nonsense by the provider's own word.
pub(super) const MALFORMED: &str = "malformed";

/// An answer under way.
pub(super) struct Answer {
    begun: Instant,
    /// Whether the provider may have read the request, and bills it.
    pub(super) is_asked: bool,
    /// What it is made of.
    pub(super) parts: Drafts,
    finish: Option<String>,
    /// The provider's own word for why it stopped.
    native_finish: String,
    stop_sequence: Option<String>,
    service_tier: Option<String>,
    fields: Value,
    model: String,
    /// Whether the listener knows who answers.
    is_named: bool,
    usage: Option<Value>,
    pieces: u64,
    first_token_ms: Option<u64>,
    received: usize,
    ended: bool,
}

impl Answer {
    pub(super) fn new() -> Self {
        Self {
            begun: Instant::now(),
            is_asked: false,
            parts: Drafts::default(),
            finish: None,
            native_finish: String::new(),
            stop_sequence: None,
            service_tier: None,
            fields: Value::Object(Map::new()),
            model: String::new(),
            is_named: false,
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
        self.parts.check()
    }

    fn begin(&mut self) {
        self.pieces += 1;
        self.first_token_ms.get_or_insert(millis(self.begun));
    }

    /// A piece of the text.
    pub(super) fn say(&mut self, text: &str) {
        if !text.is_empty() {
            self.begin();
            self.parts.say(text);
        }
    }

    /// A piece of the thought.
    pub(super) fn think(&mut self, text: &str) {
        if !text.is_empty() {
            self.begin();
            self.parts.think(text);
        }
    }

    /// A piece of the words with which the model refuses.
    pub(super) fn refuse(&mut self, text: &str) {
        if !text.is_empty() {
            self.begin();
            self.parts.refuse(text);
        }
    }

    /// Begins a call of a tool.
    pub(super) fn begin_call(&mut self, key: Option<u64>, id: &str, name: &str) {
        self.begin();
        self.parts.begin_call(key, id, name);
    }

    /// A whole call of a tool.
    pub(super) fn call(&mut self, id: &str, name: &str, arguments: &str) {
        self.begin_call(None, id, name);
        let place = self.parts.newest();
        self.parts.write_arguments(place, arguments);
    }

    /// A piece of the arguments of a call.
    pub(super) fn write_arguments(&mut self, place: Option<usize>, text: &str) {
        self.begin();
        self.parts.write_arguments(place, text);
    }

    /// Why the model stopped: in our word if there is one, else in the provider's.
    pub(super) fn finish(&mut self, known: Option<&'static str>, said: &str) {
        let said = scrub::name(said, 64);
        self.finish = Some(known.map_or_else(|| said.clone(), str::to_owned));
        self.native_finish = said;
        self.parts.close_all();
    }

    /// The text at which it stopped, of those that the caller named.
    pub(super) fn stop_at(&mut self, text: &Value) {
        if let Some(text) = text.as_str() {
            self.stop_sequence = Some(text.to_owned());
        }
    }

    /// The tier that served the call.
    pub(super) fn serve_by(&mut self, tier: &Value) {
        if let Some(tier) = tier.as_str() {
            self.service_tier = Some(scrub::name(tier, 64));
        }
    }

    /// What only the interface says of the answer as a whole; a stream says it in pieces.
    pub(super) fn add_fields(&mut self, fields: Map<String, Value>) {
        let fields = Value::Object(fields);
        self.parts.add_bytes(size(&fields));
        merge(&mut self.fields, fields);
    }

    /// The model's name, by its own word.
    pub(super) fn name(&mut self, model: &Value) {
        if let Some(model) = model.as_str().filter(|model| !model.is_empty()) {
            self.model = scrub::name(model, NAME_LIMIT);
        }
    }

    /// A usage block: the last one counts.
    pub(super) fn count(&mut self, block: &Value) {
        // Some end a stream with a block of zeros after the true one.
        let is_empty = |usage: &Value| !has_count(usage);
        if block.is_object() && (self.usage.as_ref().is_none_or(is_empty) || has_count(block)) {
            self.usage = Some(block.clone());
        }
    }

    /// A part of the usage block: what it names replaces what was told before.
    pub(super) fn count_more(&mut self, block: &Value) {
        let Value::Object(more) = block else { return };
        let usage = self.usage.get_or_insert_with(|| Value::Object(Map::new()));
        if let Value::Object(usage) = usage {
            let known = more.iter().filter(|(_, value)| !value.is_null());
            usage.extend(known.map(|(name, value)| (name.clone(), value.clone())));
        }
    }

    /// What the listener has not heard. `read` reads the provider's usage block.
    pub(super) fn fresh(&mut self, read: UsageReader) -> Vec<Piece> {
        let mut pieces = Vec::new();
        if !self.is_named && !self.model.is_empty() {
            self.is_named = true;
            let usage = self.usage.as_ref().and_then(read).unwrap_or_default();
            let kind = LiveKind::Begin { model: self.model.clone(), usage };
            pieces.push(Piece { kind, tokens_out: self.pieces, ..Piece::default() });
        }
        pieces.extend(self.parts.fresh(self.pieces));
        pieces
    }

    /// Whether the answer, which has ended, is one.
    pub(super) fn verdict(&self, provider: &str) -> Result<(), ModelError> {
        match self.finish.as_deref() {
            // A gateway in between may end a broken stream as if it were whole; it cannot invent
            // a reason why the answer ended.
            None => {
                let message = format!("{provider} broke off: the answer ended in the middle");
                Err(ModelError::unavailable(message))
            }
            Some(MALFORMED) => {
                let message = format!("{provider} says that its model answered nonsense");
                Err(ModelError::new("provider.invalid_answer", true, message))
            }
            Some(_) => Ok(()),
        }
    }

    /// The whole answer. `read` reads the provider's usage block.
    pub(super) fn finished(
        self,
        interface: Interface,
        body: &Bytes,
        read: UsageReader,
    ) -> ChatAnswer {
        let (usage, confirmed) = self.usage(body, read);
        let asks = self.parts.calls() > 0;
        let is_in_schema = self.parts.is_in_schema() && !asks;
        let finish = match self.finish.unwrap_or_default() {
            finish if finish == "stop" && asks => "tool_calls".to_owned(),
            finish if finish == "tool_calls" && is_in_schema => "stop".to_owned(),
            finish => finish,
        };
        let native = match self.fields {
            Value::Object(fields) => NativeFields::of(interface, fields),
            _ => None,
        };
        ChatAnswer {
            parts: self.parts.into_parts(),
            finish,
            native_finish: self.native_finish,
            stop_sequence: self.stop_sequence,
            service_tier: self.service_tier,
            interface,
            native,
            usage,
            confirmed,
            raw_usage: self.usage.filter(is_small),
            model: self.model,
            service: None,
            duration_ms: millis(self.begun),
            first_token_ms: self.first_token_ms,
        }
    }

    /// The error with what was used before: it was made, and may be billed.
    pub(super) fn broken(self, error: ModelError, body: &Bytes, read: UsageReader) -> ModelError {
        let partial_usage = self.is_asked.then(|| self.broken_usage(body, read));
        let has_begun = self.has_begun();
        ModelError { partial_usage, has_begun, duration_ms: millis(self.begun), ..error }
    }

    /// What an answer used that broke off: the provider makes more than it has told of, and what
    /// came is counted at least.
    fn broken_usage(&self, body: &Bytes, read: UsageReader) -> Usage {
        let estimate = self.estimate(body);
        let Some(mut usage) = self.usage.as_ref().and_then(read) else { return estimate };
        let missing = estimate.tokens_out().saturating_sub(usage.tokens_out());
        if missing > 0 {
            *usage.0.entry(Meter::OutText).or_default() += missing;
        }
        if usage.tokens_in() == 0 {
            usage.0.insert(Meter::InFresh, estimate.tokens_in());
        }
        usage
    }

    /// The usage, and whether the provider told it.
    fn usage(&self, body: &Bytes, read: UsageReader) -> (Usage, bool) {
        if let Some(usage) = self.usage.as_ref().and_then(read) {
            return (usage, true);
        }
        (self.estimate(body), false)
    }

    fn estimate(&self, body: &Bytes) -> Usage {
        let texts = texts(body);
        let texts: Vec<&str> = texts.iter().map(String::as_str).collect();
        usage::estimate(&texts, &self.parts.all_text(), self.pieces)
    }
}

/// Whether a usage block counts anything.
fn has_count(block: &Value) -> bool {
    match block {
        Value::Number(count) => count.as_f64() != Some(0.0),
        Value::Object(fields) => fields.values().any(has_count),
        Value::Array(list) => list.iter().any(has_count),
        _ => false,
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

/// Whether a usage block is kept as it came.
pub(super) fn is_small(usage: &Value) -> bool {
    usage.to_string().len() <= USAGE_LIMIT
}

fn millis(since: Instant) -> u64 {
    u64::try_from(since.elapsed().as_millis()).unwrap_or(u64::MAX)
}

#[cfg(test)]
mod tests {
    use bytes::Bytes;
    use convergio_domain::metering::{Meter, Usage};
    use serde_json::json;

    use super::Answer;
    use crate::model::error::ModelError;
    use crate::model::usage::from_openai;

    fn broken(answer: Answer) -> Usage {
        let body =
            Bytes::from_static(br#"{"messages": [{"role": "user", "content": "twelve bytes"}]}"#);
        let mut answer = answer;
        answer.is_asked = true;
        let error = ModelError::unavailable("it broke off");
        answer.broken(error, &body, from_openai).partial_usage.expect("it was asked")
    }

    #[test]
    fn a_block_of_zeros_does_not_replace_the_true_one() {
        let mut answer = Answer::new();
        let zeros = json!({"prompt_tokens": 0, "completion_tokens": 0, "total_tokens": 0});
        answer.count(&zeros);
        answer.count(&json!({"prompt_tokens": 7, "completion_tokens": 2}));
        answer.count(&zeros);
        assert_eq!(broken(answer).0, [(Meter::InFresh, 7), (Meter::OutText, 2)].into());
    }

    #[test]
    fn what_broke_off_counts_what_came_at_least() {
        let mut answer = Answer::new();
        answer.count(&json!({"prompt_tokens": 900, "completion_tokens": 1}));
        answer.say("an answer of forty bytes, which were made");
        assert_eq!(broken(answer).0, [(Meter::InFresh, 900), (Meter::OutText, 11)].into());
        let mut answer = Answer::new();
        answer.say("four");
        assert_eq!(broken(answer).0, [(Meter::InFresh, 7), (Meter::OutText, 1)].into());
    }
}
