//! Building read models anew: beside those in use, swapped in when they are complete.

use convergio_eventstore::{EventLog, Position};

use crate::error::ProjectionError;
use crate::projector::Projections;
use crate::store::{Place, Store};

/// Folds the whole log into fresh read models and puts them in the place of the old ones.
///
/// # Errors
/// The log cannot be read or the read models cannot be written; the old ones are left as they were.
pub async fn rebuild(
    store: impl Into<Store>,
    log: &dyn EventLog,
    progress: impl FnMut(Position, Position) + Send,
) -> Result<(), ProjectionError> {
    let fresh = Place { store: store.into(), is_fresh: true };
    fresh.clear().await?;
    let projections = Projections::open_at(fresh.clone()).await?;
    projections.catch_up(log, progress).await?;
    projections.close().await;
    fresh.swap().await
}
