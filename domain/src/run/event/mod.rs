//! Events of runs, and their wire types.
//!
//! - `lifecycle`: payloads of creation, steps, model calls, usage and the end of a run.
//! - `turn`: payloads of turns and tool calls of an agent, and of child runs.
//! - `control`: payloads of pause, retry, amendment, signals, decisions and forks from outside.
//! - `audit`: what an auditor sees of each.

mod audit;
mod control;
mod lifecycle;
mod turn;

pub use control::{
    CheckpointSaved, RunAmended, RunForked, RunImported, RunPaused, RunReopened, RunResumed,
    SignalAwaited, SignalReceived, StepAsked, StepResolved, StepSkipped,
};
pub use lifecycle::{
    AgentSpawned, ApprovalAnswered, ApprovalRequested, BranchDecided, BudgetExhausted, BudgetHold,
    MapExpanded, ModelCallCompleted, ModelCallFailed, ModelCallIntended, RunCancelled,
    RunCompleted, RunCreated, RunFailed, RunMigrated, StepCompleted, StepFailed, StepRetried,
    StepScheduled, StepStarted, StepUnknown, TimerFired, TimerSet, UsageRecorded,
};
pub use turn::{
    ChildCreated, ChildEnded, ChildIntended, ChildReopened, ParentTold, ToolCallCompleted,
    ToolCallDenied, ToolCallFailed, ToolCallIntended, ToolCallQueued, ToolIntended,
};

use crate::event::noun_events::noun_events;
use crate::id::{GraphId, GraphVersion, StepId};

noun_events! {
    /// Events of run streams.
    pub enum RunEvent {
        RunCreated(RunCreated) = "run.created.v1",
        StepScheduled(StepScheduled) = "run.step.scheduled.v1",
        StepStarted(StepStarted) = "run.step.started.v1",
        MapExpanded(MapExpanded) = "run.map.expanded.v1",
        StepCompleted(StepCompleted) = "run.step.completed.v1",
        StepFailed(StepFailed) = "run.step.failed.v1",
        StepUnknown(StepUnknown) = "run.step.unknown.v1",
        StepRetried(StepRetried) = "run.step.retried.v1",
        BranchDecided(BranchDecided) = "run.branch.decided.v1",
        TimerSet(TimerSet) = "run.timer.set.v1",
        TimerFired(TimerFired) = "run.timer.fired.v1",
        ApprovalRequested(ApprovalRequested) = "run.approval.requested.v1",
        ApprovalGranted(ApprovalAnswered) = "run.approval.granted.v1",
        ApprovalDenied(ApprovalAnswered) = "run.approval.denied.v1",
        ModelCallIntended(ModelCallIntended) = "run.model_call.intended.v1",
        ModelCallCompleted(ModelCallCompleted) = "run.model_call.completed.v1",
        ModelCallFailed(ModelCallFailed) = "run.model_call.failed.v1",
        ToolIntended(ToolIntended) = "run.tool.intended.v1",
        ToolCallIntended(ToolCallIntended) = "run.tool_call.intended.v1",
        ToolCallQueued(ToolCallQueued) = "run.tool_call.queued.v1",
        ToolCallCompleted(ToolCallCompleted) = "run.tool_call.completed.v1",
        ToolCallFailed(ToolCallFailed) = "run.tool_call.failed.v1",
        ToolCallDenied(ToolCallDenied) = "run.tool_call.denied.v1",
        ChildIntended(ChildIntended) = "run.child.intended.v1",
        ChildCreated(ChildCreated) = "run.child.created.v1",
        ChildEnded(ChildEnded) = "run.child.ended.v1",
        ChildReopened(ChildReopened) = "run.child.reopened.v1",
        ParentTold(ParentTold) = "run.parent.told.v1",
        AgentSpawned(AgentSpawned) = "agent.spawned.v1",
        UsageRecorded(UsageRecorded) = "run.usage.recorded.v1",
        BudgetExhausted(BudgetExhausted) = "run.budget.exhausted.v1",
        RunPaused(RunPaused) = "run.paused.v1",
        RunResumed(RunResumed) = "run.resumed.v1",
        RunReopened(RunReopened) = "run.reopened.v1",
        RunAmended(RunAmended) = "run.amended.v1",
        RunForked(RunForked) = "run.forked.v1",
        RunImported(RunImported) = "run.imported.v1",
        SignalAwaited(SignalAwaited) = "run.signal.awaited.v1",
        SignalReceived(SignalReceived) = "run.signal.received.v1",
        StepAsked(StepAsked) = "run.step.asked.v1",
        StepResolved(StepResolved) = "run.step.resolved.v1",
        StepSkipped(StepSkipped) = "run.step.skipped.v1",
        CheckpointSaved(CheckpointSaved) = "run.checkpoint.saved.v1",
        RunMigrated(RunMigrated) = "run.migrated.v1",
        RunCancelled(RunCancelled) = "run.cancelled.v1",
        RunCompleted(RunCompleted) = "run.completed.v1",
        RunFailed(RunFailed) = "run.failed.v1",
    }
}

impl RunEvent {
    /// Returns the graph version that the run executes from this event on, with its graph unless
    /// that stays; `None` if the event changes neither.
    pub fn chosen_version(&self) -> Option<(Option<GraphId>, &GraphVersion)> {
        use RunEvent::{
            AgentSpawned, ApprovalDenied, ApprovalGranted, ApprovalRequested, BranchDecided,
            BudgetExhausted, CheckpointSaved, ChildCreated, ChildEnded, ChildIntended,
            ChildReopened, MapExpanded, ModelCallFailed, ModelCallIntended, ParentTold, RunAmended,
            RunCancelled, RunCompleted, RunFailed, RunImported, RunPaused, RunReopened, RunResumed,
            SignalAwaited, SignalReceived, StepAsked, StepCompleted, StepFailed, StepResolved,
            StepRetried, StepScheduled, StepSkipped, StepStarted, StepUnknown, TimerFired,
            TimerSet, ToolCallCompleted, ToolCallDenied, ToolCallFailed, ToolCallIntended,
            ToolCallQueued, UsageRecorded,
        };
        match self {
            Self::RunCreated(created) => Some((Some(created.graph), &created.version)),
            Self::RunForked(forked) => Some((Some(forked.graph), &forked.version)),
            Self::RunMigrated(migrated) => Some((None, &migrated.to)),
            Self::ToolIntended(_) | Self::ModelCallCompleted(_) => None,
            StepScheduled(_) | StepStarted(_) | MapExpanded(_) | StepCompleted(_)
            | StepFailed(_) | StepUnknown(_) | StepRetried(_) | BranchDecided(_) | TimerSet(_)
            | TimerFired(_) | ApprovalRequested(_) | ApprovalGranted(_) | ApprovalDenied(_)
            | ModelCallIntended(_) | ModelCallFailed(_) | ToolCallIntended(_)
            | ToolCallQueued(_) | ToolCallCompleted(_) | ToolCallFailed(_) | ToolCallDenied(_)
            | ChildIntended(_) | ChildCreated(_) | ChildEnded(_) | ChildReopened(_)
            | ParentTold(_) | AgentSpawned(_) | UsageRecorded(_) | BudgetExhausted(_)
            | RunPaused(_) | RunResumed(_) | RunReopened(_) | RunAmended(_) | RunImported(_)
            | SignalAwaited(_) | SignalReceived(_) | StepAsked(_) | StepResolved(_)
            | StepSkipped(_) | CheckpointSaved(_) | RunCancelled(_) | RunCompleted(_)
            | RunFailed(_) => None,
        }
    }

    /// Returns the step that the event is about; `None` if it is about the run or a child run.
    pub fn subject_step(&self) -> Option<StepId> {
        match self {
            Self::MapExpanded(e) => Some(StepId::for_node(e.node.clone())),
            Self::BranchDecided(e) => Some(StepId::for_node(e.node.clone())),
            Self::StepScheduled(e) => Some(e.step.clone()),
            Self::StepStarted(e) => Some(e.step.clone()),
            Self::StepCompleted(e) => Some(e.step.clone()),
            Self::StepFailed(e) => Some(e.step.clone()),
            Self::StepUnknown(e) => Some(e.step.clone()),
            Self::StepRetried(e) => Some(e.step.clone()),
            Self::TimerSet(e) => Some(e.step.clone()),
            Self::TimerFired(e) => Some(e.step.clone()),
            Self::ApprovalRequested(e) => Some(e.step.clone()),
            Self::ModelCallIntended(e) => Some(e.step.clone()),
            Self::ModelCallCompleted(e) => Some(e.step.clone()),
            Self::ModelCallFailed(e) => Some(e.step.clone()),
            Self::ToolIntended(e) => Some(e.step.clone()),
            Self::ToolCallIntended(e) => Some(e.step.clone()),
            Self::ToolCallQueued(e) => Some(e.step.clone()),
            Self::ToolCallCompleted(e) => Some(e.step.clone()),
            Self::ToolCallFailed(e) => Some(e.step.clone()),
            Self::ToolCallDenied(e) => Some(e.step.clone()),
            Self::ChildIntended(e) => Some(e.step.clone()),
            Self::ChildReopened(e) => Some(e.step.clone()),
            Self::UsageRecorded(e) => Some(e.step.clone()),
            Self::BudgetExhausted(e) => Some(e.step.clone()),
            Self::SignalAwaited(e) => Some(e.step.clone()),
            Self::StepAsked(e) => Some(e.step.clone()),
            Self::StepResolved(e) => Some(e.step.clone()),
            Self::StepSkipped(e) => Some(e.step.clone()),
            Self::RunFailed(e) => e.step.clone(),
            Self::RunCreated(_)
            | Self::ApprovalGranted(_)
            | Self::ApprovalDenied(_)
            | Self::ChildCreated(_)
            | Self::ChildEnded(_)
            | Self::ParentTold(_)
            | Self::AgentSpawned(_)
            | Self::RunPaused(_)
            | Self::RunResumed(_)
            | Self::RunReopened(_)
            | Self::RunAmended(_)
            | Self::RunForked(_)
            | Self::RunImported(_)
            | Self::SignalReceived(_)
            | Self::CheckpointSaved(_)
            | Self::RunMigrated(_)
            | Self::RunCancelled(_)
            | Self::RunCompleted(_) => None,
        }
    }
}
