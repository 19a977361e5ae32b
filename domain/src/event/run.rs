//! Events of a run, version 1.

use serde::{Deserialize, Serialize};

use crate::chat::Privacy;
pub use crate::failure::Failure;
use crate::failure::PlatformText;
use crate::id::{ActorId, ApprovalId, ExecutorId, GraphId, GraphVersion, NodeId, StepId};
use crate::metering::{Charge, Meter, Usage};
use crate::money::Money;
use crate::payload::PayloadRef;
use crate::run::{Budget, Fallback, Origin, Routing};
use crate::time::Timestamp;

/// `run.created.v1`: a graph version is to be executed.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Created {
    /// The graph.
    pub graph: GraphId,
    /// Its pinned version.
    pub version: GraphVersion,
    /// The inputs.
    pub input: PayloadRef,
    /// What the run may spend.
    pub budget: Budget,
    /// Where its conversations may travel at most.
    #[serde(default, skip_serializing_if = "Privacy::is_any")]
    pub privacy: Privacy,
    /// BLAKE3 of the request that created it, so that a retry is recognised.
    pub request_hash: String,
    /// The run that it belongs to, when it is one within another.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub origin: Option<Origin>,
}

/// `run.step.scheduled.v1`: the graph-step command; an executor may take it.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct StepScheduled {
    /// The step.
    pub step: StepId,
}

/// `run.step.started.v1`: an executor is about to perform the step. Durable before any effect.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct StepStarted {
    /// The step.
    pub step: StepId,
    /// The try, from 1.
    pub attempt: u32,
    /// Who performs it.
    pub executor: ExecutorId,
}

/// `run.map.expanded.v1`: a map node has become this many items.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct MapExpanded {
    /// The map node.
    pub node: NodeId,
    /// How many items.
    pub width: u32,
    /// How many of them may be in flight at once.
    pub max_parallel: u32,
}

/// `run.step.completed.v1`.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct StepCompleted {
    /// The step.
    pub step: StepId,
    /// The try that succeeded.
    pub attempt: u32,
    /// What it yielded; absent for nodes that yield nothing.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub output: Option<PayloadRef>,
    /// Nodes that will never run because of this outcome.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub skipped: Vec<NodeId>,
}

/// `run.step.failed.v1`: a try failed.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct StepFailed {
    /// The step.
    pub step: StepId,
    /// The try.
    pub attempt: u32,
    /// Why.
    pub error: Failure,
    /// Whether no further try follows.
    pub last: bool,
    /// Nodes that will never run because of this outcome.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub skipped: Vec<NodeId>,
}

/// `run.step.unknown.v1`: the executor died after the intent, the outcome is not known.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct StepUnknown {
    /// The step.
    pub step: StepId,
    /// The try whose outcome is unknown.
    pub attempt: u32,
}

/// `run.step.retried.v1`: another try will start.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct StepRetried {
    /// The step.
    pub step: StepId,
    /// The number of the new try.
    pub attempt: u32,
    /// When it may start: the back-off, its jitter drawn.
    pub due: Timestamp,
    /// Who is not asked again, when the new try asks somebody else.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub fallback: Option<Fallback>,
}

/// `run.branch.decided.v1`: which way a branch node goes.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct BranchDecided {
    /// The branch node.
    pub node: NodeId,
    /// The case taken: its index in the manifest; the number of cases means `else`.
    pub case: u32,
}

/// `run.timer.set.v1`: the step waits until a moment.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct TimerSet {
    /// The step that waits.
    pub step: StepId,
    /// Until when.
    pub due: Timestamp,
}

/// `run.timer.fired.v1`: the moment has come.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct TimerFired {
    /// The step that waited.
    pub step: StepId,
}

/// `run.approval.requested.v1`: a person is asked.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct ApprovalRequested {
    /// The question.
    pub approval: ApprovalId,
    /// The step that waits.
    pub step: StepId,
    /// Who may answer.
    pub role: String,
    /// What is approved, as shown to the person.
    pub content: PayloadRef,
    /// SHA-256 of exactly that content; the answer must name it.
    pub content_hash: String,
    /// When the question lapses.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub expires: Option<Timestamp>,
}

/// `run.approval.granted.v1` and `run.approval.denied.v1`: the answer.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct ApprovalAnswered {
    /// The question.
    pub approval: ApprovalId,
    /// Who answered.
    pub by: ActorId,
    /// SHA-256 of the content that was answered.
    pub content_hash: String,
    /// Why, in the person's words: only in events of before; else words of the platform.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub reason: Option<PlatformText>,
    /// The same, sealed.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub reason_at: Option<PayloadRef>,
}

/// `run.model_call.intended.v1`: a model is about to be called. Durable before the call.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct ModelCallIntended {
    /// The step.
    pub step: StepId,
    /// The try.
    pub attempt: u32,
    /// The agent's turn, from 1; 0 for an agent without tools.
    #[serde(default, skip_serializing_if = "is_zero")]
    pub turn: u32,
    /// The provider's name.
    pub provider: String,
    /// The model, as the provider writes it.
    pub model: String,
    /// Why the router chose it.
    pub route: String,
    /// What the router chose from; absent in logs of earlier programs.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub routing: Option<Box<Routing>>,
    /// The name of the key that is used, never the key.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub key: Option<String>,
    /// What was asked for and this provider does not take: it is left out of the request.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub left_out: Vec<String>,
    /// The exact request.
    pub prompt: PayloadRef,
    /// Worst case of tokens, held against the budget until the call is settled.
    pub reserved_tokens: u64,
    /// Worst case of money, held likewise; absent when the model has no price.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub reserved_cost: Option<Money>,
    /// Tokens that are sent, as estimated: what is booked when nobody knows what became of the
    /// call. Absent in logs of earlier programs.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub estimated_tokens: Option<u64>,
    /// What the estimate counts, for a call that is no chat; fresh tokens when absent.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub estimated_meter: Option<Meter>,
    /// Most tokens of the answer, where the budget and not the caller set it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub output_limit: Option<u32>,
    /// What the provider is told to recognise the call by, should it be sent again: the same one
    /// for every try that follows a try with an unknown outcome.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub idempotency_key: Option<String>,
}

/// `run.model_call.completed.v1`: a model answered.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct ModelCallCompleted {
    /// The step.
    pub step: StepId,
    /// The try.
    pub attempt: u32,
    /// The agent's turn, from 1; 0 for an agent without tools.
    #[serde(default, skip_serializing_if = "is_zero")]
    pub turn: u32,
    /// The model that answered, by its own word.
    pub model: String,
    /// Why it stopped: `stop`, `length`, ...
    pub finish: String,
    /// Milliseconds from the request to the last byte.
    pub duration_ms: u64,
    /// Milliseconds to the first token.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub first_token_ms: Option<u64>,
    /// The whole answer, a [`crate::chat::ChatReply`], when another turn follows.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub answer: Option<PayloadRef>,
}

/// `run.model_call.failed.v1`: the call failed with a known outcome.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct ModelCallFailed {
    /// The step.
    pub step: StepId,
    /// The try.
    pub attempt: u32,
    /// The agent's turn, from 1; 0 for an agent without tools.
    #[serde(default, skip_serializing_if = "is_zero")]
    pub turn: u32,
    /// Why.
    pub error: Failure,
}

/// What is held against a budget for one call.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct BudgetHold {
    /// Tokens.
    #[serde(default)]
    pub tokens: u64,
    /// Money.
    #[serde(default)]
    pub cost: Money,
}

/// `run.usage.recorded.v1`: what one model call used and cost.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct UsageRecorded {
    /// The step.
    pub step: StepId,
    /// The try.
    pub attempt: u32,
    /// The agent's turn, from 1; 0 for an agent without tools.
    #[serde(default, skip_serializing_if = "is_zero")]
    pub turn: u32,
    /// The provider's name.
    pub provider: String,
    /// The model priced.
    pub model: String,
    /// Quantities in disjoint classes.
    pub usage: Usage,
    /// False when the outcome is unknown or the stream broke: the quantities are our estimate.
    pub confirmed: bool,
    /// What the call counts for against the budget at least, because nobody knows what it used or
    /// what that costs: what was held for it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub hold: Option<BudgetHold>,
    /// The tier that served the call, by the provider's word, when it is not the usual one.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub service_tier: Option<String>,
    /// The cost; absent when the model has no price.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub charge: Option<Charge>,
    /// The cost by the provider's own word, in US dollars. It is kept beside ours and charged to
    /// nobody.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub provider_cost: Option<Money>,
}

/// `run.budget.exhausted.v1`: the next call could have gone over the budget, and was not made.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct BudgetExhausted {
    /// The step that was not started.
    pub step: StepId,
    /// Which limit.
    pub limit: PlatformText,
}

/// `run.migrated.v1`: the run goes on by another version of its graph. What was done stays done.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Migrated {
    /// The version until now.
    pub from: GraphVersion,
    /// The version from now on.
    pub to: GraphVersion,
}

/// `run.cancelled.v1`.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Cancelled {
    /// Why, in the words of who cancelled: only in events of before; else words of the platform.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub reason: Option<PlatformText>,
    /// The same, sealed.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub reason_at: Option<PayloadRef>,
    /// Whether it is cancelled only because a run that it belongs to ended: it may go on with it.
    #[serde(default, skip_serializing_if = "is_false")]
    pub inherited: bool,
}

/// `run.completed.v1`.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Completed {
    /// What the run yielded; absent when the manifest names no output.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub output: Option<PayloadRef>,
}

/// `run.failed.v1`.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Failed {
    /// The step that decided it, when one did.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub step: Option<StepId>,
    /// Why.
    pub error: Failure,
}

#[expect(clippy::trivially_copy_pass_by_ref, reason = "serde hands out references")]
fn is_zero(turn: &u32) -> bool {
    *turn == 0
}

#[expect(clippy::trivially_copy_pass_by_ref, reason = "serde hands out references")]
fn is_false(value: &bool) -> bool {
    !*value
}
