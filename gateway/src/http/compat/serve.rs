//! A call from its bytes to its answer, in any dialect.

use std::collections::VecDeque;
use std::convert::Infallible;
use std::time::Duration;

use axum::Json;
use axum::body::Body;
use axum::extract::rejection::BytesRejection;
use axum::http::{HeaderMap, HeaderName, HeaderValue};
use axum::response::sse::{Event as Sse, KeepAlive};
use axum::response::{IntoResponse, Response};
use bytes::Bytes;
use convergio_application::{Caller, request_hash};
use convergio_domain::chat::{ChatReply, ChatRequest, Privacy};
use convergio_domain::json::read_json;
use futures_util::stream;
use serde_json::{Value, json};
use tokio::time::Instant;

use super::chat::tables::MODELS_LIMIT;
use super::compat_run::{CompatCall, CompatRun, ReplyEvent, ReplyHead};
use super::compat_state::CompatState;
use super::dialect::{CompatDialect, DialectEvent, DialectRequest, WholeReply};
use super::error_format::ErrorFormat;
use super::field_table::FieldPath;
use super::refusal::{CompatRefusal, refusal_response, to_response};
use super::reply_progress::{PartEvent, PartStart};
use super::stored_runs::StoredRuns;
use crate::idempotent_answers::idempotency_key;
use crate::problem::RequestId;

const RUN_ID_HEADER: HeaderName = HeaderName::from_static("x-convergio-run");
const LEFT_OUT_HEADER: HeaderName = HeaderName::from_static("x-convergio-left-out");
const MAX_TOKENS_HEADER: HeaderName = HeaderName::from_static("x-convergio-max-tokens");
const PRIVACY_HEADER: &str = "x-convergio-privacy";
const MODELS_HEADER: &str = "x-convergio-models";
/// Headers that change the reply and are therefore hashed with the body.
const HASHED_HEADERS: [&str; 3] = [PRIVACY_HEADER, MODELS_HEADER, "anthropic-beta"];
// Shorter than the idle timeouts of common proxies (30 to 60 seconds).
const KEEP_ALIVE_INTERVAL: Duration = Duration::from_secs(10);
/// Maximum wait before the response head of a stream is sent. A refusal before has an HTTP status
/// of its own; later ones arrive inside the stream.
const HEAD_TIMEOUT: Duration = Duration::from_secs(1);

/// A call as it arrives.
pub(super) struct IncomingCall {
    pub(super) front: CompatState,
    pub(super) caller: Caller,
    pub(super) headers: HeaderMap,
    pub(super) request_id: RequestId,
    pub(super) body: Result<Bytes, BytesRejection>,
}

/// Handles a call of a dialect.
pub(super) async fn serve_call<D: CompatDialect>(incoming: IncomingCall) -> Response {
    let id = incoming.request_id.0.clone();
    match answer_call::<D>(incoming).await {
        Ok(response) => response,
        Err(refusal) => refusal_response(&refusal, D::ERROR_FORMAT, &id),
    }
}

/// Parses a body as JSON.
pub(super) fn read_json_body(body: &Bytes) -> Result<Value, CompatRefusal> {
    read_json(body).map_err(|error| {
        CompatRefusal::invalid_field("", format!("the body cannot be read as JSON: {error}"))
    })
}

async fn answer_call<D: CompatDialect>(incoming: IncomingCall) -> Result<Response, CompatRefusal> {
    let IncomingCall { front: compat_state, caller, headers, body, .. } = incoming;
    let body = body?;
    let value = read_json_body(&body)?;
    // Earlier runs are read before parsing: dialects parse without waiting.
    let stored = StoredRuns::read_runs(&compat_state, &caller, &D::referenced_runs(&value)).await?;
    let settings = &compat_state.gateway.compat;
    let dialect_request =
        DialectRequest { body: &value, headers: &headers, settings, stored: &stored };
    let (request, dialect) = D::read_request(&dialect_request)?;
    let streams = dialect.is_streaming();
    let echo = dialect.request_echo();
    let new_run = NewCompatRun { request, echo, is_streaming: streams, hashed_body: &body };
    let compat_run = begin_run(compat_state, caller, &headers, new_run).await?;
    // Taken before the run is consumed.
    let run = compat_run.run_id();
    let mut response = match streams {
        true => answer_streaming(dialect, compat_run).await,
        false => answer_whole(dialect, compat_run).await,
    };
    add_run_id(&mut response, D::ERROR_FORMAT, &run);
    Ok(response)
}

/// A call to be created.
struct NewCompatRun<'a> {
    request: ChatRequest,
    echo: Value,
    is_streaming: bool,
    /// Bytes hashed for the idempotency check.
    hashed_body: &'a [u8],
}

/// Creates a call's run, with the options that its headers add.
async fn begin_run(
    compat_state: CompatState,
    caller: Caller,
    headers: &HeaderMap,
    new_run: NewCompatRun<'_>,
) -> Result<CompatRun, CompatRefusal> {
    let NewCompatRun { mut request, echo, is_streaming: streams, hashed_body: compared } = new_run;
    apply_headers(headers, &mut request)?;
    // A key's own error would be in the platform's format.
    let key = idempotency_key(headers)
        .map_err(|error| CompatRefusal::invalid_field("", error.to_string()))?;
    let request_hash = request_hash(&request_scope(headers), compared);
    CompatRun::begin_run(
        compat_state,
        caller,
        CompatCall { request, echo, key, request_hash, is_streaming: streams },
    )
    .await
}

fn add_run_id(response: &mut Response, form: ErrorFormat, run: &str) {
    if let Ok(id) = HeaderValue::from_str(run) {
        let headers = response.headers_mut();
        headers.insert(form.request_id_header(), id.clone());
        headers.insert(RUN_ID_HEADER, id);
    }
}

/// A request of a model service (embeddings, speech, transcription).
pub(super) struct ServiceRequest {
    pub(super) request: ChatRequest,
    /// Bytes hashed for the idempotency check.
    pub(super) hashed_body: Vec<u8>,
}

/// Runs a model service and renders its reply.
pub(super) async fn serve_model_service(
    compat_state: CompatState,
    caller: Caller,
    headers: &HeaderMap,
    service_request: ServiceRequest,
    write: impl FnOnce(ChatReply) -> Result<Response, CompatRefusal>,
) -> Result<Response, CompatRefusal> {
    let ServiceRequest { request, hashed_body: compared } = service_request;
    let new_run =
        NewCompatRun { request, echo: json!({}), is_streaming: false, hashed_body: &compared };
    let mut compat_run = begin_run(compat_state, caller, headers, new_run).await?;
    let run = compat_run.run_id();
    let answer = loop {
        match compat_run.next().await {
            // A model service's reply has no parts.
            ReplyEvent::Head | ReplyEvent::Parts(_) => {}
            ReplyEvent::Done(reply) => break write(*reply),
            ReplyEvent::Failed(failure, pause) => {
                break Err(CompatRefusal::from_failure(failure, pause));
            }
        }
    };
    let mut response = to_response(answer, ErrorFormat::OpenAi, &run);
    add_run_id(&mut response, ErrorFormat::OpenAi, &run);
    Ok(response)
}

/// Builds the text that is hashed besides the body for the idempotency check.
fn request_scope(headers: &HeaderMap) -> String {
    let mut scope = "front".to_owned();
    for name in HASHED_HEADERS {
        for value in headers.get_all(name) {
            scope.push('\n');
            scope.push_str(name);
            scope.push(':');
            scope.push_str(&String::from_utf8_lossy(value.as_bytes()));
        }
    }
    scope
}

/// Applies the gateway's own headers to a request.
fn apply_headers(headers: &HeaderMap, request: &mut ChatRequest) -> Result<(), CompatRefusal> {
    // The stricter of body and header applies.
    request.privacy = request.privacy.max(read_privacy(headers)?);
    let Some(models) = headers.get(MODELS_HEADER) else { return Ok(()) };
    let models = models.to_str().unwrap_or_default().split(',').map(str::trim);
    request.fallbacks.extend(models.filter(|model| !model.is_empty()).map(str::to_owned));
    if request.fallbacks.len() > MODELS_LIMIT {
        let message = format!("names more than {MODELS_LIMIT} models");
        return Err(FieldPath::ROOT.field(MODELS_HEADER).refuse(message));
    }
    Ok(())
}

fn read_privacy(headers: &HeaderMap) -> Result<Privacy, CompatRefusal> {
    let Some(value) = headers.get(PRIVACY_HEADER) else { return Ok(Privacy::Any) };
    let text = value.to_str().unwrap_or_default();
    text.parse().map_err(|reason: String| CompatRefusal::invalid_field(PRIVACY_HEADER, reason))
}

/// Joins names into the value of [`LEFT_OUT_HEADER`]; `None` without names.
fn header_of_names<'a>(names: impl Iterator<Item = &'a str>) -> Option<HeaderValue> {
    let names: Vec<&str> = names.collect();
    if names.is_empty() { None } else { HeaderValue::from_str(&names.join(", ")).ok() }
}

/// Returns the header of dropped fields: those that the gateway dropped and those that the
/// provider's dialect cannot express.
fn left_out_header(dialect: &impl CompatDialect, compat_run: &CompatRun) -> Option<HeaderValue> {
    header_of_names(dialect.left_out().iter().chain(compat_run.left_out()).map(String::as_str))
}

/// Adds the headers that report dropped fields and an output limit set by the budget.
fn add_call_headers(headers: &mut HeaderMap, dialect: &impl CompatDialect, compat_run: &CompatRun) {
    if let Some(names) = left_out_header(dialect, compat_run) {
        headers.insert(LEFT_OUT_HEADER, names);
    }
    if let Some(tokens) = compat_run.output_limit() {
        headers.insert(MAX_TOKENS_HEADER, HeaderValue::from(tokens));
    }
}

/// Adds the header of fields that the gateway itself has dropped.
pub(super) fn add_left_out_header(
    response: &mut Response,
    names: impl Iterator<Item = &'static str>,
) {
    if let Some(names) = header_of_names(names) {
        response.headers_mut().insert(LEFT_OUT_HEADER, names);
    }
}

async fn answer_whole<D: CompatDialect>(dialect: D, mut compat_run: CompatRun) -> Response {
    loop {
        let mut response = match compat_run.next().await {
            ReplyEvent::Head | ReplyEvent::Parts(_) => continue,
            ReplyEvent::Done(reply) => {
                Json(render_whole(&dialect, &compat_run, &reply)).into_response()
            }
            ReplyEvent::Failed(failure, pause) => {
                let refusal = CompatRefusal::from_failure(failure, pause);
                refusal_response(&refusal, D::ERROR_FORMAT, &compat_run.run_id())
            }
        };
        add_call_headers(response.headers_mut(), &dialect, &compat_run);
        return response;
    }
}

fn render_whole(dialect: &impl CompatDialect, compat_run: &CompatRun, reply: &ChatReply) -> Value {
    let (run, head) = (compat_run.run_id(), compat_run.reply_head());
    let model = if reply.model.is_empty() { &head.model } else { &reply.model };
    dialect.render_reply(&WholeReply { run: &run, reply, model })
}

/// Collects events until a stream's response head can be sent: the provider has begun to answer,
/// the call has ended, or [`HEAD_TIMEOUT`] is over.
async fn first_events(compat_run: &mut CompatRun) -> Vec<ReplyEvent> {
    let mut events = Vec::new();
    let head_deadline = Instant::now() + HEAD_TIMEOUT;
    loop {
        tokio::select! {
            event = compat_run.next() => {
                let is_enough = !matches!(event, ReplyEvent::Parts(_));
                events.push(event);
                if is_enough {
                    return events;
                }
            }
            () = tokio::time::sleep_until(head_deadline) => return events,
        }
    }
}

async fn answer_streaming<D: CompatDialect>(dialect: D, mut compat_run: CompatRun) -> Response {
    let mut events = first_events(&mut compat_run).await;
    // A call that failed before any event has a status of its own.
    let is_refused = matches!(events.as_slice(), [ReplyEvent::Failed(..)]);
    let mut response = match events.pop() {
        Some(ReplyEvent::Failed(failure, pause)) if is_refused => {
            let refusal = CompatRefusal::from_failure(failure, pause);
            let mut response = refusal_response(&refusal, D::ERROR_FORMAT, &compat_run.run_id());
            add_call_headers(response.headers_mut(), &dialect, &compat_run);
            return response;
        }
        // What was waited for last belongs to the stream as well.
        last => {
            events.extend(last);
            let mut headers = HeaderMap::new();
            add_call_headers(&mut headers, &dialect, &compat_run);
            let is_left_out_sent = headers.contains_key(LEFT_OUT_HEADER);
            let mut response =
                stream_response(ReplyStream::new(dialect, compat_run, is_left_out_sent), events);
            response.headers_mut().extend(headers);
            response
        }
    };
    // nginx buffers proxied responses unless this header says no.
    response.headers_mut().insert("x-accel-buffering", HeaderValue::from_static("no"));
    response
}

/// A reply being streamed.
struct ReplyStream<D> {
    dialect: D,
    compat_run: CompatRun,
    ready_events: VecDeque<Sse>,
    /// The part in progress.
    open_part: PartStart,
    has_begun: bool,
    /// True if the response head reported dropped fields; it may have been sent before they were
    /// known.
    is_left_out_sent: bool,
    is_ended: bool,
}

impl<D: CompatDialect> ReplyStream<D> {
    fn new(dialect: D, compat_run: CompatRun, is_left_out_told: bool) -> Self {
        let (ready, open) = (VecDeque::new(), PartStart::Text);
        Self {
            dialect,
            compat_run,
            ready_events: ready,
            open_part: open,
            has_begun: false,
            is_left_out_sent: is_left_out_told,
            is_ended: false,
        }
    }

    fn push_events(&mut self, events: impl IntoIterator<Item = DialectEvent>) {
        self.ready_events.extend(events.into_iter().map(|event| {
            let sse = Sse::default().data(event.data);
            match event.name {
                Some(name) => sse.event(name),
                None => sse,
            }
        }));
    }

    fn push_start(&mut self) {
        if std::mem::replace(&mut self.has_begun, true) {
            return;
        }
        // Too late for a header: a comment in the stream reports it, which SDKs ignore.
        if !self.is_left_out_sent
            && let Some(names) = left_out_header(&self.dialect, &self.compat_run)
        {
            let names = names.to_str().unwrap_or_default();
            self.ready_events
                .push_back(Sse::default().comment(format!("{LEFT_OUT_HEADER}: {names}")));
        }
        let (run, head): (String, ReplyHead) =
            (self.compat_run.run_id(), self.compat_run.reply_head());
        let events = self.dialect.render_start(&run, &head);
        self.push_events(events);
    }

    fn push_part_event(&mut self, event: PartEvent) {
        if let PartEvent::Begin(start) = &event {
            self.open_part = start.clone();
        }
        let events = self.dialect.render_part(&self.open_part, &event);
        self.push_events(events);
    }

    fn push_reply_event(&mut self, event: ReplyEvent) {
        match event {
            // A comment shows the caller at once that a provider answers.
            ReplyEvent::Head => self.ready_events.push_back(Sse::default().comment("asked")),
            ReplyEvent::Parts(events) => {
                self.push_start();
                events.into_iter().for_each(|event| self.push_part_event(event));
            }
            ReplyEvent::Done(reply) => {
                self.push_start();
                let events = self.dialect.render_end(&reply);
                self.push_events(events);
                self.is_ended = true;
            }
            ReplyEvent::Failed(failure, _) => {
                let event = self.dialect.render_failure(&failure);
                self.push_events([event]);
                self.is_ended = true;
            }
        }
    }

    async fn next(&mut self) -> Option<Sse> {
        loop {
            if let Some(event) = self.ready_events.pop_front() {
                return Some(event);
            }
            if self.is_ended {
                return None;
            }
            let event = self.compat_run.next().await;
            self.push_reply_event(event);
        }
    }
}

fn stream_response<D: CompatDialect>(
    mut streaming: ReplyStream<D>,
    first_events: Vec<ReplyEvent>,
) -> Response {
    // Sends the response head to callers and proxies that wait for a first byte.
    if first_events.is_empty() {
        streaming.ready_events.push_back(Sse::default().comment("waiting"));
    }
    first_events.into_iter().for_each(|event| streaming.push_reply_event(event));
    let events = stream::unfold(streaming, async |mut streaming| {
        let event = streaming.next().await?;
        Some((Ok::<_, Infallible>(event), streaming))
    });
    let body = axum::response::Sse::new(events);
    let body = body.keep_alive(KeepAlive::new().interval(KEEP_ALIVE_INTERVAL));
    body.into_response().map(Body::new)
}
