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
use convergio_domain::run::Run;
use convergio_domain::stream::{Seq, StreamKey, StreamKind};
use convergio_eventstore::{LiveKind, LiveNote, LogError, Record, StreamNote};
use convergio_schemas::wire::{EventEnvelope, Frame, Page, Problem, ProgressNote};
use futures_util::stream::{self, BoxStream, Stream, StreamExt};
use serde::Deserialize;
use tokio::sync::broadcast;
use tokio::sync::broadcast::error::RecvError;
use tokio::sync::watch;
use utoipa::IntoParams;

use super::Query;
use super::filters::PageLimit;
use super::runs::{is_end, run_stream};
use crate::answers::wants_event_stream;
use crate::app::{App, Caller, Gateway, stopped};
use crate::contents::ContentRoom;
use crate::convert;
use crate::problem::ApiError;

/// Records read from the log at once.
const PAGE: usize = 256;
/// Events of a page by default.
const EVENTS_OF_PAGE: usize = 100;
// Shorter than the idle timeouts of common proxies (30 to 60 seconds).
const KEEP_ALIVE: Duration = Duration::from_secs(10);

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
    (status = 401, description = "Not signed in", body = Problem),
    (status = 404, description = "There is no such run", body = Problem),
))]
pub(crate) async fn list(
    State(gateway): App,
    Extension(caller): Caller,
    Path(id): Path<String>,
    Query(query): Query<EventsQuery>,
    headers: HeaderMap,
) -> Result<Response, ApiError> {
    let stream = run_stream(&caller, &id)?;
    if gateway.repository.log().head(&stream).await?.is_none() {
        return Err(ApiError::not_found("run"));
    }
    if !wants_event_stream(&headers) {
        return page(&gateway, &stream, &query).await.map(|page| Json(page).into_response());
    }
    let resumed = headers.get("last-event-id").and_then(|value| value.to_str().ok());
    let after = match resumed {
        Some(seq) => seq.parse().map_err(|_| ApiError::invalid("Last-Event-ID is not a number"))?,
        None => query.after.unwrap_or(0),
    };
    streamed(gateway, stream, Seq(after)).await
}

/// Returns the events of a stream after a sequence number as server-sent events; 204 if none can
/// follow.
pub(super) async fn streamed(
    gateway: Arc<Gateway>,
    stream: StreamKey,
    after: Seq,
) -> Result<Response, ApiError> {
    let standing = Standing::of_run(&gateway, &stream).await?;
    if standing.is_over(after) {
        return Ok(StatusCode::NO_CONTENT.into_response());
    }
    let frames = follow(gateway, stream, after, standing);
    let frames = frames.map(|frame| Ok::<_, Infallible>(sse(&frame)));
    let body = axum::response::Sse::new(frames);
    let body = body.keep_alive(KeepAlive::new().interval(KEEP_ALIVE));
    // nginx buffers proxied responses unless this header says no.
    Ok(([("x-accel-buffering", "no")], body).into_response())
}

fn sse(frame: &Frame) -> Sse {
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

async fn page(
    gateway: &Gateway,
    stream: &StreamKey,
    query: &EventsQuery,
) -> Result<Page<EventEnvelope>, ApiError> {
    let after = query.after.unwrap_or(0);
    let limit = query.limit.map_or(EVENTS_OF_PAGE, usize::from);
    let mut items = Vec::new();
    // A record may begin before `after`; its events up to there are dropped below.
    let mut from = Seq(after.saturating_sub(convergio_eventstore::Limits::EVENTS as u64));
    loop {
        let records = gateway.repository.log().read_stream(stream, from, PAGE).await?;
        for record in &records {
            let events = convert::envelopes(record);
            items.extend(events.into_iter().filter(|event| event.seq > after));
            from = record.last_seq();
        }
        // One event more than the page tells whether there is a next one.
        if records.len() < PAGE || items.len() > limit {
            break;
        }
    }
    let mut has_more = items.len() > limit;
    items.truncate(limit);
    if query.payloads == Some(true) {
        let shown = show_contents(gateway, stream, &mut items).await?;
        has_more |= shown < items.len();
        items.truncate(shown);
    }
    let next_cursor = items.last().filter(|_| has_more).map(|event| event.seq.to_string());
    Ok(Page { items, next_cursor })
}

/// Adds the payload contents of events to as many of them as the budget allows, at least one.
/// Returns their number.
async fn show_contents(
    gateway: &Gateway,
    stream: &StreamKey,
    items: &mut [EventEnvelope],
) -> Result<usize, ApiError> {
    let mut room = ContentRoom::new();
    for (index, event) in items.iter_mut().enumerate() {
        for payload in &mut event.payloads {
            let content = gateway.open_within(stream, &payload.reference, &mut room).await?;
            if content.is_none() && index > 0 {
                return Ok(index);
            }
            payload.content = match content {
                Some(content) => Some(content),
                // The first event is shown whatever it takes, or a client could never get past it.
                None => Some(gateway.open(stream, &payload.reference).await?),
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
    pub(super) fn after(&self) -> u64 {
        self.after.unwrap_or(0)
    }
}

/// Streams the events of a run over a WebSocket, one JSON frame each, and closes it with the run.
#[utoipa::path(get, path = "/v1/runs/{id}/stream", tag = "events", params(
    ("id" = String, Path, description = "The run"), StreamQuery,
), responses(
    (status = 101, description = "The WebSocket is open"),
    (status = 400, description = "Not a WebSocket request", body = Problem),
    (status = 401, description = "Not signed in", body = Problem),
    (status = 404, description = "There is no such run", body = Problem),
))]
pub(crate) async fn stream(
    State(gateway): App,
    Extension(caller): Caller,
    Path(id): Path<String>,
    Query(query): Query<StreamQuery>,
    upgrade: Result<WebSocketUpgrade, axum::extract::ws::rejection::WebSocketUpgradeRejection>,
) -> Result<Response, ApiError> {
    let stream = run_stream(&caller, &id)?;
    if gateway.repository.log().head(&stream).await?.is_none() {
        return Err(ApiError::not_found("run"));
    }
    let upgrade = upgrade.map_err(|error| ApiError::invalid(error.body_text()))?;
    let (after, standing) = (Seq(query.after()), Standing::of_run(&gateway, &stream).await?);
    let revocation = gateway.tokens.revocation(caller.token);
    let frames = follow(gateway, stream, after, standing).take_until(Box::pin(revocation));
    Ok(upgrade.on_upgrade(move |socket| send(socket, frames)))
}

pub(super) async fn send(mut socket: WebSocket, mut frames: impl Stream<Item = Frame> + Unpin) {
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
            said = socket.recv() => match said {
                Some(Ok(Message::Ping(_) | Message::Pong(_))) => {}
                _ => return,
            },
        }
    }
    let _closed = socket.send(Message::Close(None)).await;
}

/// The last event seen of a stream, and whether the run had ended by then.
#[derive(Debug, Clone, Copy, Default)]
pub(super) struct Standing {
    /// Sequence number of the last event.
    seq: Seq,
    /// True if the stream is the history of an ended run.
    is_ended: bool,
}

impl Standing {
    /// Loads a run's status. An end that a retry has reopened does not count.
    async fn of_run(gateway: &Gateway, stream: &StreamKey) -> Result<Self, ApiError> {
        let state = gateway.repository.load::<Run>(stream).await?.state;
        Ok(Self { seq: state.seq, is_ended: state.phase.is_ended() })
    }

    /// True if nothing can follow for a client that has seen an event.
    fn is_over(self, seen: Seq) -> bool {
        self.is_ended && seen >= self.seq
    }

    /// Updates the status by an event, unless it is an older one.
    fn pass(&mut self, event: &EventEnvelope) {
        if event.seq > self.seq.0 {
            self.seq = Seq(event.seq);
            // An end holds until a retry reopens the run.
            self.is_ended =
                is_end(&event.kind) || (self.is_ended && !is_new_beginning(&event.kind));
        }
    }
}

/// True if a note holds a piece of an answer's text; thoughts and tool calls are in the log only.
fn is_text(note: &LiveNote) -> bool {
    note.kind == LiveKind::Text && !note.text.is_empty()
}

/// True if an event reopens a run that had ended.
fn is_new_beginning(kind: &str) -> bool {
    kind == "run.reopened.v1"
}

/// The state of following one stream: the source of its records, and frames that are ready.
struct Follower {
    records: BoxStream<'static, Result<Arc<Record>, LogError>>,
    notes: broadcast::Receiver<Arc<StreamNote>>,
    stop: watch::Receiver<bool>,
    stream: StreamKey,
    after: Seq,
    ready: VecDeque<Frame>,
    standing: Standing,
}

/// Returns the events of a stream after a sequence number, with live progress between them, until
/// the run ends or the server stops.
pub(super) fn follow(
    gateway: Arc<Gateway>,
    stream: StreamKey,
    after: Seq,
    standing: Standing,
) -> BoxStream<'static, Frame> {
    let (notes, stop) = (gateway.live.subscribe(), gateway.stop.clone());
    let records = match stream.kind {
        // Runs that an agent starts are announced in the runs' own streams.
        StreamKind::Agent => with_others(gateway, stream.clone(), after),
        _ => gateway.repository.log().tail_stream(&stream, after),
    };
    let ready = VecDeque::new();
    let follower = Follower { records, notes, stop, stream, after, ready, standing };
    stream::unfold(follower, |mut follower| async move {
        let frame = follower.next().await?;
        Some((frame, follower))
    })
    .boxed()
}

/// Returns the records of a stream after a sequence number, then all records of the log from now
/// on.
fn with_others(
    gateway: Arc<Gateway>,
    stream: StreamKey,
    after: Seq,
) -> BoxStream<'static, Result<Arc<Record>, LogError>> {
    let log = gateway.repository.log();
    let opened = async move {
        // Subscribed before the history is read: what is appended in between comes by the tail.
        // The position is beyond any log: the page is empty, and tells the tail.
        let page = log.read_all(convergio_eventstore::Position(u64::MAX >> 1), 1).await;
        let live = log.tail(page.map(|page| page.tail).unwrap_or_default());
        history(gateway, stream, after).chain(live)
    };
    stream::once(opened).flatten().boxed()
}

/// Reads the stream's existing records. The first may begin before `after`; the follower drops
/// those events.
fn history(
    gateway: Arc<Gateway>,
    stream: StreamKey,
    after: Seq,
) -> BoxStream<'static, Result<Arc<Record>, LogError>> {
    let from = Seq(after.0.saturating_sub(convergio_eventstore::Limits::EVENTS as u64));
    stream::unfold(Some(from), move |from| {
        let (log, stream) = (gateway.repository.log(), stream.clone());
        async move {
            let records = log.read_stream(&stream, from?, PAGE).await;
            // A short page is the end of the stream.
            let next = match &records {
                Ok(records) if records.len() == PAGE => records.last().map(|r| r.last_seq()),
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

impl Follower {
    async fn next(&mut self) -> Option<Frame> {
        loop {
            if let Some(frame) = self.ready.pop_front() {
                return Some(frame);
            }
            if self.standing.is_over(self.after) {
                return None;
            }
            tokio::select! {
                // Records first: progress must not overtake the events that it belongs to.
                biased;
                record = self.records.next() => match record {
                    Some(Ok(record)) => self.take(&record),
                    // The client resumes from the last event it saw.
                    Some(Err(_)) | None => return None,
                },
                note = self.notes.recv() => match note {
                    Ok(note) if note.stream == self.stream && is_text(&note.note) => {
                        let note = note.note.clone();
                        let LiveNote { step, tokens_out, text, .. } = note;
                        return Some(Frame::Progress(ProgressNote { step, tokens_out, text }));
                    }
                    // Progress is best effort: a lagging receiver only misses some of it.
                    Ok(_) | Err(RecvError::Lagged(_)) => {}
                    Err(RecvError::Closed) => return None,
                },
                () = stopped(&mut self.stop) => return None,
            }
        }
    }

    /// Queues the run starts of the followed agent, which a run's first record announces.
    fn spawned(&mut self, record: &Record) {
        let is_of_it = |event: &Event| match event {
            Event::AgentSpawned(spawned) => spawned.agent.0 == self.stream.id,
            _ => false,
        };
        let is_agent = self.stream.kind == StreamKind::Agent;
        if !is_agent || record.stream.tenant != self.stream.tenant {
            return;
        }
        let events = record.body.events.iter().zip(convert::envelopes(record));
        let spawned = events.filter(|(event, _)| is_of_it(event));
        self.ready.extend(spawned.map(|(_, envelope)| Frame::Event(envelope)));
    }

    fn take(&mut self, record: &Record) {
        if record.stream != self.stream {
            // A record of another stream: only an agent's follower gets any.
            return self.spawned(record);
        }
        for event in convert::envelopes(record) {
            // The history and the tail overlap; the sequence number removes repeats.
            if event.seq > self.after.0 {
                self.after = Seq(event.seq);
                self.standing.pass(&event);
                self.ready.push_back(Frame::Event(event));
            }
        }
    }
}
