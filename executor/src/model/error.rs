//! What can go wrong with a model call, in the stable codes of the API.

use std::time::Duration;

use convergio_domain::failure::{PlatformText, UnsealedFailure};
use convergio_domain::metering::Usage;
use convergio_domain::platform_text;

/// The code of a request with a field that the provider does not take.
pub(super) const UNSUPPORTED: &str = "request.unsupported";
/// The code of a provider whose account may not spend.
pub(super) const QUOTA_EXCEEDED: &str = "provider.quota_exceeded";

/// A call without an answer.
#[derive(Debug, Clone, PartialEq, thiserror::Error)]
#[error("{code}: {message}")]
pub struct ModelError {
    /// A stable code.
    pub code: &'static str,
    /// What happened; never holds a key or a prompt, but may quote the provider. For those who may
    /// read the call: it is in no event and no log line.
    pub message: String,
    /// The field of the request that is to blame.
    pub param: Option<&'static str>,
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
            param: None,
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
    pub fn into_failure(self) -> UnsealedFailure {
        let Self { code, message, param, retryable, .. } = self;
        let summary = match param.filter(|_| code == UNSUPPORTED) {
            Some(field) => platform_text!(
                "the provider does not take `{}`: leave it out or ask another model",
                field
            ),
            None => summary(code),
        };
        let param = param.map(Into::into);
        let failure = UnsealedFailure { retryable, param, ..UnsealedFailure::new(code, summary) };
        failure.with_detail(message)
    }
}

/// What a code means, in words of ours.
fn summary(code: &str) -> PlatformText {
    match code {
        "byok.bad_key" => platform_text!("the provider does not take the key: give a valid one"),
        "byok.missing_key" => platform_text!("the provider wants a key, and none is set"),
        "internal" => platform_text!("the call could not be made: a defect of ours"),
        "model.not_found" => {
            platform_text!("no provider that may be asked has the model (see `convergio models`)")
        }
        "privacy.cloud_denied" => platform_text!(
            "privacy is `local`, and no model that may be asked keeps to it; nothing was sent"
        ),
        "provider.content_filtered" => {
            platform_text!("the provider filtered the call or its answer: change the prompt")
        }
        "provider.context_exceeded" => platform_text!(
            "prompt and answer are longer than the model holds: shorten the prompt or use another \
            model"
        ),
        "provider.invalid_answer" => {
            platform_text!("the provider answered what cannot be used")
        }
        "provider.rate_limited" => platform_text!("the provider has no room for the key now"),
        QUOTA_EXCEEDED => platform_text!("the provider's account may not spend any more"),
        "provider.timeout" => platform_text!("the provider did not answer in time"),
        "provider.unavailable" => platform_text!(
            "no model that was asked for can be reached or used now (see `convergio models`)"
        ),
        "request.invalid" => platform_text!(
            "no model takes the request as it is (see `convergio models` and the detail)"
        ),
        "request.too_large" => platform_text!(
            "the request, or what would come of it, is larger than the provider or the log takes"
        ),
        UNSUPPORTED => {
            platform_text!("the provider does not have what is asked for: ask another model")
        }
        _ => platform_text!("the model call failed"),
    }
}

/// Whether an error is the key's account out of money: it gets no better by waiting.
pub(super) fn is_money(error: &ModelError) -> bool {
    error.code == QUOTA_EXCEEDED
}
