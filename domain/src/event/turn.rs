//! Events of an agent's turns and of runs within runs, version 1.
//!
//! A turn is one model call of an agent that has tools. The answer may ask for tools: calls are
//! numbered within their turn from 0, in the order of the answer. Turn 0 comes before the first
//! model call: it recalls what the agent remembers.

use serde::{Deserialize, Serialize};

use super::run::Failure;
use crate::chat::Privacy;
use crate::id::{AgentId, GraphId, GraphVersion, RunId, StepId};
use crate::money::Money;
use crate::payload::PayloadRef;
use crate::run::{Budget, CallNo};

/// `run.tool_call.intended.v1`: a tool is about to be called. Durable before the call. The
/// arguments stand in the turn's answer.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct ToolCallIntended {
    /// The step.
    pub step: StepId,
    /// The try.
    pub attempt: u32,
    /// Which call.
    #[serde(flatten)]
    pub at: CallNo,
    /// The tool's name.
    pub name: String,
}

/// `run.tool_call.queued.v1`: a tool call is a run that waits for a place among the runs within
/// this one. It is intended later, by a `run.child.intended.v1` of the same call.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct ToolCallQueued {
    /// The step.
    pub step: StepId,
    /// The try.
    pub attempt: u32,
    /// Which call.
    #[serde(flatten)]
    pub at: CallNo,
    /// The tool's name.
    pub name: String,
}

/// `run.tool_call.completed.v1`: a tool answered.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct ToolCallCompleted {
    /// The step.
    pub step: StepId,
    /// The try.
    pub attempt: u32,
    /// Which call.
    #[serde(flatten)]
    pub at: CallNo,
    /// What the model is told, a JSON text.
    pub result: PayloadRef,
}

/// `run.tool_call.failed.v1`: a tool failed, or the call was a bad one and nothing was called.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct ToolCallFailed {
    /// The step.
    pub step: StepId,
    /// The try.
    pub attempt: u32,
    /// Which call.
    #[serde(flatten)]
    pub at: CallNo,
    /// Why.
    pub error: Failure,
    /// What the model is told, a JSON text.
    pub result: PayloadRef,
}

/// `run.tool_call.denied.v1`: the agent has no permission; nothing was called.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct ToolCallDenied {
    /// The step.
    pub step: StepId,
    /// The try.
    pub attempt: u32,
    /// Which call.
    #[serde(flatten)]
    pub at: CallNo,
    /// The tool's name.
    pub name: String,
    /// What the model is told, a JSON text.
    pub result: PayloadRef,
}

/// `run.child.intended.v1`: a run of a graph within this run is about to be created. Durable before
/// it exists.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct ChildIntended {
    /// The step that waits for it.
    pub step: StepId,
    /// The try.
    pub attempt: u32,
    /// The tool call that it answers, when an agent asked for it.
    #[serde(flatten)]
    pub at: Option<CallNo>,
    /// The run.
    pub child: RunId,
    /// Its graph.
    pub graph: GraphId,
    /// The pinned version.
    pub version: GraphVersion,
    /// Its inputs, in this stream.
    pub input: PayloadRef,
    /// The canonical manifest, when the graph is to be registered first.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub manifest: Option<PayloadRef>,
    /// What it may spend; tokens and money of it are held against this run's budget.
    pub budget: Budget,
    /// Where its prompts may travel.
    #[serde(default, skip_serializing_if = "Privacy::is_any")]
    pub privacy: Privacy,
    /// The agent that it is a run of.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub agent: Option<AgentId>,
}

/// `run.child.created.v1`: a run within this run exists. Written only when it is under way for a
/// while: whoever goes on need not look again.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct ChildCreated {
    /// The run.
    pub child: RunId,
}

/// `run.child.ended.v1`: a run within this run has ended and tells what came of it.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct ChildEnded {
    /// The run.
    pub child: RunId,
    /// Why it yielded nothing; absent when it completed.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub error: Option<Failure>,
    /// What it yielded, copied into this stream.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub output: Option<PayloadRef>,
    /// Tokens that it and the runs within it used.
    pub tokens: u64,
    /// Money that they cost.
    pub cost: Money,
    /// How often it had gone on after an end before this one. One that is told of again counts with
    /// what it used beyond what was told before.
    #[serde(default, skip_serializing_if = "is_zero")]
    pub reopenings: u32,
    /// How long it worked in all, in milliseconds; absent in events of before.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub active_ms: Option<u64>,
    /// Whether it was cancelled only because this run, or one that this one belongs to, ended.
    #[serde(default, skip_serializing_if = "is_false")]
    pub inherited: bool,
}

/// `run.child.reopened.v1`: a run within this run that had ended goes on from where it was, and the
/// step waits for it again. Durable before it goes on.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct ChildReopened {
    /// The step that waits for it.
    pub step: StepId,
    /// The run.
    pub child: RunId,
    /// How often it has gone on after an end, this time included.
    pub reopenings: u32,
    /// The version of its graph that it goes on by, when that is another one.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub version: Option<GraphVersion>,
    /// What it may spend in all, what it used before included.
    pub budget: Budget,
}

/// `run.parent.told.v1`: the run that this one belongs to knows how it ended.
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
