//! Errors in the format of a compatible API, including those raised before a dialect is reached,
//! such as a missing token.

use axum::http::StatusCode;
use serde_json::{Value, json};

/// The error format of an API.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum ErrorFormat {
    OpenAi,
    Anthropic,
}

impl ErrorFormat {
    /// Returns the format of the paths below an API's prefix.
    pub(crate) fn from_path(path: &str) -> Option<Self> {
        // `/openaix` is not below `/openai`.
        let is_below = |prefix: &str| {
            path.strip_prefix(prefix).is_some_and(|rest| rest.is_empty() || rest.starts_with('/'))
        };
        match path {
            _ if is_below("/openai") => Some(Self::OpenAi),
            _ if is_below("/anthropic") => Some(Self::Anthropic),
            _ => None,
        }
    }

    /// Returns the header in which the API's SDKs look for the request id.
    pub(crate) fn request_id_header(self) -> &'static str {
        match self {
            Self::OpenAi => "x-request-id",
            Self::Anthropic => "request-id",
        }
    }

    /// Renders an error by its platform code.
    pub(crate) fn error_body(
        self,
        code: &str,
        message: &str,
        param: Option<&str>,
        request_id: &str,
    ) -> Value {
        match self {
            Self::OpenAi => {
                let (kind, openai_code) = openai_error_type(code);
                json!({"error": {"message": message, "type": kind, "param": param,
                    "code": openai_code}})
            }
            Self::Anthropic => {
                let mut error = json!({"type": anthropic_error_type(code, message),
                    "message": format!("{code}: {message}")});
                if param == Some("thread") {
                    error["details"] = thread_unsupported_details();
                }
                json!({"type": "error", "error": error, "request_id": request_id})
            }
        }
    }

    /// Adjusts the status of a code: OpenAI's SDKs expect 429 for an exhausted account.
    pub(crate) fn adjust_status(self, code: &str, status: StatusCode) -> StatusCode {
        match (self, code) {
            (Self::OpenAi, "provider.quota_exceeded") => StatusCode::TOO_MANY_REQUESTS,
            _ => status,
        }
    }
}

/// Returns the type and the code by which OpenAI's SDKs know an error.
fn openai_error_type(code: &str) -> (&'static str, &str) {
    match code {
        "provider.context_exceeded" => ("invalid_request_error", "context_length_exceeded"),
        "provider.content_filtered" => ("invalid_request_error", "content_filter"),
        "provider.rate_limited" => ("rate_limit_error", "rate_limit_exceeded"),
        "provider.quota_exceeded" => ("insufficient_quota", "insufficient_quota"),
        "model.not_found" => ("invalid_request_error", "model_not_found"),
        "auth.invalid" => ("invalid_request_error", "invalid_api_key"),
        "auth.forbidden" => ("invalid_request_error", "insufficient_permissions"),
        "budget.exceeded"
        | "not_found"
        | "previous_response_not_found"
        | "idempotency.mismatch" => ("invalid_request_error", code),
        "request.unsupported" => ("invalid_request_error", "unsupported_parameter"),
        code if code.starts_with("byok.") => ("authentication_error", code),
        code if code.starts_with("request.") => ("invalid_request_error", code),
        code => ("api_error", code),
    }
}

/// Details that make Anthropic's SDKs continue without a thread: they then send the whole
/// conversation.
fn thread_unsupported_details() -> Value {
    json!({"type": "invalid_request_error", "error_code": "thread_unsupported_request",
        "unsupported": ["thread"]})
}

/// Returns the type by which Anthropic's SDKs know an error.
fn anthropic_error_type(code: &str, message: &str) -> &'static str {
    match code {
        "auth.invalid" => "authentication_error",
        "byok.missing_key" | "byok.bad_key" => "authentication_error",
        "provider.quota_exceeded" => "billing_error",
        // Only the cost limit is about money; token and time limits are faults of the request.
        "budget.exceeded" if message.contains("budget.cost") => "billing_error",
        "auth.forbidden" | "privacy.cloud_denied" => "permission_error",
        "not_found" | "model.not_found" | "previous_response_not_found" => "not_found_error",
        "request.too_large" => "request_too_large",
        "provider.rate_limited" => "rate_limit_error",
        "provider.timeout" => "timeout_error",
        "provider.unavailable" | "server.busy" => "overloaded_error",
        "budget.exceeded" | "idempotency.mismatch" => "invalid_request_error",
        "provider.context_exceeded" | "provider.content_filtered" => "invalid_request_error",
        code if code.starts_with("request.") => "invalid_request_error",
        _ => "api_error",
    }
}

#[cfg(test)]
mod tests {
    use super::ErrorFormat;

    #[test]
    fn a_form_is_known_by_the_path() {
        for (path, form) in [
            ("/openai/v1/nope", Some(ErrorFormat::OpenAi)),
            ("/openai", Some(ErrorFormat::OpenAi)),
            ("/anthropic/v1/messages", Some(ErrorFormat::Anthropic)),
            ("/openaix", None),
            ("/v1/runs", None),
        ] {
            assert_eq!(ErrorFormat::from_path(path), form, "{path}");
        }
    }

    #[test]
    fn a_thread_is_refused_so_that_sdks_go_on_without() {
        let details = |param| {
            let error =
                ErrorFormat::Anthropic.error_body("request.invalid", "no", Some(param), "r");
            error["error"]["details"]["error_code"].as_str().map(str::to_owned)
        };
        assert_eq!(details("thread").as_deref(), Some("thread_unsupported_request"));
        assert_eq!(details("threads"), None);
    }

    #[test]
    fn no_money_is_said_of_money_alone() {
        let budget = |message| {
            let error = ErrorFormat::Anthropic.error_body("budget.exceeded", message, None, "r");
            error["error"]["type"].as_str().map(str::to_owned)
        };
        assert_eq!(budget("budget.cost is 1").as_deref(), Some("billing_error"));
        assert_eq!(budget("budget.tokens is 1").as_deref(), Some("invalid_request_error"));
        let quota = ErrorFormat::OpenAi.error_body("provider.quota_exceeded", "m", None, "r");
        assert_eq!(quota["error"]["code"], "insufficient_quota");
    }
}
