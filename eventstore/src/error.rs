//! What can go wrong with a log.

use convergio_domain::event::DecodeError;
use convergio_domain::payload::PayloadRef;
use convergio_domain::stream::StreamKey;

use crate::record::Head;

/// Why the log cannot be read or opened.
#[derive(Debug, Clone, thiserror::Error)]
pub enum LogError {
    /// A gap, a changed byte or an unreadable record: the log does not skip it.
    #[error("the log is corrupt at {at}: {reason}")]
    Corrupt {
        /// Where: stream and sequence number.
        at: String,
        /// What is wrong.
        reason: String,
    },
    /// Another process has the log open.
    #[error("another convergio process{} uses this folder: stop it, or use another --data", pid(.0))]
    InUse(Option<u32>),
    /// The log's device or server does not answer.
    #[error("the log is not available: {0}")]
    Unavailable(String),
    /// The log was closed.
    #[error("the log is closed")]
    Closed,
}

fn pid(pid: &Option<u32>) -> String {
    pid.map_or_else(String::new, |pid| format!(" (pid {pid})"))
}

impl LogError {
    /// A record of a stream that cannot be right.
    pub(crate) fn corrupt(
        at: &(impl ToString + ?Sized),
        reason: &(impl ToString + ?Sized),
    ) -> Self {
        Self::Corrupt { at: at.to_string(), reason: reason.to_string() }
    }

    /// A payload that a record names, that is not there, and that nobody erased.
    pub(crate) fn missing_payload(stream: &StreamKey, reference: PayloadRef) -> Self {
        let at = format!("{stream}#{reference}");
        Self::corrupt(&at, "the payload is missing and was not erased")
    }
}

impl From<DecodeError> for LogError {
    fn from(error: DecodeError) -> Self {
        Self::corrupt("an event", &error)
    }
}

/// Why a commit was not appended. The log never answers "maybe".
#[derive(Debug, Clone, thiserror::Error)]
pub enum AppendError {
    /// The stream's head is not the expected one.
    #[error("others have appended to the stream")]
    Conflict {
        /// The head as it is.
        actual: Option<Head>,
    },
    /// This commit id stands in the stream with another body.
    #[error("the commit id was used for another commit")]
    CommitMismatch,
    /// The commit is larger than the log takes.
    #[error("{what} is too large: at most {limit}")]
    TooLarge {
        /// What.
        what: &'static str,
        /// The limit, in bytes or pieces.
        limit: usize,
    },
    /// The log has more to do than it can; the same commit may be tried again.
    #[error("the log is busy")]
    Busy,
    /// The device is full; nothing acknowledged is lost.
    #[error("the log's disk is full: make room, and it goes on by itself")]
    Full,
    /// The log's device or server does not answer.
    #[error("the log is not available: {0}")]
    Unavailable(String),
    /// The stream is not what was written.
    #[error("the log is corrupt at {at}: {reason}")]
    Corrupt {
        /// Where.
        at: String,
        /// What is wrong.
        reason: String,
    },
}

impl From<LogError> for AppendError {
    fn from(error: LogError) -> Self {
        match error {
            LogError::Corrupt { at, reason } => Self::Corrupt { at, reason },
            other => Self::Unavailable(other.to_string()),
        }
    }
}
