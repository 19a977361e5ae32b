//! The error of a model call, in the stable codes of the API.

use std::time::Duration;

use convergio_domain::billing::Usage;
use convergio_domain::failure::{PlatformText, UnsealedFailure};
use convergio_domain::platform_text;

/// Code of a request with a field that the provider does not support.
pub(crate) const REQUEST_UNSUPPORTED: &str = "request.unsupported";
/// Code of a provider whose account is out of quota or credit.
pub(crate) const QUOTA_EXCEEDED: &str = "provider.quota_exceeded";

/// A model call that has no answer.
#[derive(Debug, Clone, PartialEq, thiserror::Error)]
#[error("{code}: {message}")]
pub struct ModelError {
    /// Stable code, documented with the API's errors.
    pub code: &'static str,
    /// Description for those who may read the call. It may quote the provider, but contains no key
    /// and no prompt. It enters no event and no log line.
    pub message: String,
    /// The request field that caused the error.
    pub param: Option<&'static str>,
    /// True if the same call may succeed later.
    pub retryable: bool,
    /// The pause that the provider asked for.
    pub retry_after: Option<Duration>,
    /// Usage before the call broke off: the provider's count if it gave one, else an estimate.
    pub partial_usage: Option<Usage>,
    /// True if content had arrived before the error.
    pub has_begun: bool,
    /// True if the provider refused the call for overload without working on it: it may be sent
    /// again without counting as another try.
    pub is_load_refusal: bool,
    /// Milliseconds from sending the call to the error.
    pub duration_ms: u64,
}

impl ModelError {
    /// Creates an error that used nothing.
    pub(crate) fn new(code: &'static str, retryable: bool, message: impl Into<String>) -> Self {
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

    /// Creates a retryable error of a provider that does not work at the moment.
    pub(crate) fn provider_unavailable(message: impl Into<String>) -> Self {
        Self::new("provider.unavailable", true, message)
    }

    /// Converts the error into the failure of the step that made the call. The public summary has
    /// only words of this platform; the message becomes its sealed detail.
    pub fn into_failure(self) -> UnsealedFailure {
        let Self { code, message, param, retryable, .. } = self;
        let summary = match param.filter(|_| code == REQUEST_UNSUPPORTED) {
            // Field names are from a fixed list, so that they may appear in the public summary.
            Some(field) => platform_text!(
                "the provider does not take `{}`: leave it out or ask another model",
                field
            ),
            None => code_summary(code),
        };
        let param = param.map(Into::into);
        let failure = UnsealedFailure { retryable, param, ..UnsealedFailure::new(code, summary) };
        failure.with_detail(message)
    }
}

/// Returns the public text of a code.
fn code_summary(code: &str) -> PlatformText {
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
        REQUEST_UNSUPPORTED => {
            platform_text!("the provider does not have what is asked for: ask another model")
        }
        _ => platform_text!("the model call failed"),
    }
}

/// Returns whether the key's account is out of quota or credit, which waiting does not cure.
pub(crate) fn is_quota_exceeded(error: &ModelError) -> bool {
    error.code == QUOTA_EXCEEDED
}
