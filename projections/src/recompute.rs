//! The rows of one run, folded anew from its records alone, to be compared with those in use.

use std::path::Path;
use std::sync::Arc;

use convergio_domain::stream::StreamKey;
use convergio_eventstore::Record;

use crate::error::ProjectionError;
use crate::projector::Projections;
use crate::query::TableRow;
use crate::store::remove;

/// Records folded in one transaction.
const PAGE: usize = 512;

/// Folds the records of a run, and what is registered before it, into read models of their own, and
/// gives the rows of the run. `scratch` is a file that is made and removed.
///
/// # Errors
/// The file cannot be used.
pub async fn recompute(
    scratch: &Path,
    run: &StreamKey,
    records: &[Arc<Record>],
) -> Result<Vec<TableRow>, ProjectionError> {
    remove(scratch)?;
    let folded = fold(scratch, run, records).await;
    remove(scratch)?;
    folded
}

async fn fold(
    scratch: &Path,
    run: &StreamKey,
    records: &[Arc<Record>],
) -> Result<Vec<TableRow>, ProjectionError> {
    let models = Projections::open(scratch).await?;
    let mut writer = models.writer().await?;
    for page in records.chunks(PAGE) {
        writer = writer.apply(page).await?;
    }
    writer.close().await?;
    let rows = models.queries().rows_of(run).await;
    models.close().await;
    rows
}
