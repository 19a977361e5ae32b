//! Errors on their way to the client: problem details, with the log's words kept apart.

use axum::Json;
use axum::body::Body;
use axum::extract::rejection::JsonRejection;
use axum::http::{HeaderValue, StatusCode, header};
use axum::response::{IntoResponse, Response};
use convergio_domain::graph::Mistake;
use convergio_domain::run::Rejection;
use convergio_eventstore::{AppendError, CommitError, LogError};
use convergio_projections::{MemoryError, ProjectionError};
use convergio_schemas::error_code::{self, ErrorCode};
use convergio_schemas::wire::{MistakeView, Problem};

use crate::http::front::{Form, InDialect};

/// The id of a request, for the problems that it meets.
#[derive(Debug, Clone, Default)]
pub(crate) struct RequestId(pub(crate) String);

/// Marks a response whose body is whole: nothing is made of it any more.
#[derive(Debug, Clone, Copy)]
pub(crate) struct IsWritten;

/// An error as a handler gives it.
#[derive(Debug, Clone)]
pub(crate) struct ApiError {
    code: ErrorCode,
    /// What the client is told.
    detail: String,
    mistakes: Vec<Mistake>,
    retryable: bool,
}

impl ApiError {
    pub(crate) fn new(code: ErrorCode, detail: impl Into<String>) -> Self {
        Self { code, detail: detail.into(), mistakes: Vec::new(), retryable: false }
    }

    /// An error that may pass by itself.
    pub(crate) fn retryable(code: ErrorCode, detail: impl Into<String>) -> Self {
        Self { retryable: true, ..Self::new(code, detail) }
    }

    pub(crate) fn invalid(detail: impl Into<String>) -> Self {
        Self::new(error_code::REQUEST_INVALID, detail)
    }

    pub(crate) fn not_found(what: &str) -> Self {
        Self::new(error_code::NOT_FOUND, format!("there is no such {what}"))
    }

    pub(crate) fn manifest(mistakes: Vec<Mistake>) -> Self {
        let first = mistakes.first().map_or_else(String::new, ToString::to_string);
        let detail = match mistakes.len() {
            1 => first,
            count => format!("{count} mistakes; the first: {first}"),
        };
        Self { mistakes, ..Self::new(error_code::GRAPH_INVALID, detail) }
    }

    /// Others were faster again and again.
    pub(crate) fn busy(detail: impl Into<String>) -> Self {
        Self { retryable: true, ..Self::new(error_code::REQUEST_CONFLICT, detail) }
    }

    /// What was asked for is done, and the answer could not be kept.
    pub(crate) fn unrecorded(error: &dyn std::fmt::Display) -> Self {
        tracing::error!(%error, "an answer is not recorded");
        let detail = "the request was carried out, and its answer could not be recorded: send the \
            same request under the same key again, it is done once";
        Self { retryable: true, ..Self::new(error_code::LOG_UNAVAILABLE, detail) }
    }

    /// Whether it is a word about the request, which stays, and not about the moment, the token or
    /// a thing that may come to exist.
    pub(crate) fn is_verdict(&self) -> bool {
        !self.retryable && matches!(self.code.status, 400 | 409 | 413 | 422)
    }

    /// A defect: the server's log gets the reason, the client gets the request's id.
    fn internal(error: &dyn std::fmt::Display) -> Self {
        tracing::error!(%error, "a request failed");
        let detail = "the server's log has the reason under this request_id";
        Self::new(error_code::INTERNAL, detail)
    }

    fn unavailable(error: &dyn std::fmt::Display) -> Self {
        tracing::error!(%error, "the log is not available");
        let detail = "the log cannot be used now: nothing was done, send the same request later";
        Self { retryable: true, ..Self::new(error_code::LOG_UNAVAILABLE, detail) }
    }
}

impl IntoResponse for ApiError {
    fn into_response(self) -> Response {
        let status = StatusCode::from_u16(self.code.status);
        let mut response = status.unwrap_or(StatusCode::INTERNAL_SERVER_ERROR).into_response();
        response.extensions_mut().insert(self);
        response
    }
}

/// Turns errors into problem details with the request's id. Errors of the framework itself (a body
/// too large, a query that cannot be read) get the same form.
pub(crate) fn stamp(response: &mut Response, request_id: &str, form: Option<Form>) {
    let extensions = response.extensions();
    if extensions.get::<InDialect>().is_some() || extensions.get::<IsWritten>().is_some() {
        return;
    }
    let status = response.status();
    let error = response.extensions_mut().remove::<ApiError>();
    let is_problem = status.is_client_error() || status.is_server_error();
    let error = match error {
        Some(error) => error,
        None if is_problem => from_status(status),
        None => return,
    };
    *response = match form {
        Some(form) => error.in_form(form, status, request_id),
        None => error.response(status, request_id),
    };
}

/// Writes the error that a response stands for, if it does, as problem details.
pub(crate) fn write(mut response: Response, request_id: &RequestId) -> Response {
    let Some(error) = response.extensions_mut().remove::<ApiError>() else { return response };
    let mut written = error.response(response.status(), &request_id.0);
    written.extensions_mut().insert(IsWritten);
    written
}

fn from_status(status: StatusCode) -> ApiError {
    match status {
        StatusCode::PAYLOAD_TOO_LARGE => {
            ApiError::new(error_code::REQUEST_TOO_LARGE, "the body is larger than the API takes")
        }
        StatusCode::NOT_FOUND => ApiError::new(error_code::NOT_FOUND, "there is no such path"),
        _ if status.is_server_error() => ApiError::internal(&status),
        _ => ApiError::invalid(format!("the request cannot be read ({status})")),
    }
}

impl ApiError {
    fn response(self, status: StatusCode, request_id: &str) -> Response {
        let mut answer = (status, Json(self.problem(request_id))).into_response();
        let kind = HeaderValue::from_static("application/problem+json");
        answer.headers_mut().insert(header::CONTENT_TYPE, kind);
        if matches!(status, StatusCode::SERVICE_UNAVAILABLE | StatusCode::INSUFFICIENT_STORAGE) {
            answer.headers_mut().insert(header::RETRY_AFTER, HeaderValue::from_static("1"));
        }
        answer.map(Body::new)
    }

    /// The error in the form of a front door.
    fn in_form(self, form: Form, status: StatusCode, request_id: &str) -> Response {
        let body = form.error(self.code.code, &self.detail, None, request_id);
        let mut answer = (status, Json(body)).into_response();
        let again = if self.retryable { "true" } else { "false" };
        answer.headers_mut().insert("x-should-retry", HeaderValue::from_static(again));
        answer
    }

    fn problem(self, request_id: &str) -> Problem {
        let mistakes = self.mistakes.into_iter().map(|mistake| {
            let Mistake { line, column, path, message } = mistake;
            MistakeView { line, column, path, message }
        });
        Problem {
            kind: format!("urn:convergio:error:{}", self.code.code),
            title: self.code.title.to_owned(),
            status: self.code.status,
            detail: self.detail,
            code: self.code.code.to_owned(),
            request_id: request_id.to_owned(),
            retryable: self.retryable,
            mistakes: mistakes.collect(),
        }
    }
}

impl From<JsonRejection> for ApiError {
    fn from(rejection: JsonRejection) -> Self {
        if rejection.status() == StatusCode::PAYLOAD_TOO_LARGE {
            return from_status(rejection.status());
        }
        Self::invalid(rejection.body_text())
    }
}

impl From<ProjectionError> for ApiError {
    fn from(error: ProjectionError) -> Self {
        match error {
            ProjectionError::BadCursor(_) => Self::invalid(error.to_string()),
            other => Self::internal(&other),
        }
    }
}

impl From<LogError> for ApiError {
    fn from(error: LogError) -> Self {
        match error {
            LogError::Unavailable(_) | LogError::Closed => Self::unavailable(&error),
            other => Self::internal(&other),
        }
    }
}

impl From<AppendError> for ApiError {
    fn from(error: AppendError) -> Self {
        match error {
            AppendError::TooLarge { .. } => {
                Self::new(error_code::REQUEST_TOO_LARGE, error.to_string())
            }
            AppendError::Full => {
                let detail = "the log's disk is full: nothing was done; make room, then send the \
                    same request again";
                Self { retryable: true, ..Self::new(error_code::LOG_FULL, detail) }
            }
            AppendError::Corrupt { .. } | AppendError::CommitMismatch => Self::internal(&error),
            other => Self::unavailable(&other),
        }
    }
}

impl<R: Into<ApiError> + std::error::Error> From<CommitError<R>> for ApiError {
    fn from(error: CommitError<R>) -> Self {
        match error {
            CommitError::Rejected(rejection) => rejection.into(),
            CommitError::Conflict => {
                let detail = "so many write to the same thing that this request did not get \
                    its turn in time: nothing was done, send the same request again";
                Self { retryable: true, ..Self::new(error_code::REQUEST_CONFLICT, detail) }
            }
            CommitError::Append(error) => error.into(),
            CommitError::Log(error) => error.into(),
        }
    }
}

impl From<Rejection> for ApiError {
    fn from(rejection: Rejection) -> Self {
        let code = match rejection {
            Rejection::NotFound | Rejection::NoSuchApproval(_) => error_code::NOT_FOUND,
            Rejection::Imported => error_code::RUN_IMPORTED,
            Rejection::NotInRole(..) => error_code::AUTH_FORBIDDEN,
            Rejection::IdempotencyMismatch => error_code::IDEMPOTENCY_MISMATCH,
            Rejection::NotResumable(_)
            | Rejection::NotFailed(_)
            | Rejection::NothingToRetry
            | Rejection::NotForkable(..) => error_code::RUN_NOT_RESUMABLE,
            _ => error_code::REQUEST_CONFLICT,
        };
        Self::new(code, rejection.to_string())
    }
}

impl From<convergio_domain::memory::Rejection> for ApiError {
    fn from(rejection: convergio_domain::memory::Rejection) -> Self {
        let code = match rejection {
            convergio_domain::memory::Rejection::Full => error_code::REQUEST_CONFLICT,
            _ => error_code::REQUEST_INVALID,
        };
        Self::new(code, rejection.to_string())
    }
}

impl From<convergio_domain::token::Rejection> for ApiError {
    fn from(rejection: convergio_domain::token::Rejection) -> Self {
        use convergio_domain::token::Rejection::{NotFound, NotOwner};
        let code = match rejection {
            NotOwner => error_code::AUTH_FORBIDDEN,
            NotFound => error_code::NOT_FOUND,
            _ => error_code::REQUEST_CONFLICT,
        };
        Self::new(code, rejection.to_string())
    }
}

impl From<MemoryError> for ApiError {
    fn from(error: MemoryError) -> Self {
        match error {
            MemoryError::Log(error) => error.into(),
            other => Self::internal(&other),
        }
    }
}

impl From<convergio_domain::request::Mismatch> for ApiError {
    fn from(mismatch: convergio_domain::request::Mismatch) -> Self {
        Self::new(error_code::IDEMPOTENCY_MISMATCH, mismatch.to_string())
    }
}

impl From<convergio_domain::agent::NoAgent> for ApiError {
    fn from(_: convergio_domain::agent::NoAgent) -> Self {
        Self::not_found("agent")
    }
}

impl From<convergio_domain::graph::Never> for ApiError {
    fn from(never: convergio_domain::graph::Never) -> Self {
        Self::internal(&never)
    }
}
