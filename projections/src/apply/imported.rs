//! The mark of an imported run. The run's history is shown as it is, but nothing of it happened in
//! this log: what was folded before the mark is taken back from billing, audit trail and approvals.

use convergio_domain::event::lifecycle::Imported;

use super::{Applied, Page, billing, run};

pub(super) async fn apply(
    page: &mut Page<'_>,
    a: &Applied<'_>,
    mark: &Imported,
) -> sqlx::Result<()> {
    // The statements below work on tables, so cached rows are written first.
    page.held.flush(&mut *page.to).await?;
    // Costs were paid to providers elsewhere, and must not enter this ledger.
    billing::unbook(page, a).await?;
    forget_acts(page, a).await?;
    close_questions(page, a).await?;
    run::change(page, a, |row| {
        row.imported_by = Some(mark.by.to_string());
        row.imported_ms = Some(a.at().0);
        row.imported_file = Some(mark.file_hash.clone());
        row.imported_signer.clone_from(&mark.signer);
    })
    .await
}

/// Deletes the run's rows of the audit trail up to the mark: those acts happened elsewhere, and
/// only the import itself is audited here.
async fn forget_acts(page: &mut Page<'_>, a: &Applied<'_>) -> sqlx::Result<()> {
    let sql = "DELETE FROM audit WHERE tenant = $1 AND stream = $2 AND pos < $3";
    let query = sqlx::query(sql).bind(a.tenant()).bind(a.record.stream.name()).bind(a.pos());
    query.execute(&mut *page.to).await?;
    Ok(())
}

/// Voids the run's approvals: nobody can answer them here, and nobody did.
async fn close_questions(page: &mut Page<'_>, a: &Applied<'_>) -> sqlx::Result<()> {
    let sql = "UPDATE approval SET state = 'void', answered_by = NULL, answered_ms = NULL, \
        reason = NULL WHERE tenant = $1 AND run = $2";
    sqlx::query(sql).bind(a.tenant()).bind(a.id()).execute(&mut *page.to).await?;
    Ok(())
}
