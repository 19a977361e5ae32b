//! The audit trail: every event except the scheduler's bookkeeping.

use convergio_domain::id::{ActorId, TenantId};
use sqlx::AnyConnection;

use crate::bulk_insert::BulkInsert;
use crate::read_model::{AppliedEvent, to_column};

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

/// Adds the row of an event to those that wait, unless it is bookkeeping.
pub(super) fn add_audit_row(rows: &mut Vec<AuditRowInsert>, applied: &AppliedEvent<'_>) {
    let Some(summary_json) = applied.event.audit_summary() else { return };
    rows.push(AuditRowInsert {
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

pub(super) async fn write_rows(
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

/// Deletes the run's rows of the audit trail up to the mark: those acts happened elsewhere, and
/// only the import itself is audited here.
pub(super) async fn delete_imported_rows(
    connection: &mut AnyConnection,
    applied: &AppliedEvent<'_>,
) -> sqlx::Result<()> {
    let sql = "DELETE FROM audit WHERE tenant = $1 AND stream = $2 AND pos < $3";
    let query = sqlx::query(sql)
        .bind(applied.tenant_id())
        .bind(applied.record.stream.stream_name())
        .bind(applied.log_position());
    query.execute(connection).await?;
    Ok(())
}

fn hex_digits(hash: &[u8]) -> String {
    const DIGITS: &[u8; 16] = b"0123456789abcdef";
    let digits = hash.iter().flat_map(|byte| [byte >> 4, byte & 15]);
    digits.map(|digit| char::from(DIGITS[usize::from(digit)])).collect()
}
