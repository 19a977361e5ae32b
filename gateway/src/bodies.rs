//! Room for the bodies of requests: as values they take many times what they are as bytes.
//!
//! A look at its brackets tells what a body takes in memory before it is read. All bodies that are
//! under way have a room together; one that finds none waits for it, in its turn.

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
use convergio_domain::json::memory_of;
use convergio_schemas::error_code;
use futures_util::stream;
use tokio::runtime::{Handle, RuntimeFlavor};
use tokio::sync::{OwnedSemaphorePermit, Semaphore};

use crate::app::BODY_LIMIT;
use crate::problem::ApiError;

/// Bodies up to this size find room in any case.
const SMALL_BYTES: usize = 64 << 10;
/// Memory that one body may take as a value.
const VALUE_LIMIT: usize = 384 << 20;
/// Bytes of all bodies that are being read.
const BYTES_ROOM: usize = 256 << 20;
/// Memory of all values that are made of bodies.
const VALUES_ROOM: usize = 768 << 20;
/// Bytes that are gone over where they are; more would keep others waiting.
const APART_BYTES: usize = 1 << 20;
/// The one path that takes forms.
const RECORDINGS_PATH: &str = "/openai/v1/audio/transcriptions";
/// How often a file stands in memory while its call is begun: in its form, as base64, in a request
/// and in its text.
const FORM_COPIES: usize = 5;
/// Longest wait for room.
const PATIENCE: Duration = Duration::from_secs(30);
/// Room is given out in pieces of so many bytes.
const PIECE_BYTES: usize = 4 << 10;

/// The room that all bodies have.
#[derive(Debug, Clone)]
pub(crate) struct BodyRoom {
    bytes: Arc<Semaphore>,
    values: Arc<Semaphore>,
}

impl BodyRoom {
    pub(crate) fn new() -> Self {
        let room = |bytes: usize| Arc::new(Semaphore::new(bytes / PIECE_BYTES));
        Self { bytes: room(BYTES_ROOM), values: room(VALUES_ROOM) }
    }
}

/// Lets a request go on when there is room for its body, and keeps the room until it is answered.
pub(crate) async fn find_room(room: &BodyRoom, request: Request, next: Next) -> Response {
    let length = length_of(request.headers());
    let is_small = request.method().is_safe() || length.is_some_and(|bytes| bytes <= SMALL_BYTES);
    if is_small {
        return next.run(request).await;
    }
    match read_within(room, request, length.unwrap_or(BODY_LIMIT)).await {
        Ok((request, _value)) => next.run(request).await,
        Err(refusal) => refusal,
    }
}

/// How long a body is, where that is said before.
fn length_of(headers: &HeaderMap) -> Option<usize> {
    headers.get(CONTENT_LENGTH)?.to_str().ok()?.parse().ok()
}

/// The request with its whole body, if that is small: it then goes from the thread of connections
/// to those that work in one piece, and not piece by piece with a wait for each. What is wrong with
/// it is heard by who reads it.
pub(crate) async fn read_small(request: Request) -> Request {
    let length = length_of(request.headers());
    if request.body().is_end_stream() || length.is_none_or(|bytes| bytes > SMALL_BYTES) {
        return request;
    }
    let (parts, body) = request.into_parts();
    let body = match body::to_bytes(body, SMALL_BYTES).await {
        Ok(body) => Body::from(body),
        Err(error) => Body::from_stream(stream::iter([Err::<Bytes, _>(error)])),
    };
    Request::from_parts(parts, body)
}

/// The request with its whole body, and the room that it takes as a value.
async fn read_within(
    room: &BodyRoom,
    request: Request,
    length: usize,
) -> Result<(Request, OwnedSemaphorePermit), Response> {
    let _bytes = take(&room.bytes, length.min(BODY_LIMIT)).await?;
    let (parts, body) = request.into_parts();
    let whole = Request::from_parts(parts.clone(), body);
    let body = Bytes::from_request(whole, &()).await.map_err(IntoResponse::into_response)?;
    let memory = match is_form(&parts) {
        true => body.len() * FORM_COPIES,
        false => work_apart(body.len(), || memory_of(&body)),
    };
    if memory > VALUE_LIMIT {
        return Err(too_many_values(memory).into_response());
    }
    let value = take(&room.values, memory).await?;
    Ok((Request::from_parts(parts, Body::from(body)), value))
}

/// Whether a body is a form with files: its bytes are no values. A word of the caller is not
/// enough: elsewhere such a body would be read as JSON.
fn is_form(parts: &Parts) -> bool {
    let kind = parts.headers.get(CONTENT_TYPE).and_then(|kind| kind.to_str().ok());
    let is_multipart =
        kind.is_some_and(|kind| kind.trim_start().to_ascii_lowercase().starts_with("multipart/"));
    is_multipart && parts.uri.path() == RECORDINGS_PATH
}

async fn take(room: &Arc<Semaphore>, bytes: usize) -> Result<OwnedSemaphorePermit, Response> {
    let pieces = u32::try_from(bytes / PIECE_BYTES + 1).unwrap_or(u32::MAX);
    let taken = tokio::time::timeout(PATIENCE, Arc::clone(room).acquire_many_owned(pieces)).await;
    taken.ok().and_then(Result::ok).ok_or_else(|| {
        let detail = "so many large requests are under way that this one found no room: nothing \
            was done, send it again later";
        ApiError::retryable(error_code::SERVER_BUSY, detail).into_response()
    })
}

/// Does what goes over so many bytes; where they are many, the thread's other work goes on
/// elsewhere meanwhile.
pub(crate) fn work_apart<T>(bytes: usize, work: impl FnOnce() -> T) -> T {
    let runtime = Handle::try_current().map(|runtime| runtime.runtime_flavor());
    let has_others = runtime.is_ok_and(|flavor| flavor == RuntimeFlavor::MultiThread);
    if bytes > APART_BYTES && has_others { tokio::task::block_in_place(work) } else { work() }
}

fn too_many_values(memory: usize) -> ApiError {
    let (mib, limit) = (memory >> 20, VALUE_LIMIT >> 20);
    let detail = format!(
        "the body takes {mib} MiB once it is read, at most {limit} are allowed: send fewer values, \
         or longer texts in their place"
    );
    ApiError::new(error_code::REQUEST_TOO_LARGE, detail)
}
