//! The rows of one run, folded again from its records alone, for comparison with those in use.

use std::path::Path;
use std::sync::Arc;

use convergio_domain::stream::StreamKey;
use convergio_eventstore::Record;

use crate::dump::TableRow;
use crate::error::ProjectionError;
use crate::projector::Projections;
use crate::store::remove_database_files;

/// Maximum records folded in one transaction.
const BATCH_LIMIT: usize = 512;

/// Folds the records of a run, preceded by those that register its graph, into read models of their
/// own and returns the rows of the run. `scratch` is a database file that is created and removed.
///
/// # Errors
/// The file cannot be created, written or removed.
pub async fn recompute_run_rows(
    scratch: &Path,
    run: &StreamKey,
    records: &[Arc<Record>],
) -> Result<Vec<TableRow>, ProjectionError> {
    remove_database_files(scratch)?;
    let folded = fold_records(scratch, run, records).await;
    // Removed on failure too: the fold's error is returned after the file is gone.
    remove_database_files(scratch)?;
    folded
}

async fn fold_records(
    scratch: &Path,
    run: &StreamKey,
    records: &[Arc<Record>],
) -> Result<Vec<TableRow>, ProjectionError> {
    // An ordinary store in a scratch file: the fold is the same code that the live rows come from.
    let models = Projections::open(scratch).await?;
    let mut writer = models.open_writer().await?;
    for page in records.chunks(BATCH_LIMIT) {
        writer = writer.apply(page).await?;
    }
    writer.close().await?;
    let rows = models.query_handle().list_run_rows(run).await;
    models.close().await;
    rows
}
