//! Reading of an HTTP provider's answers: streams and whole bodies, within their limits, and the
//! errors that a broken or refused one becomes.

use std::time::Duration;

use bytes::Bytes;
use convergio_domain::json::check_whole_numbers;
use futures_util::{Stream, StreamExt};
use reqwest::Response;
use serde_json::Value;
use tokio::time::timeout;

use super::transport::{HttpExchange, HttpProvider};
use crate::provider::answer::{self, AnswerBuilder};
use crate::provider::answer_parts::AnswerTooLarge;
use crate::provider::config::ProviderConfig;
use crate::provider::dialect::ReadError;
use crate::provider::error::ModelError;
use crate::provider::listing;
use crate::provider::refusal::ProviderRefusal;
use crate::provider::scrub::scrub_message;
use crate::provider::sse::{Framing, StreamDecoder};

/// Maximum bytes of an answer that arrives at once.
const WHOLE_ANSWER_LIMIT: usize = 16 << 20;
/// Longest wait for the end of a stream after its last event. A stream that was read to its end
/// leaves the connection reusable for the next call.
const DRAIN_TIMEOUT: Duration = Duration::from_millis(100);

impl HttpProvider {
    /// Reads a streamed answer and passes its fragments on chunk by chunk.
    pub(super) async fn read_stream(
        &self,
        response: Response,
        framing: Framing,
        exchange: &mut HttpExchange<'_>,
    ) -> Result<(), ModelError> {
        let mut bytes = response.bytes_stream();
        let mut lines = StreamDecoder::new(framing);
        while let Some(chunk) = self.next_chunk(&mut bytes, &exchange.answer).await? {
            exchange
                .answer
                .count_received(chunk.len())
                .map_err(|AnswerTooLarge| self.answer_too_large())?;
            let pieces =
                lines.push_bytes(&chunk).map_err(|_| self.malformed_answer("an endless line"))?;
            let mut pieces = pieces.into_iter();
            let outcome = pieces.try_for_each(|piece| self.read_stream_piece(&piece, exchange));
            // The fragments of a chunk are passed on together, and also before an error in the same
            // chunk.
            self.send_new_pieces(exchange);
            outcome?;
            if exchange.answer.is_ended() {
                let drained = async { while bytes.next().await.is_some_and(|b| b.is_ok()) {} };
                // The answer is complete, however long the connection stays open.
                let _ended = timeout(DRAIN_TIMEOUT, drained).await;
                return Ok(());
            }
        }
        let mut pieces = lines.take_rest().into_iter();
        let outcome = pieces.try_for_each(|piece| self.read_stream_piece(&piece, exchange));
        self.send_new_pieces(exchange);
        // An incomplete last line is no error once the finish reason has arrived.
        if exchange.answer.is_finished() { Ok(()) } else { outcome }
    }

    /// Returns the next bytes, or `None` at the end. After the finish reason a broken or silent
    /// connection counts as the end: only usage counts can be missing.
    pub(super) async fn next_chunk(
        &self,
        bytes: &mut (impl Stream<Item = reqwest::Result<Bytes>> + Unpin),
        answer: &AnswerBuilder,
    ) -> Result<Option<Bytes>, ModelError> {
        let idle = self.config.timeouts.idle;
        // Before the first content the idle timeout does not hold: prompt processing and reasoning
        // are silent, and the whole call has its own timeout.
        let next = if answer.has_begun() || answer.is_finished() {
            timeout(idle, bytes.next()).await
        } else {
            Ok(bytes.next().await)
        };
        let name = &self.config.name;
        match next {
            Ok(Some(Ok(chunk))) => Ok(Some(chunk)),
            Ok(None) => Ok(None),
            _ if answer.is_finished() => Ok(None),
            Ok(Some(Err(_))) => Err(ModelError::provider_unavailable(format!(
                "{name} broke off: the connection was cut"
            ))),
            Err(_) => {
                let message = format!("{name} fell silent in the middle, for {idle:?}");
                Err(ModelError::new("provider.timeout", true, message))
            }
        }
    }

    /// Reads one event of the stream into the answer and checks the limits.
    pub(super) fn read_stream_piece(
        &self,
        piece: &str,
        exchange: &mut HttpExchange<'_>,
    ) -> Result<(), ModelError> {
        // OpenAI's end mark; other interfaces have an event of their own.
        if piece == "[DONE]" {
            exchange.answer.mark_ended();
            return Ok(());
        }
        if !self.dialect.read_text_piece(piece, &mut exchange.answer) {
            let json: Value = serde_json::from_str(piece)
                .map_err(|_| self.malformed_answer("a piece is not JSON"))?;
            let read = self.dialect.read_piece(&json, &mut exchange.answer);
            read.map_err(|error| self.error_from_read(error, exchange.call.body))?;
        }
        self.check_numbers(piece)?;
        exchange.answer.check_limits().map_err(|AnswerTooLarge| self.answer_too_large())
    }

    /// Reads an answer that arrives at once.
    pub(super) async fn read_whole_answer(
        &self,
        response: Response,
        exchange: &mut HttpExchange<'_>,
    ) -> Result<(), ModelError> {
        // Read completely before parsing: the limit on bytes holds for all of it.
        let text = self.read_body(response).await?;
        let whole = self.parse_json(&text)?;
        let read = self.dialect.read_whole(&whole, &mut exchange.answer);
        read.map_err(|error| self.error_from_read(error, exchange.call.body))?;
        self.check_numbers(&text)?;
        exchange.answer.check_limits().map_err(|AnswerTooLarge| self.answer_too_large())?;
        self.send_new_pieces(exchange);
        Ok(())
    }

    /// Passes new fragments on to the listener.
    pub(super) fn send_new_pieces(&self, exchange: &mut HttpExchange<'_>) {
        for piece in exchange.answer.take_new_pieces(self.dialect.usage_reader()) {
            (exchange.sink)(piece);
        }
    }

    /// Reads a JSON body of less than `limit` bytes.
    pub(super) async fn read_json(
        &self,
        response: Response,
        limit: usize,
    ) -> Result<Value, ModelError> {
        let text = listing::read_text(response, limit).await;
        let text = text.ok_or_else(|| self.malformed_answer("it broke off"))?;
        if text.len() >= limit {
            return Err(self.malformed_answer("it does not end"));
        }
        self.parse_json(&text)
    }

    /// Reads the text of an answer that arrives at once.
    pub(super) async fn read_body(&self, response: Response) -> Result<String, ModelError> {
        let text = listing::read_text(response, WHOLE_ANSWER_LIMIT).await;
        let text = text.ok_or_else(|| {
            ModelError::provider_unavailable(format!("{} broke off", self.config.name))
        })?;
        if text.len() >= WHOLE_ANSWER_LIMIT {
            return Err(self.answer_too_large());
        }
        Ok(text)
    }

    pub(super) fn parse_json(&self, text: &str) -> Result<Value, ModelError> {
        serde_json::from_str(text).map_err(|_| self.malformed_answer("it is not JSON"))
    }

    /// Rejects integers that would lose digits: some providers send tool arguments as JSON values.
    /// Checked after the answer was read, so that the error has its usage.
    pub(super) fn check_numbers(&self, text: &str) -> Result<(), ModelError> {
        check_whole_numbers(text.as_bytes()).map_err(|error| {
            let message = format!("{} answered what would be rounded: {error}", self.config.name);
            ModelError::new("provider.invalid_answer", true, message)
        })
    }

    pub(super) fn error_from_read(&self, error: ReadError, body: &Bytes) -> ModelError {
        match error {
            ReadError::Refused(refusal) => self.error_from_refusal(refusal, body),
            ReadError::Malformed(problem) => self.malformed_answer(problem),
        }
    }

    /// Converts a refusal into an error of the API, with the provider's message scrubbed. Without a
    /// configured key a bad key is a missing one.
    pub(super) fn error_from_refusal(&self, refusal: ProviderRefusal, body: &Bytes) -> ModelError {
        let prompt = answer::request_texts(body).join("\n");
        let scrubbed = scrub_message(&refusal.message, self.config.key.as_ref(), &prompt);
        let error = refusal.into_error(&self.config.name, &scrubbed);
        match (error.code, &self.config.key) {
            ("byok.bad_key", None) => ModelError { code: "byok.missing_key", ..error },
            _ => error,
        }
    }

    /// Converts a transport error.
    pub(super) fn error_from_transport(&self, error: &reqwest::Error) -> ModelError {
        let ProviderConfig { name, base_url, .. } = &self.config;
        if error.is_timeout() && !error.is_connect() {
            return ModelError::new("provider.timeout", true, format!("{name} did not answer"));
        }
        let message = if error.is_connect() {
            // The address is for the operator's log and not for every caller.
            tracing::warn!(provider = name, base_url, "a provider cannot be reached");
            format!("{name} cannot be reached: is it running?")
        } else {
            format!("{name} broke off before it answered")
        };
        ModelError::provider_unavailable(message)
    }

    pub(super) fn malformed_answer(&self, problem: &str) -> ModelError {
        let name = &self.config.name;
        ModelError::provider_unavailable(format!("{name} answered what cannot be used: {problem}"))
    }

    pub(super) fn answer_too_large(&self) -> ModelError {
        let message = format!("{} answered more than 8 MiB of text", self.config.name);
        ModelError::new("provider.unavailable", false, message)
    }
}
