//! Memory budget for request bodies: as JSON values they take many times their size in bytes.
//!
//! The memory of a value is estimated from the body's brackets before it is parsed. All large
//! bodies share one budget; a request that does not fit waits its turn.

use std::sync::Arc;
use std::time::Duration;

use axum::body::{self, Body, HttpBody};
use axum::extract::{FromRequest, Request};
use axum::http::HeaderMap;
use axum::http::header::{CONTENT_LENGTH, CONTENT_TYPE};
use axum::http::request::Parts;
use axum::middleware::Next;
use axum::response::{IntoResponse, Response};
use bytes::Bytes;
use convergio_domain::json::memory_upper_bound;
use convergio_schemas::error_code;
use futures_util::stream;
use tokio::runtime::{Handle, RuntimeFlavor};
use tokio::sync::{OwnedSemaphorePermit, Semaphore};

use crate::problem::ApiError;

/// Maximum bytes of a request body; manifests have a smaller limit of their own.
pub(crate) const BODY_LIMIT: usize = 20 << 20;
/// Maximum bytes of a body that needs no reservation.
const SMALL_BODY_BYTES: usize = 64 << 10;
/// Maximum memory in bytes of one body as a value.
const VALUE_BYTES_LIMIT: usize = 384 << 20;
/// Budget in bytes for all bodies being read.
const BODY_BYTES_BUDGET: usize = 256 << 20;
/// Budget in bytes for all values parsed from bodies.
const VALUE_BYTES_BUDGET: usize = 768 << 20;
/// Bytes above which parsing blocks the other tasks of a worker thread for too long.
const BLOCKING_BYTES: usize = 1 << 20;
/// The only path that accepts multipart forms.
const RECORDINGS_PATH: &str = "/openai/v1/audio/transcriptions";
/// Copies of a file in memory while its call is created: in the form, as base64 (a third more), in
/// the request and in the request's text.
const FORM_COPIES: usize = 5;
/// Maximum wait for a reservation.
const RESERVE_TIMEOUT: Duration = Duration::from_secs(30);
/// Bytes of one semaphore permit.
const PERMIT_BYTES: usize = 4 << 10;

/// The budget that all request bodies share, in permits of [`PERMIT_BYTES`].
#[derive(Debug, Clone)]
pub(crate) struct BodyMemoryBudget {
    byte_permits: Arc<Semaphore>,
    value_permits: Arc<Semaphore>,
}

impl BodyMemoryBudget {
    pub(crate) fn new() -> Self {
        let permits_of = |bytes: usize| Arc::new(Semaphore::new(bytes / PERMIT_BYTES));
        Self {
            byte_permits: permits_of(BODY_BYTES_BUDGET),
            value_permits: permits_of(VALUE_BYTES_BUDGET),
        }
    }
}

/// Runs a request once its body fits the budget, and holds the reservation until it is answered.
pub(crate) async fn run_within_budget(
    budget: &BodyMemoryBudget,
    request: Request,
    next: Next,
) -> Response {
    let length = declared_length(request.headers());
    // Small bodies need no reservation: `read_small` bounds them, and there are many of them.
    let is_small =
        request.method().is_safe() || length.is_some_and(|bytes| bytes <= SMALL_BODY_BYTES);
    if is_small {
        return next.run(request).await;
    }
    // Without a declared length the largest body is assumed.
    match read_body_within(budget, request, length.unwrap_or(BODY_LIMIT)).await {
        Ok((request, _value)) => next.run(request).await,
        Err(refusal) => refusal,
    }
}

/// Returns the declared length of a body, if there is one.
fn declared_length(headers: &HeaderMap) -> Option<usize> {
    headers.get(CONTENT_LENGTH)?.to_str().ok()?.parse().ok()
}

/// Buffers a small body on the connection's runtime, so that the request crosses to the work
/// runtime in one piece and not chunk by chunk. Read errors are kept in the body for its reader.
pub(crate) async fn read_small(request: Request) -> Request {
    let length = declared_length(request.headers());
    if request.body().is_end_stream() || length.is_none_or(|bytes| bytes > SMALL_BODY_BYTES) {
        return request;
    }
    let (parts, body) = request.into_parts();
    let body = match body::to_bytes(body, SMALL_BODY_BYTES).await {
        Ok(body) => Body::from(body),
        Err(error) => Body::from_stream(stream::iter([Err::<Bytes, _>(error)])),
    };
    Request::from_parts(parts, body)
}

/// Reads the body and reserves memory for it as a value; returns the request and the reservation.
async fn read_body_within(
    budget: &BodyMemoryBudget,
    request: Request,
    length: usize,
) -> Result<(Request, OwnedSemaphorePermit), Response> {
    let _bytes = reserve_memory(&budget.byte_permits, length.min(BODY_LIMIT)).await?;
    let (parts, body) = request.into_parts();
    let whole = Request::from_parts(parts.clone(), body);
    let body = Bytes::from_request(whole, &()).await.map_err(IntoResponse::into_response)?;
    // A file's bytes are not parsed into values, but they are copied.
    let memory = match is_multipart_form(&parts) {
        true => body.len() * FORM_COPIES,
        false => run_blocking_if_large(body.len(), || memory_upper_bound(&body)),
    };
    if memory > VALUE_BYTES_LIMIT {
        // Before the second reservation: a body that can never fit must not wait for one.
        return Err(value_too_large(memory).into_response());
    }
    // Waits while the bytes' reservation is still held: this body keeps counting as one being read.
    let value = reserve_memory(&budget.value_permits, memory).await?;
    Ok((Request::from_parts(parts, Body::from(body)), value))
}

/// True if the body is a multipart form at the one path that takes forms. The content type alone
/// must not decide: at other paths the body would be parsed as JSON in spite of it.
fn is_multipart_form(parts: &Parts) -> bool {
    let kind = parts.headers.get(CONTENT_TYPE).and_then(|kind| kind.to_str().ok());
    let is_multipart =
        kind.is_some_and(|kind| kind.trim_start().to_ascii_lowercase().starts_with("multipart/"));
    is_multipart && parts.uri.path() == RECORDINGS_PATH
}

async fn reserve_memory(
    semaphore: &Arc<Semaphore>,
    bytes: usize,
) -> Result<OwnedSemaphorePermit, Response> {
    // One permit more, so that every body takes at least one.
    let permits = u32::try_from(bytes / PERMIT_BYTES + 1).unwrap_or(u32::MAX);
    let permit =
        tokio::time::timeout(RESERVE_TIMEOUT, Arc::clone(semaphore).acquire_many_owned(permits))
            .await;
    permit.ok().and_then(Result::ok).ok_or_else(|| {
        let detail = "so many large requests are under way that this one found no room: nothing \
            was done, send it again later";
        ApiError::retryable_error(error_code::SERVER_BUSY, detail).into_response()
    })
}

/// Runs CPU-bound work over a body of so many bytes; if it is large, the worker thread's other
/// tasks are moved to another thread meanwhile.
pub(crate) fn run_blocking_if_large<T>(bytes: usize, work: impl FnOnce() -> T) -> T {
    let runtime = Handle::try_current().map(|runtime| runtime.runtime_flavor());
    // `block_in_place` panics on a current-thread runtime, which tests use.
    let has_others = runtime.is_ok_and(|flavor| flavor == RuntimeFlavor::MultiThread);
    if bytes > BLOCKING_BYTES && has_others { tokio::task::block_in_place(work) } else { work() }
}

fn value_too_large(memory: usize) -> ApiError {
    let (mib, limit) = (memory >> 20, VALUE_BYTES_LIMIT >> 20);
    let detail = format!(
        "the body takes {mib} MiB once it is read, at most {limit} are allowed: send fewer values, \
         or longer texts in their place"
    );
    ApiError::new(error_code::REQUEST_TOO_LARGE, detail)
}
