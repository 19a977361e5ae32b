//! Why a job has no answer.

/// Why a job has no answer.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum EvaluationError {
    /// It takes more time or memory than a job may.
    #[error("{0}")]
    Limit(String),
    /// It cannot be done now, and may be later.
    #[error("{0}")]
    Busy(String),
}

impl EvaluationError {
    pub(crate) fn limit(reason: impl Into<String>) -> Self {
        Self::Limit(reason.into())
    }

    pub(crate) fn busy(reason: impl Into<String>) -> Self {
        Self::Busy(reason.into())
    }
}
