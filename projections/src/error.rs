//! Errors of the read models, and which of them a retry may cure.

use convergio_eventstore::LogError;

/// Result of an operation on the read models.
pub(crate) type Result<T> = std::result::Result<T, ProjectionError>;

/// Error of reading or writing the read models.
#[derive(Debug, thiserror::Error)]
pub enum ProjectionError {
    /// The database refused a statement or cannot be reached.
    #[error("the read models: {0}")]
    Database(#[from] sqlx::Error),
    /// The schema migrations cannot be applied.
    #[error("the read models' tables: {0}")]
    Migration(#[from] sqlx::migrate::MigrateError),
    /// The log cannot be read.
    #[error(transparent)]
    Log(#[from] LogError),
    /// Another projector moved the stored position: two of them write to one store.
    #[error("another projector writes to the same read models: stop one of them")]
    ConcurrentProjector,
    /// A file operation on the database file failed, during a rebuild or when it is opened.
    #[error("the read models' file: {0}")]
    File(#[from] std::io::Error),
    /// The cursor was not issued by a query of this kind.
    #[error("`{0}` is not a cursor: use the `next_cursor` of the page before")]
    BadCursor(String),
}

impl ProjectionError {
    /// True if the same operation may succeed later: the database has no room or is busy, or the
    /// database or the log cannot be reached. Codes are SQLite's primary result codes and the
    /// classes of SQLSTATE.
    pub(crate) fn is_transient(&self) -> bool {
        match self {
            Self::Log(error) => matches!(error, LogError::Unavailable(_)),
            Self::Database(sqlx::Error::Database(error)) => {
                error.code().is_some_and(|code| is_transient_code(&code))
            }
            // A connection that broke in the middle of an answer.
            Self::Database(error) => matches!(
                error,
                sqlx::Error::Io(_)
                    | sqlx::Error::Tls(_)
                    | sqlx::Error::Protocol(_)
                    | sqlx::Error::PoolTimedOut
                    | sqlx::Error::WorkerCrashed
            ),
            _ => false,
        }
    }
}

fn is_transient_code(code: &str) -> bool {
    // An SQLSTATE has five characters, SQLite's numbers have fewer.
    if code.len() == 5 {
        // Connections, rivals (a deadlock), resources (a full disk), an operator's hand.
        return ["08", "40", "53", "57"].iter().any(|class| code.starts_with(class));
    }
    // BUSY, LOCKED, IOERR, FULL, CANTOPEN; the bits above are details.
    code.parse::<u32>().is_ok_and(|code| matches!(code & 0xff, 5 | 6 | 10 | 13 | 14))
}

#[cfg(test)]
mod tests {
    use super::is_transient_code;

    #[test]
    fn what_passes_is_told_from_what_stays() {
        for code in ["5", "13", "778", "53100", "57P01", "08006", "40P01"] {
            assert!(is_transient_code(code), "{code}");
        }
        for code in ["1", "19", "2067", "11", "23505", "42P01"] {
            assert!(!is_transient_code(code), "{code}");
        }
    }
}
