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
use convergio_domain::run::{CallNo, CallReport, Fallback, Resolution, keep_to_hint};
use convergio_domain::stream::StreamKey;
use convergio_domain::time::{Span, Timestamp};
use convergio_eventstore::{Limits, LiveNote};
use futures_util::FutureExt;
use serde_json::Value;
use tokio_util::sync::CancellationToken;
use tracing::Instrument;

use super::children::{self, NewChild};
use super::hop::Question;
use super::{Shared, span};
use crate::model::{
    Admission, Call, ChatAnswer, ModelError, Piece, Provider, ServiceCall, provider_cost,
};
use crate::tool;

/// Maximum bytes of arguments that a pure tool handles on an async worker thread.
const INLINE_BYTES: usize = 64 << 10;
/// Maximum pause requested by a provider that is waited for while a client waits for the answer.
const LONGEST_AWAITED_PAUSE: Duration = Duration::from_secs(10);
/// Maximum bytes of a step's output.
const OUTPUT_LIMIT: usize = 4 << 20;

/// An effect to launch after its commit.
pub(super) struct Launch {
    pub(super) step: StepId,
    pub(super) attempt: u32,
    /// The tool call of an agent, if it is one.
    pub(super) at: Option<CallNo>,
    pub(super) timeout: Duration,
    pub(super) work: Work,
}

/// The work of an effect.
pub(super) enum Work {
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
    pub(super) answers: Answers,
    pub(super) question: Box<Question>,
}

impl ModelCall {
    /// Returns whether the provider asks for a longer pause than a waiting client is kept for. The
    /// client gets the failure and may ask again itself.
    fn is_paused_too_long(&self, error: &ModelError) -> bool {
        let is_awaited = self.answers == Answers::Whole;
        is_awaited && error.retry_after.is_some_and(|pause| pause > LONGEST_AWAITED_PAUSE)
    }
}

/// Form in which an answer becomes the output of its step.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Answers {
    /// The answer's text, as a JSON string.
    Text,
    /// The text parsed as JSON.
    Json,
    /// The whole reply. It was streamed to the client piece by piece, so once begun it must not be
    /// restarted unnoticed.
    Whole,
    /// The whole reply of a turn; another turn may follow.
    Turn,
}

/// Result of an effect, or of a wait.
#[derive(Debug, Clone)]
pub(super) struct Done {
    pub(super) step: StepId,
    pub(super) attempt: u32,
    /// The tool call of an agent, if it was one.
    pub(super) at: Option<CallNo>,
    pub(super) result: DoneResult,
    pub(super) call: Option<CallReport>,
}

impl Done {
    /// Returns the start of the next attempt, not before the provider accepts calls again.
    pub(super) fn keep_to_hint(&self, due: Timestamp, now: Timestamp) -> Timestamp {
        let hint = self.call.as_ref().and_then(|call| call.retry_after);
        keep_to_hint(due, now, hint)
    }
}

/// Outcome of an attempt.
#[derive(Debug, Clone)]
pub(super) enum DoneResult {
    /// It yielded a value, or nothing.
    Completed(Option<Arc<Value>>),
    /// A branch took the case of this number.
    Chosen(u32),
    /// The attempt failed; whether another one follows is the domain's rule.
    Failed(UnsealedFailure),
    /// A turn of an agent was answered.
    Answered(Box<ChatReply>),
    /// Every tool call of an agent's turn has ended.
    TurnOver,
    /// A child run was created.
    Created,
    /// A child run ended with this output, which is in the log.
    Yielded(Option<PayloadRef>),
    /// A child run ended, and its output has been loaded.
    Opened(Option<(PayloadRef, Arc<Value>)>),
    /// The outcome is unknown: the executor died or was stopped.
    Interrupted,
    /// A person decided about the step, and may have given its output.
    Decided(Resolution, Option<Arc<Value>>),
}

/// Runs an effect to its end. A panic of a tool or a provider adapter fails the step.
///
/// Large futures are boxed where they begin: this one is moved several times on its way to its
/// task, which for a small tool would cost more than the call.
pub(super) async fn perform(
    shared: Arc<Shared>,
    stream: StreamKey,
    launch: Launch,
    child: Option<Box<NewChild>>,
    started: Timestamp,
    cancel: CancellationToken,
) -> Done {
    let span = span::of(&stream, &launch);
    let Launch { step, attempt, at, timeout, work } = launch;
    let effect = async {
        match work {
            Work::Tool { name, args } if !tool::is_pure(&name) => {
                // The name is the same in all attempts of the step, because turns are kept over
                // attempts.
                let call = at.map(|at| format!("/{}/{}", at.turn, at.call));
                let origin = format!("{}/{step}{}", stream.name(), call.unwrap_or_default());
                let scope = shared.tool_scope(&stream, origin, started);
                let call = Box::pin(async { outcome(tool::perform(&scope, &name, &args).await) });
                (within(timeout, call).await, None)
            }
            Work::Tool { name, args } => {
                (within(timeout, call_tool(name, args, started)).await, None)
            }
            Work::Model(call) => {
                let asked =
                    Asked { shared: &shared, stream: &stream, step: &step, attempt, timeout };
                Box::pin(asked.ask(call, &cancel)).await
            }
            Work::Child(_) => match child {
                Some(child) => {
                    let created = children::create(&shared, &stream, *child, &cancel);
                    (Box::pin(created).await, None)
                }
                None => (DoneResult::Created, None),
            },
        }
    };
    // Tools and adapters are foreign code: their panic must not take the actor down.
    let caught = AssertUnwindSafe(effect).catch_unwind().instrument(span.clone()).await;
    let (result, call) = caught.unwrap_or_else(|_| {
        let message =
            platform_text!("the step's code panicked: this is a defect, please report it");
        (DoneResult::Failed(failure("internal", message)), None)
    });
    let done = Done { step, attempt, at, result, call };
    span::note(&span, &done);
    done
}

/// Awaits a tool's outcome; a failure after `timeout`. The tool is then dropped, or runs on
/// unheard.
async fn within(timeout: Duration, call: impl Future<Output = DoneResult>) -> DoneResult {
    tokio::time::timeout(timeout, call).await.unwrap_or_else(|_| {
        let message =
            platform_text!("the tool took longer than {}: raise the node's timeout", timeout);
        DoneResult::Failed(UnsealedFailure { retryable: true, ..failure("tool.timeout", message) })
    })
}

async fn call_tool(name: String, args: Value, now: Timestamp) -> DoneResult {
    // Arguments are small as a rule, and a task of its own costs more than such a call.
    let called = if size_of(&args) <= INLINE_BYTES {
        tool::call(&name, &args, now)
    } else {
        let task = tokio::task::spawn_blocking(move || tool::call(&name, &args, now));
        let lost = || failure("internal", platform_text!("the tool's code did not end"));
        task.await.unwrap_or_else(|error| Err(lost().with_cause(error)))
    };
    outcome(called)
}

fn outcome(called: Result<Value, UnsealedFailure>) -> DoneResult {
    match called {
        Ok(value) => completed(value),
        Err(error) => DoneResult::Failed(error),
    }
}

/// Returns the bytes of text in a value, which determine how long a pure tool takes.
fn size_of(value: &Value) -> usize {
    match value {
        Value::String(text) => text.len(),
        Value::Array(list) => list.iter().map(size_of).sum(),
        Value::Object(fields) => fields.values().map(size_of).sum(),
        _ => 8,
    }
}

pub(super) fn completed(value: Value) -> DoneResult {
    completed_within(value, OUTPUT_LIMIT)
}

fn completed_within(value: Value, limit: usize) -> DoneResult {
    let bytes = size_of(&value);
    if bytes > limit {
        let message = platform_text!("the output has {} bytes: at most {}", bytes, limit);
        return DoneResult::Failed(failure("request.too_large", message));
    }
    DoneResult::Completed(Some(Arc::new(value)))
}

pub(super) fn failure(code: &'static str, message: PlatformText) -> UnsealedFailure {
    UnsealedFailure::new(code, message)
}

/// Builds the failure of an answer that should have been JSON. It is retryable: a model may do
/// better.
pub(super) fn not_json(error: &dyn fmt::Display) -> UnsealedFailure {
    let message = platform_text!("the answer is not the JSON that was asked for");
    let failure = failure("provider.invalid_answer", message);
    UnsealedFailure { retryable: true, ..failure }.with_cause(error)
}

/// A model call in progress, and its place in the run.
struct Asked<'a> {
    shared: &'a Shared,
    stream: &'a StreamKey,
    step: &'a StepId,
    attempt: u32,
    timeout: Duration,
}

impl Asked<'_> {
    async fn ask(
        &self,
        call: ModelCall,
        cancel: &CancellationToken,
    ) -> (DoneResult, Option<CallReport>) {
        let mut answer = self.send(&call, None, cancel).await;
        // A call refused for load goes to another model if one would do.
        if let Err(refusal) = &answer
            && refusal.is_load_refusal
            && !call.is_paused_too_long(refusal)
            && !cancel.is_cancelled()
            && self.fallback(&call, &refusal.clone().into_failure()).await.is_none()
        {
            // There is no other model. It is still the same attempt, because the provider did
            // nothing.
            answer = self.send(&call, Some(refusal), cancel).await;
        }
        match answer {
            Ok(answer) => {
                let mut report = self.report(&call, &answer);
                // A waiting client judges the reply itself; a step needs one that is usable.
                let use_check = match call.answers {
                    Answers::Whole => answer.check_size(),
                    _ => answer.check_use(call.provider.name()),
                };
                let result = match use_check {
                    Ok(()) => value_of(&call, answer),
                    Err(error) => {
                        let failure = error.into_failure();
                        report.fallback = self.fallback(&call, &failure).await;
                        DoneResult::Failed(failure)
                    }
                };
                (result, Some(report))
            }
            Err(error) => self.failed(&call, error, cancel.is_cancelled()).await,
        }
    }

    /// Sends the call when the provider's limits admit it. One that was refused for load waits
    /// until it is admitted.
    async fn send(
        &self,
        call: &ModelCall,
        refusal: Option<&ModelError>,
        cancel: &CancellationToken,
    ) -> Result<ChatAnswer, ModelError> {
        let sink = |piece: Piece| {
            let (step, attempt) = (self.step.to_string(), self.attempt);
            let Piece { kind, part, offset, text, tokens_out } = piece;
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
            self.shared.live.publish(self.stream, note);
        };
        let admission = Admission {
            run: Some(RunId(self.stream.id)),
            process_places: Some(&self.shared.model_calls),
            waits_out_refusals: refusal.is_some(),
            refusal,
        };
        let asked = Call {
            model: &call.model,
            body: &call.body,
            media_type: &call.media_type,
            headers: &call.headers,
            timeout: self.timeout,
            idempotency_key: Some(&call.idempotency_key),
            admission,
        };
        match call.service {
            Some(service) => call.provider.serve(service, asked, cancel).await,
            None => call.provider.chat(asked, &sink, cancel).await,
        }
    }

    /// Returns the fallback to another model after a failure, if one would do.
    async fn fallback(&self, call: &ModelCall, failure: &UnsealedFailure) -> Option<Fallback> {
        let asked = (call.provider.name(), call.model.as_str());
        call.question.fallback(&self.shared.models, asked, failure).await
    }

    /// Builds the report of an answered call, with its cost by the price book.
    fn report(&self, call: &ModelCall, answer: &ChatAnswer) -> CallReport {
        let provider = call.provider.name();
        let query = PriceQuery {
            service_tier: answer.service_tier.as_deref(),
            ..self.shared.price_query(call.provider.info(), &call.model)
        };
        CallReport {
            provider: provider.to_owned(),
            model: call.model.clone(),
            finish: Some(finish_word(&answer.finish).to_owned()),
            duration_ms: answer.duration_ms,
            first_token_ms: answer.first_token_ms,
            service_tier: answer.service_tier.clone(),
            charge: self.shared.prices.charge(query, &answer.usage),
            provider_cost: answer.raw_usage.as_ref().and_then(provider_cost),
            usage: Some(answer.usage.clone()),
            confirmed: answer.confirmed,
            fallback: None,
            retry_after: None,
        }
    }

    /// Handles a failed call. If this executor cancelled it the outcome is unknown; usage so far is
    /// recorded.
    async fn failed(
        &self,
        call: &ModelCall,
        error: ModelError,
        is_cancelled: bool,
    ) -> (DoneResult, Option<CallReport>) {
        let provider = call.provider.name();
        let usage = error.partial_usage.clone();
        let query = self.shared.price_query(call.provider.info(), &call.model);
        let charge = usage.as_ref().and_then(|usage| self.shared.prices.charge(query, usage));
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
            retry_after: error.retry_after.map(span),
        };
        if is_cancelled {
            return (DoneResult::Interrupted, Some(report));
        }
        // Tells a streaming client how long the provider wants to be left alone.
        if let Some(pause) = error.retry_after {
            let (step, attempt) = (self.step.to_string(), self.attempt);
            let retry_after_ms = u64::try_from(pause.as_millis()).ok();
            let note = LiveNote { step, attempt, retry_after_ms, ..LiveNote::default() };
            self.shared.live.publish(self.stream, note);
        }
        let is_heard = call.answers == Answers::Whole && error.has_begun;
        let is_paused_too_long = call.is_paused_too_long(&error);
        let failure = error.into_failure();
        // A reply that was partly streamed cannot be handed to another model unnoticed.
        if !is_heard {
            report.fallback = self.fallback(call, &failure).await;
        }
        // A pause that is too long for a waiting client is no obstacle to another model.
        let may_wait = !is_paused_too_long || report.fallback.is_some();
        let retryable = failure.retryable && !is_heard && may_wait;
        (DoneResult::Failed(UnsealedFailure { retryable, ..failure }), Some(report))
    }
}

/// Maps the provider's finish reason to a closed set; the reply keeps the provider's own word.
fn finish_word(finish: &str) -> &'static str {
    const WORDS: [&str; 5] = ["content_filter", "length", "pause", "stop", "tool_calls"];
    WORDS.into_iter().find(|word| *word == finish).unwrap_or("other")
}

/// Converts a duration, rounded up to a millisecond, so that nobody retries too early.
fn span(duration: Duration) -> Span {
    let ms = duration.as_nanos().div_ceil(1_000_000);
    Span(u64::try_from(ms).unwrap_or(u64::MAX))
}

/// Converts the answer to the output that the manifest asks for.
fn value_of(call: &ModelCall, answer: ChatAnswer) -> DoneResult {
    let read = match call.answers {
        Answers::Text => return completed(Value::String(answer.text())),
        Answers::Turn => {
            let reply = answer.into_reply(call.provider.name());
            return DoneResult::Answered(Box::new(reply));
        }
        Answers::Json => read_json(answer.text().as_bytes()),
        Answers::Whole => {
            serde_json::to_value(answer.into_reply(call.provider.name())).map_err(JsonError::from)
        }
    };
    // Vectors and audio are large by nature, and their size was checked: the log's limit applies.
    let limit = if call.service.is_some() { Limits::PAYLOAD_BYTES } else { OUTPUT_LIMIT };
    match read {
        Ok(value) => completed_within(value, limit),
        Err(error) => DoneResult::Failed(not_json(&error)),
    }
}
