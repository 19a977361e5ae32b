//! Payloads of events of agent turns and child runs, version 1.
//!
//! A turn is one model call of an agent that has tools. Its answer may request tool calls, which
//! are numbered within the turn from 0, in the order of the answer. Turn 0 precedes the first model
//! call and recalls the agent's memories.

use serde::{Deserialize, Serialize};

use crate::chat::Privacy;
use crate::failure::Failure;
use crate::id::{AgentId, GraphId, GraphVersion, RunId, StepId};
use crate::money::Money;
use crate::payload::PayloadRef;
use crate::run::{Budget, ToolCallNumber};

/// `run.tool_call.intended.v1`: a tool is about to be called. Committed before the call. Its
/// arguments are in the turn's answer.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct ToolCallIntended {
    /// Step of the agent.
    pub step: StepId,
    /// Attempt of that step.
    pub attempt: u32,
    /// Turn and number of the tool call.
    #[serde(flatten)]
    pub tool_call: ToolCallNumber,
    /// Name of the tool, as the agent sees it.
    pub name: String,
}

/// `run.tool.intended.v1`: a step is about to call a tool that is not pure. Committed before the
/// call. Logs of before have no such event, whatever the tool.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct ToolIntended {
    /// Step that is the call.
    pub step: StepId,
    /// Attempt of that step.
    pub attempt: u32,
    /// Name of the tool.
    pub name: String,
    /// Arguments exactly as the tool gets them, as JSON.
    pub arguments: PayloadRef,
    /// Key under which the tool recognises a repeated call; absent if it does not.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub idempotency_key: Option<String>,
}

/// `run.tool_call.queued.v1`: a tool call that is a child run waits, because the run has its
/// maximum of open child runs. A later `run.child.intended.v1` of the same call starts it.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct ToolCallQueued {
    /// Step of the agent.
    pub step: StepId,
    /// Attempt of that step.
    pub attempt: u32,
    /// Turn and number of the tool call.
    #[serde(flatten)]
    pub tool_call: ToolCallNumber,
    /// Name of the tool, as the agent sees it.
    pub name: String,
}

/// `run.tool_call.completed.v1`: a tool returned a result.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct ToolCallCompleted {
    /// Step of the agent.
    pub step: StepId,
    /// Attempt of that step.
    pub attempt: u32,
    /// Turn and number of the tool call.
    #[serde(flatten)]
    pub tool_call: ToolCallNumber,
    /// Result shown to the model, as JSON.
    pub result: PayloadRef,
}

/// `run.tool_call.failed.v1`: a tool failed, or the call was invalid and nothing was called.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct ToolCallFailed {
    /// Step of the agent.
    pub step: StepId,
    /// Attempt of that step.
    pub attempt: u32,
    /// Turn and number of the tool call.
    #[serde(flatten)]
    pub tool_call: ToolCallNumber,
    /// Failure of the call.
    pub error: Failure,
    /// Error text shown to the model, as JSON.
    pub result: PayloadRef,
}

/// `run.tool_call.denied.v1`: the agent lacks permission for the tool; nothing was called.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct ToolCallDenied {
    /// Step of the agent.
    pub step: StepId,
    /// Attempt of that step.
    pub attempt: u32,
    /// Turn and number of the tool call.
    #[serde(flatten)]
    pub tool_call: ToolCallNumber,
    /// Name of the tool that the model asked for.
    pub name: String,
    /// Refusal shown to the model, as JSON.
    pub result: PayloadRef,
}

/// `run.child.intended.v1`: a child run is about to be created. Committed before it exists.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct ChildIntended {
    /// Step that waits for the child run.
    pub step: StepId,
    /// Attempt of that step.
    pub attempt: u32,
    /// Tool call that the child run answers; absent if the child run is the whole step.
    #[serde(flatten)]
    pub tool_call: Option<ToolCallNumber>,
    /// Id of the child run.
    pub child: RunId,
    /// Graph that the child run executes.
    pub graph: GraphId,
    /// Graph version to which the child run is pinned.
    pub version: GraphVersion,
    /// Inputs of the child run, as a payload of this stream.
    pub input: PayloadRef,
    /// Canonical manifest, if the graph has to be registered first.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub manifest: Option<PayloadRef>,
    /// Budget of the child run; its tokens and cost are held against this run's budget.
    pub budget: Budget,
    /// Farthest that the child run's prompts may travel.
    #[serde(default, skip_serializing_if = "Privacy::is_any")]
    pub privacy: Privacy,
    /// Agent that the child run executes, if any.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub agent: Option<AgentId>,
}

/// `run.child.created.v1`: the child run exists. Recorded only if the child run takes a while, so
/// that executors need not check its existence again.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct ChildCreated {
    /// Id of the child run.
    pub child: RunId,
}

/// `run.child.ended.v1`: a child run reported its end.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct ChildEnded {
    /// Id of the child run.
    pub child: RunId,
    /// Failure or cancellation of the child run; absent if it completed.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub error: Option<Failure>,
    /// Output of the child run, copied into this stream.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub output: Option<PayloadRef>,
    /// Tokens used by the child run and its descendants, over all its reopenings.
    pub tokens: u64,
    /// Cost of the child run and its descendants, over all its reopenings.
    pub cost: Money,
    /// Number of times the child run had been reopened before this end. A later report of the same
    /// child counts only the usage beyond earlier reports.
    #[serde(default, skip_serializing_if = "is_zero")]
    pub reopenings: u32,
    /// Active time of the child run in milliseconds; absent in events of older versions.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub active_ms: Option<u64>,
    /// True if the child run was cancelled only because this run or an ancestor ended.
    #[serde(default, skip_serializing_if = "is_false")]
    pub inherited: bool,
}

/// `run.child.reopened.v1`: a child run that had ended continues, and the step waits for it again.
/// Committed before it continues.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct ChildReopened {
    /// Step that waits for the child run.
    pub step: StepId,
    /// Id of the child run.
    pub child: RunId,
    /// Number of times the child run has been reopened, including this one.
    pub reopenings: u32,
    /// Graph version with which the child run continues, if it changes.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub version: Option<GraphVersion>,
    /// Total budget of the child run, including what it has spent.
    pub budget: Budget,
}

/// `run.parent.told.v1`: the parent run has recorded how this run ended.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct ParentTold {}

#[expect(clippy::trivially_copy_pass_by_ref, reason = "serde hands out references")]
fn is_false(value: &bool) -> bool {
    !*value
}

#[expect(clippy::trivially_copy_pass_by_ref, reason = "serde hands out references")]
fn is_zero(number: &u32) -> bool {
    *number == 0
}
