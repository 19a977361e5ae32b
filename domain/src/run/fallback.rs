//! Who may be asked when a model call failed: the rules of falling back.

use serde::{Deserialize, Serialize};

use crate::failure::{Failure, PlatformCode};

/// Most providers that one step is handed on to.
pub const HOPS_LIMIT: usize = 8;

/// Whose key pays for a call.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum KeyOwner {
    /// The person or the tenant: bring your own key.
    #[default]
    User,
    /// The operator of the platform, who bills for it.
    Platform,
}

impl KeyOwner {
    /// Whether a key may be used, where the caller does or does not have one of their own. Who
    /// brought a key is never moved to the platform's, whatever became of their own: it would be
    /// another's bill.
    pub fn may_pay(self, caller_has_own: bool) -> bool {
        self == Self::User || !caller_has_own
    }
}

/// A model that was asked: at whose door, and with which key.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Candidate {
    /// The provider's name.
    pub provider: String,
    /// The model, as the provider writes it.
    pub model: String,
    /// The key's name, never the key.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub key: Option<String>,
}

/// The next try asks somebody else.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Fallback {
    /// Who is not asked again by this step.
    pub from: Candidate,
    /// Why: the code of the failure.
    pub reason: PlatformCode,
}

/// Who may be asked after a failure.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Successor {
    /// Nobody: the failure is the request's own, or a verdict that must not be dodged.
    Nobody,
    /// A model that holds more.
    Larger,
    /// Any other that would do.
    Other,
}

/// Who may be asked after a failure of this kind.
pub fn successor<D>(error: &Failure<D>) -> Successor {
    match error.code.as_str() {
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

#[cfg(test)]
mod tests {
    use super::{KeyOwner, Successor, successor};
    use crate::event::run::Failure;
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
            assert_eq!(successor::<()>(&error), expected, "{code}");
        }
    }

    #[test]
    fn the_platform_pays_only_for_those_without_a_key() {
        assert!(KeyOwner::User.may_pay(true) && KeyOwner::User.may_pay(false));
        assert!(KeyOwner::Platform.may_pay(false) && !KeyOwner::Platform.may_pay(true));
    }
}
