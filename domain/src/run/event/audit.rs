//! Content of run events that an auditor sees at a glance.

use serde_json::{Value, json};

use super::{RunEvent, UsageRecorded};
use crate::id::StepId;
use crate::run::ToolCallNumber;

impl RunEvent {
    /// Returns the content of the event that an auditor sees; `None` for the scheduler's
    /// bookkeeping.
    pub(crate) fn audit_summary(&self) -> Option<Value> {
        Some(match self {
            Self::StepScheduled(_) | Self::StepStarted(_) => return None,
            Self::ChildCreated(_) | Self::ParentTold(_) => return None,
            Self::RunPaused(_) | Self::RunResumed(_) => json!({}),
            Self::RunCancelled(_) | Self::RunCompleted(_) => json!({}),
            Self::RunCreated(e) => json!({"graph": e.graph, "version": e.version}),
            Self::AgentSpawned(e) => json!({"agent": e.agent}),
            Self::MapExpanded(e) => json!({"step": e.node, "width": e.width}),
            Self::StepCompleted(e) => json!({"step": e.step, "attempt": e.attempt}),
            Self::StepFailed(e) => json!({"step": e.step, "error": e.error.code, "last": e.last}),
            Self::StepUnknown(e) => json!({"step": e.step, "attempt": e.attempt}),
            Self::StepRetried(e) => json!({"step": e.step, "attempt": e.attempt}),
            Self::BranchDecided(e) => json!({"step": e.node, "case": e.case}),
            Self::TimerSet(e) => json!({"step": e.step, "due_ms": e.due}),
            Self::TimerFired(e) => json!({"step": e.step}),
            Self::ApprovalRequested(e) => {
                json!({"approval": e.approval, "step": e.step, "role": e.role})
            }
            Self::ApprovalGranted(e) | Self::ApprovalDenied(e) => {
                json!({"approval": e.approval, "by": e.by, "content_hash": e.content_hash})
            }
            Self::ModelCallIntended(e) => {
                json!({"step": e.step, "provider": e.provider, "model": e.model, "route": e.route})
            }
            Self::ModelCallCompleted(e) => json!({"step": e.step, "model": e.model,
                "finish": e.finish, "duration_ms": e.duration_ms}),
            Self::ModelCallFailed(e) => json!({"step": e.step, "error": e.error.code}),
            Self::ToolIntended(e) => json!({"step": e.step, "tool": e.name}),
            Self::ToolCallQueued(e) => tool_call_summary(&e.step, e.tool_call, ("tool", &e.name)),
            Self::ToolCallIntended(e) => tool_call_summary(&e.step, e.tool_call, ("tool", &e.name)),
            Self::ToolCallCompleted(e) => json!({"step": e.step, "turn": e.tool_call.turn,
                "call": e.tool_call.call}),
            Self::ToolCallFailed(e) => {
                tool_call_summary(&e.step, e.tool_call, ("error", e.error.code.as_str()))
            }
            Self::ToolCallDenied(e) => tool_call_summary(&e.step, e.tool_call, ("tool", &e.name)),
            Self::ChildIntended(e) => json!({"step": e.step, "run": e.child, "graph": e.graph,
                "version": e.version}),
            Self::ChildEnded(e) => json!({"run": e.child, "tokens": e.tokens, "cost": e.cost,
                "error": e.error.as_ref().map(|error| error.code.as_str())}),
            Self::ChildReopened(e) => json!({"step": e.step, "run": e.child}),
            Self::UsageRecorded(e) => usage_summary(e),
            Self::BudgetExhausted(e) => json!({"step": e.step, "limit": e.limit}),
            Self::RunReopened(e) => json!({"steps": e.steps}),
            Self::RunAmended(e) => json!({"budget": e.budget}),
            Self::RunForked(e) => json!({"parent": e.parent, "seq": e.seq, "graph": e.graph,
                "version": e.version, "changes": e.changes}),
            Self::SignalAwaited(e) => json!({"step": e.step, "signal": e.signal}),
            Self::SignalReceived(e) => json!({"id": e.id, "signal": e.signal}),
            Self::StepAsked(e) => {
                json!({"step": e.step, "attempt": e.attempt, "unknown": e.unknown})
            }
            Self::StepResolved(e) => {
                json!({"step": e.step, "resolution": e.resolution, "by": e.by})
            }
            Self::StepSkipped(e) => json!({"step": e.step, "attempt": e.attempt}),
            Self::CheckpointSaved(e) => json!({"label": e.label}),
            Self::RunMigrated(e) => json!({"from": e.from, "to": e.to}),
            Self::RunImported(e) => {
                json!({"by": e.by, "file_hash": e.file_hash, "signer": e.signer})
            }
            Self::RunFailed(e) => json!({"step": e.step, "error": e.error.code}),
        })
    }
}

fn usage_summary(usage: &UsageRecorded) -> Value {
    json!({"step": usage.step, "model": usage.model, "tokens_in": usage.usage.tokens_in(),
        "tokens_out": usage.usage.tokens_out(), "confirmed": usage.confirmed,
        "cost": usage.charge.as_ref().map(|charge| charge.amount)})
}

/// Summary of an event of a tool call, with one field beside the call's place.
fn tool_call_summary(step: &StepId, call: ToolCallNumber, (field, text): (&str, &str)) -> Value {
    let mut summary = json!({"step": step, "turn": call.turn, "call": call.call});
    summary[field] = Value::from(text);
    summary
}
