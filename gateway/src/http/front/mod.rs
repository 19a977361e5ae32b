//! Front doors: the interfaces of OpenAI and Anthropic in front of the log. Any SDK of theirs works
//! by changing its base URL; each call is a run of one node, with its usage and its charge.

mod anthropic;
mod completions;
mod fields;
mod refusal;
mod responses;
mod turn;
mod watch;

use std::convert::Infallible;
use std::sync::Arc;
use std::time::Duration;

use async_trait::async_trait;
use axum::body::Body;
use axum::extract::State;
use axum::extract::rejection::BytesRejection;
use axum::http::{HeaderMap, HeaderName, HeaderValue, StatusCode, header};
use axum::response::sse::{Event as Sse, KeepAlive};
use axum::response::{IntoResponse, Response};
use axum::routing::{get, post};
use axum::{Extension, Json, Router};
use bytes::Bytes;
use convergio_domain::chat::{ChatReply, ChatRequest, Privacy};
use convergio_domain::id::TenantId;
use convergio_domain::json::read_json;
use futures_util::stream;
use serde_json::{Value, json};

use crate::app::{Caller, Gateway};
use crate::auth::Identity;
use crate::idempotency;
pub(crate) use refusal::InDialect;
use refusal::{Refusal, refuse};
use turn::{CallFailure, DoorGraph, Said, Turn};
use watch::Watch;

const RUN_ID: HeaderName = HeaderName::from_static("x-convergio-run");
const PRIVACY: &str = "x-convergio-privacy";
const KEEP_ALIVE: Duration = Duration::from_secs(10);

/// A model that callers may name.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ModelEntry {
    /// The name: `PROVIDER/MODEL`.
    pub id: String,
    /// The provider.
    pub owner: String,
}

/// Which models there are, as the root of the program knows them.
#[async_trait]
pub trait ModelDirectory: Send + Sync {
    /// The models that a tenant can ask now.
    async fn models(&self, tenant: &TenantId) -> Vec<ModelEntry>;
}

/// No models.
#[async_trait]
impl ModelDirectory for () {
    async fn models(&self, _tenant: &TenantId) -> Vec<ModelEntry> {
        Vec::new()
    }
}

/// What the doors share.
#[derive(Clone)]
pub(crate) struct Front {
    gateway: Gateway,
    watch: Arc<Watch>,
    graph: Arc<DoorGraph>,
}

/// The routes of all doors. They are the interfaces of others: our document does not describe them.
pub(crate) fn routes(gateway: Gateway) -> Router<Gateway> {
    let watch = Arc::new(Watch::new(gateway.repository.log(), gateway.stop.clone()));
    let front = Front { gateway, watch, graph: Arc::new(DoorGraph::new()) };
    Router::new()
        .route("/openai/v1/chat/completions", post(chat_completions))
        .route("/openai/v1/responses", post(openai_responses))
        .route("/openai/v1/models", get(models))
        .route("/anthropic/v1/messages", post(anthropic_messages))
        .layer(Extension(front))
}

/// The interface that a door speaks.
trait Door: Send + 'static {
    /// Reads a request.
    fn read(body: &Value) -> Result<(ChatRequest, Self), Refusal>
    where
        Self: Sized;

    /// Whether the answer is wanted piece by piece.
    fn streams(&self) -> bool;

    /// A whole answer.
    fn whole(&self, run: &str, reply: &ChatReply) -> Value;

    /// The events before the first piece.
    fn begin(&mut self, run: &str) -> Vec<Event>;

    /// The events of a piece of text.
    fn piece(&mut self, text: &str) -> Vec<Event>;

    /// The events of the end.
    fn end(&mut self, reply: &ChatReply) -> Vec<Event>;

    /// The event of an end that is none.
    fn broken(&self, failure: &CallFailure) -> Event;

    /// An error in the interface's form.
    fn error(refusal: &Refusal) -> Value
    where
        Self: Sized;
}

/// An event of a stream.
struct Event {
    /// Its name, for interfaces that name their events.
    name: Option<&'static str>,
    data: String,
}

impl Event {
    fn data(data: &Value) -> Self {
        Self { name: None, data: data.to_string() }
    }

    fn named(name: &'static str, data: &Value) -> Self {
        Self { name: Some(name), data: data.to_string() }
    }
}

async fn chat_completions(
    Extension(front): Extension<Front>,
    Extension(caller): Caller,
    headers: HeaderMap,
    body: Result<Bytes, BytesRejection>,
) -> Response {
    serve::<completions::Completions>(front, caller, headers, body).await
}

async fn openai_responses(
    Extension(front): Extension<Front>,
    Extension(caller): Caller,
    headers: HeaderMap,
    body: Result<Bytes, BytesRejection>,
) -> Response {
    serve::<responses::Responses>(front, caller, headers, body).await
}

async fn anthropic_messages(
    Extension(front): Extension<Front>,
    Extension(caller): Caller,
    headers: HeaderMap,
    body: Result<Bytes, BytesRejection>,
) -> Response {
    serve::<anthropic::Messages>(front, caller, headers, body).await
}

/// The models, as OpenAI lists them.
async fn models(State(gateway): State<Gateway>, Extension(caller): Caller) -> Response {
    let models = gateway.models.models(&caller.tenant).await;
    let entry = |model: ModelEntry| {
        let ModelEntry { id, owner } = model;
        json!({"id": id, "object": "model", "created": 0, "owned_by": owner})
    };
    let data: Vec<Value> = models.into_iter().map(entry).collect();
    Json(json!({"object": "list", "data": data})).into_response()
}

async fn serve<D: Door>(
    front: Front,
    caller: Identity,
    headers: HeaderMap,
    body: Result<Bytes, BytesRejection>,
) -> Response {
    match answer::<D>(front, caller, &headers, body).await {
        Ok(response) => response,
        Err(refusal) => {
            let body = D::error(&refusal);
            refuse(refusal, &body)
        }
    }
}

async fn answer<D: Door>(
    front: Front,
    caller: Identity,
    headers: &HeaderMap,
    body: Result<Bytes, BytesRejection>,
) -> Result<Response, Refusal> {
    let body = body.map_err(|rejection| Refusal::of_body(&rejection))?;
    let value: Value = read_json(&body).map_err(|error| {
        Refusal::invalid("", format!("the body cannot be read as JSON: {error}"))
    })?;
    let (mut request, door) = D::read(&value)?;
    request.privacy = request.privacy.max(privacy(headers)?);
    let key = idempotency::key(headers).map_err(|_| {
        Refusal::invalid("", "Idempotency-Key must be 1 to 255 visible ASCII characters")
    })?;
    let mut turn = Turn::begin(front, caller, request, key, &body).await?;
    let run = turn.run_id();
    // A refusal is told by its status: nothing is answered before something is said.
    let first = turn.next().await;
    let mut response = match first {
        Said::Failed(failure, pause) => {
            let refusal = Refusal::of_failure(failure, pause);
            let body = D::error(&refusal);
            refuse(refusal, &body)
        }
        Said::Done(reply) if !door.streams() => Json(door.whole(&run, &reply)).into_response(),
        first if door.streams() => stream_of(door, turn, &run, first),
        _ => whole_of(door, turn, &run).await,
    };
    if let Ok(id) = HeaderValue::from_str(&run) {
        response.headers_mut().insert(RUN_ID, id);
    }
    Ok(response)
}

fn privacy(headers: &HeaderMap) -> Result<Privacy, Refusal> {
    let Some(value) = headers.get(PRIVACY) else { return Ok(Privacy::Any) };
    let text = value.to_str().unwrap_or_default();
    text.parse().map_err(|why: String| Refusal::invalid(PRIVACY, why))
}

async fn whole_of<D: Door>(door: D, mut turn: Turn, run: &str) -> Response {
    loop {
        match turn.next().await {
            Said::Text(_) => {}
            Said::Done(reply) => return Json(door.whole(run, &reply)).into_response(),
            Said::Failed(failure, pause) => {
                let refusal = Refusal::of_failure(failure, pause);
                let body = D::error(&refusal);
                return refuse(refusal, &body);
            }
        }
    }
}

/// A stream under way.
struct Streaming<D> {
    door: D,
    turn: Turn,
    ready: std::collections::VecDeque<Event>,
    ended: bool,
}

impl<D: Door> Streaming<D> {
    fn take(&mut self, said: Said) {
        match said {
            Said::Text(text) => self.ready.extend(self.door.piece(&text)),
            Said::Done(reply) => {
                self.ready.extend(self.door.end(&reply));
                self.ended = true;
            }
            Said::Failed(failure, _) => {
                self.ready.push_back(self.door.broken(&failure));
                self.ended = true;
            }
        }
    }

    async fn next(&mut self) -> Option<Event> {
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

fn stream_of<D: Door>(mut door: D, turn: Turn, run: &str, first: Said) -> Response {
    let ready = door.begin(run).into();
    let mut streaming = Streaming { door, turn, ready, ended: false };
    streaming.take(first);
    let events = stream::unfold(streaming, async |mut streaming| {
        let event = streaming.next().await?;
        let sse = Sse::default().data(event.data);
        let sse = match event.name {
            Some(name) => sse.event(name),
            None => sse,
        };
        Some((Ok::<_, Infallible>(sse), streaming))
    });
    let body = axum::response::Sse::new(events);
    let body = body.keep_alive(KeepAlive::new().interval(KEEP_ALIVE));
    let response = ([("x-accel-buffering", "no")], body).into_response();
    response.map(Body::new)
}

/// An answer whose form is its own: it is not turned into problem details.
fn in_dialect(status: StatusCode, body: &Value) -> Response {
    let mut response =
        (status, [(header::CONTENT_TYPE, "application/json")], body.to_string()).into_response();
    response.extensions_mut().insert(InDialect);
    response
}
