//! Bodies of error responses: problem details, or the format of a compatible API, which only the
//! request's path tells.

use axum::Json;
use axum::http::{HeaderValue, StatusCode};
use axum::response::{IntoResponse, Response};

use crate::http::compat::{DialectBodyMarker, ErrorFormat};
use crate::problem::{self, ApiError, FinalBodyMarker};

/// Writes the body of an error response: problem details with the request's id, or the format of a
/// compatible API. Errors of the framework itself (body too large, unreadable query) get the same
/// body.
pub(crate) fn write_error_body(
    response: &mut Response,
    request_id: &str,
    format: Option<ErrorFormat>,
) {
    let extensions = response.extensions();
    // The handler wrote the body itself: in the compatible API, or as a recorded answer.
    if extensions.get::<DialectBodyMarker>().is_some()
        || extensions.get::<FinalBodyMarker>().is_some()
    {
        return;
    }
    let status = response.status();
    // The error was put there by `into_response`; its status is the response's already.
    let error = response.extensions_mut().remove::<ApiError>();
    let is_problem = status.is_client_error() || status.is_server_error();
    let error = match error {
        Some(error) => error,
        None if is_problem => problem::from_status(status),
        None => return,
    };
    *response = match format {
        Some(form) => to_formatted_response(&error, form, status, request_id),
        None => error.into_problem_response(status, request_id),
    };
}

/// Returns the error in the format of a compatible API.
fn to_formatted_response(
    error: &ApiError,
    format: ErrorFormat,
    status: StatusCode,
    request_id: &str,
) -> Response {
    let body = format.error_body(error.code.code, &error.detail, None, request_id);
    let mut answer = (status, Json(body)).into_response();
    // Official SDKs of OpenAI and Anthropic retry or not by this header.
    // Decided by the error and not by the status: SDKs would retry any 409 or 5xx by
    // themselves.
    let should_retry = if error.is_retryable { "true" } else { "false" };
    answer.headers_mut().insert("x-should-retry", HeaderValue::from_static(should_retry));
    answer
}
