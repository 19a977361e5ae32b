//! Refusals of the compatible APIs: the platform's stable codes, in messages and statuses that the
//! SDKs understand.

use std::fmt::Display;
use std::time::Duration;

use axum::extract::rejection::BytesRejection;
use axum::http::{HeaderValue, StatusCode, header};
use axum::response::{IntoResponse, Response};
use convergio_domain::graph::Never;
use convergio_domain::run::Rejection;
use convergio_eventstore::{AppendError, CommitError, LogError};
use convergio_schemas::error_code;
use serde_json::Value;

use super::forms::Form;
use super::turn::CallFailure;

/// Extension of a response that is in its dialect's format already.
#[derive(Debug, Clone, Copy)]
pub(crate) struct InDialect;

/// Reason why a call has no reply.
#[derive(Debug, Clone)]
pub(super) struct Refusal {
    pub(super) status: StatusCode,
    /// The platform's error code.
    pub(super) code: String,
    pub(super) message: String,
    /// Path of the field at fault.
    pub(super) param: Option<String>,
    /// Delay that the provider asked for.
    pause: Option<Duration>,
    /// True if the SDK should repeat the request by itself.
    again: bool,
}

impl Refusal {
    fn new(status: StatusCode, code: &str, message: impl Into<String>) -> Self {
        let (code, message) = (code.to_owned(), message.into());
        Self { status, code, message, param: None, pause: None, again: false }
    }

    /// A request field is invalid; without a path, the request as a whole.
    pub(super) fn invalid(param: &str, message: impl Into<String>) -> Self {
        let param = Some(param.to_owned()).filter(|param| !param.is_empty());
        let message = match &param {
            Some(param) => format!("{param}: {}", message.into()),
            None => message.into(),
        };
        Self { param, ..Self::new(StatusCode::BAD_REQUEST, "request.invalid", message) }
    }

    /// The body cannot be read: too large, too slow, or broken off.
    pub(super) fn of_body(rejection: &BytesRejection) -> Self {
        match rejection.status() {
            StatusCode::PAYLOAD_TOO_LARGE => Self::too_large(),
            _ => Self::invalid("", "the body broke off or came too slowly"),
        }
    }

    pub(super) fn too_large() -> Self {
        let message = "the body is larger than the API takes";
        Self::new(StatusCode::PAYLOAD_TOO_LARGE, "request.too_large", message)
    }

    /// A request field is too large.
    pub(super) fn larger(param: &str, message: impl Into<String>) -> Self {
        let refusal = Self::invalid(param, message);
        let (status, code) = (StatusCode::PAYLOAD_TOO_LARGE, "request.too_large".to_owned());
        Self { status, code, ..refusal }
    }

    /// A defect: the reason goes to the server's log.
    pub(super) fn internal(error: impl Display) -> Self {
        tracing::error!(%error, "a call failed at the door");
        Self::new(StatusCode::INTERNAL_SERVER_ERROR, "internal", "the server's log has the reason")
    }

    fn unavailable(error: impl Display) -> Self {
        tracing::error!(%error, "the log is not available");
        let message = "the log cannot be used now: nothing was done, send the same request later";
        let status = StatusCode::SERVICE_UNAVAILABLE;
        Self { again: true, ..Self::new(status, "log.unavailable", message) }
    }

    /// A failed run. It was retried as its graph says, so the SDK need not repeat it unless the
    /// provider asked for a delay.
    pub(super) fn of_failure(failure: CallFailure, pause: Option<Duration>) -> Self {
        let pause = pause.filter(|_| failure.code == "provider.rate_limited");
        let again = failure.retryable && pause.is_some();
        let status = status(&failure.code);
        let param = failure.param;
        Self { pause, again, param, ..Self::new(status, &failure.code, failure.text) }
    }

    /// The object does not exist.
    pub(super) fn not_found(message: impl Into<String>) -> Self {
        Self::new(StatusCode::NOT_FOUND, "not_found", message)
    }

    /// The object does not exist, with the code that the dialect has for it.
    pub(super) fn missing(code: &str, param: &str, message: impl Into<String>) -> Self {
        let param = Some(param.to_owned());
        Self { param, ..Self::new(StatusCode::NOT_FOUND, code, message) }
    }

    /// A feature of the API that this server does not have.
    pub(super) fn unavailable_here(message: impl Into<String>) -> Self {
        Self::new(StatusCode::NOT_IMPLEMENTED, "request.unsupported", message)
    }
}

/// Returns the HTTP status of a code. Codes that steps report beyond the registered ones are faults
/// of the request.
fn status(code: &str) -> StatusCode {
    let known = error_code::find(code).and_then(|known| StatusCode::from_u16(known.status).ok());
    known.unwrap_or(StatusCode::BAD_REQUEST)
}

/// Renders a refusal in a dialect's format.
pub(super) fn refuse(refusal: &Refusal, form: Form, request_id: &str) -> Response {
    let body = form.error(&refusal.code, &refusal.message, refusal.param.as_deref(), request_id);
    let mut response = in_dialect(form.status(&refusal.code, refusal.status), &body);
    let headers = response.headers_mut();
    let again = if refusal.again { "true" } else { "false" };
    headers.insert("x-should-retry", HeaderValue::from_static(again));
    if let Some(pause) = refusal.pause {
        // `Retry-After` has whole seconds: rounded up, so that no retry is too early.
        let seconds = pause.as_secs() + u64::from(pause.subsec_nanos() > 0);
        headers.insert(header::RETRY_AFTER, HeaderValue::from(seconds));
    }
    response
}

/// Builds a response that the outer layer does not turn into problem details.
pub(super) fn in_dialect(status: StatusCode, body: &Value) -> Response {
    let mut response =
        (status, [(header::CONTENT_TYPE, "application/json")], body.to_string()).into_response();
    response.extensions_mut().insert(InDialect);
    response
}

impl From<LogError> for Refusal {
    fn from(error: LogError) -> Self {
        Self::unavailable(error)
    }
}

impl From<CommitError<Rejection>> for Refusal {
    fn from(error: CommitError<Rejection>) -> Self {
        match error {
            CommitError::Rejected(Rejection::IdempotencyMismatch) => {
                let message = Rejection::IdempotencyMismatch.to_string();
                Self::new(StatusCode::UNPROCESSABLE_ENTITY, "idempotency.mismatch", message)
            }
            CommitError::Rejected(rejection) => {
                Self::new(StatusCode::CONFLICT, "request.conflict", rejection.to_string())
            }
            CommitError::Append(AppendError::TooLarge { .. }) => Self::too_large(),
            other => Self::unavailable(other),
        }
    }
}

impl From<CommitError<Never>> for Refusal {
    fn from(error: CommitError<Never>) -> Self {
        Self::unavailable(error)
    }
}
