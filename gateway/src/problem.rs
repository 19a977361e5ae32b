//! Errors on their way to the client: a handler returns an [`ApiError`], which an outer layer
//! (`error_body`) writes as problem details (RFC 9457) or in the format of a compatible API.

use axum::Json;
use axum::body::Body;
use axum::extract::rejection::JsonRejection;
use axum::http::{HeaderValue, StatusCode, header};
use axum::response::{IntoResponse, Response};
use convergio_application::{ManifestError, ReplayError, UseCaseError};
use convergio_domain::graph::Diagnostic;
use convergio_domain::run::RunRejection;
use convergio_evaluation::EvaluationError;
use convergio_eventstore::{AppendError, CommitError, LogError};
use convergio_projections::{MemoryError, ProjectionError};
use convergio_schemas::error_code::{self, ErrorCode};
use convergio_schemas::wire::{MistakeView, Problem};

/// The id of a request, which its error answers repeat.
#[derive(Debug, Clone, Default)]
pub(crate) struct RequestId(pub(crate) String);

/// Extension of a response whose body is final: the outer layer leaves it alone.
#[derive(Debug, Clone, Copy)]
pub(crate) struct FinalBodyMarker;

/// An error as a handler returns it. It travels in the response's extensions until its format is
/// known.
#[derive(Debug, Clone)]
pub(crate) struct ApiError {
    pub(crate) code: ErrorCode,
    /// Explanation for the client.
    pub(crate) detail: String,
    /// Diagnostics of an invalid manifest, each with its place.
    mistakes: Vec<Diagnostic>,
    /// True if the same request may succeed later.
    pub(crate) is_retryable: bool,
}

impl ApiError {
    pub(crate) fn new(code: ErrorCode, detail: impl Into<String>) -> Self {
        Self { code, detail: detail.into(), mistakes: Vec::new(), is_retryable: false }
    }

    /// Creates an error that may pass by itself.
    pub(crate) fn retryable_error(code: ErrorCode, detail: impl Into<String>) -> Self {
        Self { is_retryable: true, ..Self::new(code, detail) }
    }

    pub(crate) fn invalid_request(detail: impl Into<String>) -> Self {
        Self::new(error_code::REQUEST_INVALID, detail)
    }

    pub(crate) fn not_found(resource: &str) -> Self {
        Self::new(error_code::NOT_FOUND, format!("there is no such {resource}"))
    }

    /// `graph.invalid` with all diagnostics; the first one is repeated in the detail.
    pub(crate) fn invalid_manifest(mistakes: Vec<Diagnostic>) -> Self {
        let first = mistakes.first().map_or_else(String::new, ToString::to_string);
        let detail = match mistakes.len() {
            1 => first,
            count => format!("{count} mistakes; the first: {first}"),
        };
        Self { mistakes, ..Self::new(error_code::GRAPH_INVALID, detail) }
    }

    /// The request was carried out, but its answer could not be recorded. Retryable: a repetition
    /// under the same key gets the recorded effect.
    pub(crate) fn answer_not_recorded(error: &dyn std::fmt::Display) -> Self {
        tracing::error!(%error, "an answer is not recorded");
        let detail = "the request was carried out, and its answer could not be recorded: send the \
            same request under the same key again, it is done once";
        Self { is_retryable: true, ..Self::new(error_code::LOG_UNAVAILABLE, detail) }
    }

    /// True if the error depends on the request alone, so that it may be recorded as the final
    /// answer. Errors of authentication (401, 403), missing objects (404), the server (5xx) and
    /// transient ones are not.
    pub(crate) fn is_deterministic(&self) -> bool {
        !self.is_retryable && matches!(self.code.status, 400 | 409 | 413 | 422)
    }

    /// A defect: the reason goes to the server's log only, since it may hold internals; the client
    /// gets the request's id to report.
    fn internal_error(error: &dyn std::fmt::Display) -> Self {
        tracing::error!(%error, "a request failed");
        let detail = "the server's log has the reason under this request_id";
        Self::new(error_code::INTERNAL, detail)
    }

    fn log_unavailable(error: &dyn std::fmt::Display) -> Self {
        tracing::error!(%error, "the log is not available");
        let detail = "the log cannot be used now: nothing was done, send the same request later";
        Self { is_retryable: true, ..Self::new(error_code::LOG_UNAVAILABLE, detail) }
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

/// Writes the problem details of an error response now, so that its bytes can be recorded.
pub(crate) fn write_problem(mut response: Response, request_id: &RequestId) -> Response {
    let Some(error) = response.extensions_mut().remove::<ApiError>() else { return response };
    let mut response_with_body = error.into_problem_response(response.status(), &request_id.0);
    response_with_body.extensions_mut().insert(FinalBodyMarker);
    response_with_body
}

/// The error of an answer that the framework itself has given.
pub(crate) fn from_status(status: StatusCode) -> ApiError {
    match status {
        StatusCode::PAYLOAD_TOO_LARGE => {
            ApiError::new(error_code::REQUEST_TOO_LARGE, "the body is larger than the API takes")
        }
        StatusCode::NOT_FOUND => ApiError::new(error_code::NOT_FOUND, "there is no such path"),
        _ if status.is_server_error() => ApiError::internal_error(&status),
        _ => ApiError::invalid_request(format!("the request cannot be read ({status})")),
    }
}

impl ApiError {
    pub(crate) fn into_problem_response(self, status: StatusCode, request_id: &str) -> Response {
        let mut answer = (status, Json(self.into_problem(request_id))).into_response();
        let kind = HeaderValue::from_static("application/problem+json");
        answer.headers_mut().insert(header::CONTENT_TYPE, kind);
        // A second is the shortest delay that the header can express.
        if matches!(status, StatusCode::SERVICE_UNAVAILABLE | StatusCode::INSUFFICIENT_STORAGE) {
            answer.headers_mut().insert(header::RETRY_AFTER, HeaderValue::from_static("1"));
        }
        answer.map(Body::new)
    }

    fn into_problem(self, request_id: &str) -> Problem {
        let mistakes = self.mistakes.into_iter().map(|mistake| {
            let Diagnostic { line, column, path, message } = mistake;
            MistakeView { line, column, path, message }
        });
        Problem {
            kind: format!("urn:convergio:error:{}", self.code.code),
            title: self.code.title.to_owned(),
            status: self.code.status,
            detail: self.detail,
            code: self.code.code.to_owned(),
            request_id: request_id.to_owned(),
            retryable: self.is_retryable,
            mistakes: mistakes.collect(),
        }
    }
}

impl From<JsonRejection> for ApiError {
    fn from(rejection: JsonRejection) -> Self {
        // A body over the limit has an error code of its own.
        if rejection.status() == StatusCode::PAYLOAD_TOO_LARGE {
            return from_status(rejection.status());
        }
        Self::invalid_request(rejection.body_text())
    }
}

impl From<ProjectionError> for ApiError {
    fn from(error: ProjectionError) -> Self {
        match error {
            ProjectionError::BadCursor(_) => Self::invalid_request(error.to_string()),
            other => Self::internal_error(&other),
        }
    }
}

impl From<LogError> for ApiError {
    fn from(error: LogError) -> Self {
        match error {
            LogError::Unavailable(_) | LogError::Closed => Self::log_unavailable(&error),
            other => Self::internal_error(&other),
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
                Self { is_retryable: true, ..Self::new(error_code::LOG_FULL, detail) }
            }
            AppendError::Corrupt { .. } | AppendError::CommitMismatch => {
                Self::internal_error(&error)
            }
            other => Self::log_unavailable(&other),
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
                Self { is_retryable: true, ..Self::new(error_code::REQUEST_CONFLICT, detail) }
            }
            CommitError::Append(error) => error.into(),
            CommitError::Log(error) => error.into(),
        }
    }
}

impl From<RunRejection> for ApiError {
    fn from(rejection: RunRejection) -> Self {
        let code = match rejection {
            RunRejection::NotFound | RunRejection::NoSuchApproval(_) => error_code::NOT_FOUND,
            RunRejection::Imported => error_code::RUN_IMPORTED,
            RunRejection::NotInRole(..) => error_code::AUTH_FORBIDDEN,
            RunRejection::IdempotencyMismatch => error_code::IDEMPOTENCY_MISMATCH,
            RunRejection::NotResumable(_)
            | RunRejection::NotFailed(_)
            | RunRejection::NothingToRetry
            | RunRejection::NotForkable(..) => error_code::RUN_NOT_RESUMABLE,
            _ => error_code::REQUEST_CONFLICT,
        };
        Self::new(code, rejection.to_string())
    }
}

impl From<convergio_domain::memory::MemoryRejection> for ApiError {
    fn from(rejection: convergio_domain::memory::MemoryRejection) -> Self {
        let code = match rejection {
            convergio_domain::memory::MemoryRejection::Full => error_code::REQUEST_CONFLICT,
            _ => error_code::REQUEST_INVALID,
        };
        Self::new(code, rejection.to_string())
    }
}

impl From<convergio_domain::token::TokenRejection> for ApiError {
    fn from(rejection: convergio_domain::token::TokenRejection) -> Self {
        use convergio_domain::token::TokenRejection::{NotFound, NotOwner};
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
            other => Self::internal_error(&other),
        }
    }
}

impl From<convergio_domain::request::RequestMismatch> for ApiError {
    fn from(mismatch: convergio_domain::request::RequestMismatch) -> Self {
        Self::new(error_code::IDEMPOTENCY_MISMATCH, mismatch.to_string())
    }
}

impl From<convergio_domain::agent::AgentNotFound> for ApiError {
    fn from(_: convergio_domain::agent::AgentNotFound) -> Self {
        Self::not_found("agent")
    }
}

impl From<ManifestError> for ApiError {
    fn from(error: ManifestError) -> Self {
        let detail = error.to_string();
        match error {
            ManifestError::NotRegistered | ManifestError::Erased => {
                Self::new(error_code::NOT_FOUND, detail)
            }
            ManifestError::Unusable(_) => Self::invalid_request(detail),
            ManifestError::Log(error) => error.into(),
        }
    }
}

impl From<ReplayError> for ApiError {
    fn from(error: ReplayError) -> Self {
        match error {
            ReplayError::Log(error) => error.into(),
            ReplayError::ReadModels(reason) => Self::internal_error(&reason),
            ReplayError::Evaluation(error) => error.into(),
            other => Self::invalid_request(other.to_string()),
        }
    }
}

impl From<EvaluationError> for ApiError {
    fn from(error: EvaluationError) -> Self {
        match error {
            EvaluationError::Limit(reason) => Self::new(error_code::EVALUATION_LIMIT, reason),
            EvaluationError::Busy(reason) => Self::retryable_error(error_code::SERVER_BUSY, reason),
        }
    }
}

impl From<UseCaseError> for ApiError {
    fn from(error: UseCaseError) -> Self {
        let detail = error.to_string();
        match error {
            UseCaseError::NotFound(_) => Self::new(error_code::NOT_FOUND, detail),
            UseCaseError::Invalid(_) => Self::invalid_request(detail),
            UseCaseError::TooLarge(_) => Self::new(error_code::REQUEST_TOO_LARGE, detail),
            UseCaseError::Conflict(_) => Self::new(error_code::REQUEST_CONFLICT, detail),
            UseCaseError::RunMoved => Self::retryable_error(error_code::REQUEST_CONFLICT, detail),
            UseCaseError::Diverged { .. } => Self::new(error_code::RUN_DIVERGED, detail),
            UseCaseError::InvalidManifest(mistakes) => Self::invalid_manifest(mistakes),
            UseCaseError::UnexpectedEvaluation => Self::new(error_code::INTERNAL, detail),
            UseCaseError::Evaluation(error) => error.into(),
            UseCaseError::Replay(error) => error.into(),
            UseCaseError::Manifest(error) => error.into(),
            UseCaseError::Log(error) => error.into(),
            UseCaseError::Run(error) => error.into(),
            UseCaseError::Graph(error) => error.into(),
            UseCaseError::Agent(error) => error.into(),
        }
    }
}

impl From<convergio_domain::graph::GraphRejection> for ApiError {
    fn from(never: convergio_domain::graph::GraphRejection) -> Self {
        Self::internal_error(&never)
    }
}
