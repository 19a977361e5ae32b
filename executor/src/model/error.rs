//! What can go wrong with a model call, in the stable codes of the API.

use convergio_domain::event::run::Failure;
use convergio_domain::metering::Usage;
use reqwest::StatusCode;
use serde_json::Value;

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
    /// What was used before it broke, estimated.
    pub partial_usage: Option<Usage>,
    /// Milliseconds until it broke.
    pub duration_ms: u64,
}

impl ModelError {
    pub(super) fn new(code: &'static str, retryable: bool, message: impl Into<String>) -> Self {
        let message = message.into();
        Self { code, message, retryable, partial_usage: None, duration_ms: 0 }
    }

    /// The failure of the step that made the call.
    pub fn into_failure(self) -> Failure {
        let Self { code, message, retryable, .. } = self;
        Failure { code: code.to_owned(), message, retryable }
    }

    /// What a status other than success means. The table is that of the providers' documentation:
    /// quotas and keys do not get better by asking again, load does.
    pub(super) fn from_status(provider: &str, status: StatusCode, body: &str) -> Self {
        let error = serde_json::from_str::<Value>(body).unwrap_or(Value::Null);
        let text = |pointer: &str| error.pointer(pointer).and_then(Value::as_str).unwrap_or("");
        let kind = format!("{} {}", text("/error/type"), text("/error/code"));
        let said: String = match error.get("error") {
            Some(Value::String(said)) => said.chars().take(300).collect(),
            _ => text("/error/message").chars().take(300).collect(),
        };
        let (code, retryable) = classify(status, &kind);
        // What a provider says of a refused key may repeat the key.
        let is_about_keys = code == "byok.bad_key";
        let said = if said.is_empty() || is_about_keys { status.to_string() } else { said };
        Self::new(code, retryable, format!("{provider} refused the call ({status}): {said}"))
    }
}

fn classify(status: StatusCode, kind: &str) -> (&'static str, bool) {
    let is = |word: &str| kind.contains(word);
    match status.as_u16() {
        401 | 403 => ("byok.bad_key", false),
        402 => ("byok.bad_key", false),
        429 if is("insufficient_quota") || is("billing") => ("provider.rate_limited", false),
        429 => ("provider.rate_limited", true),
        400 if is("context_length") || is("exceed_context") => ("provider.context_exceeded", false),
        400 if is("content_filter") || is("content_policy") => ("provider.content_filtered", false),
        413 => ("provider.context_exceeded", false),
        408 | 504 => ("provider.timeout", true),
        500..=599 => ("provider.unavailable", true),
        _ => ("request.invalid", false),
    }
}
