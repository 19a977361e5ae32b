//! Refusals of the compatible APIs: the platform's stable codes, in messages and statuses that the
//! SDKs understand.

use std::fmt::Display;
use std::time::Duration;

use axum::extract::rejection::BytesRejection;
use axum::http::{HeaderValue, StatusCode, header};
use axum::response::{IntoResponse, Response};
use convergio_domain::failure::Failure;
use convergio_domain::graph::GraphRejection;
use convergio_domain::run::RunRejection;
use convergio_eventstore::{AppendError, CommitError, LogError};
use convergio_schemas::error_code;
use serde_json::Value;

use super::error_format::ErrorFormat;

/// Extension of a response that is in its dialect's format already.
#[derive(Debug, Clone, Copy)]
pub(crate) struct DialectBodyMarker;

/// Reason why a call has no reply.
#[derive(Debug, Clone)]
pub(super) struct CompatRefusal {
    pub(super) status: StatusCode,
    /// The platform's error code.
    pub(super) code: String,
    pub(super) message: String,
    /// Path of the field at fault.
    pub(super) param: Option<String>,
    /// Delay that the provider asked for.
    retry_after: Option<Duration>,
    /// True if the SDK should repeat the request by itself.
    is_retryable: bool,
}

impl CompatRefusal {
    fn new(status: StatusCode, code: &str, message: impl Into<String>) -> Self {
        let (code, message) = (code.to_owned(), message.into());
        Self { status, code, message, param: None, retry_after: None, is_retryable: false }
    }

    /// A request field is invalid; without a path, the request as a whole.
    pub(super) fn invalid_field(param: &str, message: impl Into<String>) -> Self {
        let param = Some(param.to_owned()).filter(|param| !param.is_empty());
        let message = match &param {
            Some(param) => format!("{param}: {}", message.into()),
            None => message.into(),
        };
        Self { param, ..Self::new(StatusCode::BAD_REQUEST, "request.invalid", message) }
    }

    pub(super) fn body_too_large() -> Self {
        let message = "the body is larger than the API takes";
        Self::new(StatusCode::PAYLOAD_TOO_LARGE, "request.too_large", message)
    }

    /// A request field is too large.
    pub(super) fn value_too_large(param: &str, message: impl Into<String>) -> Self {
        let refusal = Self::invalid_field(param, message);
        let (status, code) = (StatusCode::PAYLOAD_TOO_LARGE, "request.too_large".to_owned());
        Self { status, code, ..refusal }
    }

    /// A defect: the reason goes to the server's log.
    pub(super) fn internal_error(error: impl Display) -> Self {
        tracing::error!(%error, "a call failed at the door");
        Self::new(StatusCode::INTERNAL_SERVER_ERROR, "internal", "the server's log has the reason")
    }

    fn log_unavailable(error: impl Display) -> Self {
        tracing::error!(%error, "the log is not available");
        let message = "the log cannot be used now: nothing was done, send the same request later";
        let status = StatusCode::SERVICE_UNAVAILABLE;
        Self { is_retryable: true, ..Self::new(status, "log.unavailable", message) }
    }

    /// A failed run. It was retried as its graph says, so the SDK need not repeat it unless the
    /// provider asked for a delay.
    pub(super) fn from_failure(failure: CallFailure, pause: Option<Duration>) -> Self {
        let pause = pause.filter(|_| failure.code == "provider.rate_limited");
        let again = failure.is_retryable && pause.is_some();
        let status = status_of_code(&failure.code);
        let param = failure.param;
        Self {
            retry_after: pause,
            is_retryable: again,
            param,
            ..Self::new(status, &failure.code, failure.text)
        }
    }

    /// The object does not exist.
    pub(super) fn not_found(message: impl Into<String>) -> Self {
        Self::new(StatusCode::NOT_FOUND, "not_found", message)
    }

    /// The object does not exist, with the code that the dialect has for it.
    pub(super) fn missing_resource(code: &str, param: &str, message: impl Into<String>) -> Self {
        let param = Some(param.to_owned());
        Self { param, ..Self::new(StatusCode::NOT_FOUND, code, message) }
    }

    /// A feature of the API that this server does not have.
    pub(super) fn unavailable_here(message: impl Into<String>) -> Self {
        Self::new(StatusCode::NOT_IMPLEMENTED, "request.unsupported", message)
    }
}

/// Reason why a call failed, with its full text.
#[derive(Debug, Clone)]
pub(super) struct CallFailure {
    pub(super) code: String,
    pub(super) text: String,
    pub(super) is_retryable: bool,
    /// Request field at fault.
    pub(super) param: Option<String>,
}

impl CallFailure {
    /// The failure of a run, in the words of its event.
    pub(super) fn from_failure(failure: Failure) -> Self {
        let Failure { code, message, retryable, param, detail: _ } = failure;
        let param = param.map(|param| param.to_string());
        Self { code: code.to_string(), text: message.to_string(), is_retryable: retryable, param }
    }
}

/// Returns the HTTP status of a code. Codes that steps report beyond the registered ones are faults
/// of the request.
fn status_of_code(code: &str) -> StatusCode {
    let error_code =
        error_code::find_code(code).and_then(|known| StatusCode::from_u16(known.status).ok());
    error_code.unwrap_or(StatusCode::BAD_REQUEST)
}

/// Renders a refusal in a dialect's format.
pub(super) fn refusal_response(
    refusal: &CompatRefusal,
    form: ErrorFormat,
    request_id: &str,
) -> Response {
    let body =
        form.error_body(&refusal.code, &refusal.message, refusal.param.as_deref(), request_id);
    let mut response = dialect_response(form.adjust_status(&refusal.code, refusal.status), &body);
    let headers = response.headers_mut();
    let again = if refusal.is_retryable { "true" } else { "false" };
    headers.insert("x-should-retry", HeaderValue::from_static(again));
    if let Some(pause) = refusal.retry_after {
        // `Retry-After` has whole seconds: rounded up, so that no retry is too early.
        let seconds = pause.as_secs() + u64::from(pause.subsec_nanos() > 0);
        headers.insert(header::RETRY_AFTER, HeaderValue::from(seconds));
    }
    response
}

/// Gives an answer as it is, or its refusal in an API's error format.
pub(super) fn to_response(
    answer: Result<Response, CompatRefusal>,
    form: ErrorFormat,
    id: &str,
) -> Response {
    answer.unwrap_or_else(|refusal| refusal_response(&refusal, form, id))
}

/// Builds a response that the outer layer does not turn into problem details.
pub(super) fn dialect_response(status: StatusCode, body: &Value) -> Response {
    let mut response =
        (status, [(header::CONTENT_TYPE, "application/json")], body.to_string()).into_response();
    response.extensions_mut().insert(DialectBodyMarker);
    response
}

impl From<BytesRejection> for CompatRefusal {
    /// The body cannot be read: too large, too slow, or broken off.
    fn from(rejection: BytesRejection) -> Self {
        match rejection.status() {
            StatusCode::PAYLOAD_TOO_LARGE => Self::body_too_large(),
            _ => Self::invalid_field("", "the body broke off or came too slowly"),
        }
    }
}

impl From<LogError> for CompatRefusal {
    fn from(error: LogError) -> Self {
        Self::log_unavailable(error)
    }
}

impl From<CommitError<RunRejection>> for CompatRefusal {
    fn from(error: CommitError<RunRejection>) -> Self {
        match error {
            CommitError::Rejected(RunRejection::IdempotencyMismatch) => {
                let message = RunRejection::IdempotencyMismatch.to_string();
                Self::new(StatusCode::UNPROCESSABLE_ENTITY, "idempotency.mismatch", message)
            }
            CommitError::Rejected(rejection) => {
                Self::new(StatusCode::CONFLICT, "request.conflict", rejection.to_string())
            }
            CommitError::Append(AppendError::TooLarge { .. }) => Self::body_too_large(),
            other => Self::log_unavailable(other),
        }
    }
}

impl From<CommitError<GraphRejection>> for CompatRefusal {
    fn from(error: CommitError<GraphRejection>) -> Self {
        Self::log_unavailable(error)
    }
}
