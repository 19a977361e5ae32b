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
use convergio_domain::chat::{ChatReply, ChatRequest, Privacy};
use convergio_domain::json::read_json;
use futures_util::stream;
use serde_json::{Value, json};
use tokio::time::Instant;

use super::chat::tables::MODELS_LIMIT;
use super::endpoints::respond;
use super::known::Path;
use super::progress::{PartEvent, PartStart};
use super::refusal::{Refusal, refuse};
use super::stored::StoredRuns;
use super::turn::{Call, Head, Said, Turn};
use super::{Answered, Door, DoorRequest, Event, Form, Front};
use crate::auth::Identity;
use crate::idempotency;
use crate::problem::RequestId;

const RUN_ID: HeaderName = HeaderName::from_static("x-convergio-run");
const LEFT_OUT: HeaderName = HeaderName::from_static("x-convergio-left-out");
const MAX_TOKENS: HeaderName = HeaderName::from_static("x-convergio-max-tokens");
const PRIVACY: &str = "x-convergio-privacy";
const MODELS: &str = "x-convergio-models";
/// Headers that change the reply and are therefore hashed with the body.
const DECISIVE: [&str; 3] = [PRIVACY, MODELS, "anthropic-beta"];
// Shorter than the idle timeouts of common proxies (30 to 60 seconds).
const KEEP_ALIVE: Duration = Duration::from_secs(10);
/// Maximum wait before the response head of a stream is sent. A refusal before has an HTTP status
/// of its own; later ones arrive inside the stream.
const HEAD_WAIT: Duration = Duration::from_secs(1);

/// A call as it arrives.
pub(super) struct Incoming {
    pub(super) front: Front,
    pub(super) caller: Identity,
    pub(super) headers: HeaderMap,
    pub(super) request_id: RequestId,
    pub(super) body: Result<Bytes, BytesRejection>,
}

/// Handles a call of a dialect.
pub(super) async fn serve<D: Door>(incoming: Incoming) -> Response {
    let id = incoming.request_id.0.clone();
    match answer::<D>(incoming).await {
        Ok(response) => response,
        Err(refusal) => refuse(&refusal, D::FORM, &id),
    }
}

/// Parses a body as JSON.
pub(super) fn read_body(body: &Bytes) -> Result<Value, Refusal> {
    read_json(body)
        .map_err(|error| Refusal::invalid("", format!("the body cannot be read as JSON: {error}")))
}

async fn answer<D: Door>(incoming: Incoming) -> Result<Response, Refusal> {
    let Incoming { front, caller, headers, body, .. } = incoming;
    let body = body.map_err(|rejection| Refusal::of_body(&rejection))?;
    let value = read_body(&body)?;
    // Earlier runs are read before parsing: dialects parse without waiting.
    let stored = StoredRuns::read(&front, &caller, &D::references(&value)).await?;
    let settings = &front.gateway.doors;
    let asked = DoorRequest { body: &value, headers: &headers, settings, stored: &stored };
    let (request, door) = D::read(&asked)?;
    let streams = door.streams();
    let echo = door.echo();
    let begun = NewTurn { request, echo, streams, compared: &body };
    let turn = begin(front, caller, &headers, begun).await?;
    // Taken before the run is consumed.
    let run = turn.run_id();
    let mut response = match streams {
        true => stream_answer(door, turn).await,
        false => whole_answer(door, turn).await,
    };
    add_run_id(&mut response, D::FORM, &run);
    Ok(response)
}

/// A call to be created.
struct NewTurn<'a> {
    request: ChatRequest,
    echo: Value,
    streams: bool,
    /// Bytes hashed for the idempotency check.
    compared: &'a [u8],
}

/// Creates a call's run, with the options that its headers add.
async fn begin(
    front: Front,
    caller: Identity,
    headers: &HeaderMap,
    new: NewTurn<'_>,
) -> Result<Turn, Refusal> {
    let NewTurn { mut request, echo, streams, compared } = new;
    take_headers(headers, &mut request)?;
    // A key's own error would be in the platform's format.
    let key = idempotency::key(headers).map_err(|_| {
        Refusal::invalid("", "Idempotency-Key must be 1 to 255 visible ASCII characters")
    })?;
    let request_hash = idempotency::request_hash(&scope(headers), compared);
    Turn::begin(front, caller, Call { request, echo, key, request_hash, streams }).await
}

fn add_run_id(response: &mut Response, form: Form, run: &str) {
    if let Ok(id) = HeaderValue::from_str(run) {
        let headers = response.headers_mut();
        headers.insert(form.request_id_header(), id.clone());
        headers.insert(RUN_ID, id);
    }
}

/// A request of a model service (embeddings, speech, transcription).
pub(super) struct ServiceRequest {
    pub(super) request: ChatRequest,
    /// Bytes hashed for the idempotency check.
    pub(super) compared: Vec<u8>,
}

/// Runs a model service and renders its reply.
pub(super) async fn serve_service(
    front: Front,
    caller: Identity,
    headers: &HeaderMap,
    asked: ServiceRequest,
    write: impl FnOnce(ChatReply) -> Result<Response, Refusal>,
) -> Result<Response, Refusal> {
    let ServiceRequest { request, compared } = asked;
    let new = NewTurn { request, echo: json!({}), streams: false, compared: &compared };
    let mut turn = begin(front, caller, headers, new).await?;
    let run = turn.run_id();
    let answer = loop {
        match turn.next().await {
            // A model service's reply has no parts.
            Said::Head | Said::Parts(_) => {}
            Said::Done(reply) => break write(*reply),
            Said::Failed(failure, pause) => break Err(Refusal::of_failure(failure, pause)),
        }
    };
    let mut response = respond(answer, Form::OpenAi, &run);
    add_run_id(&mut response, Form::OpenAi, &run);
    Ok(response)
}

/// Builds the text that is hashed besides the body for the idempotency check.
fn scope(headers: &HeaderMap) -> String {
    let mut scope = "front".to_owned();
    for name in DECISIVE {
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
fn take_headers(headers: &HeaderMap, request: &mut ChatRequest) -> Result<(), Refusal> {
    // The stricter of body and header applies.
    request.privacy = request.privacy.max(privacy(headers)?);
    let Some(models) = headers.get(MODELS) else { return Ok(()) };
    let models = models.to_str().unwrap_or_default().split(',').map(str::trim);
    request.fallbacks.extend(models.filter(|model| !model.is_empty()).map(str::to_owned));
    if request.fallbacks.len() > MODELS_LIMIT {
        let message = format!("names more than {MODELS_LIMIT} models");
        return Err(Path::ROOT.field(MODELS).refuse(message));
    }
    Ok(())
}

fn privacy(headers: &HeaderMap) -> Result<Privacy, Refusal> {
    let Some(value) = headers.get(PRIVACY) else { return Ok(Privacy::Any) };
    let text = value.to_str().unwrap_or_default();
    text.parse().map_err(|why: String| Refusal::invalid(PRIVACY, why))
}

/// Joins names into the value of [`LEFT_OUT_HEADER`]; `None` without names.
fn names_header<'a>(names: impl Iterator<Item = &'a str>) -> Option<HeaderValue> {
    let names: Vec<&str> = names.collect();
    if names.is_empty() { None } else { HeaderValue::from_str(&names.join(", ")).ok() }
}

/// Returns the header of dropped fields: those that the gateway dropped and those that the
/// provider's dialect cannot express.
fn left_out(door: &impl Door, turn: &Turn) -> Option<HeaderValue> {
    names_header(door.left_out().iter().chain(turn.left_out()).map(String::as_str))
}

/// Adds the headers that report dropped fields and an output limit set by the budget.
fn add_call_headers(headers: &mut HeaderMap, door: &impl Door, turn: &Turn) {
    if let Some(names) = left_out(door, turn) {
        headers.insert(LEFT_OUT, names);
    }
    if let Some(tokens) = turn.output_limit() {
        headers.insert(MAX_TOKENS, HeaderValue::from(tokens));
    }
}

/// Adds the header of fields that the gateway itself has dropped.
pub(super) fn tell_left_out(response: &mut Response, names: impl Iterator<Item = &'static str>) {
    if let Some(names) = names_header(names) {
        response.headers_mut().insert(LEFT_OUT, names);
    }
}

async fn whole_answer<D: Door>(door: D, mut turn: Turn) -> Response {
    loop {
        let mut response = match turn.next().await {
            Said::Head | Said::Parts(_) => continue,
            Said::Done(reply) => Json(whole(&door, &turn, &reply)).into_response(),
            Said::Failed(failure, pause) => {
                let refusal = Refusal::of_failure(failure, pause);
                refuse(&refusal, D::FORM, &turn.run_id())
            }
        };
        add_call_headers(response.headers_mut(), &door, &turn);
        return response;
    }
}

fn whole(door: &impl Door, turn: &Turn, reply: &ChatReply) -> Value {
    let (run, head) = (turn.run_id(), turn.head());
    let model = if reply.model.is_empty() { &head.model } else { &reply.model };
    door.whole(&Answered { run: &run, reply, model })
}

/// Collects events until a stream's response head can be sent: the provider has begun to answer,
/// the call has ended, or [`HEAD_TIMEOUT`] is over.
async fn first(turn: &mut Turn) -> Vec<Said> {
    let mut first = Vec::new();
    let latest = Instant::now() + HEAD_WAIT;
    loop {
        tokio::select! {
            said = turn.next() => {
                let is_enough = !matches!(said, Said::Parts(_));
                first.push(said);
                if is_enough {
                    return first;
                }
            }
            () = tokio::time::sleep_until(latest) => return first,
        }
    }
}

async fn stream_answer<D: Door>(door: D, mut turn: Turn) -> Response {
    let mut first = first(&mut turn).await;
    // A call that failed before any event has a status of its own.
    let is_refused = matches!(first.as_slice(), [Said::Failed(..)]);
    let mut response = match first.pop() {
        Some(Said::Failed(failure, pause)) if is_refused => {
            let refusal = Refusal::of_failure(failure, pause);
            let mut response = refuse(&refusal, D::FORM, &turn.run_id());
            add_call_headers(response.headers_mut(), &door, &turn);
            return response;
        }
        // What was waited for last belongs to the stream as well.
        last => {
            first.extend(last);
            let mut headers = HeaderMap::new();
            add_call_headers(&mut headers, &door, &turn);
            let is_told = headers.contains_key(LEFT_OUT);
            let mut response = stream_of(Streaming::new(door, turn, is_told), first);
            response.headers_mut().extend(headers);
            response
        }
    };
    // nginx buffers proxied responses unless this header says no.
    response.headers_mut().insert("x-accel-buffering", HeaderValue::from_static("no"));
    response
}

/// A reply being streamed.
struct Streaming<D> {
    door: D,
    turn: Turn,
    ready: VecDeque<Sse>,
    /// The part in progress.
    open: PartStart,
    has_begun: bool,
    /// True if the response head reported dropped fields; it may have been sent before they were
    /// known.
    is_left_out_told: bool,
    ended: bool,
}

impl<D: Door> Streaming<D> {
    fn new(door: D, turn: Turn, is_left_out_told: bool) -> Self {
        let (ready, open) = (VecDeque::new(), PartStart::Text);
        Self { door, turn, ready, open, has_begun: false, is_left_out_told, ended: false }
    }

    fn tell(&mut self, events: impl IntoIterator<Item = Event>) {
        self.ready.extend(events.into_iter().map(|event| {
            let sse = Sse::default().data(event.data);
            match event.name {
                Some(name) => sse.event(name),
                None => sse,
            }
        }));
    }

    fn begin(&mut self) {
        if std::mem::replace(&mut self.has_begun, true) {
            return;
        }
        // Too late for a header: a comment in the stream reports it, which SDKs ignore.
        if !self.is_left_out_told
            && let Some(names) = left_out(&self.door, &self.turn)
        {
            let names = names.to_str().unwrap_or_default();
            self.ready.push_back(Sse::default().comment(format!("{LEFT_OUT}: {names}")));
        }
        let (run, head): (String, Head) = (self.turn.run_id(), self.turn.head());
        let events = self.door.begin(&run, &head);
        self.tell(events);
    }

    fn take_part(&mut self, event: PartEvent) {
        if let PartEvent::Begin(start) = &event {
            self.open = start.clone();
        }
        let events = self.door.part(&self.open, &event);
        self.tell(events);
    }

    fn take(&mut self, said: Said) {
        match said {
            // A comment shows the caller at once that a provider answers.
            Said::Head => self.ready.push_back(Sse::default().comment("asked")),
            Said::Parts(events) => {
                self.begin();
                events.into_iter().for_each(|event| self.take_part(event));
            }
            Said::Done(reply) => {
                self.begin();
                let events = self.door.end(&reply);
                self.tell(events);
                self.ended = true;
            }
            Said::Failed(failure, _) => {
                let event = self.door.broken(&failure);
                self.tell([event]);
                self.ended = true;
            }
        }
    }

    async fn next(&mut self) -> Option<Sse> {
        loop {
            if let Some(event) = self.ready.pop_front() {
                return Some(event);
            }
            if self.ended {
                return None;
            }
            let said = self.turn.next().await;
            self.take(said);
        }
    }
}

fn stream_of<D: Door>(mut streaming: Streaming<D>, first: Vec<Said>) -> Response {
    // Sends the response head to callers and proxies that wait for a first byte.
    if first.is_empty() {
        streaming.ready.push_back(Sse::default().comment("waiting"));
    }
    first.into_iter().for_each(|said| streaming.take(said));
    let events = stream::unfold(streaming, async |mut streaming| {
        let event = streaming.next().await?;
        Some((Ok::<_, Infallible>(event), streaming))
    });
    let body = axum::response::Sse::new(events);
    let body = body.keep_alive(KeepAlive::new().interval(KEEP_ALIVE));
    body.into_response().map(Body::new)
}
