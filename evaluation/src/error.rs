//! Errors of evaluations.

/// Error of an evaluation that has no result.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum EvaluationError {
    /// The job takes more time or memory than is allowed; another try would fail as well.
    #[error("{0}")]
    Limit(String),
    /// No worker is available now; a later try may succeed.
    #[error("{0}")]
    Busy(String),
}

impl EvaluationError {
    pub(crate) fn limit_exceeded(reason: impl Into<String>) -> Self {
        Self::Limit(reason.into())
    }

    pub(crate) fn try_later(reason: impl Into<String>) -> Self {
        Self::Busy(reason.into())
    }
}
