//! Building read models anew: into a file beside, swapped in when it is complete.

use std::path::{Path, PathBuf};

use convergio_eventstore::{EventLog, Position};

use crate::error::ProjectionError;
use crate::projector::Projections;

/// Folds the whole log into a fresh file and puts it in the place of the old one.
///
/// # Errors
/// The log cannot be read or the files cannot be written; the old file is left as it was.
pub async fn rebuild(
    file: &Path,
    log: &dyn EventLog,
    progress: impl FnMut(Position, Position) + Send,
) -> Result<(), ProjectionError> {
    let fresh = file.with_extension("rebuild");
    remove(&fresh)?;
    let projections = Projections::open(&fresh).await?;
    projections.catch_up(log, progress).await?;
    projections.close_whole().await?;
    remove(file)?;
    std::fs::rename(&fresh, file)?;
    remove(&fresh)
}

/// Removes a database with its journals.
fn remove(file: &Path) -> Result<(), ProjectionError> {
    for suffix in ["", "-wal", "-shm"] {
        let path = PathBuf::from(format!("{}{suffix}", file.display()));
        match std::fs::remove_file(path) {
            Err(error) if error.kind() != std::io::ErrorKind::NotFound => return Err(error.into()),
            _ => {}
        }
    }
    Ok(())
}
