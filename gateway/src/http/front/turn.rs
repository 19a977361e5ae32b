//! One call as a run of one node: begun by a command, heard by live notes, ended by the log.

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

/// Longest time that a caller waits: longer than the run itself may take.
const PATIENCE: Duration = Duration::from_secs(900);
/// Records of a run that are read at once; a call has a few.
const RECORDS: usize = 256;

/// What is heard of a call.
pub(super) enum Said {
    /// The provider has begun to answer, and it is known who it is.
    Head,
    /// What happens to the parts of the answer.
    Parts(Vec<PartEvent>),
    /// The whole answer; its parts have been told.
    Done(Box<ChatReply>),
    /// There is no answer, and how long the provider asks to be left alone.
    Failed(CallFailure, Option<Duration>),
}

/// What the provider told before its answer.
#[derive(Debug, Clone, Default)]
pub(super) struct Head {
    /// The model, by the provider's word, or by the name that it was asked for.
    pub(super) model: String,
    /// What was sent, as far as it was counted.
    pub(super) usage: Usage,
}

/// A call as it is put to the log.
pub(super) struct Call<'a> {
    pub(super) request: ChatRequest,
    /// What the door repeats in its answer, kept for those who ask for it later.
    pub(super) echo: Value,
    /// The idempotency key.
    pub(super) key: Option<&'a str>,
    /// The hash of all that decides what is asked.
    pub(super) request_hash: String,
    /// Whether the answer is told piece by piece.
    pub(super) streams: bool,
}

/// A call under way. Dropping it before its end cancels the run.
pub(super) struct Turn {
    gateway: Arc<Gateway>,
    caller: Identity,
    stream: StreamKey,
    records: Records,
    live: LiveListener,
    streams: bool,
    progress: Progress,
    /// The try that is heard.
    attempt: u32,
    pause: Option<Duration>,
    head: Head,
    /// Whether the provider has begun to answer, and whether that was said.
    is_called: bool,
    is_head_said: bool,
    /// The model that is asked, once that stands in the log, and what was left out for it.
    intent: Option<Intent>,
    /// What came before anybody listened.
    found: Option<Found>,
    ready: VecDeque<Said>,
    /// Whether the run goes on without its caller: it is over, or others may ask for it again.
    outlives: bool,
    deadline: tokio::time::Instant,
}

struct Intent {
    model: String,
    left_out: Vec<String>,
    output_limit: Option<u32>,
}

/// Why a call has no answer, in full.
#[derive(Debug, Clone)]
pub(super) struct CallFailure {
    pub(super) code: String,
    pub(super) text: String,
    pub(super) retryable: bool,
    /// The field that is to blame.
    pub(super) param: Option<String>,
}

impl CallFailure {
    fn of(failure: Failure) -> Self {
        let Failure { code, message, retryable, param, detail: _ } = failure;
        let param = param.map(|param| param.to_string());
        Self { code: code.to_string(), text: message.to_string(), retryable, param }
    }
}

/// How a run ended.
#[derive(Clone)]
enum Found {
    Output(PayloadRef),
    Failure(Failure),
}

impl Turn {
    /// Begins a run for a request.
    pub(super) async fn begin(
        front: Front,
        caller: Identity,
        call: Call<'_>,
    ) -> Result<Self, Refusal> {
        let graph = front.graph.register(&front.gateway, &caller).await?;
        let run = match call.key {
            // A key belongs to who sent it.
            Some(key) => run_id_for_key(&caller.tenant, &format!("front/{}/{key}", caller.actor)),
            None => RunId(Uuid::now_v7()),
        };
        let stream = StreamKey::run(caller.tenant.clone(), run);
        let records = front.watch.records(&stream).await.map_err(Refusal::internal)?;
        let live = front.gateway.live.listen(&stream);
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
            // The run may have been under way before anybody listened.
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

    /// What is known of who answers; the provider's own word if it has said one.
    pub(super) fn head(&self) -> Head {
        let mut head = self.head.clone();
        if let Some(intent) = self.intent.as_ref().filter(|_| head.model.is_empty()) {
            head.model.clone_from(&intent.model);
        }
        head
    }

    /// What was left out of the request, once it is known.
    pub(super) fn left_out(&self) -> &[String] {
        self.intent.as_ref().map_or(&[], |intent| &intent.left_out)
    }

    /// The limit of the answer, where the budget and not the caller set it.
    pub(super) fn output_limit(&self) -> Option<u32> {
        self.intent.as_ref()?.output_limit
    }

    /// What is heard next. After an end nothing more is. Who stops waiting loses nothing.
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
                self.outlives = true;
                self.end(found).await;
                self.found = None;
                continue;
            }
            tokio::select! {
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
            return;
        }
        if !self.streams {
            return;
        }
        if !self.progress.has_begun() {
            self.attempt = note.attempt;
        }
        if note.attempt != self.attempt {
            self.found = Some(Found::Failure(anew()));
            return;
        }
        self.is_called = true;
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
                Event::StepRetried(_) if self.progress.has_begun() => {
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

    /// Tells how the run ended.
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

    /// The failure with its full text, which is the caller's own: it asked.
    async fn told_in_full(&self, failure: Failure) -> CallFailure {
        let opened = match failure.detail {
            Some(detail) => failures::open(&self.gateway, &self.stream, detail).await,
            None => Ok(None),
        };
        let outline = CallFailure::of(failure);
        // Without its full text it is still a failure.
        let text = opened.ok().flatten().unwrap_or_else(|| outline.text.clone());
        CallFailure { text, ..outline }
    }

    /// The answer from the log.
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

    /// Tells what of the answer has not been heard, and that it is whole.
    fn finish(&mut self, reply: ChatReply) {
        if !self.progress.has_begun() && !reply.model.is_empty() {
            self.head.model.clone_from(&reply.model);
        }
        if self.streams {
            match self.progress.finish(reply.parts()) {
                Ok(events) => self.ready.push_back(Said::Parts(events)),
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
    // Nobody else knows of this run: there is nothing to load, and no rival.
    let command = RunCommand::Create(create);
    let created =
        repository.commit_first::<Run>(stream.clone(), command, vec![input], &context).await?;
    Ok(created.state)
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

pub(super) fn payload(bytes: Vec<u8>, purpose: Purpose) -> Payload {
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
    CallFailure { code: code.to_owned(), text: text.to_owned(), retryable: false, param: None }
}

fn too_late() -> CallFailure {
    failure("provider.timeout", "no answer came in time: is an executor running?")
}

fn erased() -> CallFailure {
    failure("not_found", "the answer was erased")
}
