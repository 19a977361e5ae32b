//! What can go wrong with a model call, in the stable codes of the API.

use std::time::Duration;

use convergio_domain::event::run::Failure;
use convergio_domain::metering::Usage;

/// A call without an answer.
#[derive(Debug, Clone, PartialEq, thiserror::Error)]
#[error("{code}: {message}")]
pub struct ModelError {
    /// A stable code.
    pub code: &'static str,
    /// What happened; never holds a key or a prompt.
    pub message: String,
    /// Whether the same call may succeed later.
    pub retryable: bool,
    /// How long the provider asks to be left alone.
    pub retry_after: Option<Duration>,
    /// What was used before it broke: the provider's own count if it told one, else our estimate.
    pub partial_usage: Option<Usage>,
    /// Whether the model had begun to answer.
    pub has_begun: bool,
    /// Whether the provider did nothing because it has too many calls at once, so that the same
    /// call may be sent again without being another try.
    pub is_load_refusal: bool,
    /// Milliseconds until it broke.
    pub duration_ms: u64,
}

impl ModelError {
    pub(super) fn new(code: &'static str, retryable: bool, message: impl Into<String>) -> Self {
        let message = message.into();
        let (retry_after, partial_usage, has_begun) = (None, None, false);
        let (is_load_refusal, duration_ms) = (false, 0);
        Self {
            code,
            message,
            retryable,
            retry_after,
            partial_usage,
            has_begun,
            is_load_refusal,
            duration_ms,
        }
    }

    /// The provider is there in principle, but not now.
    pub(super) fn unavailable(message: impl Into<String>) -> Self {
        Self::new("provider.unavailable", true, message)
    }

    /// The failure of the step that made the call.
    pub fn into_failure(self) -> Failure {
        let Self { code, message, retryable, .. } = self;
        Failure { code: code.to_owned(), message, retryable }
    }
}

/// Whether an error is the key's account out of money: it gets no better by waiting.
pub(super) fn is_money(error: &ModelError) -> bool {
    error.code == "provider.rate_limited" && !error.retryable
}
