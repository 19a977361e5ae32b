//! Errors in the format of a compatible API, including those raised before a dialect is reached,
//! such as a missing token.

use axum::http::StatusCode;
use serde_json::{Value, json};

/// The error format of an API.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Form {
    OpenAi,
    Anthropic,
}

impl Form {
    /// Returns the format of the paths below an API's prefix.
    pub(crate) fn of_path(path: &str) -> Option<Self> {
        // `/openaix` is not below `/openai`.
        let is_below = |door: &str| {
            path.strip_prefix(door).is_some_and(|rest| rest.is_empty() || rest.starts_with('/'))
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
    pub(crate) fn error(
        self,
        code: &str,
        message: &str,
        param: Option<&str>,
        request_id: &str,
    ) -> Value {
        match self {
            Self::OpenAi => {
                let (kind, known) = openai_words(code);
                json!({"error": {"message": message, "type": kind, "param": param, "code": known}})
            }
            Self::Anthropic => {
                let mut error = json!({"type": anthropic_word(code, message),
                    "message": format!("{code}: {message}")});
                if param == Some("thread") {
                    error["details"] = no_threads();
                }
                json!({"type": "error", "error": error, "request_id": request_id})
            }
        }
    }

    /// Adjusts the status of a code: OpenAI's SDKs expect 429 for an exhausted account.
    pub(crate) fn status(self, code: &str, status: StatusCode) -> StatusCode {
        match (self, code) {
            (Self::OpenAi, "provider.quota_exceeded") => StatusCode::TOO_MANY_REQUESTS,
            _ => status,
        }
    }
}

/// Returns the type and the code by which OpenAI's SDKs know an error.
fn openai_words(code: &str) -> (&'static str, &str) {
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
fn no_threads() -> Value {
    json!({"type": "invalid_request_error", "error_code": "thread_unsupported_request",
        "unsupported": ["thread"]})
}

/// Returns the type by which Anthropic's SDKs know an error.
fn anthropic_word(code: &str, message: &str) -> &'static str {
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
    use super::Form;

    #[test]
    fn a_form_is_known_by_the_path() {
        for (path, form) in [
            ("/openai/v1/nope", Some(Form::OpenAi)),
            ("/openai", Some(Form::OpenAi)),
            ("/anthropic/v1/messages", Some(Form::Anthropic)),
            ("/openaix", None),
            ("/v1/runs", None),
        ] {
            assert_eq!(Form::of_path(path), form, "{path}");
        }
    }

    #[test]
    fn a_thread_is_refused_so_that_sdks_go_on_without() {
        let details = |param| {
            let error = Form::Anthropic.error("request.invalid", "no", Some(param), "r");
            error["error"]["details"]["error_code"].as_str().map(str::to_owned)
        };
        assert_eq!(details("thread").as_deref(), Some("thread_unsupported_request"));
        assert_eq!(details("threads"), None);
    }

    #[test]
    fn no_money_is_said_of_money_alone() {
        let budget = |message| {
            let error = Form::Anthropic.error("budget.exceeded", message, None, "r");
            error["error"]["type"].as_str().map(str::to_owned)
        };
        assert_eq!(budget("budget.cost is 1").as_deref(), Some("billing_error"));
        assert_eq!(budget("budget.tokens is 1").as_deref(), Some("invalid_request_error"));
        let quota = Form::OpenAi.error("provider.quota_exceeded", "m", None, "r");
        assert_eq!(quota["error"]["code"], "insufficient_quota");
    }
}
