//! What can go wrong with a model call, in the stable codes of the API.

use std::time::Duration;

use convergio_domain::event::run::Failure;
use convergio_domain::metering::Usage;
use reqwest::StatusCode;
use reqwest::header::HeaderMap;
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
    /// How long the provider asks to be left alone.
    pub retry_after: Option<Duration>,
    /// What was used before it broke: the provider's own count if it told one, else our estimate.
    pub partial_usage: Option<Usage>,
    /// Milliseconds until it broke.
    pub duration_ms: u64,
}

impl ModelError {
    pub(super) fn new(code: &'static str, retryable: bool, message: impl Into<String>) -> Self {
        let message = message.into();
        let (retry_after, partial_usage) = (None, None);
        Self { code, message, retryable, retry_after, partial_usage, duration_ms: 0 }
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

/// An error as a provider tells it.
#[derive(Debug, Clone, PartialEq)]
pub(super) struct Refusal {
    status: StatusCode,
    /// The error's type and code, in lower case.
    kind: String,
    /// The provider's words; not yet scrubbed.
    pub(super) said: String,
    retry_after: Option<Duration>,
    /// Whether the provider says that asking again is of no use.
    is_final: bool,
}

impl Refusal {
    /// An answer with a status other than success.
    pub(super) fn of_answer(status: StatusCode, headers: &HeaderMap, body: &str) -> Self {
        let error = serde_json::from_str(body).unwrap_or(Value::Null);
        let header = |name: &str| headers.get(name).and_then(|value| value.to_str().ok());
        Self {
            retry_after: retry_after(header("retry-after-ms"), header("retry-after")),
            is_final: header("x-should-retry") == Some("false"),
            ..Self::read(status, &error["error"])
        }
    }

    /// An error that comes after the status said success: the stream's own.
    pub(super) fn of_stream(error: &Value) -> Self {
        let status = error["code"].as_u64().and_then(|code| u16::try_from(code).ok());
        let status = status.filter(|code| *code >= 400).and_then(|c| StatusCode::from_u16(c).ok());
        Self::read(status.unwrap_or(StatusCode::SERVICE_UNAVAILABLE), error)
    }

    fn read(status: StatusCode, error: &Value) -> Self {
        let text = |name: &str| error[name].as_str().unwrap_or("");
        let inner = error.pointer("/innererror/code").and_then(Value::as_str).unwrap_or("");
        let is_bare = error.is_string();
        let kind = format!("{} {} {inner}", text("type"), text("code")).to_lowercase();
        Self {
            status,
            kind: if is_bare { "bare".to_owned() } else { kind },
            said: error.as_str().unwrap_or_else(|| text("message")).to_owned(),
            retry_after: None,
            is_final: false,
        }
    }

    /// The error in our codes. `said` are the provider's words, scrubbed.
    pub(super) fn into_error(self, provider: &str, said: &str) -> ModelError {
        let (code, retryable) = self.code();
        let said = if said.is_empty() { String::new() } else { format!(": {said}") };
        let pause = match self.retry_after {
            Some(pause) if retryable => format!(" (it asks to wait {} s)", pause.as_secs()),
            _ => String::new(),
        };
        let message = format!("{provider} refused the call ({}){said}{pause}", self.status);
        let retryable = retryable && !self.is_final;
        ModelError { retry_after: self.retry_after, ..ModelError::new(code, retryable, message) }
    }

    /// What the error means: first by what the provider calls it, then by its status.
    fn code(&self) -> (&'static str, bool) {
        let status = self.status.as_u16();
        let named = BY_NAME.iter().find(|(words, ..)| words.iter().any(|w| self.kind.contains(w)));
        let by_status = BY_STATUS.iter().find(|(from, to, ..)| (*from..=*to).contains(&status));
        match (named, by_status) {
            // MLX's server answers 404 with a bare text when generating failed.
            _ if self.kind == "bare" && status == 404 => ("provider.unavailable", true),
            (Some((_, code, retryable)), _) => (code, *retryable),
            (None, Some((_, _, code, retryable))) => (code, *retryable),
            (None, None) => ("request.invalid", false),
        }
    }
}

/// Errors by the words that providers use for them in `type` and `code`. Money and keys do not get
/// better by asking again, load does.
const BY_NAME: [(&[&str], &str, bool); 7] = [
    (
        &[
            "insufficient_quota",
            "credit_balance",
            "spend_limit",
            "usage_limit_exceeded",
            "billing",
            "quota_exceeded",
        ],
        "provider.rate_limited",
        false,
    ),
    (
        &["context_length", "exceed_context", "request_too_large"],
        "provider.context_exceeded",
        false,
    ),
    (
        &["content_filter", "content_policy", "responsibleaipolicyviolation"],
        "provider.content_filtered",
        false,
    ),
    (&["invalid_api_key", "api_key_invalid", "authentication"], "byok.bad_key", false),
    (&["rate_limit", "slow_down", "resource_exhausted"], "provider.rate_limited", true),
    (&["overloaded"], "provider.unavailable", true),
    (&["not_supported"], "request.invalid", false),
];

/// Errors by status, when their name says nothing.
const BY_STATUS: [(u16, u16, &str, bool); 9] = [
    (401, 401, "byok.bad_key", false),
    (402, 402, "provider.rate_limited", false),
    (403, 403, "byok.bad_key", false),
    (408, 408, "provider.timeout", true),
    (409, 409, "provider.unavailable", true),
    (413, 413, "provider.context_exceeded", false),
    (429, 429, "provider.rate_limited", true),
    (504, 504, "provider.timeout", true),
    (500, 599, "provider.unavailable", true),
];

/// RFC 9110, section 10.2.3, in seconds; dates are rare here and mean "later" as well as nothing.
fn retry_after(millis: Option<&str>, seconds: Option<&str>) -> Option<Duration> {
    /// A longer pause is nobody's patience.
    const LIMIT: Duration = Duration::from_secs(3600);
    let number = |text: Option<&str>| text.and_then(|text| text.trim().parse::<f64>().ok());
    let seconds = number(millis).map(|ms| ms / 1000.0).or(number(seconds))?;
    Duration::try_from_secs_f64(seconds).ok().map(|pause| pause.min(LIMIT))
}

#[cfg(test)]
mod tests {
    use reqwest::StatusCode;
    use reqwest::header::HeaderMap;
    use serde_json::{Value, json};

    use super::{ModelError, Refusal};

    fn read(status: u16, headers: &[(&'static str, &str)], error: &Value) -> ModelError {
        let headers =
            headers.iter().map(|(name, value)| (name.parse().unwrap(), value.parse().unwrap()));
        let status = StatusCode::from_u16(status).unwrap();
        let headers: HeaderMap = headers.collect();
        let refusal = Refusal::of_answer(status, &headers, &json!({"error": error}).to_string());
        let said = refusal.said.clone();
        refusal.into_error("p", &said)
    }

    #[test]
    fn each_row_of_the_providers_tables_has_its_code() {
        let cases = [
            (429, json!({"code": "rate_limit_exceeded"}), "provider.rate_limited", true),
            (429, json!({"code": "slow_down"}), "provider.rate_limited", true),
            (429, json!({}), "provider.rate_limited", true),
            (429, json!({"type": "insufficient_quota"}), "provider.rate_limited", false),
            (429, json!({"code": "credit_balance_exhausted"}), "provider.rate_limited", false),
            (429, json!({"code": "project_spend_limit_exceeded"}), "provider.rate_limited", false),
            (
                429,
                json!({"code": "organization_usage_limit_exceeded"}),
                "provider.rate_limited",
                false,
            ),
            (402, json!({"type": "billing_error"}), "provider.rate_limited", false),
            (401, json!({"code": "invalid_api_key"}), "byok.bad_key", false),
            (403, json!({"type": "permission_error"}), "byok.bad_key", false),
            (400, json!({"code": "API_KEY_INVALID"}), "byok.bad_key", false),
            (400, json!({"code": "context_length_exceeded"}), "provider.context_exceeded", false),
            (
                400,
                json!({"code": 400, "type": "exceed_context_size_error", "n_ctx": 2048}),
                "provider.context_exceeded",
                false,
            ),
            (413, json!({"type": "request_too_large"}), "provider.context_exceeded", false),
            (400, json!({"code": "content_filter"}), "provider.content_filtered", false),
            (
                400,
                json!({"innererror": {"code": "ResponsibleAIPolicyViolation"}}),
                "provider.content_filtered",
                false,
            ),
            (400, json!({"type": "invalid_request_error"}), "request.invalid", false),
            (404, json!({"code": "model_not_found"}), "request.invalid", false),
            (404, json!("generation failed"), "provider.unavailable", true),
            (408, json!({}), "provider.timeout", true),
            (409, json!({}), "provider.unavailable", true),
            (422, json!({}), "request.invalid", false),
            (500, json!({}), "provider.unavailable", true),
            (501, json!({"type": "not_supported_error"}), "request.invalid", false),
            (503, json!({"message": "Loading model"}), "provider.unavailable", true),
            (503, json!({"code": "server_is_overloaded"}), "provider.unavailable", true),
            (504, json!({}), "provider.timeout", true),
            (529, json!({"type": "overloaded_error"}), "provider.unavailable", true),
            (302, json!({}), "request.invalid", false),
        ];
        for (status, error, code, retryable) in cases {
            let read = read(status, &[], &error);
            assert_eq!((read.code, read.retryable), (code, retryable), "{status} {error}");
        }
    }

    #[test]
    fn a_pause_that_is_asked_for_is_told() {
        let pause = |headers: &[(&'static str, &str)]| read(429, headers, &json!({})).retry_after;
        assert_eq!(pause(&[("retry-after", "20")]).unwrap().as_secs(), 20);
        assert_eq!(pause(&[("retry-after-ms", "1500")]).unwrap().as_millis(), 1500);
        assert_eq!(pause(&[("retry-after", "99999999")]).unwrap().as_secs(), 3600);
        for odd in ["-1", "NaN", "inf", "1e300", "Fri, 31 Dec 1999 23:59:59 GMT"] {
            let pause = pause(&[("retry-after", odd)]);
            assert!(pause.is_none_or(|pause| pause.as_secs() <= 3600), "{odd}");
        }
        let told = read(429, &[("retry-after", "20")], &json!({}));
        assert!(told.message.ends_with("(it asks to wait 20 s)"), "{}", told.message);
    }

    #[test]
    fn a_provider_may_say_that_asking_again_is_of_no_use() {
        assert!(!read(503, &[("x-should-retry", "false")], &json!({})).retryable);
        assert!(read(503, &[("x-should-retry", "true")], &json!({})).retryable);
    }

    #[test]
    fn errors_inside_of_a_stream_carry_their_own_status() {
        let error = json!({"code": 400, "type": "exceed_context_size_error", "message": "m"});
        assert_eq!(
            Refusal::of_stream(&error).into_error("p", "").code,
            "provider.context_exceeded"
        );
        let error = json!({"type": "overloaded_error", "message": "m"});
        assert_eq!(Refusal::of_stream(&error).into_error("p", "").code, "provider.unavailable");
    }
}
