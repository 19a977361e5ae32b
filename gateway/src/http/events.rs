//! A stream's events: a page as JSON, or live by server-sent events and WebSocket. Live delivery
//! loses and repeats nothing: it reads the log from the last event that the client has seen.

use std::collections::VecDeque;
use std::convert::Infallible;
use std::sync::Arc;
use std::time::Duration;

use axum::Extension;
use axum::Json;
use axum::extract::ws::{Message, WebSocket, WebSocketUpgrade};
use axum::extract::{Path, State};
use axum::http::{HeaderMap, StatusCode};
use axum::response::sse::{Event as Sse, KeepAlive};
use axum::response::{IntoResponse, Response};
use convergio_domain::event::Event;
use convergio_domain::id::TokenId;
use convergio_domain::run::Run;
use convergio_domain::run::event::RunEvent;
use convergio_domain::stream::{Seq, StreamKey, StreamKind};
use convergio_eventstore::{LiveKind, LiveNote, LogError, Record, StreamNote};
use convergio_schemas::wire::{EventEnvelope, Frame, Page, Problem, ProgressNote};
use futures_util::stream::{self, BoxStream, Stream, StreamExt};
use serde::Deserialize;
use tokio::sync::broadcast;
use tokio::sync::broadcast::error::RecvError;
use tokio::sync::watch;
use utoipa::IntoParams;
use utoipa_axum::router::OpenApiRouter;
use utoipa_axum::routes;

use super::query_params::{PageLimit, QueryParams};
use super::run_lookup::{is_run_end, run_stream};
use crate::content_budget::ContentBudget;
use crate::convert;
use crate::idempotent_answers::wants_event_stream;
use crate::problem::ApiError;
use crate::state::{ApiRoutes, App, CallerExtension, Gateway, wait_for_stop};

/// Records read from the log at once.
const RECORDS_PER_READ: usize = 256;
/// Events of a page by default.
const DEFAULT_PAGE_EVENTS: usize = 100;
// Shorter than the idle timeouts of common proxies (30 to 60 seconds).
const KEEP_ALIVE_INTERVAL: Duration = Duration::from_secs(10);

/// Query parameters of the listing.
#[derive(Debug, Deserialize, IntoParams)]
#[into_params(parameter_in = Query)]
pub(crate) struct EventsQuery {
    /// Only events after this sequence number.
    after: Option<u64>,
    /// Events of a page, 1 to 1000; 100 when absent.
    #[param(value_type = Option<u16>, minimum = 1, maximum = 1000)]
    limit: Option<PageLimit>,
    /// Also the payloads' contents.
    payloads: Option<bool>,
}

/// Routes of events, as pages and as streams.
pub(crate) fn event_routes() -> ApiRoutes {
    OpenApiRouter::new().routes(routes!(list_events)).routes(routes!(stream_events))
}

/// Lists the events of a run; with `Accept: text/event-stream` they come as they happen, and
/// `Last-Event-ID` resumes without gap or repeat. The stream ends with the run, and who has seen
/// the end gets 204: nothing follows unless the run is retried.
#[utoipa::path(get, path = "/v1/runs/{id}/events", tag = "events", params(
    ("id" = String, Path, description = "The run"), EventsQuery,
    ("Last-Event-ID" = Option<String>, Header, description = "The last sequence number seen"),
), responses(
    (status = 200, description = "A page of events, or the stream of them",
        body = Page<EventEnvelope>),
    (status = 204, description = "The run has ended, and the stream would be empty"),
    (status = 400, description = "The query is not valid", body = Problem),
    (status = 404, description = "There is no such run", body = Problem),
))]
async fn list_events(
    State(gateway): App,
    Extension(caller): CallerExtension,
    Path(id): Path<String>,
    QueryParams(query): QueryParams<EventsQuery>,
    headers: HeaderMap,
) -> Result<Response, ApiError> {
    let stream = run_stream(&caller, &id)?;
    if gateway.repository.event_log().stream_head(&stream).await?.is_none() {
        return Err(ApiError::not_found("run"));
    }
    if !wants_event_stream(&headers) {
        return read_page(&gateway, &stream, &query).await.map(|page| Json(page).into_response());
    }
    let last_event_id = headers.get("last-event-id").and_then(|value| value.to_str().ok());
    let after = match last_event_id {
        Some(seq) => {
            seq.parse().map_err(|_| ApiError::invalid_request("Last-Event-ID is not a number"))?
        }
        None => query.after.unwrap_or(0),
    };
    sse_response(gateway, stream, Seq(after)).await
}

/// Returns the events of a stream after a sequence number as server-sent events; 204 if none can
/// follow.
pub(super) async fn sse_response(
    gateway: Arc<Gateway>,
    stream: StreamKey,
    after: Seq,
) -> Result<Response, ApiError> {
    let status = StreamStatus::load_for_run(&gateway, &stream).await?;
    if status.is_over_after(after) {
        return Ok(StatusCode::NO_CONTENT.into_response());
    }
    let frames = follow_stream(gateway, stream, after, status);
    let frames = frames.map(|frame| Ok::<_, Infallible>(to_sse_event(&frame)));
    let body = axum::response::Sse::new(frames);
    let body = body.keep_alive(KeepAlive::new().interval(KEEP_ALIVE_INTERVAL));
    // nginx buffers proxied responses unless this header says no.
    Ok(([("x-accel-buffering", "no")], body).into_response())
}

fn to_sse_event(frame: &Frame) -> Sse {
    let (name, event) = match frame {
        // Only events have an id: `Last-Event-ID` must name an event of the log, never progress.
        Frame::Event(event) => ("event", Sse::default().id(event.seq.to_string())),
        Frame::Progress(_) => ("progress", Sse::default()),
    };
    let data = match frame {
        Frame::Event(event) => serde_json::to_string(event),
        Frame::Progress(note) => serde_json::to_string(note),
    };
    event.event(name).data(data.unwrap_or_default())
}

async fn read_page(
    gateway: &Gateway,
    stream: &StreamKey,
    query: &EventsQuery,
) -> Result<Page<EventEnvelope>, ApiError> {
    let after = query.after.unwrap_or(0);
    let limit = query.limit.map_or(DEFAULT_PAGE_EVENTS, usize::from);
    let mut items = Vec::new();
    // A record may begin before `after`; its events up to there are dropped below.
    let mut from = Seq(after.saturating_sub(convergio_eventstore::LogLimits::EVENTS as u64));
    loop {
        let records =
            gateway.repository.event_log().read_stream(stream, from, RECORDS_PER_READ).await?;
        for record in &records {
            let events = convert::to_event_envelopes(record);
            items.extend(events.into_iter().filter(|event| event.seq > after));
            from = record.last_seq();
        }
        // One event more than the page tells whether there is a next one.
        if records.len() < RECORDS_PER_READ || items.len() > limit {
            break;
        }
    }
    let mut has_more = items.len() > limit;
    items.truncate(limit);
    if query.payloads == Some(true) {
        let shown_events = open_payload_contents(gateway, stream, &mut items).await?;
        has_more |= shown_events < items.len();
        items.truncate(shown_events);
    }
    let next_cursor = items.last().filter(|_| has_more).map(|event| event.seq.to_string());
    Ok(Page { items, next_cursor })
}

/// Adds the payload contents of events to as many of them as the budget allows, at least one.
/// Returns their number.
async fn open_payload_contents(
    gateway: &Gateway,
    stream: &StreamKey,
    items: &mut [EventEnvelope],
) -> Result<usize, ApiError> {
    let mut budget = ContentBudget::new();
    for (index, event) in items.iter_mut().enumerate() {
        for payload in &mut event.payloads {
            let content =
                gateway.open_payload_within(stream, &payload.reference, &mut budget).await?;
            if content.is_none() && index > 0 {
                return Ok(index);
            }
            payload.content = match content {
                Some(content) => Some(content),
                // The first event is shown whatever it takes, or a client could never get past it.
                None => Some(gateway.open_payload(stream, &payload.reference).await?),
            };
        }
    }
    Ok(items.len())
}

/// Query parameters of a WebSocket.
#[derive(Debug, Deserialize, IntoParams)]
#[into_params(parameter_in = Query)]
pub(crate) struct StreamQuery {
    /// Only events after this sequence number.
    after: Option<u64>,
}

impl StreamQuery {
    pub(super) fn after_seq(&self) -> u64 {
        self.after.unwrap_or(0)
    }
}

/// Streams the events of a run over a WebSocket, one JSON frame each, and closes it with the run.
#[utoipa::path(get, path = "/v1/runs/{id}/stream", tag = "events", params(
    ("id" = String, Path, description = "The run"), StreamQuery,
), responses(
    (status = 101, description = "The WebSocket is open"),
    (status = 400, description = "Not a WebSocket request", body = Problem),
    (status = 404, description = "There is no such run", body = Problem),
))]
async fn stream_events(
    State(gateway): App,
    Extension(caller): CallerExtension,
    Extension(token): Extension<TokenId>,
    Path(id): Path<String>,
    QueryParams(query): QueryParams<StreamQuery>,
    upgrade: Result<WebSocketUpgrade, axum::extract::ws::rejection::WebSocketUpgradeRejection>,
) -> Result<Response, ApiError> {
    let stream = run_stream(&caller, &id)?;
    if gateway.repository.event_log().stream_head(&stream).await?.is_none() {
        return Err(ApiError::not_found("run"));
    }
    let upgrade = upgrade.map_err(|error| ApiError::invalid_request(error.body_text()))?;
    let (after, standing) =
        (Seq(query.after_seq()), StreamStatus::load_for_run(&gateway, &stream).await?);
    let revocation = gateway.tokens.wait_for_revocation(token);
    let frames = follow_stream(gateway, stream, after, standing).take_until(Box::pin(revocation));
    Ok(upgrade.on_upgrade(move |socket| send_frames(socket, frames)))
}

pub(super) async fn send_frames(
    mut socket: WebSocket,
    mut frames: impl Stream<Item = Frame> + Unpin,
) {
    loop {
        tokio::select! {
            frame = frames.next() => {
                let Some(frame) = frame else { break };
                let Ok(text) = serde_json::to_string(&frame) else { break };
                if socket.send(Message::Text(text.into())).await.is_err() {
                    // The peer has gone; there is nobody to send a close frame to.
                    return;
                }
            }
            // The client has nothing to send; when it closes, so does the server.
            message = socket.recv() => match message {
                Some(Ok(Message::Ping(_) | Message::Pong(_))) => {}
                _ => return,
            },
        }
    }
    let _closed = socket.send(Message::Close(None)).await;
}

/// The last event seen of a stream, and whether the run had ended by then.
#[derive(Debug, Clone, Copy, Default)]
pub(super) struct StreamStatus {
    /// Sequence number of the last event.
    seq: Seq,
    /// True if the stream is the history of an ended run.
    is_ended: bool,
}

impl StreamStatus {
    /// Loads a run's status. An end that a retry has reopened does not count.
    async fn load_for_run(gateway: &Gateway, stream: &StreamKey) -> Result<Self, ApiError> {
        let state = gateway.repository.load::<Run>(stream).await?.state;
        Ok(Self { seq: state.seq, is_ended: state.phase.is_ended() })
    }

    /// True if nothing can follow for a client that has seen an event.
    fn is_over_after(self, seen_seq: Seq) -> bool {
        self.is_ended && seen_seq >= self.seq
    }

    /// Updates the status by an event, unless it is an older one.
    fn observe_event(&mut self, event: &EventEnvelope) {
        if event.seq > self.seq.0 {
            self.seq = Seq(event.seq);
            // An end holds until a retry reopens the run.
            self.is_ended =
                is_run_end(&event.kind) || (self.is_ended && !is_reopening(&event.kind));
        }
    }
}

/// True if a note holds a piece of an answer's text; thoughts and tool calls are in the log only.
fn is_text(note: &LiveNote) -> bool {
    note.kind == LiveKind::Text && !note.text.is_empty()
}

/// True if an event reopens a run that had ended.
fn is_reopening(kind: &str) -> bool {
    kind == "run.reopened.v1"
}

/// The state of following one stream: the source of its records, and frames that are ready.
struct FrameFollower {
    records: BoxStream<'static, Result<Arc<Record>, LogError>>,
    live_notes: broadcast::Receiver<Arc<StreamNote>>,
    stop: watch::Receiver<bool>,
    stream: StreamKey,
    after: Seq,
    ready_frames: VecDeque<Frame>,
    status: StreamStatus,
}

/// Returns the events of a stream after a sequence number, with live progress between them, until
/// the run ends or the server stops.
pub(super) fn follow_stream(
    gateway: Arc<Gateway>,
    stream: StreamKey,
    after: Seq,
    status: StreamStatus,
) -> BoxStream<'static, Frame> {
    let (notes, stop) = (gateway.live_notes.subscribe(), gateway.stop.clone());
    let records = match stream.kind {
        // Runs that an agent starts are announced in the runs' own streams.
        StreamKind::Agent => tail_with_agent_runs(gateway, stream.clone(), after),
        _ => gateway.repository.event_log().tail_stream(&stream, after),
    };
    let ready = VecDeque::new();
    let follower = FrameFollower {
        records,
        live_notes: notes,
        stop,
        stream,
        after,
        ready_frames: ready,
        status,
    };
    stream::unfold(follower, |mut follower| async move {
        let frame = follower.next().await?;
        Some((frame, follower))
    })
    .boxed()
}

/// Returns the records of a stream after a sequence number, then all records of the log from now
/// on.
fn tail_with_agent_runs(
    gateway: Arc<Gateway>,
    stream: StreamKey,
    after: Seq,
) -> BoxStream<'static, Result<Arc<Record>, LogError>> {
    let log = gateway.repository.event_log();
    let opened = async move {
        // Subscribed before the history is read: what is appended in between comes by the tail.
        // The position is beyond any log: the page is empty, and tells the tail.
        let page = log.read_all(convergio_eventstore::Position(u64::MAX >> 1), 1).await;
        let live = log.tail_all(page.map(|page| page.tail).unwrap_or_default());
        read_history(gateway, stream, after).chain(live)
    };
    stream::once(opened).flatten().boxed()
}

/// Reads the stream's existing records. The first may begin before `after`; the follower drops
/// those events.
fn read_history(
    gateway: Arc<Gateway>,
    stream: StreamKey,
    after: Seq,
) -> BoxStream<'static, Result<Arc<Record>, LogError>> {
    let from = Seq(after.0.saturating_sub(convergio_eventstore::LogLimits::EVENTS as u64));
    stream::unfold(Some(from), move |from| {
        let (log, stream) = (gateway.repository.event_log(), stream.clone());
        async move {
            let records = log.read_stream(&stream, from?, RECORDS_PER_READ).await;
            // A short page is the end of the stream.
            let next = match &records {
                Ok(records) if records.len() == RECORDS_PER_READ => {
                    records.last().map(|r| r.last_seq())
                }
                _ => None,
            };
            let items: Vec<_> = match records {
                Ok(records) => records.into_iter().map(Ok).collect(),
                Err(error) => vec![Err(error)],
            };
            Some((stream::iter(items), next))
        }
    })
    .flatten()
    .boxed()
}

impl FrameFollower {
    async fn next(&mut self) -> Option<Frame> {
        loop {
            if let Some(frame) = self.ready_frames.pop_front() {
                return Some(frame);
            }
            if self.status.is_over_after(self.after) {
                return None;
            }
            tokio::select! {
                // Records first: progress must not overtake the events that it belongs to.
                biased;
                record = self.records.next() => match record {
                    Some(Ok(record)) => self.push_record(&record),
                    // The client resumes from the last event it saw.
                    Some(Err(_)) | None => return None,
                },
                note = self.live_notes.recv() => match note {
                    Ok(note) if note.stream == self.stream && is_text(&note.note) => {
                        let note = note.note.clone();
                        let LiveNote { step, tokens_out, text, .. } = note;
                        return Some(Frame::Progress(ProgressNote { step, tokens_out, text }));
                    }
                    // Progress is best effort: a lagging receiver only misses some of it.
                    Ok(_) | Err(RecvError::Lagged(_)) => {}
                    Err(RecvError::Closed) => return None,
                },
                () = wait_for_stop(&mut self.stop) => return None,
            }
        }
    }

    /// Queues the run starts of the followed agent, which a run's first record announces.
    fn push_spawned_runs(&mut self, record: &Record) {
        let is_spawned_by_agent = |event: &Event| match event.as_run() {
            Some(RunEvent::AgentSpawned(spawned)) => spawned.agent.0 == self.stream.id,
            _ => false,
        };
        let is_agent = self.stream.kind == StreamKind::Agent;
        if !is_agent || record.stream.tenant != self.stream.tenant {
            return;
        }
        let events = record.body.events.iter().zip(convert::to_event_envelopes(record));
        let spawned = events.filter(|(event, _)| is_spawned_by_agent(event));
        self.ready_frames.extend(spawned.map(|(_, envelope)| Frame::Event(envelope)));
    }

    fn push_record(&mut self, record: &Record) {
        if record.stream != self.stream {
            // A record of another stream: only an agent's follower gets any.
            return self.push_spawned_runs(record);
        }
        for event in convert::to_event_envelopes(record) {
            // The history and the tail overlap; the sequence number removes repeats.
            if event.seq > self.after.0 {
                self.after = Seq(event.seq);
                self.status.observe_event(&event);
                self.ready_frames.push_back(Frame::Event(event));
            }
        }
    }
}
