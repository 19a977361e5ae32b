//! Payloads of a run's own events, version 1: creation, steps, model calls, usage and its end.
//!
//! Agent turns and child runs are in [`super::turn`], control from outside in [`super::control`].

use serde::{Deserialize, Serialize};

use crate::billing::{Charge, Meter, Usage};
use crate::chat::Privacy;
use crate::failure::{Failure, PlatformText};
use crate::id::{ActorId, AgentId, ApprovalId, ExecutorId, GraphId, GraphVersion, NodeId, StepId};
use crate::money::Money;
use crate::payload::PayloadRef;
use crate::run::{Budget, Fallback, RouterDecision, RunOrigin};
use crate::time::Timestamp;

/// `run.created.v1`: a run of a graph version begins.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct RunCreated {
    /// Graph that the run executes.
    pub graph: GraphId,
    /// Graph version to which the run is pinned.
    pub version: GraphVersion,
    /// Inputs of the run, a JSON object.
    pub input: PayloadRef,
    /// Budget of the run, including its child runs.
    pub budget: Budget,
    /// Farthest that the run's conversations may travel.
    #[serde(default, skip_serializing_if = "Privacy::is_any")]
    pub privacy: Privacy,
    /// BLAKE3 of the request that created the run, by which a retry of the request is recognised.
    pub request_hash: String,
    /// Parent run, if this is a child run.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub origin: Option<RunOrigin>,
}

/// `agent.spawned.v1`: the run executes an agent. A run's event in spite of its wire type.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct AgentSpawned {
    /// Agent that the run executes.
    pub agent: AgentId,
}

/// `run.step.scheduled.v1`: the step is ready, and an executor may start it.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct StepScheduled {
    /// Step that became ready.
    pub step: StepId,
}

/// `run.step.started.v1`: an executor is about to perform the step. Committed before any effect of
/// it.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct StepStarted {
    /// Step that starts.
    pub step: StepId,
    /// Number of the attempt, from 1.
    pub attempt: u32,
    /// Executor process that performs it.
    pub executor: ExecutorId,
}

/// `run.map.expanded.v1`: a map node expands into this many items.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct MapExpanded {
    /// Map node that expands.
    pub node: NodeId,
    /// Number of items.
    pub width: u32,
    /// Maximum number of items in flight at once.
    pub max_parallel: u32,
}

/// `run.step.completed.v1`: the step succeeded.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct StepCompleted {
    /// Step that completed.
    pub step: StepId,
    /// Attempt that succeeded.
    pub attempt: u32,
    /// Output of the step; absent for nodes without output.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub output: Option<PayloadRef>,
    /// Nodes that will never run because of this outcome.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub skipped: Vec<NodeId>,
}

/// `run.step.failed.v1`: an attempt failed.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct StepFailed {
    /// Step whose attempt failed.
    pub step: StepId,
    /// Number of the failed attempt.
    pub attempt: u32,
    /// Failure of the attempt.
    pub error: Failure,
    /// True if no further attempt follows by itself.
    pub last: bool,
    /// Nodes that will never run because of this outcome.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub skipped: Vec<NodeId>,
}

/// `run.step.unknown.v1`: the executor died after the intent, so the outcome is unknown.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct StepUnknown {
    /// Step whose outcome is unknown.
    pub step: StepId,
    /// Attempt that the executor was performing.
    pub attempt: u32,
}

/// `run.step.retried.v1`: another attempt will start.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct StepRetried {
    /// Step that is attempted again.
    pub step: StepId,
    /// Number of the new attempt.
    pub attempt: u32,
    /// Earliest start: the back-off with its jitter already drawn.
    pub due: Timestamp,
    /// Model that the step must not call again, if the new attempt falls back to another one.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub fallback: Option<Fallback>,
}

/// `run.branch.decided.v1`: a branch node chose one of its cases.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct BranchDecided {
    /// Branch node that chose.
    pub node: NodeId,
    /// Index of the case in the manifest; the number of cases means `else`.
    pub case: u32,
}

/// `run.timer.set.v1`: a step sleeps until a time.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct TimerSet {
    /// Step that sleeps.
    pub step: StepId,
    /// Time at which the sleep ends.
    pub due: Timestamp,
}

/// `run.timer.fired.v1`: the sleep has ended.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct TimerFired {
    /// Step that slept.
    pub step: StepId,
}

/// `run.approval.requested.v1`: a step waits for a person's approval.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct ApprovalRequested {
    /// Id of the approval request.
    pub approval: ApprovalId,
    /// Step that waits.
    pub step: StepId,
    /// Role that may answer; `owner` may always.
    pub role: String,
    /// Content to approve, exactly as shown to the person.
    pub content: PayloadRef,
    /// SHA-256 of that content; the answer must repeat it.
    pub content_hash: String,
    /// Time after which no answer is accepted.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub expires: Option<Timestamp>,
}

/// `run.approval.granted.v1` and `run.approval.denied.v1`: a person answered.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct ApprovalAnswered {
    /// Id of the approval request.
    pub approval: ApprovalId,
    /// Actor that answered.
    pub by: ActorId,
    /// SHA-256 of the content that the person saw.
    pub content_hash: String,
    /// Reason in platform text; in events of older versions, the person's own words.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub reason: Option<PlatformText>,
    /// Reason in the person's words, as a sealed payload.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub reason_at: Option<PayloadRef>,
}

/// `run.model_call.intended.v1`: a model is about to be called. Committed before the call.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct ModelCallIntended {
    /// Step that makes the call.
    pub step: StepId,
    /// Attempt that makes the call.
    pub attempt: u32,
    /// Turn of the agent, from 1; 0 for an agent without tools.
    #[serde(default, skip_serializing_if = "is_zero")]
    pub turn: u32,
    /// Configured name of the provider.
    pub provider: String,
    /// Model id in the provider's spelling.
    pub model: String,
    /// Reason of the router for its choice.
    pub route: String,
    /// Input of the router's choice; absent in older logs.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub routing: Option<Box<RouterDecision>>,
    /// Name of the API key used, never the key itself.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub key: Option<String>,
    /// Request fields that this provider does not support and that are not sent.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub left_out: Vec<String>,
    /// Request exactly as it is sent.
    pub prompt: PayloadRef,
    /// Worst case of tokens, held against the budget until the call is settled.
    pub reserved_tokens: u64,
    /// Worst case of cost, held likewise; absent if the model has no price.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub reserved_cost: Option<Money>,
    /// Estimated input tokens, which are booked if the call's outcome stays unknown. Absent in
    /// older logs.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub estimated_tokens: Option<u64>,
    /// Meter of the estimate for calls that are no chat; fresh input tokens if absent.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub estimated_meter: Option<Meter>,
    /// Maximum output tokens, where the budget and not the caller limits them.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub output_limit: Option<u32>,
    /// Key by which the provider recognises a repeated call. All attempts after an attempt of
    /// unknown outcome use the same one.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub idempotency_key: Option<String>,
}

/// `run.model_call.completed.v1`: a model answered.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct ModelCallCompleted {
    /// Step that made the call.
    pub step: StepId,
    /// Attempt that made the call.
    pub attempt: u32,
    /// Turn of the agent, from 1; 0 for an agent without tools.
    #[serde(default, skip_serializing_if = "is_zero")]
    pub turn: u32,
    /// Model id that the provider reports to have answered.
    pub model: String,
    /// Reason why generation stopped: `stop`, `length`, ...
    pub finish: String,
    /// Milliseconds from the request to the last byte.
    pub duration_ms: u64,
    /// Milliseconds from the request to the first token.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub first_token_ms: Option<u64>,
    /// Whole reply, a [`crate::chat::ChatReply`], if another turn follows.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub answer: Option<PayloadRef>,
}

/// `run.model_call.failed.v1`: the call failed, with a known outcome.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct ModelCallFailed {
    /// Step that made the call.
    pub step: StepId,
    /// Attempt that made the call.
    pub attempt: u32,
    /// Turn of the agent, from 1; 0 for an agent without tools.
    #[serde(default, skip_serializing_if = "is_zero")]
    pub turn: u32,
    /// Failure of the call.
    pub error: Failure,
}

/// Amounts held against a budget for one call.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct BudgetHold {
    /// Held tokens, input and output together.
    #[serde(default)]
    pub tokens: u64,
    /// Held cost, in the currency of the prices.
    #[serde(default)]
    pub cost: Money,
}

/// `run.usage.recorded.v1`: usage and cost of one model call.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct UsageRecorded {
    /// Step that made the call.
    pub step: StepId,
    /// Attempt that made the call.
    pub attempt: u32,
    /// Turn of the agent, from 1; 0 for an agent without tools.
    #[serde(default, skip_serializing_if = "is_zero")]
    pub turn: u32,
    /// Configured name of the provider.
    pub provider: String,
    /// Model whose price was applied.
    pub model: String,
    /// Quantities in disjoint classes.
    pub usage: Usage,
    /// False if the outcome is unknown or the stream broke off: the quantities are then an
    /// estimate.
    pub confirmed: bool,
    /// Minimum that the call counts against the budget, because its usage or cost is unknown: the
    /// amounts that were held for it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub hold: Option<BudgetHold>,
    /// Service tier reported by the provider, if it is not the default one.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub service_tier: Option<String>,
    /// Cost by the price book; absent if the model has no price.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub charge: Option<Charge>,
    /// Cost reported by the provider, in US dollars. Kept for comparison and charged to nobody.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub provider_cost: Option<Money>,
}

/// `run.budget.exhausted.v1`: the next call might have exceeded the budget and was not made.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct BudgetExhausted {
    /// Step that was not started.
    pub step: StepId,
    /// Description of the limit that would have been exceeded.
    pub limit: PlatformText,
}

/// `run.migrated.v1`: the run continues with another version of its graph. Finished steps stay
/// finished.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct RunMigrated {
    /// Graph version so far.
    pub from: GraphVersion,
    /// Graph version from now on.
    pub to: GraphVersion,
}

/// `run.cancelled.v1`: a person or the parent run ended the run.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct RunCancelled {
    /// Reason in platform text; in events of older versions, the person's own words.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub reason: Option<PlatformText>,
    /// Reason in the person's words, as a sealed payload.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub reason_at: Option<PayloadRef>,
    /// True if the run was cancelled only because its parent run ended; it can then be reopened
    /// together with the parent.
    #[serde(default, skip_serializing_if = "is_false")]
    pub inherited: bool,
}

/// `run.completed.v1`: the run ended successfully.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct RunCompleted {
    /// Output of the run; absent if the manifest names none.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub output: Option<PayloadRef>,
}

/// `run.failed.v1`: a failure ended the run.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct RunFailed {
    /// Step whose failure ended the run; absent if a budget or the output did.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub step: Option<StepId>,
    /// Failure that ended the run.
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
