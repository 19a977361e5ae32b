//! What can go wrong with read models.

use convergio_eventstore::LogError;

/// Why read models cannot be read or written.
#[derive(Debug, thiserror::Error)]
pub enum ProjectionError {
    /// The database.
    #[error("the read models: {0}")]
    Database(#[from] sqlx::Error),
    /// The database's tables cannot be made.
    #[error("the read models' tables: {0}")]
    Migration(#[from] sqlx::migrate::MigrateError),
    /// The log.
    #[error(transparent)]
    Log(#[from] LogError),
    /// Another projector moves the position.
    #[error("another projector writes to the same read models: stop one of them")]
    NotAlone,
    /// A file operation of a rebuild.
    #[error("the read models' file: {0}")]
    File(#[from] std::io::Error),
    /// A cursor that we did not give out.
    #[error("`{0}` is not a cursor: use the `next_cursor` of the page before")]
    BadCursor(String),
}
