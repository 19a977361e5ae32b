//! Conversions between SQL values and the log's types.

use convergio_domain::stream::StreamKind;
use rusqlite::ErrorCode;

use crate::error::LogError;

/// Returns the number of a stream kind in the database. Numbers are part of the file format.
pub(super) fn kind_number(kind: StreamKind) -> i64 {
    match kind {
        StreamKind::Run => 1,
        StreamKind::Graph => 2,
        StreamKind::Request => 3,
        StreamKind::Agent => 4,
        StreamKind::Memory => 5,
        StreamKind::Token => 6,
    }
}

/// Returns the stream kind of a number.
pub(super) fn kind_from_number(number: i64) -> Result<StreamKind, LogError> {
    match number {
        1 => Ok(StreamKind::Run),
        2 => Ok(StreamKind::Graph),
        3 => Ok(StreamKind::Request),
        4 => Ok(StreamKind::Agent),
        5 => Ok(StreamKind::Memory),
        6 => Ok(StreamKind::Token),
        other => Err(LogError::corrupt(&"a stream", &format!("kind {other} is not known"))),
    }
}

/// Converts to SQLite's signed integers. Positions and sequence numbers are far below 2^63.
pub(super) fn to_signed(number: u64) -> i64 {
    i64::try_from(number).unwrap_or(i64::MAX)
}

/// Converts a column to an unsigned number.
pub(super) fn to_unsigned(number: i64) -> u64 {
    u64::try_from(number).unwrap_or(0)
}

/// Maps an error of SQLite to one of the log.
pub(super) fn sqlite_error(error: &rusqlite::Error) -> LogError {
    match error.sqlite_error_code() {
        Some(ErrorCode::DatabaseCorrupt | ErrorCode::NotADatabase) => {
            LogError::corrupt(&"log.db", error)
        }
        Some(ErrorCode::ReadOnly | ErrorCode::CannotOpen | ErrorCode::PermissionDenied) => {
            LogError::Unavailable(format!("the folder cannot be written to ({error})"))
        }
        _ => LogError::Unavailable(error.to_string()),
    }
}
