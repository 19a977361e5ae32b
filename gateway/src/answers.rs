//! Requests under an idempotency key: what was answered once is answered for ever, byte for byte,
//! before anything else is looked at.

use std::borrow::Cow;
use std::sync::Arc;

use axum::body::{self, Body};
use axum::extract::{FromRequest, Request, State};
use axum::http::{HeaderMap, HeaderName, HeaderValue, StatusCode, header};
use axum::middleware::Next;
use axum::response::{IntoResponse, Response};
use axum::{Extension, http::request::Parts};
use bytes::Bytes;
use convergio_domain::payload::{PayloadRef, PayloadSlot, Purpose};
use convergio_domain::request::{
    ANSWER_BYTES_LIMIT, Answer, Request as RequestNoun, RequestCommand, State as RequestState,
    request_id,
};
use convergio_domain::stream::StreamKey;
use convergio_eventstore::Payload;
use serde_json::Value;

use crate::app::Gateway;
use crate::auth::Identity;
use crate::idempotency;
use crate::problem::{self, ApiError, RequestId};

/// Tells that an answer is the one that was given before.
const REPLAYED: HeaderName = HeaderName::from_static("idempotency-replayed");
const JSON: &str = "application/json";

/// Answers a request that was answered before; else lets it be done, and keeps what is answered.
pub(crate) async fn answer_once(
    State(gateway): State<Arc<Gateway>>,
    Extension(caller): Extension<Identity>,
    request: Request,
    next: Next,
) -> Response {
    let is_read = request.method().is_safe();
    let key = idempotency::key(request.headers()).map(|key| key.map(str::to_owned));
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
    let keyed = KeyedRequest::new(&gateway, &caller, &key, &parts, &body);
    let request = Request::from_parts(parts, Body::from(body));
    let answered = keyed.answer(request, next).await;
    answered.unwrap_or_else(IntoResponse::into_response)
}

/// The whole body, or the framework's refusal of it.
async fn read_body(parts: &Parts, body: Body) -> Result<Bytes, Response> {
    let request = Request::from_parts(parts.clone(), body);
    Bytes::from_request(request, &()).await.map_err(IntoResponse::into_response)
}

/// A body as what it means: white space and the order of fields say nothing in JSON.
fn canonical(body: &[u8]) -> Cow<'_, [u8]> {
    let value = serde_json::from_slice::<Value>(body).and_then(|value| serde_json::to_vec(&value));
    value.map_or(Cow::Borrowed(body), Cow::Owned)
}

/// Whether events are wanted as they happen: such an answer has no end that could be kept.
pub(crate) fn wants_event_stream(headers: &HeaderMap) -> bool {
    let wanted = headers.get(header::ACCEPT).and_then(|value| value.to_str().ok());
    wanted.is_some_and(|kinds| kinds.contains("event-stream"))
}

/// A request under a key.
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
        let scope = format!("{}\0{}\0{path}\0{query}", caller.actor, parts.method);
        let request_hash = idempotency::request_hash(&scope, &canonical(body));
        let id = request_id(&caller.tenant, key);
        let stream = StreamKey::request(caller.tenant.clone(), id);
        Self { gateway, caller, stream, request_hash }
    }

    async fn answer(&self, request: Request, next: Next) -> Result<Response, ApiError> {
        let wants_event_stream = wants_event_stream(request.headers());
        let state = self.accept().await?;
        if let Some(answer) = state.answer.filter(|_| !wants_event_stream)
            && let Some(response) = self.recorded_response(answer).await?
        {
            return Ok(response);
        }
        let id = request.extensions().get::<RequestId>().cloned().unwrap_or_default();
        let response = next.run(request).await;
        if wants_event_stream || !is_verdict(&response) {
            return Ok(response);
        }
        self.record(problem::write(response, &id)).await
    }

    /// Binds the key to the request.
    async fn accept(&self) -> Result<RequestState, ApiError> {
        let request_hash = &self.request_hash;
        let command = |_: &RequestState, _| {
            (RequestCommand::Accept { request_hash: request_hash.clone() }, Vec::new())
        };
        let (repository, context) = (&self.gateway.repository, self.gateway.context(self.caller));
        Ok(repository.execute::<RequestNoun>(&self.stream, &context, command).await?.state)
    }

    /// The answer that was kept; nothing if its body was erased.
    async fn recorded_response(
        &self,
        answer: Answer<PayloadRef>,
    ) -> Result<Option<Response>, ApiError> {
        let body = self.gateway.repository.payload(&self.stream, answer.body).await?;
        let Some(body) = body else { return Ok(None) };
        let mut response = Response::new(Body::from(body));
        *response.status_mut() = StatusCode::from_u16(answer.status).unwrap_or_default();
        let media_type = HeaderValue::from_str(&answer.media_type);
        let media_type = media_type.unwrap_or(HeaderValue::from_static(JSON));
        response.headers_mut().insert(header::CONTENT_TYPE, media_type);
        response.headers_mut().insert(REPLAYED, HeaderValue::from_static("true"));
        response.extensions_mut().insert(problem::IsWritten);
        Ok(Some(response))
    }

    /// Keeps an answer before it is given. If the same request was answered meanwhile, that is the
    /// answer.
    async fn record(&self, response: Response) -> Result<Response, ApiError> {
        let (parts, body) = response.into_parts();
        let Ok(body) = body::to_bytes(body, usize::MAX).await else {
            return Err(ApiError::unrecorded(&"the answer broke off"));
        };
        if body.len() > ANSWER_BYTES_LIMIT {
            return Ok(Response::from_parts(parts, Body::from(body)));
        }
        let media_type = parts.headers.get(header::CONTENT_TYPE);
        let media_type = media_type.and_then(|kind| kind.to_str().ok()).unwrap_or(JSON).to_owned();
        let status = parts.status.as_u16();
        let answer = Answer { status, media_type: media_type.clone(), body: PayloadSlot(0) };
        let (bytes, purpose) = (body.clone(), Purpose::Answer);
        let payload = Payload { bytes, media_type, purpose, subject: None };
        match self.keep(answer, payload).await? {
            Some(answer) => {
                let recorded = self.recorded_response(answer).await?;
                Ok(recorded.unwrap_or_else(|| Response::from_parts(parts, Body::from(body))))
            }
            None => Ok(Response::from_parts(parts, Body::from(body))),
        }
    }

    /// Appends an answer; gives the one that was there before, if there was one.
    async fn keep(
        &self,
        answer: Answer<PayloadSlot>,
        payload: Payload,
    ) -> Result<Option<Answer<PayloadRef>>, ApiError> {
        let mut answer_before = None;
        let command = |state: &RequestState, _| {
            answer_before.clone_from(&state.answer);
            let (request_hash, answer) = (self.request_hash.clone(), answer.clone());
            (RequestCommand::Answer { request_hash, answer }, vec![payload.clone()])
        };
        let (repository, context) = (&self.gateway.repository, self.gateway.context(self.caller));
        let kept = repository.execute::<RequestNoun>(&self.stream, &context, command).await;
        kept.map_err(|error| ApiError::unrecorded(&error))?;
        Ok(answer_before)
    }
}

/// Whether an answer is a word about the request, and not about the moment.
fn is_verdict(response: &Response) -> bool {
    match response.extensions().get::<ApiError>() {
        Some(error) => error.is_verdict(),
        None => response.status().is_success(),
    }
}
