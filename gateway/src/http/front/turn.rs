//! One call as a run of one node: begun by a command, heard by live notes, ended by the log.

use std::collections::BTreeSet;
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use bytes::Bytes;
use convergio_domain::chat::{ChatReply, ChatRequest};
use convergio_domain::event::Event;
use convergio_domain::event::run::Failure;
use convergio_domain::graph::{self, GraphNoun, Register, ToolCatalog, manifest::Graph};
use convergio_domain::id::{GraphId, GraphVersion, RunId, TenantId};
use convergio_domain::payload::{PayloadRef, PayloadSlot, Purpose};
use convergio_domain::platform_text;
use convergio_domain::run::{
    CreateRun, Lineage, Phase, Reason, Run, RunCommand, RunState, run_id_for_key,
};
use convergio_domain::stream::StreamKey;
use convergio_eventstore::{LiveListener, LiveNote, Payload, Record};
use serde_json::json;
use uuid::Uuid;

use super::Front;
use super::refusal::Refusal;
use super::watch::Records;
use crate::app::Gateway;
use crate::auth::Identity;
use crate::http::failures;
use crate::idempotency;

/// The graph that every call is a run of.
const MANIFEST: &str = r#"
name: front-door
description: One call that came in by the interface of OpenAI or Anthropic.
inputs: {type: object, required: [request], properties: {request: {type: object}}}
nodes:
  - id: reply
    timeout: 600s
    retry: {max: 3, backoff: 250ms}
    agent: {request: "{{ inputs.request }}"}
output: "{{ nodes.reply.output }}"
"#;
/// Longest time that a caller waits: longer than the run itself may take.
const PATIENCE: Duration = Duration::from_secs(900);

/// What is heard of a call.
pub(super) enum Said {
    /// The next piece of the text.
    Text(String),
    /// The whole answer; its text has been heard.
    Done(Box<ChatReply>),
    /// There is no answer, and how long the provider asks to be left alone.
    Failed(CallFailure, Option<Duration>),
}

/// A call under way. Dropping it before its end cancels the run.
pub(super) struct Turn {
    gateway: Gateway,
    caller: Identity,
    stream: StreamKey,
    records: Records,
    live: LiveListener,
    /// Bytes of the text that were heard, and the try that they belong to.
    told: u64,
    attempt: u32,
    pause: Option<Duration>,
    /// What came before anybody listened.
    found: Option<Found>,
    done: Option<Box<ChatReply>>,
    /// Whether the run goes on without its caller: it is over, or others may ask for it again.
    outlives: bool,
    deadline: tokio::time::Instant,
}

/// Why a call has no answer, in full.
#[derive(Debug, Clone)]
pub(super) struct CallFailure {
    pub(super) code: String,
    pub(super) text: String,
    pub(super) retryable: bool,
}

impl CallFailure {
    fn of(failure: Failure) -> Self {
        let Failure { code, message, retryable, detail: _ } = failure;
        Self { code: code.to_string(), text: message.to_string(), retryable }
    }
}

/// How a run ended.
enum Found {
    Output(PayloadRef),
    Failure(Failure),
}

impl Turn {
    /// Begins a run for a request.
    pub(super) async fn begin(
        front: Front,
        caller: Identity,
        request: ChatRequest,
        key: Option<&str>,
        body: &Bytes,
    ) -> Result<Self, Refusal> {
        let graph = front.graph.register(&front.gateway, &caller).await?;
        let run = match key {
            Some(key) => run_id_for_key(&caller.tenant, key),
            None => RunId(Uuid::now_v7()),
        };
        let stream = StreamKey::run(caller.tenant.clone(), run);
        let records = front.watch.records(&stream).await.map_err(Refusal::internal)?;
        let live = front.gateway.live.listen(&stream);
        let create = CreateRun {
            graph,
            version: front.graph.version.clone(),
            input: PayloadSlot(0),
            budget: front.graph.graph.budget,
            privacy: request.privacy,
            request_hash: idempotency::request_hash("front", body),
            lineage: Lineage::default(),
        };
        let input = serde_json::to_vec(&json!({"request": request})).map_err(Refusal::internal)?;
        let input = payload(input, Purpose::Input);
        let context = front.gateway.context(&caller);
        let repository = &front.gateway.repository;
        let created = match key {
            Some(_) => {
                let command = |_: &_, _| (RunCommand::Create(create.clone()), vec![input.clone()]);
                repository.execute::<Run>(&stream, &context, command).await?
            }
            // Nobody else knows of this run: there is nothing to load, and no rival.
            None => {
                let command = RunCommand::Create(create);
                repository
                    .commit_first::<Run>(stream.clone(), command, vec![input], &context)
                    .await?
            }
        };
        Ok(Self {
            found: found(&created.state),
            gateway: front.gateway,
            caller,
            stream,
            records,
            live,
            told: 0,
            attempt: 1,
            pause: None,
            done: None,
            outlives: key.is_some(),
            deadline: tokio::time::Instant::now() + PATIENCE,
        })
    }

    pub(super) fn run_id(&self) -> String {
        self.stream.id.to_string()
    }

    /// What is heard next. After an end nothing more is.
    pub(super) async fn next(&mut self) -> Said {
        loop {
            if let Some(reply) = self.done.take() {
                return Said::Done(reply);
            }
            if let Some(found) = self.found.take() {
                self.outlives = true;
                return match found {
                    Found::Failure(failure) => {
                        let failure = self.told_in_full(failure).await;
                        Said::Failed(failure, self.pause)
                    }
                    Found::Output(reference) => self.open(reference).await,
                };
            }
            tokio::select! {
                biased;
                note = self.live.next() => {
                    if let Some(said) = self.hear(note) {
                        return said;
                    }
                }
                record = self.records.next() => match record {
                    Some(record) => self.take(&record),
                    None => self.found = Some(Found::Failure(stopping())),
                },
                () = tokio::time::sleep_until(self.deadline) => {
                    return Said::Failed(too_late(), None);
                }
            }
        }
    }

    fn hear(&mut self, note: LiveNote) -> Option<Said> {
        if let Some(pause) = note.retry_after_ms {
            self.pause = Some(Duration::from_millis(pause));
        }
        if self.told == 0 {
            self.attempt = note.attempt;
        }
        if note.attempt != self.attempt {
            return Some(Said::Failed(CallFailure::of(anew()), None));
        }
        // After a gap the rest is read from the log, at the end.
        if note.text.is_empty() || note.offset != self.told {
            return None;
        }
        self.told += note.text.len() as u64;
        Some(Said::Text(note.text))
    }

    fn take(&mut self, record: &Record) {
        for event in &record.body.events {
            match event {
                Event::StepCompleted(done) => self.found = done.output.map(Found::Output),
                Event::StepRetried(_) if self.told > 0 => {
                    self.found = Some(Found::Failure(anew()));
                }
                Event::RunFailed(failed) if self.found.is_none() => {
                    self.found = Some(Found::Failure(failed.error.clone()));
                }
                Event::RunCancelled(_) => self.found = Some(Found::Failure(cancelled())),
                _ => {}
            }
        }
    }

    /// The failure with its full text, which is the caller's own: it asked.
    async fn told_in_full(&self, failure: Failure) -> CallFailure {
        let opened = match failure.detail {
            Some(detail) => failures::open(&self.gateway, &self.stream, detail).await,
            None => Ok(None),
        };
        let told = CallFailure::of(failure);
        // Without its full text it is still a failure.
        let text = opened.ok().flatten().unwrap_or_else(|| told.text.clone());
        CallFailure { text, ..told }
    }

    /// The answer from the log; first what of its text has not been heard.
    async fn open(&mut self, reference: PayloadRef) -> Said {
        let opened = self.gateway.repository.payload(&self.stream, reference).await;
        let reply = match opened {
            Ok(Some(bytes)) => serde_json::from_slice::<ChatReply>(&bytes),
            Ok(None) => return Said::Failed(erased(), None),
            Err(error) => {
                tracing::error!(%error, "an answer cannot be read");
                return Said::Failed(
                    failure("log.unavailable", "the log cannot be read now"),
                    None,
                );
            }
        };
        let Ok(reply) = reply else {
            return Said::Failed(failure("internal", "the stored answer is not one"), None);
        };
        let told = usize::try_from(self.told).unwrap_or(usize::MAX);
        let rest = reply.text.get(told..).unwrap_or("").to_owned();
        if rest.is_empty() {
            return Said::Done(Box::new(reply));
        }
        self.done = Some(Box::new(reply));
        Said::Text(rest)
    }
}

/// A caller who has gone wants nothing any more: the model is stopped, what it used is recorded.
impl Drop for Turn {
    fn drop(&mut self) {
        if self.outlives {
            return;
        }
        let Ok(runtime) = tokio::runtime::Handle::try_current() else { return };
        let (gateway, stream) = (self.gateway.clone(), self.stream.clone());
        let context = gateway.context(&self.caller);
        runtime.spawn(async move {
            let reason = Some(Reason::Platform(platform_text!("the caller has gone")));
            let command = |_: &_, _| (RunCommand::Cancel { reason: reason.clone() }, Vec::new());
            let cancelled = gateway.repository.execute::<Run>(&stream, &context, command).await;
            if let Err(error) = cancelled {
                tracing::debug!(%stream, %error, "nothing was left to cancel");
            }
        });
    }
}

/// The graph of the doors, and the tenants whose log has it.
pub(super) struct DoorGraph {
    graph: Graph,
    version: GraphVersion,
    tenants: Mutex<BTreeSet<TenantId>>,
}

impl DoorGraph {
    /// # Panics
    /// Never: a test reads the manifest.
    pub(super) fn new() -> Self {
        let parsed = graph::parse(MANIFEST, &ToolCatalog::new(Vec::new()));
        let graph = parsed.expect("the manifest of the doors is valid").graph;
        Self { version: graph.version(), graph, tenants: Mutex::default() }
    }

    fn tenants(&self) -> MutexGuard<'_, BTreeSet<TenantId>> {
        self.tenants.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Registers the graph for a tenant, unless that was done before.
    async fn register(&self, gateway: &Gateway, caller: &Identity) -> Result<GraphId, Refusal> {
        let id = graph::graph_id(&caller.tenant, &self.graph.name);
        if self.tenants().contains(&caller.tenant) {
            return Ok(id);
        }
        let register = Register {
            name: self.graph.name.clone(),
            version: self.version.clone(),
            nodes: u32::try_from(self.graph.nodes.len()).unwrap_or(u32::MAX),
            manifest: PayloadSlot(0),
            is_derived: false,
        };
        let manifest = payload(self.graph.canonical(), Purpose::Manifest);
        let command = |_: &_, _| (register.clone(), vec![manifest.clone()]);
        let stream = StreamKey::graph(caller.tenant.clone(), id);
        let context = gateway.context(caller);
        gateway.repository.execute::<GraphNoun>(&stream, &context, command).await?;
        self.tenants().insert(caller.tenant.clone());
        Ok(id)
    }
}

/// How a run ended that was there before: an idempotency key brings its caller back to it.
fn found(state: &RunState) -> Option<Found> {
    match (&state.phase, state.output, &state.error) {
        (Phase::Completed, Some(output), _) => Some(Found::Output(output)),
        (Phase::Failed, _, Some(error)) => Some(Found::Failure(error.clone())),
        (Phase::Cancelled, ..) => Some(Found::Failure(cancelled())),
        _ => None,
    }
}

fn payload(bytes: Vec<u8>, purpose: Purpose) -> Payload {
    let media_type = "application/json".into();
    Payload { bytes: Bytes::from(bytes), media_type, purpose, subject: None }
}

fn anew() -> Failure {
    let message = platform_text!("the answer broke off and was begun anew: ask again");
    Failure::new("provider.unavailable", message)
}

fn cancelled() -> Failure {
    Failure::new("request.conflict", platform_text!("the run was cancelled"))
}

fn stopping() -> Failure {
    let failure = Failure::new("log.unavailable", platform_text!("the server is stopping"));
    Failure { retryable: true, ..failure }
}

fn failure(code: &str, text: &str) -> CallFailure {
    CallFailure { code: code.to_owned(), text: text.to_owned(), retryable: false }
}

fn too_late() -> CallFailure {
    failure("provider.timeout", "no answer came in time: is an executor running?")
}

fn erased() -> CallFailure {
    failure("not_found", "the answer was erased")
}

#[cfg(test)]
mod tests {
    use super::DoorGraph;

    #[test]
    fn the_manifest_of_the_doors_is_valid() {
        assert_eq!(DoorGraph::new().graph.nodes.len(), 1);
    }
}
