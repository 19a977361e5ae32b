//! Effects: model calls, tool calls and the creation of child runs, once their intents are durable.

use std::fmt;
use std::panic::AssertUnwindSafe;
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use convergio_domain::chat::ChatReply;
use convergio_domain::failure::{PlatformText, UnsealedFailure};
use convergio_domain::id::{RunId, StepId};
use convergio_domain::json::{JsonError, read_json};
use convergio_domain::metering::PriceQuery;
use convergio_domain::payload::PayloadRef;
use convergio_domain::platform_text;
use convergio_domain::run::{CallReport, Fallback, Resolution, ToolCallNumber, apply_retry_hint};
use convergio_domain::stream::StreamKey;
use convergio_domain::time::{Span, Timestamp};
use convergio_eventstore::{LiveNote, LogLimits};
use futures_util::FutureExt;
use serde_json::Value;
use tokio_util::sync::CancellationToken;
use tracing::Instrument;

use super::children::{self, NewChild};
use super::fallback::FallbackContext;
use super::{SharedServices, trace};
use crate::provider::{
    AnswerPiece, CallAdmission, ChatAnswer, ModelError, Provider, ProviderCall, ServiceCall,
    provider_cost,
};
use crate::tool;

/// Maximum bytes of arguments that a pure tool handles on an async worker thread.
const INLINE_TOOL_BYTES: usize = 64 << 10;
/// Maximum pause requested by a provider that is waited for while a client waits for the answer.
const AWAITED_PAUSE_LIMIT: Duration = Duration::from_secs(10);
/// Maximum bytes of a step's output.
const OUTPUT_BYTES_LIMIT: usize = 4 << 20;

/// An effect to launch after its commit.
pub(super) struct EffectLaunch {
    pub(super) step: StepId,
    pub(super) attempt: u32,
    /// The tool call of an agent, if it is one.
    pub(super) tool_call: Option<ToolCallNumber>,
    pub(super) timeout: Duration,
    pub(super) work: EffectWork,
}

/// The work of an effect.
pub(super) enum EffectWork {
    Tool {
        name: String,
        args: Value,
    },
    Model(ModelCall),
    /// Creates a child run, or lets it go on.
    Child(RunId),
}

/// A model call whose exact request is in the log already.
pub(super) struct ModelCall {
    pub(super) provider: Arc<dyn Provider>,
    pub(super) model: String,
    pub(super) body: Bytes,
    pub(super) media_type: String,
    pub(super) headers: Vec<(&'static str, String)>,
    /// Service other than chat, such as embeddings or speech.
    pub(super) service: Option<ServiceCall>,
    pub(super) idempotency_key: String,
    pub(super) output_format: OutputFormat,
    pub(super) fallback_context: Box<FallbackContext>,
}

impl ModelCall {
    /// Returns whether the provider asks for a longer pause than a waiting client is kept for. The
    /// client gets the failure and may ask again itself.
    fn is_paused_too_long(&self, error: &ModelError) -> bool {
        let is_awaited = self.output_format == OutputFormat::FullReply;
        is_awaited && error.retry_after.is_some_and(|pause| pause > AWAITED_PAUSE_LIMIT)
    }
}

/// Form in which an answer becomes the output of its step.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum OutputFormat {
    /// The answer's text, as a JSON string.
    Text,
    /// The text parsed as JSON.
    Json,
    /// The whole reply. It was streamed to the client piece by piece, so once begun it must not be
    /// restarted unnoticed.
    FullReply,
    /// The whole reply of a turn; another turn may follow.
    TurnReply,
}

/// Result of an effect, or of a wait.
#[derive(Debug, Clone)]
pub(super) struct EffectResult {
    pub(super) step: StepId,
    pub(super) attempt: u32,
    /// The tool call of an agent, if it was one.
    pub(super) tool_call: Option<ToolCallNumber>,
    pub(super) outcome: EffectOutcome,
    pub(super) call_report: Option<CallReport>,
}

impl EffectResult {
    /// Returns the start of the next attempt, not before the provider accepts calls again.
    pub(super) fn delay_to_hint(&self, due: Timestamp, now: Timestamp) -> Timestamp {
        let hint = self.call_report.as_ref().and_then(|call| call.retry_after);
        apply_retry_hint(due, now, hint)
    }
}

/// Outcome of an attempt.
#[derive(Debug, Clone)]
pub(super) enum EffectOutcome {
    /// It yielded a value, or nothing.
    Completed(Option<Arc<Value>>),
    /// A branch took the case of this number.
    BranchTaken(u32),
    /// The attempt failed; whether another one follows is the domain's rule.
    Failed(UnsealedFailure),
    /// A turn of an agent was answered.
    TurnAnswered(Box<ChatReply>),
    /// Every tool call of an agent's turn has ended.
    ToolsAnswered,
    /// A child run was created.
    ChildCreated,
    /// A child run ended with this output, which is in the log.
    ChildYielded(Option<PayloadRef>),
    /// A child run ended, and its output has been loaded.
    ChildOutputLoaded(Option<(PayloadRef, Arc<Value>)>),
    /// The outcome is unknown: the executor died or was stopped.
    Interrupted,
    /// A person decided about the step, and may have given its output.
    Resolved(Resolution, Option<Arc<Value>>),
}

/// Runs an effect to its end. A panic of a tool or a provider adapter fails the step.
///
/// Large futures are boxed where they begin: this one is moved several times on its way to its
/// task, which for a small tool would cost more than the call.
pub(super) async fn run_effect(
    shared: Arc<SharedServices>,
    stream: StreamKey,
    launch: EffectLaunch,
    child: Option<Box<NewChild>>,
    started: Timestamp,
    cancel: CancellationToken,
) -> EffectResult {
    let effect_span = trace::effect_span(&stream, &launch);
    let EffectLaunch { step, attempt, tool_call, timeout, work } = launch;
    let effect = async {
        match work {
            EffectWork::Tool { name, args } if !tool::is_pure(&name) => {
                // The name is the same in all attempts of the step, because turns are kept over
                // attempts.
                let call = tool_call.map(|at| format!("/{}/{}", at.turn, at.call));
                let origin = format!("{}/{step}{}", stream.stream_name(), call.unwrap_or_default());
                let scope = shared.tool_scope(&stream, origin, started);
                let call =
                    Box::pin(async { to_outcome(tool::call_tool(&scope, &name, &args).await) });
                (with_timeout(timeout, call).await, None)
            }
            EffectWork::Tool { name, args } => {
                (with_timeout(timeout, run_pure_tool(name, args, started)).await, None)
            }
            EffectWork::Model(call) => {
                let runner = ModelCallRunner {
                    shared: &shared,
                    stream: &stream,
                    step: &step,
                    attempt,
                    timeout,
                };
                Box::pin(runner.call_model(call, &cancel)).await
            }
            EffectWork::Child(_) => match child {
                Some(child) => {
                    let created = children::create_child(&shared, &stream, *child, &cancel);
                    (Box::pin(created).await, None)
                }
                None => (EffectOutcome::ChildCreated, None),
            },
        }
    };
    // Tools and adapters are foreign code: their panic must not take the actor down.
    let caught_result =
        AssertUnwindSafe(effect).catch_unwind().instrument(effect_span.clone()).await;
    let (outcome, call_report) = caught_result.unwrap_or_else(|_| {
        let message =
            platform_text!("the step's code panicked: this is a defect, please report it");
        (EffectOutcome::Failed(new_failure("internal", message)), None)
    });
    let effect_result = EffectResult { step, attempt, tool_call, outcome, call_report };
    trace::record_result(&effect_span, &effect_result);
    effect_result
}

/// Awaits a tool's outcome; a failure after `timeout`. The tool is then dropped, or runs on
/// unheard.
async fn with_timeout(
    timeout: Duration,
    call: impl Future<Output = EffectOutcome>,
) -> EffectOutcome {
    tokio::time::timeout(timeout, call).await.unwrap_or_else(|_| {
        let message =
            platform_text!("the tool took longer than {}: raise the node's timeout", timeout);
        EffectOutcome::Failed(UnsealedFailure {
            retryable: true,
            ..new_failure("tool.timeout", message)
        })
    })
}

async fn run_pure_tool(name: String, args: Value, now: Timestamp) -> EffectOutcome {
    // Arguments are small as a rule, and a task of its own costs more than such a call.
    let result = if value_bytes(&args) <= INLINE_TOOL_BYTES {
        tool::call_pure_tool(&name, &args, now)
    } else {
        let task = tokio::task::spawn_blocking(move || tool::call_pure_tool(&name, &args, now));
        let lost = || new_failure("internal", platform_text!("the tool's code did not end"));
        task.await.unwrap_or_else(|error| Err(lost().with_cause(error)))
    };
    to_outcome(result)
}

fn to_outcome(result: Result<Value, UnsealedFailure>) -> EffectOutcome {
    match result {
        Ok(value) => completed_outcome(value),
        Err(error) => EffectOutcome::Failed(error),
    }
}

/// Returns the bytes of text in a value, which determine how long a pure tool takes.
fn value_bytes(value: &Value) -> usize {
    match value {
        Value::String(text) => text.len(),
        Value::Array(list) => list.iter().map(value_bytes).sum(),
        Value::Object(fields) => fields.values().map(value_bytes).sum(),
        _ => 8,
    }
}

pub(super) fn completed_outcome(value: Value) -> EffectOutcome {
    completed_outcome_within(value, OUTPUT_BYTES_LIMIT)
}

fn completed_outcome_within(value: Value, limit: usize) -> EffectOutcome {
    let bytes = value_bytes(&value);
    if bytes > limit {
        let message = platform_text!("the output has {} bytes: at most {}", bytes, limit);
        return EffectOutcome::Failed(new_failure("request.too_large", message));
    }
    EffectOutcome::Completed(Some(Arc::new(value)))
}

pub(super) fn new_failure(code: &'static str, message: PlatformText) -> UnsealedFailure {
    UnsealedFailure::new(code, message)
}

/// Builds the failure of an answer that should have been JSON. It is retryable: a model may do
/// better.
pub(super) fn invalid_json_answer(error: &dyn fmt::Display) -> UnsealedFailure {
    let message = platform_text!("the answer is not the JSON that was asked for");
    let failure = new_failure("provider.invalid_answer", message);
    UnsealedFailure { retryable: true, ..failure }.with_cause(error)
}

/// A model call in progress, and its place in the run.
struct ModelCallRunner<'a> {
    shared: &'a SharedServices,
    stream: &'a StreamKey,
    step: &'a StepId,
    attempt: u32,
    timeout: Duration,
}

impl ModelCallRunner<'_> {
    async fn call_model(
        &self,
        call: ModelCall,
        cancel: &CancellationToken,
    ) -> (EffectOutcome, Option<CallReport>) {
        let mut answer = self.send_call(&call, None, cancel).await;
        // A call refused for load goes to another model if one would do.
        if let Err(refusal) = &answer
            && refusal.is_load_refusal
            && !call.is_paused_too_long(refusal)
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
        call.fallback_context.find_fallback(&self.shared.models, failed_model, failure).await
    }

    /// Builds the report of an answered call, with its cost by the price book.
    fn call_report(&self, call: &ModelCall, answer: &ChatAnswer) -> CallReport {
        let provider = call.provider.name();
        let query = PriceQuery {
            service_tier: answer.service_tier.as_deref(),
            ..self.shared.price_query(call.provider.provider_config(), &call.model)
        };
        CallReport {
            provider: provider.to_owned(),
            model: call.model.clone(),
            finish: Some(normalized_finish_reason(&answer.finish).to_owned()),
            duration_ms: answer.duration_ms,
            first_token_ms: answer.first_token_ms,
            service_tier: answer.service_tier.clone(),
            charge: self.shared.prices.charge_call(query, &answer.usage),
            provider_cost: answer.raw_usage.as_ref().and_then(provider_cost),
            usage: Some(answer.usage.clone()),
            confirmed: answer.confirmed,
            fallback: None,
            retry_after: None,
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
            provider: provider.to_owned(),
            model: call.model.clone(),
            finish: None,
            duration_ms: error.duration_ms,
            first_token_ms: None,
            usage,
            confirmed: false,
            service_tier: None,
            charge,
            provider_cost: None,
            fallback: None,
            retry_after: error.retry_after.map(to_span_rounded_up),
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
        let is_paused_too_long = call.is_paused_too_long(&error);
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
