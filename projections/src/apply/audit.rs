//! The audit trail: every event except the scheduler's bookkeeping.

use convergio_domain::event::Event;
use convergio_domain::id::{ActorId, TenantId};
use serde_json::{Value, json};
use sqlx::AnyConnection;

use super::bulk_insert::BulkInsert;
use super::{AppliedEvent, RowCache, to_column};

/// A row of the audit trail that waits to be written.
pub(super) struct AuditRowInsert {
    tenant: TenantId,
    pos: i64,
    index: i64,
    event: String,
    stream: String,
    seq: i64,
    at_ms: i64,
    actor: ActorId,
    type_name: &'static str,
    summary: String,
    hash: String,
}

pub(super) fn apply(row_cache: &mut RowCache, applied: &AppliedEvent<'_>) {
    let Some(summary_json) = audit_summary(applied.event) else { return };
    row_cache.audit.push(AuditRowInsert {
        tenant: applied.record.stream.tenant.clone(),
        pos: applied.log_position(),
        index: to_column(applied.index as u64),
        event: applied.event_id(),
        stream: applied.record.stream.stream_name(),
        seq: to_column(applied.seq.0),
        at_ms: applied.recorded_at().0,
        actor: applied.record.body.actor.clone(),
        type_name: applied.event.type_name(),
        summary: summary_json.to_string(),
        hash: hex_digits(&applied.record.hash),
    });
}

static AUDIT_INSERT: BulkInsert = BulkInsert::new(
    "INSERT INTO audit (tenant, pos, idx, event, stream, seq, at_ms, actor, type, summary, hash)",
    11,
    "",
);

pub(super) async fn write(
    connection: &mut AnyConnection,
    lines: &[AuditRowInsert],
) -> sqlx::Result<()> {
    AUDIT_INSERT
        .write(connection, lines, |query, line| {
            query
                .bind(line.tenant.as_str())
                .bind(line.pos)
                .bind(line.index)
                .bind(&line.event)
                .bind(&line.stream)
                .bind(line.seq)
                .bind(line.at_ms)
                .bind(line.actor.as_str())
                .bind(line.type_name)
                .bind(&line.summary)
                .bind(&line.hash)
        })
        .await
}

fn hex_digits(hash: &[u8]) -> String {
    const DIGITS: &[u8; 16] = b"0123456789abcdef";
    let digits = hash.iter().flat_map(|byte| [byte >> 4, byte & 15]);
    digits.map(|digit| char::from(DIGITS[usize::from(digit)])).collect()
}

/// Summary of an event of an agent's tool call.
fn tool_call_summary(event: &Event) -> Option<Value> {
    Some(match event {
        Event::ToolCallQueued(e) => {
            json!({"step": e.step, "turn": e.tool_call.turn, "call": e.tool_call.call,
            "tool": e.name})
        }
        Event::ToolCallIntended(e) => {
            json!({"step": e.step, "turn": e.tool_call.turn, "call": e.tool_call.call,
            "tool": e.name})
        }
        Event::ToolCallCompleted(e) => {
            json!({"step": e.step, "turn": e.tool_call.turn, "call": e.tool_call.call})
        }
        Event::ToolCallFailed(e) => {
            json!({"step": e.step, "turn": e.tool_call.turn, "call": e.tool_call.call,
            "error": e.error.code})
        }
        Event::ToolCallDenied(e) => {
            json!({"step": e.step, "turn": e.tool_call.turn, "call": e.tool_call.call,
            "tool": e.name})
        }
        _ => return None,
    })
}

/// Summary for an auditor to read at a glance; `None` for bookkeeping, which is not an act of a
/// person or a program.
fn audit_summary(event: &Event) -> Option<Value> {
    use Event::{RequestAccepted, RequestAnswered, RequestApplied};
    Some(match event {
        Event::StepScheduled(_) | Event::StepStarted(_) => return None,
        RequestAccepted(_) | RequestAnswered(_) | RequestApplied(_) => return None,
        Event::GraphRegistered(e) => json!({"graph": e.name, "version": e.version}),
        Event::MemoryStored(e) => json!({"memory": e.memory, "subject": e.subject}),
        Event::MemoryForgotten(e) => json!({"memory": e.memory}),
        Event::TokenIssued(e) => json!({"token": e.token, "for": e.actor, "roles": e.roles}),
        Event::TokenRevoked(e) => json!({"token": e.token}),
        Event::RunCreated(e) => json!({"graph": e.graph, "version": e.version}),
        Event::MapExpanded(e) => json!({"step": e.node, "width": e.width}),
        Event::StepCompleted(e) => json!({"step": e.step, "attempt": e.attempt}),
        Event::StepFailed(e) => json!({"step": e.step, "error": e.error.code, "last": e.last}),
        Event::StepUnknown(e) => json!({"step": e.step, "attempt": e.attempt}),
        Event::StepRetried(e) => json!({"step": e.step, "attempt": e.attempt}),
        Event::BranchDecided(e) => json!({"step": e.node, "case": e.case}),
        Event::TimerSet(e) => json!({"step": e.step, "due_ms": e.due}),
        Event::TimerFired(e) => json!({"step": e.step}),
        Event::ApprovalRequested(e) => {
            json!({"approval": e.approval, "step": e.step, "role": e.role})
        }
        Event::ApprovalGranted(e) | Event::ApprovalDenied(e) => {
            json!({"approval": e.approval, "by": e.by, "content_hash": e.content_hash})
        }
        Event::ModelCallIntended(e) => {
            json!({"step": e.step, "provider": e.provider, "model": e.model, "route": e.route})
        }
        Event::ModelCallCompleted(e) => json!({"step": e.step, "model": e.model,
            "finish": e.finish, "duration_ms": e.duration_ms}),
        Event::ModelCallFailed(e) => json!({"step": e.step, "error": e.error.code}),
        Event::ToolCallQueued(_)
        | Event::ToolCallIntended(_)
        | Event::ToolCallCompleted(_)
        | Event::ToolCallFailed(_)
        | Event::ToolCallDenied(_) => return tool_call_summary(event),
        Event::ChildIntended(e) => json!({"step": e.step, "run": e.child, "graph": e.graph,
            "version": e.version}),
        Event::ChildEnded(e) => json!({"run": e.child, "tokens": e.tokens, "cost": e.cost,
            "error": e.error.as_ref().map(|error| error.code.as_str())}),
        Event::ChildReopened(e) => json!({"step": e.step, "run": e.child}),
        Event::ChildCreated(_) | Event::ParentTold(_) => return None,
        Event::AgentCreated(e) | Event::AgentUpdated(e) => {
            json!({"agent": e.name, "version": e.version})
        }
        Event::AgentSpawned(e) => json!({"agent": e.agent}),
        Event::AgentTerminated(_) => json!({}),
        Event::UsageRecorded(e) => json!({"step": e.step, "model": e.model,
            "tokens_in": e.usage.tokens_in(), "tokens_out": e.usage.tokens_out(),
            "confirmed": e.confirmed, "cost": e.charge.as_ref().map(|charge| charge.amount)}),
        Event::BudgetExhausted(e) => json!({"step": e.step, "limit": e.limit}),
        _ => return control_summary(event),
    })
}

/// Summary of what people and programs did to a run from outside, and of its end.
fn control_summary(event: &Event) -> Option<Value> {
    Some(match event {
        Event::RunPaused(_)
        | Event::RunResumed(_)
        | Event::RunCancelled(_)
        | Event::RunCompleted(_) => json!({}),
        Event::RunReopened(e) => json!({"steps": e.steps}),
        Event::RunAmended(e) => json!({"budget": e.budget}),
        Event::RunForked(e) => json!({"parent": e.parent, "seq": e.seq, "graph": e.graph,
            "version": e.version, "changes": e.changes}),
        Event::SignalAwaited(e) => json!({"step": e.step, "signal": e.signal}),
        Event::SignalReceived(e) => json!({"id": e.id, "signal": e.signal}),
        Event::StepAsked(e) => {
            json!({"step": e.step, "attempt": e.attempt, "unknown": e.unknown})
        }
        Event::StepResolved(e) => json!({"step": e.step, "resolution": e.resolution, "by": e.by}),
        Event::StepSkipped(e) => json!({"step": e.step, "attempt": e.attempt}),
        Event::CheckpointSaved(e) => json!({"label": e.label}),
        Event::RunMigrated(e) => json!({"from": e.from, "to": e.to}),
        Event::RunImported(e) => json!({"by": e.by, "file_hash": e.file_hash, "signer": e.signer}),
        Event::RunFailed(e) => json!({"step": e.step, "error": e.error.code}),
        _ => return None,
    })
}
