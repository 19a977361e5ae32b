//! JSON types of the HTTP API, by noun. A field may be added with a default, but never renamed:
//! clients are generated from the OpenAPI document, which takes its descriptions from these
//! comments.

mod agents;
mod billing;
mod events;
mod fleet;
mod graphs;
mod memories;
mod problem;
mod replay;
mod runs;
mod steer;
mod tokens;

pub use agents::{AgentLimits, AgentMessage, AgentRequest, AgentView};
pub use billing::{AuditEntry, Balance, LedgerEntry, LedgerView, UsageLine};
pub use events::{EventEnvelope, Frame, PayloadView, ProgressNote};
pub use fleet::{FleetReport, FleetRequest, FleetRun, MigrateReport, MigrateRequest, Verdict};
pub use graphs::{GraphAccepted, GraphSummary, GraphView};
pub use memories::{MemoryForgotten, MemoryStored, MemoryView, NewMemory};
pub use problem::{MistakeView, Problem};
pub use replay::{DivergenceView, ReplayReport, ReplayRequest, ReplayedStep};
pub use runs::{
    ApprovalAnswer, ApprovalView, ChildRun, Decision, ExecuteRequest, ModelView, ParentRun,
    RunAccepted, RunError, RunImport, RunView, StepView, UsageSummary,
};
pub use steer::{
    AmendRequest, BranchView, CallState, CheckpointRequest, CheckpointView, DiffView, ForkAccepted,
    ForkOrigin, ForkRequest, NodeChange, ReasonRequest, ResolveRequest, ResumeRequest,
    RetryRequest, SignalRequest, StateView, StepDecision, StepDiff, StepSide, StepState,
};
pub use tokens::{NewToken, TokenRotation, TokenView};

use serde::{Deserialize, Serialize};
use utoipa::ToSchema;

/// A page of a listing.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, ToSchema)]
pub struct Page<T> {
    /// Items of this page, in order.
    pub items: Vec<T>,
    /// Pass it as `cursor` for the next page; absent on the last one.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub next_cursor: Option<String>,
}

/// How the server is.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct Health {
    /// `ok`, or what is wrong.
    pub status: String,
    /// Version of the server program.
    pub version: String,
    /// What an acknowledged event survives: `process`, `fsync` or `quorum fsync`.
    pub durability: String,
    /// The last record of the log.
    pub log_position: u64,
    /// The last record that the read models hold, as their database tells a reader.
    pub read_position: u64,
    /// Records that the read models have not applied yet.
    pub projection_lag: u64,
}
