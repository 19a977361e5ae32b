//! Requests under an idempotency key: the first final answer is recorded and given again, byte for
//! byte, to every repetition.
//!
//! This layer lies outside all handlers, so that a repetition is answered before anything of its
//! state (run ended, graph changed) is looked at.

use std::borrow::Cow;
use std::sync::Arc;

use axum::Extension;
use axum::body::{self, Body};
use axum::extract::{FromRequest, Request, State};
use axum::http::request::Parts;
use axum::http::{HeaderMap, HeaderName, HeaderValue, StatusCode, header};
use axum::middleware::Next;
use axum::response::{IntoResponse, Response};
use bytes::Bytes;
use convergio_application::{
    Caller, IdempotencyKey, InvalidIdempotencyKey, KeyedRequest, request_hash,
};
use convergio_domain::payload::PayloadRef;
use convergio_domain::request::{ANSWER_BYTES_LIMIT, StoredAnswer};
use serde_json::Value;

use crate::problem::{self, ApiError, RequestId};
use crate::state::Gateway;

/// Header of an answer that was recorded for an earlier request.
const REPLAYED_HEADER: HeaderName = HeaderName::from_static("idempotency-replayed");
const JSON_MEDIA_TYPE: &str = "application/json";

/// Gives the recorded answer of a repeated request; otherwise runs the request and records its
/// answer. Safe methods ignore the key.
pub(crate) async fn answer_once(
    State(gateway): State<Arc<Gateway>>,
    Extension(caller): Extension<Caller>,
    request: Request,
    next: Next,
) -> Response {
    let is_read = request.method().is_safe();
    let key = match idempotency_key(request.headers()) {
        Ok(Some(key)) if !is_read => key,
        Err(error) if !is_read => {
            return ApiError::invalid_request(error.to_string()).into_response();
        }
        _ => return next.run(request).await,
    };
    let (mut parts, body) = request.into_parts();
    let body = match read_body(&parts, body).await {
        Ok(body) => body,
        Err(refusal) => return refusal,
    };
    // Handlers act on behalf of a caller whose request has this key.
    parts.extensions.insert(Caller { key: Some(key.clone()), ..caller.clone() });
    let request_hash = hash_request(&caller, &parts, &body);
    let keyed_request = gateway.use_cases().keyed_request(&caller, &key, request_hash);
    let request = Request::from_parts(parts, Body::from(body));
    let answered = answer_request(&keyed_request, request, next).await;
    answered.unwrap_or_else(IntoResponse::into_response)
}

/// Returns the `Idempotency-Key` header, if there is one.
///
/// # Errors
/// The header is not a key.
pub(crate) fn idempotency_key(
    headers: &HeaderMap,
) -> Result<Option<IdempotencyKey>, InvalidIdempotencyKey> {
    let Some(value) = headers.get("idempotency-key") else { return Ok(None) };
    value.to_str().map_err(|_| InvalidIdempotencyKey)?.parse().map(Some)
}

/// Reads the whole body; an error is the framework's own rejection.
async fn read_body(parts: &Parts, body: Body) -> Result<Bytes, Response> {
    let request = Request::from_parts(parts.clone(), body);
    Bytes::from_request(request, &()).await.map_err(IntoResponse::into_response)
}

/// Normalises a JSON body before hashing: white space and the order of fields mean nothing.
fn canonical_json(body: &[u8]) -> Cow<'_, [u8]> {
    let value = serde_json::from_slice::<Value>(body).and_then(|value| serde_json::to_vec(&value));
    value.map_or(Cow::Borrowed(body), Cow::Owned)
}

/// True if the caller accepts server-sent events: such an answer does not end and is not recorded.
pub(crate) fn wants_event_stream(headers: &HeaderMap) -> bool {
    let wanted = headers.get(header::ACCEPT).and_then(|value| value.to_str().ok());
    wanted.is_some_and(|kinds| kinds.contains("event-stream"))
}

/// Hashes everything of a request that its answer depends on.
fn hash_request(caller: &Caller, parts: &Parts, body: &[u8]) -> String {
    let (path, query) = (parts.uri.path(), parts.uri.query().unwrap_or_default());
    // The actor is part of the hash, so another actor's request under the same key is a mismatch
    // and never reads a foreign answer.
    let scope = format!("{}\0{}\0{path}\0{query}", caller.actor, parts.method);
    request_hash(&scope, &canonical_json(body))
}

async fn answer_request(
    keyed_request: &KeyedRequest<'_>,
    request: Request,
    next: Next,
) -> Result<Response, ApiError> {
    let wants_event_stream = wants_event_stream(request.headers());
    let answer = keyed_request.bind_key().await?;
    // A repetition that wants events runs the handler again: a run's id is derived from its key, so
    // the handler finds the existing run and streams it.
    if let Some(answer) = answer.filter(|_| !wants_event_stream)
        && let Some(response) = recorded_response(keyed_request, answer).await?
    {
        return Ok(response);
    }
    let id = request.extensions().get::<RequestId>().cloned().unwrap_or_default();
    let response = next.run(request).await;
    // Transient errors are not recorded, so that a retry under the same key can succeed.
    if wants_event_stream || !is_deterministic_response(&response) {
        return Ok(response);
    }
    record_response(keyed_request, problem::write_problem(response, &id)).await
}

/// Loads the recorded answer; `None` if its body was erased.
async fn recorded_response(
    keyed_request: &KeyedRequest<'_>,
    answer: StoredAnswer<PayloadRef>,
) -> Result<Option<Response>, ApiError> {
    let Some(body) = keyed_request.read_body(answer.body).await? else { return Ok(None) };
    let mut response = Response::new(Body::from(body));
    *response.status_mut() = StatusCode::from_u16(answer.status).unwrap_or_default();
    let media_type = HeaderValue::from_str(&answer.media_type);
    let media_type = media_type.unwrap_or(HeaderValue::from_static(JSON_MEDIA_TYPE));
    response.headers_mut().insert(header::CONTENT_TYPE, media_type);
    response.headers_mut().insert(REPLAYED_HEADER, HeaderValue::from_static("true"));
    response.extensions_mut().insert(problem::FinalBodyMarker);
    Ok(Some(response))
}

/// Records an answer before it is sent. If a concurrent request with the same key was answered
/// first, returns that answer.
async fn record_response(
    keyed_request: &KeyedRequest<'_>,
    response: Response,
) -> Result<Response, ApiError> {
    let (parts, body) = response.into_parts();
    let Ok(body) = body::to_bytes(body, usize::MAX).await else {
        return Err(ApiError::answer_not_recorded(&"the answer broke off"));
    };
    // Too large to record: a repetition runs again, and streams recognise it by its request id.
    if body.len() > ANSWER_BYTES_LIMIT {
        return Ok(Response::from_parts(parts, Body::from(body)));
    }
    let media_type = parts.headers.get(header::CONTENT_TYPE);
    let media_type = media_type.and_then(|kind| kind.to_str().ok()).unwrap_or(JSON_MEDIA_TYPE);
    let (status, media_type) = (parts.status.as_u16(), media_type.to_owned());
    let answer = StoredAnswer { status, media_type, body: body.clone() };
    let answer_before = keyed_request.record_answer(answer).await;
    let recorded = match answer_before.map_err(|error| ApiError::answer_not_recorded(&error))? {
        Some(answer) => recorded_response(keyed_request, answer).await?,
        None => None,
    };
    Ok(recorded.unwrap_or_else(|| Response::from_parts(parts, Body::from(body))))
}

/// True if repeating the request cannot change its answer: a success, or a deterministic error.
fn is_deterministic_response(response: &Response) -> bool {
    match response.extensions().get::<ApiError>() {
        Some(error) => error.is_deterministic(),
        None => response.status().is_success(),
    }
}
