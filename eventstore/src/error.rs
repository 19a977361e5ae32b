//! Errors of reading from and appending to a log.

use convergio_domain::event::EventDecodeError;
use convergio_domain::payload::PayloadRef;
use convergio_domain::stream::StreamKey;

use crate::record::StreamHead;

/// Error of reading or opening a log.
#[derive(Debug, Clone, thiserror::Error)]
pub enum LogError {
    /// A gap, a changed byte or an unreadable record. Readers stop here; nothing is skipped.
    #[error("the log is corrupt at {at}: {reason}")]
    Corrupt {
        /// Location: stream and sequence number, or the file.
        at: String,
        /// Description of the damage.
        reason: String,
    },
    /// Another process has the log open; its process id, if the lock file could be read.
    #[error(
        "another convergio process{} uses this folder: stop it, or use another --data",
        pid(.0)
    )]
    InUse(Option<u32>),
    /// The log's device or server does not answer. Retrying later may succeed.
    #[error("the log is not available: {0}")]
    Unavailable(String),
    /// The log was closed by this process.
    #[error("the log is closed")]
    Closed,
}

fn pid(pid: &Option<u32>) -> String {
    pid.map_or_else(String::new, |pid| format!(" (pid {pid})"))
}

impl LogError {
    /// Builds [`LogError::Corrupt`] from a location and a description.
    pub(crate) fn corrupt(
        at: &(impl ToString + ?Sized),
        reason: &(impl ToString + ?Sized),
    ) -> Self {
        Self::Corrupt { at: at.to_string(), reason: reason.to_string() }
    }

    /// Builds the error for a payload that a record names, that is absent, and that was never
    /// erased (erased payloads leave an empty entry).
    pub(crate) fn missing_payload(stream: &StreamKey, reference: PayloadRef) -> Self {
        let at = format!("{stream}#{reference}");
        Self::corrupt(&at, "the payload is missing and was not erased")
    }
}

impl From<EventDecodeError> for LogError {
    fn from(error: EventDecodeError) -> Self {
        Self::corrupt("an event", &error)
    }
}

/// Error of an append. The commit was certainly not appended: an open outcome is resolved by the
/// provider before it returns.
#[derive(Debug, Clone, thiserror::Error)]
pub enum AppendError {
    /// The stream's head is not the expected one.
    #[error("others have appended to the stream")]
    Conflict {
        /// The stream's current head; `None` if the stream has no record.
        actual: Option<StreamHead>,
    },
    /// A commit with this id, but other events or payloads, is in the stream already.
    #[error("the commit id was used for another commit")]
    CommitMismatch,
    /// The commit exceeds one of [`LogLimits`](crate::LogLimits).
    #[error("{what} is too large: at most {limit}")]
    TooLarge {
        /// Part of the commit that is too large, as the subject of the error message.
        what: &'static str,
        /// Limit that was exceeded, in bytes or in number of items.
        limit: usize,
    },
    /// Too many commits are in progress (back-pressure). The same commit may be tried again.
    #[error("the log is busy")]
    Busy,
    /// The device is full. Nothing that was acknowledged is lost.
    #[error("the log's disk is full: make room, and it goes on by itself")]
    Full,
    /// The log's device or server does not answer.
    #[error("the log is not available: {0}")]
    Unavailable(String),
    /// The stream contains damaged records, so that the outcome cannot be decided.
    #[error("the log is corrupt at {at}: {reason}")]
    Corrupt {
        /// Location: stream and sequence number, or the file.
        at: String,
        /// Description of the damage.
        reason: String,
    },
}

impl From<LogError> for AppendError {
    fn from(error: LogError) -> Self {
        match error {
            LogError::Corrupt { at, reason } => Self::Corrupt { at, reason },
            // A caller of `append` can only try again later, whether the log is closed, in use, or
            // gone.
            other => Self::Unavailable(other.to_string()),
        }
    }
}
