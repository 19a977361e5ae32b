//! Events: the closed enum of everything that a stream can record, with the wire type of each.
//!
//! - [`run`]: creation, steps, model calls, usage and the end of a run.
//! - [`turn`]: turns and tool calls of an agent, and child runs.
//! - [`control`]: pause, retry, amendment, signals, decisions and forks from outside.
//! - [`graph`], [`agent`], [`memory`], [`request`], [`token`]: events of the other nouns.
//! - `event_text`: deserialises an event whose type is known before its data.
//! - `upcast`: turns old versions of an event into the current one.
//!
//! The payload structs are wire forms: their fields are never renamed or removed. A change of form
//! is a new version and an upcaster. Deciders create events, the event store writes them, and
//! `evolve` and the projections read them; no rule belongs here.

pub mod agent;
pub mod control;
mod event_text;
pub mod graph;
pub mod memory;
pub mod request;
pub mod run;
pub mod token;
pub mod turn;
mod upcast;

pub use upcast::{EventDecodeError, decode_event, decode_event_text};

use serde::{Deserialize, Serialize};

/// An event. Its wire type ends in the version of its form. An old form is never edited; it is read
/// through an upcaster.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(tag = "type", content = "data")]
#[expect(missing_docs, reason = "each variant is documented at its struct")]
pub enum Event {
    #[serde(rename = "graph.registered.v1")]
    GraphRegistered(graph::GraphRegistered),
    #[serde(rename = "memory.stored.v1")]
    MemoryStored(memory::MemoryStoredEvent),
    #[serde(rename = "memory.forgotten.v1")]
    MemoryForgotten(memory::MemoryForgottenEvent),
    #[serde(rename = "request.accepted.v1")]
    RequestAccepted(request::RequestAccepted),
    #[serde(rename = "request.answered.v1")]
    RequestAnswered(request::RequestAnswered),
    #[serde(rename = "request.applied.v1")]
    RequestApplied(request::RequestApplied),
    #[serde(rename = "token.issued.v1")]
    TokenIssued(token::TokenIssued),
    #[serde(rename = "token.revoked.v1")]
    TokenRevoked(token::TokenRevoked),
    #[serde(rename = "run.created.v1")]
    RunCreated(run::RunCreated),
    #[serde(rename = "run.step.scheduled.v1")]
    StepScheduled(run::StepScheduled),
    #[serde(rename = "run.step.started.v1")]
    StepStarted(run::StepStarted),
    #[serde(rename = "run.map.expanded.v1")]
    MapExpanded(run::MapExpanded),
    #[serde(rename = "run.step.completed.v1")]
    StepCompleted(run::StepCompleted),
    #[serde(rename = "run.step.failed.v1")]
    StepFailed(run::StepFailed),
    #[serde(rename = "run.step.unknown.v1")]
    StepUnknown(run::StepUnknown),
    #[serde(rename = "run.step.retried.v1")]
    StepRetried(run::StepRetried),
    #[serde(rename = "run.branch.decided.v1")]
    BranchDecided(run::BranchDecided),
    #[serde(rename = "run.timer.set.v1")]
    TimerSet(run::TimerSet),
    #[serde(rename = "run.timer.fired.v1")]
    TimerFired(run::TimerFired),
    #[serde(rename = "run.approval.requested.v1")]
    ApprovalRequested(run::ApprovalRequested),
    #[serde(rename = "run.approval.granted.v1")]
    ApprovalGranted(run::ApprovalAnswered),
    #[serde(rename = "run.approval.denied.v1")]
    ApprovalDenied(run::ApprovalAnswered),
    #[serde(rename = "run.model_call.intended.v1")]
    ModelCallIntended(run::ModelCallIntended),
    #[serde(rename = "run.model_call.completed.v1")]
    ModelCallCompleted(run::ModelCallCompleted),
    #[serde(rename = "run.model_call.failed.v1")]
    ModelCallFailed(run::ModelCallFailed),
    #[serde(rename = "run.tool_call.intended.v1")]
    ToolCallIntended(turn::ToolCallIntended),
    #[serde(rename = "run.tool_call.queued.v1")]
    ToolCallQueued(turn::ToolCallQueued),
    #[serde(rename = "run.tool_call.completed.v1")]
    ToolCallCompleted(turn::ToolCallCompleted),
    #[serde(rename = "run.tool_call.failed.v1")]
    ToolCallFailed(turn::ToolCallFailed),
    #[serde(rename = "run.tool_call.denied.v1")]
    ToolCallDenied(turn::ToolCallDenied),
    #[serde(rename = "run.child.intended.v1")]
    ChildIntended(turn::ChildIntended),
    #[serde(rename = "run.child.created.v1")]
    ChildCreated(turn::ChildCreated),
    #[serde(rename = "run.child.ended.v1")]
    ChildEnded(turn::ChildEnded),
    #[serde(rename = "run.child.reopened.v1")]
    ChildReopened(turn::ChildReopened),
    #[serde(rename = "run.parent.told.v1")]
    ParentTold(turn::ParentTold),
    #[serde(rename = "agent.created.v1")]
    AgentCreated(agent::AgentDefined),
    #[serde(rename = "agent.updated.v1")]
    AgentUpdated(agent::AgentDefined),
    #[serde(rename = "agent.spawned.v1")]
    AgentSpawned(agent::AgentSpawned),
    #[serde(rename = "agent.terminated.v1")]
    AgentTerminated(agent::AgentTerminated),
    #[serde(rename = "run.usage.recorded.v1")]
    UsageRecorded(run::UsageRecorded),
    #[serde(rename = "run.budget.exhausted.v1")]
    BudgetExhausted(run::BudgetExhausted),
    #[serde(rename = "run.paused.v1")]
    RunPaused(control::RunPaused),
    #[serde(rename = "run.resumed.v1")]
    RunResumed(control::RunResumed),
    #[serde(rename = "run.reopened.v1")]
    RunReopened(control::RunReopened),
    #[serde(rename = "run.amended.v1")]
    RunAmended(control::RunAmended),
    #[serde(rename = "run.forked.v1")]
    RunForked(control::RunForked),
    #[serde(rename = "run.imported.v1")]
    RunImported(control::RunImported),
    #[serde(rename = "run.signal.awaited.v1")]
    SignalAwaited(control::SignalAwaited),
    #[serde(rename = "run.signal.received.v1")]
    SignalReceived(control::SignalReceived),
    #[serde(rename = "run.step.asked.v1")]
    StepAsked(control::StepAsked),
    #[serde(rename = "run.step.resolved.v1")]
    StepResolved(control::StepResolved),
    #[serde(rename = "run.step.skipped.v1")]
    StepSkipped(control::StepSkipped),
    #[serde(rename = "run.checkpoint.saved.v1")]
    CheckpointSaved(control::CheckpointSaved),
    #[serde(rename = "run.migrated.v1")]
    RunMigrated(run::RunMigrated),
    #[serde(rename = "run.cancelled.v1")]
    RunCancelled(run::RunCancelled),
    #[serde(rename = "run.completed.v1")]
    RunCompleted(run::RunCompleted),
    #[serde(rename = "run.failed.v1")]
    RunFailed(run::RunFailed),
}

impl Event {
    /// True for events that a parent or child run may write into a run's stream. Followers of the
    /// log wake the run on such an event, even if its own executor has written it.
    pub fn is_from_another_run(&self) -> bool {
        matches!(
            self,
            Self::RunCreated(_)
                | Self::RunCancelled(_)
                | Self::RunPaused(_)
                | Self::RunResumed(_)
                | Self::RunReopened(_)
                | Self::ChildEnded(_)
        )
    }

    /// Returns the wire type, as `run.step.completed.v1`.
    pub fn type_name(&self) -> &'static str {
        match self {
            Self::GraphRegistered(_) => "graph.registered.v1",
            Self::MemoryStored(_) => "memory.stored.v1",
            Self::MemoryForgotten(_) => "memory.forgotten.v1",
            Self::RequestAccepted(_) => "request.accepted.v1",
            Self::RequestAnswered(_) => "request.answered.v1",
            Self::RequestApplied(_) => "request.applied.v1",
            Self::TokenIssued(_) => "token.issued.v1",
            Self::TokenRevoked(_) => "token.revoked.v1",
            Self::RunCreated(_) => "run.created.v1",
            Self::StepScheduled(_) => "run.step.scheduled.v1",
            Self::StepStarted(_) => "run.step.started.v1",
            Self::MapExpanded(_) => "run.map.expanded.v1",
            Self::StepCompleted(_) => "run.step.completed.v1",
            Self::StepFailed(_) => "run.step.failed.v1",
            Self::StepUnknown(_) => "run.step.unknown.v1",
            Self::StepRetried(_) => "run.step.retried.v1",
            Self::BranchDecided(_) => "run.branch.decided.v1",
            Self::TimerSet(_) => "run.timer.set.v1",
            Self::TimerFired(_) => "run.timer.fired.v1",
            Self::ApprovalRequested(_) => "run.approval.requested.v1",
            Self::ApprovalGranted(_) => "run.approval.granted.v1",
            Self::ApprovalDenied(_) => "run.approval.denied.v1",
            Self::ModelCallIntended(_) => "run.model_call.intended.v1",
            Self::ModelCallCompleted(_) => "run.model_call.completed.v1",
            Self::ModelCallFailed(_) => "run.model_call.failed.v1",
            Self::ToolCallIntended(_) => "run.tool_call.intended.v1",
            Self::ToolCallQueued(_) => "run.tool_call.queued.v1",
            Self::ToolCallCompleted(_) => "run.tool_call.completed.v1",
            Self::ToolCallFailed(_) => "run.tool_call.failed.v1",
            Self::ToolCallDenied(_) => "run.tool_call.denied.v1",
            Self::ChildIntended(_) => "run.child.intended.v1",
            Self::ChildCreated(_) => "run.child.created.v1",
            Self::ChildEnded(_) => "run.child.ended.v1",
            Self::ChildReopened(_) => "run.child.reopened.v1",
            Self::ParentTold(_) => "run.parent.told.v1",
            Self::AgentCreated(_) => "agent.created.v1",
            Self::AgentUpdated(_) => "agent.updated.v1",
            Self::AgentSpawned(_) => "agent.spawned.v1",
            Self::AgentTerminated(_) => "agent.terminated.v1",
            Self::UsageRecorded(_) => "run.usage.recorded.v1",
            Self::BudgetExhausted(_) => "run.budget.exhausted.v1",
            Self::RunPaused(_) => "run.paused.v1",
            Self::RunResumed(_) => "run.resumed.v1",
            Self::RunReopened(_) => "run.reopened.v1",
            Self::RunAmended(_) => "run.amended.v1",
            Self::RunForked(_) => "run.forked.v1",
            Self::RunImported(_) => "run.imported.v1",
            Self::SignalAwaited(_) => "run.signal.awaited.v1",
            Self::SignalReceived(_) => "run.signal.received.v1",
            Self::StepAsked(_) => "run.step.asked.v1",
            Self::StepResolved(_) => "run.step.resolved.v1",
            Self::StepSkipped(_) => "run.step.skipped.v1",
            Self::CheckpointSaved(_) => "run.checkpoint.saved.v1",
            Self::RunMigrated(_) => "run.migrated.v1",
            Self::RunCancelled(_) => "run.cancelled.v1",
            Self::RunCompleted(_) => "run.completed.v1",
            Self::RunFailed(_) => "run.failed.v1",
        }
    }
}
