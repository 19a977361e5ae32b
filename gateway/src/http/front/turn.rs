//! A call as a run of a one-node graph: created by a command, heard live by notes, ended by the
//! log. Notes are lossy, so the log decides what the reply is.

use std::collections::VecDeque;
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use convergio_domain::chat::{ChatReply, ChatRequest};
use convergio_domain::event::Event;
use convergio_domain::event::run::Failure;
use convergio_domain::id::RunId;
use convergio_domain::metering::Usage;
use convergio_domain::payload::{PayloadRef, PayloadSlot, Purpose};
use convergio_domain::platform_text;
use convergio_domain::run::{
    CreateRun, Lineage, Phase, Reason, Run, RunCommand, RunState, run_id_for_key,
};
use convergio_domain::stream::{Seq, StreamKey};
use convergio_eventstore::{LiveKind, LiveListener, LiveNote, LogError, Payload, Record};
use serde_json::{Value, json};
use uuid::Uuid;

use super::Front;
use super::progress::{PartEvent, Progress};
use super::refusal::Refusal;
use super::watch::Records;
use crate::app::Gateway;
use crate::auth::Identity;
use crate::http::failures;

/// Maximum wait for a reply; longer than the graph's own timeout.
const PATIENCE: Duration = Duration::from_secs(900);
/// Records of a run read at once; a call has only a few.
const RECORDS: usize = 256;

/// An event of a reply.
pub(super) enum Said {
    /// The provider has begun to answer, and the model is known.
    Head,
    /// Progress of the reply's parts.
    Parts(Vec<PartEvent>),
    /// The reply is complete; its parts have been reported.
    Done(Box<ChatReply>),
    /// The call failed. The duration is the provider's `Retry-After`, if it gave one.
    Failed(CallFailure, Option<Duration>),
}

/// Facts from the beginning of the provider's response.
#[derive(Debug, Clone, Default)]
pub(super) struct Head {
    /// Model, by the provider's name or by the requested one.
    pub(super) model: String,
    /// Input usage, as far as the provider has counted it.
    pub(super) usage: Usage,
}

/// A call to be run.
pub(super) struct Call<'a> {
    pub(super) request: ChatRequest,
    /// Request fields that the reply repeats, stored with the run's input.
    pub(super) echo: Value,
    /// Idempotency key of the request.
    pub(super) key: Option<&'a str>,
    /// Hash of everything that decides the reply; detects a reused key.
    pub(super) request_hash: String,
    /// True if the reply is streamed.
    pub(super) streams: bool,
}

/// A call in progress. Dropping it cancels the run, unless the run has ended or has an idempotency
/// key.
pub(super) struct Turn {
    gateway: Arc<Gateway>,
    caller: Identity,
    stream: StreamKey,
    records: Records,
    live: LiveListener,
    streams: bool,
    progress: Progress,
    /// Attempt whose notes are reported; a stream cannot continue with another one.
    attempt: u32,
    /// The provider's last `Retry-After`.
    pause: Option<Duration>,
    head: Head,
    /// True once the provider has begun to answer.
    is_called: bool,
    /// True once [`ReplyEvent::Head`] has been returned.
    is_head_said: bool,
    /// Model and limits of the call as recorded in the log.
    intent: Option<Intent>,
    /// End of the run, once known.
    found: Option<Found>,
    ready: VecDeque<Said>,
    /// True if the run must survive a disconnected caller: it has ended, or others may ask for it
    /// by its key.
    outlives: bool,
    deadline: tokio::time::Instant,
}

/// The recorded intent of the model call.
struct Intent {
    model: String,
    left_out: Vec<String>,
    output_limit: Option<u32>,
}

/// Reason why a call failed, with its full text.
#[derive(Debug, Clone)]
pub(super) struct CallFailure {
    pub(super) code: String,
    pub(super) text: String,
    pub(super) retryable: bool,
    /// Request field at fault.
    pub(super) param: Option<String>,
}

impl CallFailure {
    fn of(failure: Failure) -> Self {
        let Failure { code, message, retryable, param, detail: _ } = failure;
        let param = param.map(|param| param.to_string());
        Self { code: code.to_string(), text: message.to_string(), retryable, param }
    }
}

/// The end of a run.
#[derive(Clone)]
enum Found {
    Output(PayloadRef),
    Failure(Failure),
}

impl Turn {
    /// Creates the run of a call, or joins the run that the same idempotency key has created.
    pub(super) async fn begin(
        front: Front,
        caller: Identity,
        call: Call<'_>,
    ) -> Result<Self, Refusal> {
        let graph = front.graph.register(&front.gateway, &caller).await?;
        let run = match call.key {
            // The actor is part of the key: another actor's key is a different one.
            Some(key) => run_id_for_key(&caller.tenant, &format!("front/{}/{key}", caller.actor)),
            None => RunId(Uuid::now_v7()),
        };
        let stream = StreamKey::run(caller.tenant.clone(), run);
        // Both subscriptions precede the commit, so that no record or note is missed.
        let records = front.watch.records(&stream).await.map_err(Refusal::internal)?;
        let live = front.gateway.live.listen(&stream);
        // The budget is the operator's; the graph of the calls has none of its own.
        let create = CreateRun {
            graph,
            version: front.graph.version.clone(),
            input: PayloadSlot(0),
            budget: front.gateway.doors.budget,
            privacy: call.request.privacy,
            request_hash: call.request_hash,
            lineage: Lineage::default(),
        };
        let input = json!({"request": call.request, "echo": call.echo});
        let input = serde_json::to_vec(&input).map_err(Refusal::internal)?;
        let state = create_run(&front.gateway, &caller, &stream, create, input, call.key).await?;
        let mut turn = Self {
            found: found(&state),
            gateway: front.gateway,
            caller,
            stream,
            records,
            live,
            streams: call.streams,
            progress: Progress::default(),
            attempt: 1,
            pause: None,
            head: Head::default(),
            is_called: false,
            is_head_said: false,
            intent: None,
            ready: VecDeque::new(),
            outlives: call.key.is_some(),
            deadline: tokio::time::Instant::now() + PATIENCE,
        };
        if call.key.is_some() {
            // The run may have progressed before the subscription.
            turn.read_records().await.map_err(Refusal::internal)?;
        }
        Ok(turn)
    }

    async fn read_records(&mut self) -> Result<(), LogError> {
        let log = self.gateway.repository.log();
        for record in log.read_stream(&self.stream, Seq(0), RECORDS).await? {
            self.take(&record);
        }
        Ok(())
    }

    pub(super) fn run_id(&self) -> String {
        self.stream.id.to_string()
    }

    /// Returns the head of the reply: the provider's, otherwise the recorded intent.
    pub(super) fn head(&self) -> Head {
        let mut head = self.head.clone();
        if let Some(intent) = self.intent.as_ref().filter(|_| head.model.is_empty()) {
            head.model.clone_from(&intent.model);
        }
        head
    }

    /// Names of request fields that the provider's dialect could not express; empty until the
    /// intent is recorded.
    pub(super) fn left_out(&self) -> &[String] {
        self.intent.as_ref().map_or(&[], |intent| &intent.left_out)
    }

    /// Output limit in tokens if the budget set it and not the caller.
    pub(super) fn output_limit(&self) -> Option<u32> {
        self.intent.as_ref()?.output_limit
    }

    /// Returns the next event; after `Done` or `Failed` there is none. Cancelling the future loses
    /// no event.
    pub(super) async fn next(&mut self) -> Said {
        loop {
            if let Some(said) = self.ready.pop_front() {
                return said;
            }
            if !self.is_head_said && self.is_called && self.intent.is_some() {
                self.is_head_said = true;
                return Said::Head;
            }
            if let Some(found) = self.found.clone() {
                // The end is in the log: nothing is left to cancel.
                self.outlives = true;
                self.end(found).await;
                self.found = None;
                continue;
            }
            tokio::select! {
                // Notes first: the record that ends the run must not overtake the pieces of its
                // reply.
                biased;
                note = self.live.next() => self.hear(note),
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

    fn hear(&mut self, note: LiveNote) {
        if let Some(pause) = note.retry_after_ms {
            self.pause = Some(Duration::from_millis(pause));
            // Such a note carries nothing else.
            return;
        }
        if !self.streams {
            return;
        }
        // Until a part begins, the stream may still follow another attempt.
        if !self.progress.has_begun() {
            self.attempt = note.attempt;
        }
        if note.attempt != self.attempt {
            // Pieces already sent cannot be taken back, so a new attempt ends the stream.
            self.found = Some(Found::Failure(anew()));
            return;
        }
        self.is_called = true;
        // Sent before any part; its model name is the provider's.
        if let LiveKind::Begin { model, usage } = note.kind {
            self.head = Head { model, usage };
            return;
        }
        let events = self.progress.hear(note);
        if !events.is_empty() {
            self.ready.push_back(Said::Parts(events));
        }
    }

    fn take(&mut self, record: &Record) {
        for event in &record.body.events {
            match event {
                Event::ModelCallIntended(call) => {
                    let (model, left_out) = (call.model.clone(), call.left_out.clone());
                    let output_limit = call.output_limit;
                    self.intent = Some(Intent { model, left_out, output_limit });
                }
                Event::StepCompleted(done) => self.found = done.output.map(Found::Output),
                // The same restart, seen in the log before any note of the new attempt.
                Event::StepRetried(_) if self.progress.has_begun() => {
                    self.found = Some(Found::Failure(anew()));
                }
                // A failure found before (such as a restart) is the one that the caller should see.
                Event::RunFailed(failed) if self.found.is_none() => {
                    self.found = Some(Found::Failure(failed.error.clone()));
                }
                Event::RunCancelled(_) => self.found = Some(Found::Failure(cancelled())),
                _ => {}
            }
        }
    }

    /// Queues the events of the run's end.
    async fn end(&mut self, found: Found) {
        match found {
            Found::Failure(failure) => {
                let failure = self.told_in_full(failure).await;
                self.ready.push_back(Said::Failed(failure, self.pause));
            }
            Found::Output(reference) => match self.open(reference).await {
                Ok(reply) => self.finish(reply),
                Err(failure) => self.ready.push_back(Said::Failed(failure, None)),
            },
        }
    }

    /// Adds the failure's full text, which may hold content of the caller's request; it goes to
    /// that caller only.
    async fn told_in_full(&self, failure: Failure) -> CallFailure {
        let opened = match failure.detail {
            Some(detail) => failures::open(&self.gateway, &self.stream, detail).await,
            None => Ok(None),
        };
        let outline = CallFailure::of(failure);
        // If the full text cannot be read, the outline remains.
        let text = opened.ok().flatten().unwrap_or_else(|| outline.text.clone());
        CallFailure { text, ..outline }
    }

    /// Reads the reply from the log.
    async fn open(&self, reference: PayloadRef) -> Result<ChatReply, CallFailure> {
        match self.gateway.repository.payload(&self.stream, reference).await {
            Ok(Some(bytes)) => serde_json::from_slice::<ChatReply>(&bytes)
                .map_err(|_| failure("internal", "the stored answer is not one")),
            Ok(None) => Err(erased()),
            Err(error) => {
                tracing::error!(%error, "an answer cannot be read");
                Err(failure("log.unavailable", "the log cannot be read now"))
            }
        }
    }

    /// Queues the parts of the reply that no note reported, and its end.
    fn finish(&mut self, reply: ChatReply) {
        // Without any note the head still has the requested name.
        if !self.progress.has_begun() && !reply.model.is_empty() {
            self.head.model.clone_from(&reply.model);
        }
        if self.streams {
            match self.progress.finish(reply.parts()) {
                Ok(events) => self.ready.push_back(Said::Parts(events)),
                // Notes and log disagree: what was sent cannot be completed truthfully.
                Err(_) => {
                    tracing::error!(stream = %self.stream, "what was heard is not what was said");
                    self.ready.push_back(Said::Failed(CallFailure::of(anew()), None));
                    return;
                }
            }
        }
        self.ready.push_back(Said::Done(Box::new(reply)));
    }
}

/// A disconnected caller wants no reply: the run is cancelled, which stops the model and records
/// what it used.
impl Drop for Turn {
    fn drop(&mut self) {
        if self.outlives {
            return;
        }
        // Outside a runtime, as in tests, nothing can be cancelled.
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

async fn create_run(
    gateway: &Gateway,
    caller: &Identity,
    stream: &StreamKey,
    create: CreateRun,
    input: Vec<u8>,
    key: Option<&str>,
) -> Result<RunState, Refusal> {
    let input = payload(input, Purpose::Input);
    let context = gateway.context(caller);
    let repository = &gateway.repository;
    if key.is_some() {
        let command = |_: &_, _| (RunCommand::Create(create.clone()), vec![input.clone()]);
        return Ok(repository.execute::<Run>(stream, &context, command).await?.state);
    }
    // The run id is new, so there is nothing to load and no concurrent writer.
    let command = RunCommand::Create(create);
    let created =
        repository.commit_first::<Run>(stream.clone(), command, vec![input], &context).await?;
    Ok(created.state)
}

/// Returns the end of a run that existed before; repeated idempotency keys find one.
fn found(state: &RunState) -> Option<Found> {
    match (&state.phase, state.output, &state.error) {
        (Phase::Completed, Some(output), _) => Some(Found::Output(output)),
        (Phase::Failed, _, Some(error)) => Some(Found::Failure(error.clone())),
        (Phase::Cancelled, ..) => Some(Found::Failure(cancelled())),
        _ => None,
    }
}

pub(super) fn payload(bytes: Vec<u8>, purpose: Purpose) -> Payload {
    let media_type = "application/json".into();
    Payload { bytes: Bytes::from(bytes), media_type, purpose, subject: None }
}

/// The provider's response broke off and a new attempt began.
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
    CallFailure { code: code.to_owned(), text: text.to_owned(), retryable: false, param: None }
}

fn too_late() -> CallFailure {
    failure("provider.timeout", "no answer came in time: is an executor running?")
}

fn erased() -> CallFailure {
    failure("not_found", "the answer was erased")
}
