//! Conversions between SQL values and the log's types.

use convergio_domain::stream::StreamKind;
use rusqlite::ErrorCode;
use uuid::Uuid;

use crate::error::LogError;
use crate::record::Position;

/// Gives each stream kind its number in the database.
macro_rules! number_stream_kinds {
    ($($kind:ident = $number:literal,)*) => {
        /// Returns the number of a stream kind in the database.
        pub(super) fn kind_number(kind: StreamKind) -> i64 {
            match kind {
                $(StreamKind::$kind => $number,)*
            }
        }

        /// Returns the stream kind of a number.
        pub(super) fn kind_from_number(number: i64) -> Result<StreamKind, LogError> {
            match number {
                $($number => Ok(StreamKind::$kind),)*
                other => Err(LogError::corrupt(&"a stream", &format!("kind {other} is not known"))),
            }
        }
    };
}

// The numbers are part of the file format: none is changed or used again.
number_stream_kinds! {
    Run = 1,
    Graph = 2,
    Request = 3,
    Agent = 4,
    Memory = 5,
    Token = 6,
}

/// Converts to SQLite's signed integers. Positions and sequence numbers are far below 2^63.
pub(super) fn to_signed(number: u64) -> i64 {
    i64::try_from(number).unwrap_or(i64::MAX)
}

/// Converts a column to an unsigned number.
pub(super) fn to_unsigned(number: i64) -> u64 {
    u64::try_from(number).unwrap_or(0)
}

/// Returns the first half of a commit id, for the column `dedup`.
pub(super) fn first_id_half(commit: Uuid) -> i64 {
    let (first, _) = commit.as_u64_pair();
    i64::from_ne_bytes(first.to_ne_bytes())
}

/// Returns the second half of a commit id, for the column `commit_end`.
pub(super) fn second_id_half(commit: Uuid) -> i64 {
    let (_, second) = commit.as_u64_pair();
    i64::from_ne_bytes(second.to_ne_bytes())
}

/// Joins a commit id from its halves.
pub(super) fn commit_id_from_halves(dedup: i64, end: i64) -> Uuid {
    let half = |number: i64| u64::from_ne_bytes(number.to_ne_bytes());
    Uuid::from_u64_pair(half(dedup), half(end))
}

/// Returns the row id of a payload.
pub(super) fn payload_row_id(position: Position, index: u16) -> i64 {
    to_signed(position.0) * 64 + i64::from(index)
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
