//! A call as a run of a one-node graph: created by a command, heard live by notes, ended by the
//! log. Notes are lossy, so the log decides what the reply is.

use std::collections::VecDeque;
use std::sync::Arc;
use std::time::Duration;

use convergio_application::{Caller, IdempotencyKey, NewRun};
use convergio_domain::billing::Usage;
use convergio_domain::chat::{ChatReply, ChatRequest};
use convergio_domain::event::Event;
use convergio_domain::failure::Failure;
use convergio_domain::id::RunId;
use convergio_domain::payload::PayloadRef;
use convergio_domain::platform_text;
use convergio_domain::run::event::RunEvent::{
    self, AgentSpawned, ApprovalDenied, ApprovalGranted, ApprovalRequested, BranchDecided,
    BudgetExhausted, CheckpointSaved, ChildCreated, ChildEnded, ChildIntended, ChildReopened,
    MapExpanded, ModelCallFailed, ParentTold, RunAmended, RunCompleted, RunCreated, RunForked,
    RunImported, RunMigrated, RunPaused, RunReopened, RunResumed, SignalAwaited, SignalReceived,
    StepAsked, StepFailed, StepResolved, StepScheduled, StepSkipped, StepStarted, StepUnknown,
    TimerFired, TimerSet, ToolCallCompleted, ToolCallDenied, ToolCallFailed, ToolCallIntended,
    ToolCallQueued, UsageRecorded,
};
use convergio_domain::run::{RunPhase, RunState, run_id_for_key};
use convergio_domain::stream::{Seq, StreamKey};
use convergio_eventstore::{LiveKind, LiveListener, LiveNote, LogError, NoteFilter, Record};
use serde::Serialize;
use serde_json::Value;

use super::compat_state::CompatState;
use super::refusal::{CallFailure, CompatRefusal};
use super::reply_progress::{PartEvent, ReplyProgress};
use super::run_watch::RunRecords;
use crate::http::failure_details;
use crate::state::Gateway;

/// Maximum wait for a reply; longer than the graph's own timeout.
const CALLER_TIMEOUT: Duration = Duration::from_secs(900);
/// Records of a run read at once; a call has only a few.
const RECORDS_LIMIT: usize = 256;

/// An event of a reply.
pub(super) enum ReplyEvent {
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
pub(super) struct ReplyHead {
    /// Model, by the provider's name or by the requested one.
    pub(super) model: String,
    /// Input usage, as far as the provider has counted it.
    pub(super) usage: Usage,
}

/// A call to be run.
pub(super) struct CompatCall {
    pub(super) request: ChatRequest,
    /// Request fields that the reply repeats, stored with the run's input.
    pub(super) echo: Value,
    /// Idempotency key of the request.
    pub(super) key: Option<IdempotencyKey>,
    /// Hash of everything that decides the reply; detects a reused key.
    pub(super) request_hash: String,
    /// True if the reply is streamed.
    pub(super) is_streaming: bool,
}

/// Input of a front door's run.
#[derive(Serialize)]
struct CompatRunInput<'a> {
    echo: &'a Value,
    request: &'a ChatRequest,
}

/// A call in progress. Dropping it cancels the run, unless the run has ended or has an idempotency
/// key.
pub(super) struct CompatRun {
    gateway: Arc<Gateway>,
    caller: Caller,
    stream: StreamKey,
    records: RunRecords,
    live: LiveListener,
    is_streaming: bool,
    progress: ReplyProgress,
    /// Attempt whose notes are reported; a stream cannot continue with another one.
    attempt: u32,
    /// The provider's last `Retry-After`.
    retry_after: Option<Duration>,
    head: ReplyHead,
    /// True once the provider has begun to answer.
    has_provider_begun: bool,
    /// True once [`ReplyEvent::Head`] has been returned.
    is_head_sent: bool,
    /// Model and limits of the call as recorded in the log.
    intent: Option<ModelCallIntent>,
    /// End of the run, once known.
    end: Option<RunEnd>,
    ready_events: VecDeque<ReplyEvent>,
    /// True if the run must survive a disconnected caller: it has ended, or others may ask for it
    /// by its key.
    survives_drop: bool,
    deadline: tokio::time::Instant,
}

/// The recorded intent of the model call.
struct ModelCallIntent {
    model: String,
    left_out: Vec<String>,
    output_limit: Option<u32>,
}

/// The end of a run.
#[derive(Clone)]
enum RunEnd {
    Output(PayloadRef),
    Failure(Failure),
}

impl CompatRun {
    /// Creates the run of a call, or joins the run that the same idempotency key has created.
    pub(super) async fn begin_run(
        compat_state: CompatState,
        caller: Caller,
        call: CompatCall,
    ) -> Result<Self, CompatRefusal> {
        let graph = compat_state.graph.register_for_tenant(&compat_state.gateway, &caller).await?;
        let version = compat_state.graph.version.clone();
        let input = CompatRunInput { echo: &call.echo, request: &call.request };
        let input = serde_json::to_vec(&input).map_err(CompatRefusal::internal_error)?;
        let mut new_run = NewRun {
            // The budget is the operator's; the graph of the calls has none of its own.
            budget: compat_state.gateway.compat.budget,
            privacy: call.request.privacy,
            request_hash: call.request_hash,
            ..NewRun::of_version(graph, version, input)
        };
        if let Some(key) = &call.key {
            // The actor is part of the key: another actor's key is a different one.
            let key = format!("front/{}/{}", caller.actor, key.as_str());
            new_run.run = run_id_for_key(&caller.tenant, &key);
        }
        let stream = caller.run_stream(new_run.run);
        // Both subscriptions precede the commit, so that no record or note is missed.
        let records = compat_state
            .run_watch
            .watch_run(&stream)
            .await
            .map_err(CompatRefusal::internal_error)?;
        // A caller that waits for the whole reply finds it in the log.
        let filter = if call.is_streaming { NoteFilter::All } else { NoteFilter::Pauses };
        let live = compat_state.gateway.live_notes.listen_to_run(&stream, filter);
        let use_cases = compat_state.gateway.use_cases();
        let created = match call.key {
            Some(_) => use_cases.create_run(&caller, new_run).await?,
            // The run id is new, so there is nothing to load and no concurrent writer.
            None => use_cases.create_first_run(&caller, new_run).await?,
        };
        let mut compat_run = Self {
            end: run_end_of(&created.state),
            gateway: compat_state.gateway,
            caller,
            stream,
            records,
            live,
            is_streaming: call.is_streaming,
            progress: ReplyProgress::default(),
            attempt: 1,
            retry_after: None,
            head: ReplyHead::default(),
            has_provider_begun: false,
            is_head_sent: false,
            intent: None,
            ready_events: VecDeque::new(),
            survives_drop: call.key.is_some(),
            deadline: tokio::time::Instant::now() + CALLER_TIMEOUT,
        };
        if call.key.is_some() {
            // The run may have progressed before the subscription.
            compat_run.read_records().await.map_err(CompatRefusal::internal_error)?;
        }
        Ok(compat_run)
    }

    async fn read_records(&mut self) -> Result<(), LogError> {
        let log = self.gateway.repository.event_log();
        for record in log.read_stream(&self.stream, Seq(0), RECORDS_LIMIT).await? {
            self.apply_record(&record);
        }
        Ok(())
    }

    pub(super) fn run_id(&self) -> String {
        self.stream.id.to_string()
    }

    /// Returns the head of the reply: the provider's, otherwise the recorded intent.
    pub(super) fn reply_head(&self) -> ReplyHead {
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
    pub(super) async fn next(&mut self) -> ReplyEvent {
        loop {
            if let Some(event) = self.ready_events.pop_front() {
                return event;
            }
            if !self.is_head_sent && self.has_provider_begun && self.intent.is_some() {
                self.is_head_sent = true;
                return ReplyEvent::Head;
            }
            if let Some(end) = self.end.clone() {
                // The end is in the log: nothing is left to cancel.
                self.survives_drop = true;
                self.push_end(end).await;
                self.end = None;
                continue;
            }
            tokio::select! {
                // Notes first: the record that ends the run must not overtake the pieces of its
                // reply.
                biased;
                note = self.live.next_note() => self.apply_note(note),
                record = self.records.next() => match record {
                    Some(record) => self.apply_record(&record),
                    None => self.end = Some(RunEnd::Failure(stopping_failure())),
                },
                () = tokio::time::sleep_until(self.deadline) => {
                    return ReplyEvent::Failed(timeout_failure(), None);
                }
            }
        }
    }

    fn apply_note(&mut self, note: LiveNote) {
        if let Some(pause) = note.retry_after_ms {
            self.retry_after = Some(Duration::from_millis(pause));
            // Such a note carries nothing else.
            return;
        }
        // Until a part begins, the stream may still follow another attempt.
        if !self.progress.has_begun() {
            self.attempt = note.attempt;
        }
        if note.attempt != self.attempt {
            // Pieces already sent cannot be taken back, so a new attempt ends the stream.
            self.end = Some(RunEnd::Failure(restarted_failure()));
            return;
        }
        self.has_provider_begun = true;
        // Sent before any part; its model name is the provider's.
        if let LiveKind::Begin { model, usage } = note.kind {
            self.head = ReplyHead { model, usage };
            return;
        }
        let events = self.progress.apply_note(note);
        if !events.is_empty() {
            self.ready_events.push_back(ReplyEvent::Parts(events));
        }
    }

    fn apply_record(&mut self, record: &Record) {
        for event in &record.body.events {
            let Event::Run(event) = event else { continue };
            match event {
                RunEvent::ModelCallIntended(call) => {
                    let (model, left_out) = (call.model.clone(), call.left_out.clone());
                    let output_limit = call.output_limit;
                    self.intent = Some(ModelCallIntent { model, left_out, output_limit });
                }
                RunEvent::StepCompleted(completed) => {
                    self.end = completed.output.map(RunEnd::Output);
                }
                // The same restart, seen in the log before any note of the new attempt.
                RunEvent::StepRetried(_) if self.progress.has_begun() => {
                    self.end = Some(RunEnd::Failure(restarted_failure()));
                }
                // A failure found before (such as a restart) is the one that the caller should see.
                RunEvent::RunFailed(failed) if self.end.is_none() => {
                    self.end = Some(RunEnd::Failure(failed.error.clone()));
                }
                RunEvent::RunCancelled(_) => self.end = Some(RunEnd::Failure(cancelled_failure())),
                RunEvent::StepRetried(_)
                | RunEvent::RunFailed(_)
                | RunEvent::ToolIntended(_)
                | RunEvent::ModelCallCompleted(_) => {}
                RunCreated(_) | StepScheduled(_) | StepStarted(_) | MapExpanded(_)
                | StepFailed(_) | StepUnknown(_) | BranchDecided(_) | TimerSet(_)
                | TimerFired(_) | ApprovalRequested(_) | ApprovalGranted(_) | ApprovalDenied(_)
                | ModelCallFailed(_) | ToolCallIntended(_) | ToolCallQueued(_)
                | ToolCallCompleted(_) | ToolCallFailed(_) | ToolCallDenied(_)
                | ChildIntended(_) | ChildCreated(_) | ChildEnded(_) | ChildReopened(_)
                | ParentTold(_) | AgentSpawned(_) | UsageRecorded(_) | BudgetExhausted(_)
                | RunPaused(_) | RunResumed(_) | RunReopened(_) | RunAmended(_) | RunForked(_)
                | RunImported(_) | SignalAwaited(_) | SignalReceived(_) | StepAsked(_)
                | StepResolved(_) | StepSkipped(_) | CheckpointSaved(_) | RunMigrated(_)
                | RunCompleted(_) => {}
            }
        }
    }

    /// Queues the events of the run's end.
    async fn push_end(&mut self, end: RunEnd) {
        match end {
            RunEnd::Failure(failure) => {
                let failure = self.failure_in_full(failure).await;
                self.ready_events.push_back(ReplyEvent::Failed(failure, self.retry_after));
            }
            RunEnd::Output(reference) => match self.open_reply(reference).await {
                Ok(reply) => self.finish_reply(reply),
                Err(failure) => self.ready_events.push_back(ReplyEvent::Failed(failure, None)),
            },
        }
    }

    /// Adds the failure's full text, which may hold content of the caller's request; it goes to
    /// that caller only.
    async fn failure_in_full(&self, failure: Failure) -> CallFailure {
        let detail = match failure.detail {
            Some(detail) => failure_details::open_detail(&self.gateway, &self.stream, detail).await,
            None => Ok(None),
        };
        let failure_outline = CallFailure::from_failure(failure);
        // If the full text cannot be read, the outline remains.
        let text = detail.ok().flatten().unwrap_or_else(|| failure_outline.text.clone());
        CallFailure { text, ..failure_outline }
    }

    /// Reads the reply from the log.
    async fn open_reply(&self, reference: PayloadRef) -> Result<ChatReply, CallFailure> {
        match self.gateway.repository.read_payload(&self.stream, reference).await {
            Ok(Some(bytes)) => serde_json::from_slice::<ChatReply>(&bytes)
                .map_err(|_| call_failure("internal", "the stored answer is not one")),
            Ok(None) => Err(erased_failure()),
            Err(error) => {
                tracing::error!(%error, "an answer cannot be read");
                Err(call_failure("log.unavailable", "the log cannot be read now"))
            }
        }
    }

    /// Queues the parts of the reply that no note reported, and its end.
    fn finish_reply(&mut self, reply: ChatReply) {
        // Without any note the head still has the requested name.
        if !self.progress.has_begun() && !reply.model.is_empty() {
            self.head.model.clone_from(&reply.model);
        }
        if self.is_streaming {
            match self.progress.finish_parts(reply.ordered_parts()) {
                Ok(events) => self.ready_events.push_back(ReplyEvent::Parts(events)),
                // Notes and log disagree: what was sent cannot be completed truthfully.
                Err(_) => {
                    tracing::error!(stream = %self.stream, "what was heard is not what was said");
                    self.ready_events.push_back(ReplyEvent::Failed(
                        CallFailure::from_failure(restarted_failure()),
                        None,
                    ));
                    return;
                }
            }
        }
        self.ready_events.push_back(ReplyEvent::Done(Box::new(reply)));
    }
}

/// A disconnected caller wants no reply: the run is cancelled, which stops the model and records
/// what it used.
impl Drop for CompatRun {
    fn drop(&mut self) {
        if self.survives_drop {
            return;
        }
        // Outside a runtime, as in tests, nothing can be cancelled.
        let Ok(runtime) = tokio::runtime::Handle::try_current() else { return };
        let (gateway, caller) = (self.gateway.clone(), self.caller.clone());
        let run = RunId(self.stream.id);
        runtime.spawn(async move {
            if let Err(error) = gateway.use_cases().abandon_run(&caller, run).await {
                tracing::debug!(%run, %error, "nothing was left to cancel");
            }
        });
    }
}

/// Returns the end of a run that existed before; repeated idempotency keys find one.
fn run_end_of(state: &RunState) -> Option<RunEnd> {
    match (&state.phase, state.output, &state.error) {
        (RunPhase::Completed, Some(output), _) => Some(RunEnd::Output(output)),
        (RunPhase::Failed, _, Some(error)) => Some(RunEnd::Failure(error.clone())),
        (RunPhase::Cancelled, ..) => Some(RunEnd::Failure(cancelled_failure())),
        _ => None,
    }
}

/// The provider's response broke off and a new attempt began.
fn restarted_failure() -> Failure {
    let message = platform_text!("the answer broke off and was begun anew: ask again");
    Failure::new("provider.unavailable", message)
}

fn cancelled_failure() -> Failure {
    Failure::new("request.conflict", platform_text!("the run was cancelled"))
}

fn stopping_failure() -> Failure {
    let failure = Failure::new("log.unavailable", platform_text!("the server is stopping"));
    Failure { retryable: true, ..failure }
}

fn call_failure(code: &str, text: &str) -> CallFailure {
    CallFailure { code: code.to_owned(), text: text.to_owned(), is_retryable: false, param: None }
}

fn timeout_failure() -> CallFailure {
    call_failure("provider.timeout", "no answer came in time: is an executor running?")
}

fn erased_failure() -> CallFailure {
    call_failure("not_found", "the answer was erased")
}
