//! Rules of fallback: which model may be called after a failed model call.

use serde::{Deserialize, Serialize};

use crate::failure::{Failure, PlatformCode};

/// Maximum number of fallbacks of one step.
const HOPS_LIMIT: usize = 8;

/// Owner of an API key, who pays for the call.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum KeyOwner {
    /// The person or tenant that brought the key.
    #[default]
    User,
    /// The operator of the platform, who bills for the use of the key.
    Platform,
}

impl KeyOwner {
    /// Returns whether a key may be used, given whether the caller has a key of their own. Callers
    /// with own keys never fall back to a platform key, whatever happened to their own: it would be
    /// somebody else's bill.
    pub fn may_pay(self, caller_has_key: bool) -> bool {
        self == Self::User || !caller_has_key
    }
}

/// A model that was called, with its provider and key.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct ModelTarget {
    /// Configured name of the provider.
    pub provider: String,
    /// Model id in the provider's spelling.
    pub model: String,
    /// Name of the API key, never the key itself.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub key: Option<String>,
}

/// Decision that the next attempt calls another model.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Fallback {
    /// Model that the step must not call again.
    pub from: ModelTarget,
    /// Code of the failure that caused the fallback.
    pub reason: PlatformCode,
}

/// Models that may be called after a failure.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Successor {
    /// None: the request itself is at fault, or the failure is a refusal that must not be
    /// circumvented.
    Nobody,
    /// A model with a larger context window.
    Larger,
    /// Any other suitable model.
    Other,
}

/// Returns which models may be called after this failure.
fn allowed_successor<D>(error: &Failure<D>) -> Successor {
    match error.code.as_str() {
        // An equally small context window would fail in the same way.
        "provider.context_exceeded" => Successor::Larger,
        "byok.bad_key"
        | "byok.missing_key"
        | "provider.invalid_answer"
        | "provider.quota_exceeded"
        | "provider.rate_limited"
        | "provider.timeout"
        | "provider.unavailable" => Successor::Other,
        // A content filter among them: going elsewhere would dodge it.
        _ => Successor::Nobody,
    }
}

/// True if another model may be called after a failure and `hops` earlier fallbacks. A retryable
/// failure of a healthy model counts as an accident: the same model is called once more.
pub fn may_fall_back<D>(
    failure: &Failure<D>,
    hops: usize,
    is_healthy: impl FnOnce() -> bool,
) -> bool {
    hops < HOPS_LIMIT
        && match allowed_successor(failure) {
            Successor::Nobody => false,
            Successor::Other => !(failure.retryable && is_healthy()),
            Successor::Larger => true,
        }
}

#[cfg(test)]
mod tests {
    use super::{KeyOwner, Successor, allowed_successor};
    use crate::failure::Failure;
    use crate::platform_text;

    #[test]
    fn filters_and_mistakes_are_surfaced_and_the_rest_may_go_elsewhere() {
        let cases = [
            ("provider.content_filtered", Successor::Nobody),
            ("request.invalid", Successor::Nobody),
            ("privacy.cloud_denied", Successor::Nobody),
            ("budget.exceeded", Successor::Nobody),
            ("provider.context_exceeded", Successor::Larger),
            ("provider.rate_limited", Successor::Other),
            ("provider.quota_exceeded", Successor::Other),
            ("request.unsupported", Successor::Nobody),
            ("byok.bad_key", Successor::Other),
        ];
        for (code, expected) in cases {
            let error = Failure::new(code, platform_text!("m"));
            assert_eq!(allowed_successor::<()>(&error), expected, "{code}");
        }
    }

    #[test]
    fn the_platform_pays_only_for_those_without_a_key() {
        assert!(KeyOwner::User.may_pay(true) && KeyOwner::User.may_pay(false));
        assert!(KeyOwner::Platform.may_pay(false) && !KeyOwner::Platform.may_pay(true));
    }
}
