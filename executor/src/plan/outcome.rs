//! Outcomes of effects and waits, as plain data, and the failures that several rooms make.

use std::fmt;
use std::sync::Arc;

use convergio_domain::chat::ChatReply;
use convergio_domain::failure::{PlatformText, UnsealedFailure};
use convergio_domain::id::StepId;
use convergio_domain::payload::PayloadRef;
use convergio_domain::platform_text;
use convergio_domain::run::{CallReport, Resolution, ToolCallNumber, apply_retry_hint};
use convergio_domain::time::Timestamp;
use convergio_eventstore::LogLimits;
use serde_json::Value;

/// Maximum bytes of a step's output.
pub(crate) const OUTPUT_BYTES_LIMIT: usize = 4 << 20;

/// Result of an effect, or of a wait.
#[derive(Debug, Clone)]
pub(crate) struct EffectResult {
    pub(crate) step: StepId,
    pub(crate) attempt: u32,
    /// The tool call of an agent, if it was one.
    pub(crate) tool_call: Option<ToolCallNumber>,
    pub(crate) outcome: EffectOutcome,
    pub(crate) call_report: Option<CallReport>,
}

impl EffectResult {
    /// Returns the start of the next attempt, not before the provider accepts calls again.
    pub(crate) fn delay_to_hint(&self, due: Timestamp, now: Timestamp) -> Timestamp {
        let hint = self.call_report.as_ref().and_then(|call| call.retry_after);
        apply_retry_hint(due, now, hint)
    }
}

/// Outcome of an attempt.
#[derive(Debug, Clone)]
pub(crate) enum EffectOutcome {
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

/// Returns the bytes of text in a value, which determine how long a pure tool takes.
pub(crate) fn value_bytes(value: &Value) -> usize {
    match value {
        Value::String(text) => text.len(),
        Value::Array(list) => list.iter().map(value_bytes).sum(),
        Value::Object(fields) => fields.values().map(value_bytes).sum(),
        _ => 8,
    }
}

pub(crate) fn completed_outcome(value: Value) -> EffectOutcome {
    completed_outcome_within(value, OUTPUT_BYTES_LIMIT)
}

pub(crate) fn completed_outcome_within(value: Value, limit: usize) -> EffectOutcome {
    let bytes = value_bytes(&value);
    if bytes > limit {
        let message = platform_text!("the output has {} bytes: at most {}", bytes, limit);
        return EffectOutcome::Failed(new_failure("request.too_large", message));
    }
    EffectOutcome::Completed(Some(Arc::new(value)))
}

pub(crate) fn new_failure(code: &'static str, message: PlatformText) -> UnsealedFailure {
    UnsealedFailure::new(code, message)
}

/// Builds the failure of an answer that should have been JSON. It is retryable: a model may do
/// better.
pub(crate) fn invalid_json_answer(error: &dyn fmt::Display) -> UnsealedFailure {
    let message = platform_text!("the answer is not the JSON that was asked for");
    let failure = new_failure("provider.invalid_answer", message);
    UnsealedFailure { retryable: true, ..failure }.with_cause(error)
}

/// Builds the failure of a step that would write a larger payload than the log takes.
pub(crate) fn oversized_step_failure(step: &StepId, bytes: usize) -> UnsealedFailure {
    let limit = LogLimits::PAYLOAD_BYTES;
    let message = platform_text!("step {}: {} bytes in one piece: at most {}", step, bytes, limit);
    new_failure("request.too_large", message)
}
