//! The mark of an imported run. The run's history is shown as it is, but nothing of it happened in
//! this log: what was folded before the mark is taken back from billing, audit trail and approvals.

use super::{AppliedEvent, ApplyBatch, billing, run};
use convergio_domain::run::event::RunImported;

pub(super) async fn apply(
    batch: &mut ApplyBatch<'_>,
    applied: &AppliedEvent<'_>,
    import: &RunImported,
) -> sqlx::Result<()> {
    // The statements below work on tables, so cached rows are written first.
    batch.row_cache.flush_rows(&mut *batch.transaction).await?;
    // Costs were paid to providers elsewhere, and must not enter this ledger.
    billing::reverse_billing(batch, applied).await?;
    delete_audit_rows(batch, applied).await?;
    void_approvals(batch, applied).await?;
    run::change_run(batch, applied, |row| {
        row.imported_by = Some(import.by.to_string());
        row.imported_ms = Some(applied.recorded_at().0);
        row.imported_file = Some(import.file_hash.clone());
        row.imported_signer.clone_from(&import.signer);
    })
    .await
}

/// Deletes the run's rows of the audit trail up to the mark: those acts happened elsewhere, and
/// only the import itself is audited here.
async fn delete_audit_rows(
    batch: &mut ApplyBatch<'_>,
    applied: &AppliedEvent<'_>,
) -> sqlx::Result<()> {
    let sql = "DELETE FROM audit WHERE tenant = $1 AND stream = $2 AND pos < $3";
    let query = sqlx::query(sql)
        .bind(applied.tenant_id())
        .bind(applied.record.stream.stream_name())
        .bind(applied.log_position());
    query.execute(&mut *batch.transaction).await?;
    Ok(())
}

/// Voids the run's approvals: nobody can answer them here, and nobody did.
async fn void_approvals(
    batch: &mut ApplyBatch<'_>,
    applied: &AppliedEvent<'_>,
) -> sqlx::Result<()> {
    let sql = "UPDATE approval SET state = 'void', answered_by = NULL, answered_ms = NULL, \
        reason = NULL WHERE tenant = $1 AND run = $2";
    sqlx::query(sql)
        .bind(applied.tenant_id())
        .bind(applied.stream_id())
        .execute(&mut *batch.transaction)
        .await?;
    Ok(())
}
