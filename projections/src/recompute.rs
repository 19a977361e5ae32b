//! The rows of one run, folded anew from its records alone, to be compared with those in use.

use std::path::Path;
use std::sync::Arc;

use convergio_domain::stream::StreamKey;
use convergio_eventstore::{Position, Record};

use crate::error::ProjectionError;
use crate::projector::{Projections, apply_page};
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
    let mut connection = models.connect().await?;
    let mut at = Position::START;
    for page in records.chunks(PAGE) {
        at = apply_page(&mut connection, at, page).await?;
    }
    sqlx::Connection::close(connection).await?;
    let rows = models.queries().rows_of(run).await;
    models.close().await;
    rows
}
