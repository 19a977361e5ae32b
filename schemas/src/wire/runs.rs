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
    /// Id of the run.
    pub run_id: String,
    /// Id of the graph, a UUID.
    pub graph_id: String,
    /// Version of the graph that the run is pinned to.
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
    /// Stable code, as `provider.timeout`.
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
    /// Id of the run.
    pub run_id: String,
    /// Its step that the other run belongs to.
    pub step: String,
}

/// Where a run came from that was not executed here.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct RunImport {
    /// Actor who imported the run.
    pub by: String,
    /// Time of the import, RFC 3339.
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
    /// Id of the run.
    pub run_id: String,
    /// The step that it belongs to.
    pub step: String,
    /// Status of the run.
    pub status: String,
    /// Id of its graph, a UUID.
    pub graph_id: String,
    /// Name of the graph, unique in the tenant.
    pub graph_name: String,
}

/// A run and its state.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, ToSchema)]
pub struct RunView {
    /// Id of the run, a UUID.
    pub id: String,
    /// Id of the graph, a UUID.
    pub graph_id: String,
    /// Name of the graph, unique in the tenant.
    pub graph_name: String,
    /// Version of the graph that the run is pinned to.
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
    /// Time of its end, RFC 3339.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub ended_at: Option<String>,
    /// Steps that have ended well or were skipped.
    pub steps_done: u64,
    /// Steps that had not ended when the run did.
    #[serde(default, skip_serializing_if = "is_zero")]
    pub steps_abandoned: u64,
    /// Steps heard of so far.
    pub steps_total: u64,
    /// Usage of its model calls.
    pub usage: UsageSummary,
    /// Error that it failed with.
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

/// A step of a run.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct StepView {
    /// The step: a node, or one item of a map as `notes[3]`.
    pub id: String,
    /// Id of the node that the step executes.
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
    /// Usage of its model calls.
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
    /// Name of the provider.
    pub provider: String,
    /// Name of the model, as the provider writes it.
    pub name: String,
}

/// A question to a person.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, ToSchema)]
pub struct ApprovalView {
    /// Identity of the question.
    pub id: String,
    /// The run that waits.
    pub run_id: String,
    /// The step that waits.
    pub step: String,
    /// Role that may answer.
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
    /// Time at which it lapses, RFC 3339.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub expires_at: Option<String>,
    /// Actor who answered.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub answered_by: Option<String>,
    /// Reason that the answer gives.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub reason: Option<String>,
}

/// Answer to a question: grant or deny.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
#[serde(rename_all = "snake_case")]
pub enum Decision {
    /// The question is approved.
    Grant,
    /// The question is rejected.
    Deny,
}

/// The answer to a question.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub struct ApprovalAnswer {
    /// Answer to a question: grant or deny.
    pub decision: Decision,
    /// SHA-256 of the content that was seen.
    pub content_hash: String,
    /// Reason that the answer gives.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub reason: Option<String>,
}

#[expect(clippy::trivially_copy_pass_by_ref, reason = "serde hands out references")]
fn is_zero(count: &u64) -> bool {
    *count == 0
}
