//! Rebuild of all read models from the log, beside those in use and swapped in when complete.

use convergio_eventstore::{EventLog, Position};

use crate::error::ProjectionError;
use crate::projector::Projections;
use crate::store::{ReadModelStore, StoreCopy};

/// Folds the whole log into a fresh copy and swaps it in for the one in use.
///
/// # Errors
/// The log cannot be read or the read models cannot be written; the copy in use is left as it was.
pub async fn rebuild_read_models(
    store: impl Into<ReadModelStore>,
    log: &dyn EventLog,
    progress: impl FnMut(Position, Position) + Send,
) -> Result<(), ProjectionError> {
    let fresh = StoreCopy { store: store.into(), is_fresh: true };
    // An earlier rebuild may have stopped half-way: its rows are not to be trusted.
    fresh.clear_fresh_copy().await?;
    let projections = Projections::open_at(fresh.clone()).await?;
    projections.catch_up(log, progress).await?;
    // The swap needs the fresh copy without open connections.
    projections.close().await;
    fresh.swap_into_use().await
}
