//! A run that turns out to be imported: its history is shown as it is, and nothing of it is this
//! log's own doing. What was folded of it before its mark is taken back.

use convergio_domain::event::lifecycle::Imported;

use super::{Applied, Page, billing, run};

pub(super) async fn apply(
    page: &mut Page<'_>,
    a: &Applied<'_>,
    mark: &Imported,
) -> sqlx::Result<()> {
    // What is taken back must be in the tables.
    page.held.flush(&mut *page.to).await?;
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

/// Who did what elsewhere did nothing here: the trail tells of the import alone.
async fn forget_acts(page: &mut Page<'_>, a: &Applied<'_>) -> sqlx::Result<()> {
    let sql = "DELETE FROM audit WHERE tenant = $1 AND stream = $2 AND pos < $3";
    let query = sqlx::query(sql).bind(a.tenant()).bind(a.record.stream.name()).bind(a.pos());
    query.execute(&mut *page.to).await?;
    Ok(())
}

/// Nobody can answer what an imported run asks, and nobody answered it here.
async fn close_questions(page: &mut Page<'_>, a: &Applied<'_>) -> sqlx::Result<()> {
    let sql = "UPDATE approval SET state = 'void', answered_by = NULL, answered_ms = NULL, \
        reason = NULL WHERE tenant = $1 AND run = $2";
    sqlx::query(sql).bind(a.tenant()).bind(a.id()).execute(&mut *page.to).await?;
    Ok(())
}
