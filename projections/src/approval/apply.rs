//! What events change in approvals.

use convergio_domain::run::event::{ApprovalAnswered, ApprovalRequested};
use convergio_domain::time::Span;
use sqlx::AnyConnection;

use crate::read_model::{AppliedEvent, replace_nul, to_column};

/// Inserts an approval. An imported file may hold anything, also the same approval twice.
pub(super) async fn insert_approval(
    connection: &mut AnyConnection,
    applied: &AppliedEvent<'_>,
    requested: &ApprovalRequested,
) -> sqlx::Result<()> {
    let sql = "INSERT INTO approval (tenant, approval, run, step, role, content, content_hash, \
        state, asked_ms, expires_ms, pos) VALUES ($1, $2, $3, $4, $5, $6, $7, 'open', $8, $9, $10) \
        ON CONFLICT (tenant, approval, run) DO NOTHING";
    sqlx::query(sql)
        .bind(applied.tenant_id())
        .bind(requested.approval.to_string())
        .bind(applied.stream_id())
        .bind(requested.step.to_string())
        .bind(&requested.role)
        .bind(requested.content.to_string())
        .bind(&requested.content_hash)
        .bind(applied.recorded_at().0)
        .bind(requested.expires.map(|expires| expires.0))
        .bind(applied.log_position())
        .execute(connection)
        .await?;
    Ok(())
}

pub(super) async fn update_approval(
    connection: &mut AnyConnection,
    applied: &AppliedEvent<'_>,
    answer: &ApprovalAnswered,
    state: &str,
) -> sqlx::Result<()> {
    let sql = "UPDATE approval SET state = $1, answered_by = $2, answered_ms = $3, reason = $4, \
        reason_at = $5 WHERE tenant = $6 AND approval = $7 AND run = $8";
    sqlx::query(sql)
        .bind(state)
        .bind(answer.by.as_str())
        .bind(applied.recorded_at().0)
        .bind(answer.reason.as_deref().map(replace_nul))
        .bind(answer.reason_at.map(|reference| reference.to_string()))
        .bind(applied.tenant_id())
        .bind(answer.approval.to_string())
        .bind(applied.stream_id())
        .execute(connection)
        .await?;
    Ok(())
}

/// Changes the state of all approvals of a run that are in another one: `void` ones were open when
/// the run ended.
pub(super) async fn move_approvals(
    connection: &mut AnyConnection,
    applied: &AppliedEvent<'_>,
    (from, to): (&str, &str),
) -> sqlx::Result<()> {
    let sql = "UPDATE approval SET state = $1 WHERE tenant = $2 AND run = $3 AND state = $4";
    let query = sqlx::query(sql).bind(to).bind(applied.tenant_id()).bind(applied.stream_id());
    query.bind(from).execute(connection).await.map(drop)
}

/// Extends the deadlines of open approvals by the time that the run was paused.
pub(super) async fn extend_deadlines(
    connection: &mut AnyConnection,
    applied: &AppliedEvent<'_>,
    paused_for: Option<Span>,
) -> sqlx::Result<()> {
    let Some(paused_for) = paused_for.filter(|stood| stood.0 > 0) else { return Ok(()) };
    let sql = "UPDATE approval SET expires_ms = expires_ms + $1 WHERE tenant = $2 AND run = $3 \
        AND state = 'open' AND expires_ms IS NOT NULL";
    let query = sqlx::query(sql)
        .bind(to_column(paused_for.0))
        .bind(applied.tenant_id())
        .bind(applied.stream_id());
    query.execute(connection).await.map(drop)
}

/// Voids the run's approvals: nobody can answer them here, and nobody did.
pub(super) async fn void_imported_approvals(
    connection: &mut AnyConnection,
    applied: &AppliedEvent<'_>,
) -> sqlx::Result<()> {
    let sql = "UPDATE approval SET state = 'void', answered_by = NULL, answered_ms = NULL, \
        reason = NULL WHERE tenant = $1 AND run = $2";
    sqlx::query(sql)
        .bind(applied.tenant_id())
        .bind(applied.stream_id())
        .execute(connection)
        .await?;
    Ok(())
}
