//! Requests under an idempotency key: the first final answer is recorded and given again, byte for
//! byte, to every repetition.
//!
//! This layer lies outside all handlers, so that a repetition is answered before anything of its
//! state (run ended, graph changed) is looked at.

use std::borrow::Cow;
use std::sync::Arc;

use axum::body::{self, Body};
use axum::extract::{FromRequest, Request, State};
use axum::http::{HeaderMap, HeaderName, HeaderValue, StatusCode, header};
use axum::middleware::Next;
use axum::response::{IntoResponse, Response};
use axum::{Extension, http::request::Parts};
use bytes::Bytes;
use convergio_domain::payload::{PayloadPurpose, PayloadRef, PayloadSlot};
use convergio_domain::request::{
    ANSWER_BYTES_LIMIT, RequestCommand, RequestNoun, RequestState, StoredAnswer, request_id,
};
use convergio_domain::stream::StreamKey;
use convergio_eventstore::Payload;
use serde_json::Value;

use crate::idempotency;
use crate::identity::Identity;
use crate::problem::{self, ApiError, RequestId};
use crate::state::Gateway;

/// Header of an answer that was recorded for an earlier request.
const REPLAYED_HEADER: HeaderName = HeaderName::from_static("idempotency-replayed");
const JSON_MEDIA_TYPE: &str = "application/json";

/// Gives the recorded answer of a repeated request; otherwise runs the request and records its
/// answer. Safe methods ignore the key.
pub(crate) async fn answer_once(
    State(gateway): State<Arc<Gateway>>,
    Extension(caller): Extension<Identity>,
    request: Request,
    next: Next,
) -> Response {
    let is_read = request.method().is_safe();
    let key = idempotency::idempotency_key(request.headers()).map(|key| key.map(str::to_owned));
    let key = match key {
        Ok(Some(key)) if !is_read => key,
        Err(error) if !is_read => return error.into_response(),
        _ => return next.run(request).await,
    };
    let (parts, body) = request.into_parts();
    let body = match read_body(&parts, body).await {
        Ok(body) => body,
        Err(refusal) => return refusal,
    };
    let keyed_request = KeyedRequest::new(&gateway, &caller, &key, &parts, &body);
    let request = Request::from_parts(parts, Body::from(body));
    let result = keyed_request.answer_request(request, next).await;
    result.unwrap_or_else(IntoResponse::into_response)
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

/// A request with its idempotency key bound to a stream of the log.
struct KeyedRequest<'a> {
    gateway: &'a Gateway,
    caller: &'a Identity,
    stream: StreamKey,
    request_hash: String,
}

impl<'a> KeyedRequest<'a> {
    fn new(
        gateway: &'a Gateway,
        caller: &'a Identity,
        key: &str,
        parts: &Parts,
        body: &[u8],
    ) -> Self {
        let (path, query) = (parts.uri.path(), parts.uri.query().unwrap_or_default());
        // The actor is part of the hash, so another actor's request under the same key is a
        // mismatch and never reads a foreign answer.
        let scope = format!("{}\0{}\0{path}\0{query}", caller.actor, parts.method);
        let request_hash = idempotency::request_hash(&scope, &canonical_json(body));
        let id = request_id(&caller.tenant, key);
        let stream = StreamKey::for_request(caller.tenant.clone(), id);
        Self { gateway, caller, stream, request_hash }
    }

    async fn answer_request(&self, request: Request, next: Next) -> Result<Response, ApiError> {
        let wants_event_stream = wants_event_stream(request.headers());
        let state = self.bind_key().await?;
        // A repetition that wants events runs the handler again: a run's id is derived from its
        // key, so the handler finds the existing run and streams it.
        if let Some(answer) = state.answer.filter(|_| !wants_event_stream)
            && let Some(response) = self.recorded_response(answer).await?
        {
            return Ok(response);
        }
        let id = request.extensions().get::<RequestId>().cloned().unwrap_or_default();
        let response = next.run(request).await;
        // Transient errors are not recorded, so that a retry under the same key can succeed.
        if wants_event_stream || !is_deterministic_response(&response) {
            return Ok(response);
        }
        self.record_answer(problem::write_problem(response, &id)).await
    }

    /// Binds the key to the request's hash; fails if it is bound to another one.
    async fn bind_key(&self) -> Result<RequestState, ApiError> {
        let request_hash = &self.request_hash;
        let command = |_: &RequestState, _| {
            (RequestCommand::Accept { request_hash: request_hash.clone() }, Vec::new())
        };
        let (repository, context) =
            (&self.gateway.repository, self.gateway.decision_context(self.caller));
        Ok(repository.execute::<RequestNoun>(&self.stream, &context, command).await?.state)
    }

    /// Loads the recorded answer; `None` if its body was erased.
    async fn recorded_response(
        &self,
        answer: StoredAnswer<PayloadRef>,
    ) -> Result<Option<Response>, ApiError> {
        let body = self.gateway.repository.read_payload(&self.stream, answer.body).await?;
        let Some(body) = body else { return Ok(None) };
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
    async fn record_answer(&self, response: Response) -> Result<Response, ApiError> {
        let (parts, body) = response.into_parts();
        let Ok(body) = body::to_bytes(body, usize::MAX).await else {
            return Err(ApiError::answer_not_recorded(&"the answer broke off"));
        };
        // Too large to record: a repetition runs again, and streams recognise it by its request id.
        if body.len() > ANSWER_BYTES_LIMIT {
            return Ok(Response::from_parts(parts, Body::from(body)));
        }
        let media_type = parts.headers.get(header::CONTENT_TYPE);
        let media_type =
            media_type.and_then(|kind| kind.to_str().ok()).unwrap_or(JSON_MEDIA_TYPE).to_owned();
        let status = parts.status.as_u16();
        let answer = StoredAnswer { status, media_type: media_type.clone(), body: PayloadSlot(0) };
        let (bytes, purpose) = (body.clone(), PayloadPurpose::Answer);
        let payload = Payload { bytes, media_type, purpose, subject: None };
        match self.append_answer(answer, payload).await? {
            Some(answer) => {
                let recorded = self.recorded_response(answer).await?;
                Ok(recorded.unwrap_or_else(|| Response::from_parts(parts, Body::from(body))))
            }
            None => Ok(Response::from_parts(parts, Body::from(body))),
        }
    }

    /// Appends the answer; returns the one that was there before, if any.
    async fn append_answer(
        &self,
        answer: StoredAnswer<PayloadSlot>,
        payload: Payload,
    ) -> Result<Option<StoredAnswer<PayloadRef>>, ApiError> {
        let mut answer_before = None;
        let command = |state: &RequestState, _| {
            // The command runs again after a conflict; the last try sees the state that counts.
            answer_before.clone_from(&state.answer);
            let (request_hash, answer) = (self.request_hash.clone(), answer.clone());
            (RequestCommand::Answer { request_hash, answer }, vec![payload.clone()])
        };
        let (repository, context) =
            (&self.gateway.repository, self.gateway.decision_context(self.caller));
        let appended = repository.execute::<RequestNoun>(&self.stream, &context, command).await;
        appended.map_err(|error| ApiError::answer_not_recorded(&error))?;
        Ok(answer_before)
    }
}

/// True if repeating the request cannot change its answer: a success, or a deterministic error.
fn is_deterministic_response(response: &Response) -> bool {
    match response.extensions().get::<ApiError>() {
        Some(error) => error.is_deterministic(),
        None => response.status().is_success(),
    }
}
