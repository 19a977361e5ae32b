//! The events of a run: a page as JSON, or as they happen by SSE and WebSocket.

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

/// Records read at once.
const PAGE: usize = 256;
/// Events of a page when no number is asked for.
const EVENTS_OF_PAGE: usize = 100;
const KEEP_ALIVE: Duration = Duration::from_secs(10);

/// Which events.
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

/// The events of a run after a sequence number, as server-sent events.
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
    Ok(([("x-accel-buffering", "no")], body).into_response())
}

fn sse(frame: &Frame) -> Sse {
    let (name, event) = match frame {
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
    let mut from = Seq(after.saturating_sub(convergio_eventstore::Limits::EVENTS as u64));
    loop {
        let records = gateway.repository.log().read_stream(stream, from, PAGE).await?;
        for record in &records {
            let events = convert::envelopes(record);
            items.extend(events.into_iter().filter(|event| event.seq > after));
            from = record.last_seq();
        }
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

/// Adds the payloads of events, as many events as there is room for: one at least.
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
                None => Some(gateway.open(stream, &payload.reference).await?),
            };
        }
    }
    Ok(items.len())
}

/// Which events of a WebSocket.
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
                    return;
                }
            }
            // The client has nothing to say; when it goes, so do we.
            said = socket.recv() => match said {
                Some(Ok(Message::Ping(_) | Message::Pong(_))) => {}
                _ => return,
            },
        }
    }
    let _closed = socket.send(Message::Close(None)).await;
}

/// How a stream stood when somebody began to follow it.
#[derive(Debug, Clone, Copy, Default)]
pub(super) struct Standing {
    /// Its last event.
    seq: Seq,
    /// Whether it was the history of a run that had ended.
    is_ended: bool,
}

impl Standing {
    /// Ends that a run went on from, after a retry, are none.
    async fn of_run(gateway: &Gateway, stream: &StreamKey) -> Result<Self, ApiError> {
        let state = gateway.repository.load::<Run>(stream).await?.state;
        Ok(Self { seq: state.seq, is_ended: state.phase.is_ended() })
    }

    /// Whether nothing follows for somebody who has seen an event.
    fn is_over(self, seen: Seq) -> bool {
        self.is_ended && seen >= self.seq
    }

    /// Takes an event in that is later than those it knows.
    fn pass(&mut self, event: &EventEnvelope) {
        if event.seq > self.seq.0 {
            self.seq = Seq(event.seq);
            self.is_ended =
                is_end(&event.kind) || (self.is_ended && !is_new_beginning(&event.kind));
        }
    }
}

/// Whether a note has a piece of what a model answers: its thoughts and calls stand in the log.
fn is_text(note: &LiveNote) -> bool {
    note.kind == LiveKind::Text && !note.text.is_empty()
}

/// Whether a run that had ended goes on by this event.
fn is_new_beginning(kind: &str) -> bool {
    kind == "run.reopened.v1"
}

/// Where a follower of one run stands.
struct Follower {
    records: BoxStream<'static, Result<Arc<Record>, LogError>>,
    notes: broadcast::Receiver<Arc<StreamNote>>,
    stop: watch::Receiver<bool>,
    stream: StreamKey,
    after: Seq,
    ready: VecDeque<Frame>,
    standing: Standing,
}

/// The events of a run after a sequence number, with progress between them, until its end.
pub(super) fn follow(
    gateway: Arc<Gateway>,
    stream: StreamKey,
    after: Seq,
    standing: Standing,
) -> BoxStream<'static, Frame> {
    let (notes, stop) = (gateway.live.subscribe(), gateway.stop.clone());
    let records = match stream.kind {
        // Runs of an agent say so in their own streams.
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

/// The records of a stream after a number, and all records of the log from now on.
fn with_others(
    gateway: Arc<Gateway>,
    stream: StreamKey,
    after: Seq,
) -> BoxStream<'static, Result<Arc<Record>, LogError>> {
    let log = gateway.repository.log();
    let opened = async move {
        // Subscribed before the history is read: what is appended in between comes by the tail.
        let page = log.read_all(convergio_eventstore::Position(u64::MAX >> 1), 1).await;
        let live = log.tail(page.map(|page| page.tail).unwrap_or_default());
        history(gateway, stream, after).chain(live)
    };
    stream::once(opened).flatten().boxed()
}

/// What stands in the stream already. A record may begin before `after`; its events are filtered.
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
                biased;
                record = self.records.next() => match record {
                    Some(Ok(record)) => self.take(&record),
                    // The client comes back with the last number it saw.
                    Some(Err(_)) | None => return None,
                },
                note = self.notes.recv() => match note {
                    Ok(note) if note.stream == self.stream && is_text(&note.note) => {
                        let note = note.note.clone();
                        let LiveNote { step, tokens_out, text, .. } = note;
                        return Some(Frame::Progress(ProgressNote { step, tokens_out, text }));
                    }
                    Ok(_) | Err(RecvError::Lagged(_)) => {}
                    Err(RecvError::Closed) => return None,
                },
                () = stopped(&mut self.stop) => return None,
            }
        }
    }

    /// Runs of the agent that is followed say so in their own streams.
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
            return self.spawned(record);
        }
        for event in convert::envelopes(record) {
            if event.seq > self.after.0 {
                self.after = Seq(event.seq);
                self.standing.pass(&event);
                self.ready.push_back(Frame::Event(event));
            }
        }
    }
}
