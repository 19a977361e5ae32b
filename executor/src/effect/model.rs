//! Model calls: sent when the provider's limits admit them, with their answer as the output that
//! the manifest asks for.

use std::time::Duration;

use convergio_domain::billing::PriceQuery;
use convergio_domain::failure::UnsealedFailure;
use convergio_domain::id::{RunId, StepId};
use convergio_domain::json::{JsonError, read_json};
use convergio_domain::run::{CallReport, Fallback};
use convergio_domain::stream::StreamKey;
use convergio_domain::time::Span;
use convergio_eventstore::{LiveNote, LogLimits};
use serde_json::Value;
use tokio_util::sync::CancellationToken;

use super::fallback::find_fallback;
use crate::plan::{
    EffectOutcome, ModelCall, OUTPUT_BYTES_LIMIT, OutputFormat, completed_outcome,
    completed_outcome_within, invalid_json_answer,
};
use crate::provider::{
    AnswerPiece, CallAdmission, ChatAnswer, ModelError, ProviderCall, provider_cost,
};
use crate::services::SharedServices;

/// Maximum pause requested by a provider that is waited for while a client waits for the answer.
const AWAITED_PAUSE_LIMIT: Duration = Duration::from_secs(10);
/// A model call in progress, and its place in the run.
pub(super) struct ModelCallRunner<'a> {
    pub(super) shared: &'a SharedServices,
    pub(super) stream: &'a StreamKey,
    pub(super) step: &'a StepId,
    pub(super) attempt: u32,
    pub(super) timeout: Duration,
}

impl ModelCallRunner<'_> {
    /// Makes the call, and hands it on once it was refused for load and no other model would do.
    pub(super) async fn call_model(
        &self,
        call: ModelCall,
        cancel: &CancellationToken,
    ) -> (EffectOutcome, Option<CallReport>) {
        let mut answer = self.send_call(&call, None, cancel).await;
        // A call refused for load goes to another model if one would do.
        if let Err(refusal) = &answer
            && refusal.is_load_refusal
            && !is_paused_too_long(&call, refusal)
            && !cancel.is_cancelled()
            && self.find_fallback(&call, &refusal.clone().into_failure()).await.is_none()
        {
            // There is no other model. It is still the same attempt, because the provider did
            // nothing.
            answer = self.send_call(&call, Some(refusal), cancel).await;
        }
        match answer {
            Ok(answer) => {
                let mut report = self.call_report(&call, &answer);
                // A waiting client judges the reply itself; a step needs one that is usable.
                let use_check = match call.output_format {
                    OutputFormat::FullReply => answer.check_size(),
                    _ => answer.check_use(call.provider.name()),
                };
                let result = match use_check {
                    Ok(()) => answer_outcome(&call, answer),
                    Err(error) => {
                        let failure = error.into_failure();
                        report.fallback = self.find_fallback(&call, &failure).await;
                        EffectOutcome::Failed(failure)
                    }
                };
                (result, Some(report))
            }
            Err(error) => self.failed_call(&call, error, cancel.is_cancelled()).await,
        }
    }

    /// Sends the call when the provider's limits admit it. One that was refused for load waits
    /// until it is admitted.
    async fn send_call(
        &self,
        call: &ModelCall,
        refusal: Option<&ModelError>,
        cancel: &CancellationToken,
    ) -> Result<ChatAnswer, ModelError> {
        let sink = |piece: AnswerPiece| {
            let (step, attempt) = (self.step.to_string(), self.attempt);
            let AnswerPiece { kind, part, offset, text, tokens_out } = piece;
            let note = LiveNote {
                step,
                attempt,
                tokens_out,
                kind,
                part,
                offset,
                text,
                retry_after_ms: None,
            };
            self.shared.live.publish_note(self.stream, note);
        };
        let admission = CallAdmission {
            run: Some(RunId(self.stream.id)),
            process_permits: Some(&self.shared.model_calls),
            waits_out_refusals: refusal.is_some(),
            refusal,
        };
        let provider_call = ProviderCall {
            model: &call.model,
            body: &call.body,
            media_type: &call.media_type,
            headers: &call.headers,
            timeout: self.timeout,
            idempotency_key: Some(&call.idempotency_key),
            admission,
        };
        match call.service {
            Some(service) => call.provider.call_service(service, provider_call, cancel).await,
            None => call.provider.complete_chat(provider_call, &sink, cancel).await,
        }
    }

    /// Returns the fallback to another model after a failure, if one would do.
    async fn find_fallback(&self, call: &ModelCall, failure: &UnsealedFailure) -> Option<Fallback> {
        let failed_model = (call.provider.name(), call.model.as_str());
        find_fallback(&call.fallback_context, &self.shared.models, failed_model, failure).await
    }

    /// Builds the report of an answered call, with its cost by the price book.
    fn call_report(&self, call: &ModelCall, answer: &ChatAnswer) -> CallReport {
        let provider = call.provider.name();
        let query = PriceQuery {
            service_tier: answer.service_tier.as_deref(),
            ..self.shared.price_query(call.provider.provider_config(), &call.model)
        };
        CallReport {
            finish: Some(normalized_finish_reason(&answer.finish).to_owned()),
            duration_ms: answer.duration_ms,
            first_token_ms: answer.first_token_ms,
            service_tier: answer.service_tier.clone(),
            charge: self.shared.prices.charge_call(query, &answer.usage),
            provider_cost: answer.raw_usage.as_ref().and_then(provider_cost),
            usage: Some(answer.usage.clone()),
            confirmed: answer.confirmed,
            ..CallReport::unconfirmed(provider, &call.model)
        }
    }

    /// Handles a failed call. If this executor cancelled it the outcome is unknown; usage so far is
    /// recorded.
    async fn failed_call(
        &self,
        call: &ModelCall,
        error: ModelError,
        is_cancelled: bool,
    ) -> (EffectOutcome, Option<CallReport>) {
        let provider = call.provider.name();
        let usage = error.partial_usage.clone();
        let query = self.shared.price_query(call.provider.provider_config(), &call.model);
        let charge = usage.as_ref().and_then(|usage| self.shared.prices.charge_call(query, usage));
        let mut report = CallReport {
            duration_ms: error.duration_ms,
            usage,
            charge,
            retry_after: error.retry_after.map(to_span_rounded_up),
            ..CallReport::unconfirmed(provider, &call.model)
        };
        if is_cancelled {
            return (EffectOutcome::Interrupted, Some(report));
        }
        // Tells a streaming client how long the provider wants to be left alone.
        if let Some(pause) = error.retry_after {
            let (step, attempt) = (self.step.to_string(), self.attempt);
            let retry_after_ms = u64::try_from(pause.as_millis()).ok();
            let note = LiveNote { step, attempt, retry_after_ms, ..LiveNote::default() };
            self.shared.live.publish_note(self.stream, note);
        }
        let is_partly_streamed = call.output_format == OutputFormat::FullReply && error.has_begun;
        let is_paused_too_long = is_paused_too_long(call, &error);
        let failure = error.into_failure();
        // A reply that was partly streamed cannot be handed to another model unnoticed.
        if !is_partly_streamed {
            report.fallback = self.find_fallback(call, &failure).await;
        }
        // A pause that is too long for a waiting client is no obstacle to another model.
        let may_wait = !is_paused_too_long || report.fallback.is_some();
        let retryable = failure.retryable && !is_partly_streamed && may_wait;
        (EffectOutcome::Failed(UnsealedFailure { retryable, ..failure }), Some(report))
    }
}

/// Returns whether the provider asks for a longer pause than a waiting client is kept for. The
/// client gets the failure and may ask again itself.
fn is_paused_too_long(call: &ModelCall, error: &ModelError) -> bool {
    let is_awaited = call.output_format == OutputFormat::FullReply;
    is_awaited && error.retry_after.is_some_and(|pause| pause > AWAITED_PAUSE_LIMIT)
}

/// Maps the provider's finish reason to a closed set; the reply keeps the provider's own word.
fn normalized_finish_reason(finish: &str) -> &'static str {
    const WORDS: [&str; 5] = ["content_filter", "length", "pause", "stop", "tool_calls"];
    WORDS.into_iter().find(|word| *word == finish).unwrap_or("other")
}

/// Converts a duration, rounded up to a millisecond, so that nobody retries too early.
fn to_span_rounded_up(duration: Duration) -> Span {
    let ms = duration.as_nanos().div_ceil(1_000_000);
    Span(u64::try_from(ms).unwrap_or(u64::MAX))
}

/// Converts the answer to the output that the manifest asks for.
fn answer_outcome(call: &ModelCall, answer: ChatAnswer) -> EffectOutcome {
    let parsed = match call.output_format {
        OutputFormat::Text => return completed_outcome(Value::String(answer.joined_text())),
        OutputFormat::TurnReply => {
            let reply = answer.into_reply(call.provider.name());
            return EffectOutcome::TurnAnswered(Box::new(reply));
        }
        OutputFormat::Json => read_json(answer.joined_text().as_bytes()),
        OutputFormat::FullReply => {
            serde_json::to_value(answer.into_reply(call.provider.name())).map_err(JsonError::from)
        }
    };
    // Vectors and audio are large by nature, and their size was checked: the log's limit applies.
    let limit = if call.service.is_some() { LogLimits::PAYLOAD_BYTES } else { OUTPUT_BYTES_LIMIT };
    match parsed {
        Ok(value) => completed_outcome_within(value, limit),
        Err(error) => EffectOutcome::Failed(invalid_json_answer(&error)),
    }
}
