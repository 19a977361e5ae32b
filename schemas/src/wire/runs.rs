//! Runs, their steps, and the questions that they ask.

use serde::{Deserialize, Serialize};
use serde_json::Value;
use utoipa::ToSchema;

use super::ForkOrigin;

/// Asks for a run.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub struct ExecuteRequest {
    /// The inputs, an object that satisfies the graph's schema.
    #[serde(default)]
    pub inputs: Value,
    /// The version to run; the latest when absent.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub version: Option<String>,
    /// `local`: no prompt of this run, nor of what it spawns, leaves the machines of the person or
    /// the operator. `any` when absent.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub privacy: Option<String>,
}

/// A run that will be executed.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct RunAccepted {
    /// The run.
    pub run_id: String,
    /// The graph.
    pub graph_id: String,
    /// The pinned version.
    pub version: String,
}

/// What was used and what it cost.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct UsageSummary {
    /// Tokens that went to models.
    pub tokens_in: u64,
    /// Tokens that came from models.
    pub tokens_out: u64,
    /// Exact cost in US dollars, a decimal.
    pub cost: String,
    /// Model calls without a price; their cost is not in `cost`.
    pub unpriced_calls: u64,
}

/// Why a run or step failed.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct RunError {
    /// The stable code.
    pub code: String,
    /// What happened, in words of the platform.
    pub message: String,
    /// The full text, which may quote inputs and answers; absent in lists, when the message says it
    /// all, and when it was erased.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub detail: Option<String>,
    /// The step that made the run fail; absent when none did, as when its time was over.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub step: Option<String>,
}

/// The run that another one is within.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct ParentRun {
    /// The run.
    pub run_id: String,
    /// Its step that the other run belongs to.
    pub step: String,
}

/// Where a run came from that was not executed here.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct RunImport {
    /// Who imported it.
    pub by: String,
    /// When, RFC 3339.
    pub at: String,
    /// SHA-256 of the file.
    pub file_hash: String,
    /// The fingerprint of the key that signed the file; absent when it was not signed.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub signer: Option<String>,
}

/// A run right within another one.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct ChildRun {
    /// The run.
    pub run_id: String,
    /// The step that it belongs to.
    pub step: String,
    /// Where it stands.
    pub status: String,
    /// Its graph.
    pub graph_id: String,
    /// The graph's name.
    pub graph_name: String,
}

/// A run.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, ToSchema)]
pub struct RunView {
    /// The run.
    pub id: String,
    /// The graph.
    pub graph_id: String,
    /// The graph's name.
    pub graph_name: String,
    /// The pinned version.
    pub version: String,
    /// `running`, `paused`, `completed`, `failed` or `cancelled`.
    pub status: String,
    /// The event of another run where this one begins.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub forked_from: Option<ForkOrigin>,
    /// How it came here, if it was imported: it is history, and never goes on. To go on, fork it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub imported: Option<RunImport>,
    /// The run that this one is within.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub parent: Option<ParentRun>,
    /// Who asked for it.
    pub actor: String,
    /// When it was created, RFC 3339.
    pub created_at: String,
    /// When it ended.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub ended_at: Option<String>,
    /// Steps that have ended well or were skipped.
    pub steps_done: u64,
    /// Steps that had not ended when the run did.
    #[serde(default, skip_serializing_if = "is_zero")]
    pub steps_abandoned: u64,
    /// Steps heard of so far.
    pub steps_total: u64,
    /// What it used.
    pub usage: UsageSummary,
    /// Why it failed.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub error: Option<RunError>,
    /// What it yielded; only when one run is asked for.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub output: Option<Value>,
    /// Its steps; only when one run is asked for.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub steps: Vec<StepView>,
    /// Runs right within it, those created last first, at most 100; only when one run is asked for.
    /// `GET /v1/runs?parent=` lists them all.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub children: Vec<ChildRun>,
    /// How many runs are right within it; only when one run is asked for.
    #[serde(default, skip_serializing_if = "is_zero")]
    pub children_total: u64,
    /// The number of its last event.
    pub seq: u64,
}

/// A step.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct StepView {
    /// The step: a node, or one item of a map as `notes[3]`.
    pub id: String,
    /// The node.
    pub node: String,
    /// The item of a map.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub item: Option<u32>,
    /// `agent`, `tool`, `branch`, `map`, `approval`, `sleep`, `graph` or `signal`; empty for what
    /// is inherited.
    pub kind: String,
    /// Where it stands: `scheduled`, `started`, `retrying`, `unknown`, `sleeping`, `waiting`,
    /// `undecided`, `completed`, `failed` or `skipped`; `abandoned` when the run ended before it
    /// did.
    pub status: String,
    /// The number of the last try.
    pub attempt: u32,
    /// Milliseconds from its first start to its end.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub duration_ms: Option<u64>,
    /// The model that was asked.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub model: Option<ModelView>,
    /// What it used.
    pub usage: UsageSummary,
    /// Why its last try failed.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub error: Option<RunError>,
    /// Whether it is the work of the run that this one is a fork of, and cost this one nothing.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub is_inherited: bool,
}

/// A model and who runs it.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct ModelView {
    /// The provider.
    pub provider: String,
    /// The model.
    pub name: String,
}

/// A question to a person.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, ToSchema)]
pub struct ApprovalView {
    /// The question.
    pub id: String,
    /// The run that waits.
    pub run_id: String,
    /// The step that waits.
    pub step: String,
    /// Who may answer.
    pub role: String,
    /// `open`, `granted`, `denied` or `void` (the run ended without an answer, or was imported).
    pub state: String,
    /// SHA-256 of the content; the answer must name it.
    pub content_hash: String,
    /// What is to be approved; only when one question is asked for.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub content: Option<Value>,
    /// When it was asked, RFC 3339.
    pub asked_at: String,
    /// When it lapses.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub expires_at: Option<String>,
    /// Who answered.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub answered_by: Option<String>,
    /// Why.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub reason: Option<String>,
}

/// Yes or no.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
#[serde(rename_all = "snake_case")]
pub enum Decision {
    /// Yes.
    Grant,
    /// No.
    Deny,
}

/// The answer to a question.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub struct ApprovalAnswer {
    /// Yes or no.
    pub decision: Decision,
    /// SHA-256 of the content that was seen.
    pub content_hash: String,
    /// Why.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub reason: Option<String>,
}

#[expect(clippy::trivially_copy_pass_by_ref, reason = "serde hands out references")]
fn is_zero(count: &u64) -> bool {
    *count == 0
}
