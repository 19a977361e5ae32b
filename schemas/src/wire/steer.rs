//! Steering a run: pause, signals, decisions, forks, and what differs between branches.

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};
use serde_json::Value;
use utoipa::ToSchema;

use super::{RunError, UsageSummary};

/// Why something is done.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub struct ReasonRequest {
    /// Reason in your own words, for the audit log.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub reason: Option<String>,
}

/// An outside event for a run.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub struct SignalRequest {
    /// The name that a `signal` node waits for: 1 to 128 letters, digits, `_`, `-`, `.`, `:`, `/`.
    pub name: String,
    /// What it carries: the output of that node.
    #[serde(default)]
    pub payload: Value,
}

/// Lets a failed run go on.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub struct RetryRequest {
    /// The failed step that you mean; every step that ended the run gets another series of tries.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub step: Option<String>,
}

/// Gives a run other limits or another graph; what is not named stays as it is.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub struct AmendRequest {
    /// Most tokens in all, those used before included.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub tokens: Option<u64>,
    /// Most money in all, as `0.50`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub cost: Option<String>,
    /// Longest time of work in all, as `2h`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub wall: Option<String>,
    /// Longest time from creation to end, as `30d`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub deadline: Option<String>,
    /// A corrected manifest of the graph's name; it is registered.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub manifest: Option<String>,
    /// A registered version, in place of a manifest.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub version: Option<String>,
    /// Why, in your words.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub reason: Option<String>,
}

/// What becomes of a step.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
#[serde(rename_all = "snake_case")]
pub enum StepDecision {
    /// It counts as done, with `output`.
    Completed,
    /// It has failed for good.
    Failed,
    /// Starts another try of the step.
    Retry,
    /// The run goes on without it.
    Skip,
}

/// A decision about a step that waits for one.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub struct ResolveRequest {
    /// Name of the step, as `summarise` or `notes[3]`.
    pub step: String,
    /// What becomes of it.
    #[serde(rename = "as")]
    pub decision: StepDecision,
    /// What it yielded; only with `completed`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub output: Option<Value>,
    /// Why, in your words.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub reason: Option<String>,
}

/// Lets a run of a graph go on.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub struct ResumeRequest {
    /// Id of the run.
    pub run_id: String,
    /// Go on from this event, as a new run; absent: from where it was paused.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub at: Option<u64>,
}

/// Marks a point of a run.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub struct CheckpointRequest {
    /// Id of the run.
    pub run_id: String,
    /// What the mark is for.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub label: Option<String>,
}

/// A marked point of a run.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct CheckpointView {
    /// Id of the run.
    pub run_id: String,
    /// The event: the run can be forked here.
    pub seq: u64,
    /// The fingerprint of the state here.
    pub fingerprint: String,
}

/// What a fork does otherwise at a node.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub struct NodeChange {
    /// Model in place of the one in the manifest.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub model: Option<String>,
    /// Prompt in place of the one in the manifest.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub prompt: Option<String>,
    /// System prompt in place of the one in the manifest.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub system: Option<String>,
}

/// Begins a new run with a part of another one's history.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub struct ForkRequest {
    /// The last event that counts; the last one of the run when absent. A commit is indivisible: an
    /// event within one stands for the commits before it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub at: Option<u64>,
    /// Inputs that are to be other ones.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    pub inputs: BTreeMap<String, Value>,
    /// Another manifest, YAML or JSON.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub manifest: Option<String>,
    /// Another registered version of the graph.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub version: Option<String>,
    /// Another model for every agent.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub model: Option<String>,
    /// What is to be done otherwise, by node.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    pub nodes: BTreeMap<String, NodeChange>,
}

/// A run that will go on from another one's history.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct ForkAccepted {
    /// Id of the new run, a UUID.
    pub run_id: String,
    /// Id of the graph, a UUID.
    pub graph_id: String,
    /// Version of the graph that the run is pinned to.
    pub version: String,
    /// Run and event at which the fork begins.
    pub forked_from: ForkOrigin,
}

/// An event of a run, where another one begins.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct ForkOrigin {
    /// Id of the run.
    pub run_id: String,
    /// Sequence number of the event in the run's stream.
    pub seq: u64,
}

/// A run as it was at one of its events.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, ToSchema)]
pub struct StateView {
    /// Id of the run.
    pub run_id: String,
    /// Sequence number of the event in the run's stream.
    pub seq: u64,
    /// `running`, `paused`, `completed`, `failed` or `cancelled`.
    pub status: String,
    /// The fingerprint of the state.
    pub fingerprint: String,
    /// Version of the graph that the run is pinned to.
    pub version: String,
    /// Tokens that were spent.
    pub tokens: u64,
    /// Tokens held for calls under way.
    pub reserved_tokens: u64,
    /// Exact cost in US dollars, a decimal.
    pub cost: String,
    /// The runs that its history begins in, the oldest first.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub lineage: Vec<ForkOrigin>,
    /// Signals that no step has taken yet, by name.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    pub signals: BTreeMap<String, u64>,
    /// Error that it failed with.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub error: Option<RunError>,
    /// Every step heard of, by name.
    pub steps: Vec<StepState>,
}

/// A step as it was.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, ToSchema)]
pub struct StepState {
    /// Name of the step, as `summarise` or `notes[3]`.
    pub step: String,
    /// Status of the step at that event.
    pub status: String,
    /// The number of the last try.
    pub attempt: u32,
    /// Number of tries that failed.
    pub failures: u32,
    /// The model call under way: provider, model and idempotency key.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub call: Option<CallState>,
    /// Why the last try failed.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub error: Option<RunError>,
    /// What it yielded; only when contents are asked for.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub output: Option<Value>,
}

/// A model call under way.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct CallState {
    /// Name of the called provider.
    pub provider: String,
    /// Name of the called model.
    pub model: String,
    /// What the provider may recognise the call by.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub idempotency_key: Option<String>,
}

/// What differs between two runs.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, ToSchema)]
pub struct DiffView {
    /// First of the two runs.
    pub a: BranchView,
    /// Second of the two runs.
    pub b: BranchView,
    /// The history that both begin with, if there is one.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub common: Option<ForkOrigin>,
    /// Steps that do not stand or yield the same, by name; at most 1000.
    pub steps: Vec<StepDiff>,
    /// How many steps stand and yield the same.
    pub same: u64,
    /// How many more differ than are listed.
    pub more: u64,
}

/// One of two runs that are compared.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, ToSchema)]
pub struct BranchView {
    /// Id of the run.
    pub run_id: String,
    /// Status of the run.
    pub status: String,
    /// Version of the graph that the run is pinned to.
    pub version: String,
    /// What it used itself; what it inherited cost nothing.
    pub usage: UsageSummary,
    /// BLAKE3 of its output.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub output_hash: Option<String>,
    /// Its output; only when contents are asked for.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub output: Option<Value>,
}

/// A step that differs.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, ToSchema)]
pub struct StepDiff {
    /// Name of the step, as `summarise` or `notes[3]`.
    pub step: String,
    /// In the one; absent when it does not know the step.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub a: Option<StepSide>,
    /// In the second run; absent when it does not know the step.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub b: Option<StepSide>,
}

/// A step in one of two runs.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, ToSchema)]
pub struct StepSide {
    /// Status of the step.
    pub status: String,
    /// The number of the last try.
    pub attempt: u32,
    /// The model that this run asked itself.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub model: Option<String>,
    /// What this run used for it itself.
    pub usage: UsageSummary,
    /// BLAKE3 of its output.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub output_hash: Option<String>,
    /// Its output; only when contents are asked for.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub output: Option<Value>,
}
