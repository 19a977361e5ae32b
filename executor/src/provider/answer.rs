//! An answer under construction: pieces of a stream are appended until the answer is complete or
//! broken off.

use std::time::Instant;

use bytes::Bytes;
use convergio_domain::billing::{Meter, Usage};
use convergio_domain::chat::{ChatInterface, NativeFields};
use convergio_domain::json_merge::merge_piece;
use convergio_eventstore::LiveKind;
use serde_json::{Map, Value};

use super::answer_parts::{AnswerParts, AnswerTooLarge};
use super::error::ModelError;
use super::json_size::approximate_size;
use super::model_provider::{AnswerPiece, ChatAnswer};
use super::{scrub, usage};

/// Maximum bytes received for one answer. A stream wraps each token in about 250 bytes, so this is
/// room for about 250,000 tokens.
const WIRE_LIMIT: usize = 64 << 20;
/// Maximum bytes of a provider's usage block that is recorded; a larger one is counted and dropped.
const USAGE_LIMIT: usize = 16 << 10;
/// Maximum characters of a model's name as a provider reports it.
pub(super) const NAME_LIMIT: usize = 200;
/// Finish reason for answers that the provider itself reports as unusable, such as a malformed
/// call.
pub(super) const MALFORMED: &str = "malformed";

/// Collects what a provider sends for one chat call: parts, finish reason, model name and usage.
pub(super) struct AnswerBuilder {
    /// Creation of the call, from which durations are measured.
    started_at: Instant,
    /// True if the provider may have received the request and may bill for it.
    pub(super) may_be_billed: bool,
    /// The parts of the answer received so far.
    pub(super) parts: AnswerParts,
    /// Finish reason: the platform's word for it if there is one, else the provider's.
    finish: Option<String>,
    /// Finish reason in the provider's own word.
    native_finish: String,
    stop_sequence: Option<String>,
    service_tier: Option<String>,
    /// Fields of the whole answer that only the provider's interface has, merged over all pieces.
    native_fields: Value,
    model: String,
    /// True once the listener was told the model's name.
    is_model_announced: bool,
    /// The provider's usage block, not interpreted yet.
    usage: Option<Value>,
    /// Number of content pieces received: at least as many tokens were generated.
    piece_count: u64,
    first_token_ms: Option<u64>,
    /// Bytes received on the wire.
    received_bytes: usize,
    /// True once the provider has said that its stream is over.
    is_ended: bool,
}

impl AnswerBuilder {
    pub(super) fn new() -> Self {
        Self {
            started_at: Instant::now(),
            may_be_billed: false,
            parts: AnswerParts::default(),
            finish: None,
            native_finish: String::new(),
            stop_sequence: None,
            service_tier: None,
            native_fields: Value::Object(Map::new()),
            model: String::new(),
            is_model_announced: false,
            usage: None,
            piece_count: 0,
            first_token_ms: None,
            received_bytes: 0,
            is_ended: false,
        }
    }

    /// Returns whether any content has been received.
    pub(super) fn has_begun(&self) -> bool {
        self.first_token_ms.is_some()
    }

    /// Returns whether a finish reason was received: only usage counts may follow.
    pub(super) fn is_finished(&self) -> bool {
        self.finish.is_some()
    }

    /// Returns whether the provider has marked the end of its stream.
    pub(super) fn is_ended(&self) -> bool {
        self.is_ended
    }

    /// Marks the end of the stream: nothing that follows is read.
    pub(super) fn mark_ended(&mut self) {
        self.is_ended = true;
    }

    /// Counts bytes received on the wire.
    ///
    /// # Errors
    /// The sum exceeds `WIRE_LIMIT`.
    pub(super) fn count_received(&mut self, bytes: usize) -> Result<(), AnswerTooLarge> {
        self.received_bytes += bytes;
        if self.received_bytes > WIRE_LIMIT { Err(AnswerTooLarge) } else { Ok(()) }
    }

    /// Checks the collected parts against their limits.
    ///
    /// # Errors
    /// The answer has too many bytes, parts or tool calls.
    pub(super) fn check_limits(&self) -> Result<(), AnswerTooLarge> {
        self.parts.check_limits()
    }

    /// Counts a content piece and notes the time of the first one.
    fn count_piece(&mut self) {
        self.piece_count += 1;
        self.first_token_ms.get_or_insert(elapsed_ms(self.started_at));
    }

    /// Appends a piece of text.
    pub(super) fn push_text(&mut self, text: &str) {
        // Providers send empty deltas for role and finish events. They carry no token and must not
        // count as the first one.
        if !text.is_empty() {
            self.count_piece();
            self.parts.push_text(text);
        }
    }

    /// Appends a piece of the model's reasoning.
    pub(super) fn push_thinking(&mut self, text: &str) {
        if !text.is_empty() {
            self.count_piece();
            self.parts.push_thinking(text);
        }
    }

    /// Appends a piece of the text in which the model declines to answer.
    pub(super) fn push_refusal(&mut self, text: &str) {
        if !text.is_empty() {
            self.count_piece();
            self.parts.push_refusal(text);
        }
    }

    /// Begins a tool call; `key` is the provider's index by which later pieces refer to it.
    pub(super) fn begin_tool_call(&mut self, key: Option<u64>, id: &str, name: &str) {
        self.count_piece();
        self.parts.begin_tool_call(key, id, name);
    }

    /// Appends a tool call that arrived in one piece.
    pub(super) fn push_tool_call(&mut self, id: &str, name: &str, arguments: &str) {
        self.begin_tool_call(None, id, name);
        let place = self.parts.newest_index();
        self.parts.push_arguments(place, arguments);
    }

    /// Appends a piece of a tool call's arguments; `place` is the index of its part.
    pub(super) fn push_arguments(&mut self, place: Option<usize>, text: &str) {
        self.count_piece();
        self.parts.push_arguments(place, text);
    }

    /// Sets the finish reason and closes all parts. `finish` is the platform's word for it; without
    /// one `native_finish`, the provider's, is used.
    pub(super) fn set_finish(&mut self, finish: Option<&'static str>, native_finish: &str) {
        let cleaned_finish = scrub::clean_name(native_finish, 64);
        self.finish = Some(finish.map_or_else(|| cleaned_finish.clone(), str::to_owned));
        self.native_finish = cleaned_finish;
        self.parts.close_all();
    }

    /// Sets the stop sequence, of those in the request, at which the model stopped.
    pub(super) fn set_stop_sequence(&mut self, text: &Value) {
        if let Some(text) = text.as_str() {
            self.stop_sequence = Some(text.to_owned());
        }
    }

    /// Sets the service tier that handled the call, as reported by the provider.
    pub(super) fn set_service_tier(&mut self, tier: &Value) {
        if let Some(tier) = tier.as_str() {
            self.service_tier = Some(scrub::clean_name(tier, 64));
        }
    }

    /// Merges fields of the whole answer that only the provider's interface has. A stream sends
    /// them in several pieces.
    pub(super) fn merge_native_fields(&mut self, fields: Map<String, Value>) {
        if fields.is_empty() {
            return;
        }
        let fields = Value::Object(fields);
        // These fields are outside the parts but share their limit.
        self.parts.add_bytes(approximate_size(&fields));
        merge_piece(&mut self.native_fields, fields);
    }

    /// Sets the model's name as reported by the provider, which may be more exact than the
    /// requested one.
    pub(super) fn set_model(&mut self, model: &Value) {
        self.set_model_name(model.as_str().unwrap_or_default());
    }

    /// Sets the model's name, unless it is empty. Every piece of a stream repeats the name.
    pub(super) fn set_model_name(&mut self, model: &str) {
        if !model.is_empty() && model != self.model {
            self.model = scrub::clean_name(model, NAME_LIMIT);
        }
    }

    /// Replaces the usage block: providers send running totals, so the last block with counts is
    /// right.
    pub(super) fn set_usage(&mut self, block: &Value) {
        // Some servers end a stream with a block of zeros after the real one: it must not erase the
        // counts.
        let is_all_zero = |usage: &Value| !has_count(usage);
        // A later block replaces the earlier one only if it counts something.
        if block.is_object() && (self.usage.as_ref().is_none_or(is_all_zero) || has_count(block)) {
            self.usage = Some(block.clone());
        }
    }

    /// Merges a partial usage block: fields it names replace those received before.
    pub(super) fn merge_usage(&mut self, block: &Value) {
        let Value::Object(partial) = block else { return };
        let usage = self.usage.get_or_insert_with(|| Value::Object(Map::new()));
        if let Value::Object(usage) = usage {
            let present = partial.iter().filter(|(_, value)| !value.is_null());
            usage.extend(present.map(|(name, value)| (name.clone(), value.clone())));
        }
    }

    /// Returns the pieces that the listener has not received yet. `read` interprets the usage
    /// block.
    pub(super) fn take_new_pieces(&mut self, read_usage: UsageReader) -> Vec<AnswerPiece> {
        let mut pieces = Vec::new();
        // The begin event carries the prompt's usage, which Anthropic reports before the first
        // token.
        if !self.is_model_announced && !self.model.is_empty() {
            self.is_model_announced = true;
            let usage = self.usage.as_ref().and_then(read_usage).unwrap_or_default();
            let kind = LiveKind::Begin { model: self.model.clone(), usage };
            pieces.push(AnswerPiece {
                kind,
                tokens_out: self.piece_count,
                ..AnswerPiece::default()
            });
        }
        pieces.extend(self.parts.take_new_pieces(self.piece_count));
        pieces
    }

    /// Checks that an answer whose stream has ended is usable.
    ///
    /// # Errors
    /// `provider.unavailable` without a finish reason, `provider.invalid_answer` if the provider
    /// calls its own answer malformed. Both may be retried.
    pub(super) fn check_finished(&self, provider: &str) -> Result<(), ModelError> {
        match self.finish.as_deref() {
            // A gateway in between may close a broken stream cleanly, but it cannot invent a finish
            // reason: its absence is the only sign that the answer was cut.
            None => {
                let message = format!("{provider} broke off: the answer ended in the middle");
                Err(ModelError::provider_unavailable(message))
            }
            Some(MALFORMED) => {
                let message = format!("{provider} says that its model answered nonsense");
                Err(ModelError::new("provider.invalid_answer", true, message))
            }
            Some(_) => Ok(()),
        }
    }

    /// Builds the complete answer. `body` is the request, from which missing usage is estimated;
    /// `read` interprets the provider's usage block.
    pub(super) fn into_answer(
        self,
        interface: ChatInterface,
        body: &Bytes,
        read_usage: UsageReader,
    ) -> ChatAnswer {
        let (usage, confirmed) = self.usage_or_estimate(body, read_usage);
        let has_tool_calls = self.parts.tool_call_count() > 0;
        let is_in_schema = self.parts.is_in_schema() && !has_tool_calls;
        // Clients branch on `tool_calls`: some providers report `stop` with calls in the answer,
        // and a schema answered by a forced tool is reported as a call.
        let finish = match self.finish.unwrap_or_default() {
            finish if finish == "stop" && has_tool_calls => "tool_calls".to_owned(),
            finish if finish == "tool_calls" && is_in_schema => "stop".to_owned(),
            finish => finish,
        };
        let native = match self.native_fields {
            Value::Object(fields) => NativeFields::from_fields(interface, fields),
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
            raw_usage: self.usage.filter(is_small_usage),
            model: self.model,
            service: None,
            duration_ms: elapsed_ms(self.started_at),
            first_token_ms: self.first_token_ms,
        }
    }

    /// Adds to `error` the usage of the answer so far: the provider may bill for a broken answer.
    pub(super) fn into_error(
        self,
        error: ModelError,
        body: &Bytes,
        read_usage: UsageReader,
    ) -> ModelError {
        let partial_usage = self.may_be_billed.then(|| self.interrupted_usage(body, read_usage));
        let has_begun = self.has_begun();
        ModelError { partial_usage, has_begun, duration_ms: elapsed_ms(self.started_at), ..error }
    }

    /// Usage of a broken answer. The provider's last count lags behind what it generated, so output
    /// tokens are at least the estimate over the received text.
    fn interrupted_usage(&self, body: &Bytes, read_usage: UsageReader) -> Usage {
        let estimated = self.estimate_usage(body);
        let Some(mut usage) = self.usage.as_ref().and_then(read_usage) else { return estimated };
        let missing = estimated.tokens_out().saturating_sub(usage.tokens_out());
        // Only text is added: nothing tells how much of the rest was reasoning.
        if missing > 0 {
            *usage.0.entry(Meter::OutText).or_default() += missing;
        }
        // The provider may not have counted the prompt yet.
        if usage.tokens_in() == 0 {
            usage.0.insert(Meter::InFresh, estimated.tokens_in());
        }
        usage
    }

    /// Returns the usage and true if the provider reported it, or an estimate and false.
    fn usage_or_estimate(&self, body: &Bytes, read_usage: UsageReader) -> (Usage, bool) {
        if let Some(usage) = self.usage.as_ref().and_then(read_usage) {
            return (usage, true);
        }
        (self.estimate_usage(body), false)
    }

    /// Estimates the usage from the texts of the request and of the answer so far.
    fn estimate_usage(&self, body: &Bytes) -> Usage {
        let texts = request_texts(body);
        let texts: Vec<&str> = texts.iter().map(String::as_str).collect();
        usage::estimate_usage(&texts, &self.parts.all_text(), self.piece_count)
    }
}

/// Returns whether a usage block holds any number other than zero.
fn has_count(block: &Value) -> bool {
    match block {
        Value::Number(count) => count.as_f64() != Some(0.0),
        Value::Object(fields) => fields.values().any(has_count),
        Value::Array(list) => list.iter().any(has_count),
        _ => false,
    }
}

/// Reads a provider's usage block into disjoint meters; `None` if the block is not usable.
pub(super) type UsageReader = fn(&Value) -> Option<Usage>;

/// Returns all prompt texts of a request body, whatever its dialect. Used to estimate tokens and to
/// detect errors that quote the prompt.
pub(super) fn request_texts(body: &Bytes) -> Vec<String> {
    // The fields in which the dialects put prompts; tools and settings are no prompt.
    const PARTS: [&str; 6] =
        ["system", "systemInstruction", "instructions", "messages", "contents", "input"];
    let body: Value = serde_json::from_slice(body).unwrap_or(Value::Null);
    let mut texts = Vec::new();
    for part in PARTS {
        collect_texts(&body[part], &mut texts);
    }
    texts
}

/// Collects all strings below `value` except those that are keywords of a wire format or binary
/// data.
fn collect_texts(value: &Value, texts: &mut Vec<String>) {
    const WORDS: [&str; 7] = ["role", "type", "id", "media_type", "mimeType", "data", "image_url"];
    match value {
        Value::String(text) => texts.push(text.clone()),
        Value::Array(list) => list.iter().for_each(|value| collect_texts(value, texts)),
        Value::Object(fields) => {
            let content = fields.iter().filter(|(name, _)| !WORDS.contains(&name.as_str()));
            content.for_each(|(_, value)| collect_texts(value, texts));
        }
        _ => {}
    }
}

/// Returns whether a usage block may be recorded as it came.
pub(super) fn is_small_usage(usage: &Value) -> bool {
    usage.to_string().len() <= USAGE_LIMIT
}

fn elapsed_ms(since: Instant) -> u64 {
    u64::try_from(since.elapsed().as_millis()).unwrap_or(u64::MAX)
}

#[cfg(test)]
mod tests {
    use bytes::Bytes;
    use convergio_domain::billing::{Meter, Usage};
    use serde_json::json;

    use super::AnswerBuilder;
    use crate::provider::error::ModelError;
    use crate::provider::usage::from_openai;

    fn broken(answer: AnswerBuilder) -> Usage {
        let body =
            Bytes::from_static(br#"{"messages": [{"role": "user", "content": "twelve bytes"}]}"#);
        let mut answer = answer;
        answer.may_be_billed = true;
        let error = ModelError::provider_unavailable("it broke off");
        answer.into_error(error, &body, from_openai).partial_usage.expect("it was asked")
    }

    #[test]
    fn a_block_of_zeros_does_not_replace_the_true_one() {
        let mut answer = AnswerBuilder::new();
        let zeros = json!({"prompt_tokens": 0, "completion_tokens": 0, "total_tokens": 0});
        answer.set_usage(&zeros);
        answer.set_usage(&json!({"prompt_tokens": 7, "completion_tokens": 2}));
        answer.set_usage(&zeros);
        assert_eq!(broken(answer).0, [(Meter::InFresh, 7), (Meter::OutText, 2)].into());
    }

    #[test]
    fn what_broke_off_counts_what_came_at_least() {
        let mut answer = AnswerBuilder::new();
        answer.set_usage(&json!({"prompt_tokens": 900, "completion_tokens": 1}));
        answer.push_text("an answer of forty bytes, which were made");
        assert_eq!(broken(answer).0, [(Meter::InFresh, 900), (Meter::OutText, 11)].into());
        let mut answer = AnswerBuilder::new();
        answer.push_text("four");
        assert_eq!(broken(answer).0, [(Meter::InFresh, 7), (Meter::OutText, 1)].into());
    }
}
