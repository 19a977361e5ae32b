//! Control of active runs: pause, resume, retry, signals, decisions about steps, and marks.

use axum::extract::{Path, State};
use axum::http::{HeaderMap, StatusCode};
use axum::{Extension, Json};
use bytes::Bytes;
use convergio_domain::id::{SignalName, StepId};
use convergio_domain::idempotency::{IdempotentNoun, RequestedCommand};
use convergio_domain::payload::{PayloadPurpose, PayloadSlot};
use convergio_domain::policy::reopening::fatal_steps;
use convergio_domain::request::derive_uuid;
use convergio_domain::run::{Resolution, ResolveStep, Run, RunCommand, RunState, SendSignal};
use convergio_domain::stream::{Seq, StreamKey};
use convergio_eventstore::{LoadedStream, Payload};
use convergio_schemas::error_code;
use convergio_schemas::wire::{
    CheckpointRequest, CheckpointView, ForkRequest, Problem, ReasonRequest, ResolveRequest,
    ResumeRequest, RetryRequest, RunView, SignalRequest, StepDecision,
};
use utoipa_axum::router::OpenApiRouter;
use utoipa_axum::routes;
use uuid::Uuid;

use super::body::{
    REASON_CHARACTERS_LIMIT, json_payload, read_body, read_optional_body, seal_reason,
};
use super::fork;
use super::run_lookup::{load_manifest, run_stream};
use super::run_view::load_run_view;
use super::signal_names::check_signal_of_run;
use crate::idempotency;
use crate::identity::Identity;
use crate::problem::ApiError;
use crate::state::{ApiRoutes, App, Caller, Gateway};

/// Maximum characters of a mark's label; further ones are cut.
const LABEL_CHARACTERS_LIMIT: usize = 100;
/// A request about one run.
struct RunRequest<'a> {
    gateway: &'a Gateway,
    caller: &'a Identity,
    headers: &'a HeaderMap,
    stream: StreamKey,
}

impl<'a> RunRequest<'a> {
    fn new(
        gateway: &'a Gateway,
        caller: &'a Identity,
        headers: &'a HeaderMap,
        run: &str,
    ) -> Result<Self, ApiError> {
        Ok(Self { gateway, caller, headers, stream: run_stream(caller, run)? })
    }

    /// Rejects a key that an older log has bound to another request of this kind.
    async fn check_key(&self, path: &str, body: &[u8]) -> Result<(), ApiError> {
        let scope = format!("POST {path} {}", self.stream.id);
        idempotency::check_scoped_key(self.gateway, self.caller, self.headers, &scope, body).await
    }

    /// Executes a command once for each request, and returns the run.
    async fn execute_and_view(
        &self,
        command: RunCommand,
        payloads: Vec<Payload>,
    ) -> Result<Json<RunView>, ApiError> {
        self.execute_once(command, payloads).await?;
        self.load_view().await
    }

    /// Executes a command once for each request.
    async fn execute_once(
        &self,
        command: RunCommand,
        payloads: Vec<Payload>,
    ) -> Result<LoadedStream<IdempotentNoun<Run>>, ApiError> {
        let context = self.gateway.decision_context(self.caller);
        let request = idempotency::request_id(self.caller, self.headers)?;
        let command = RequestedCommand { request, command };
        let commands = |_: &_, _| (command.clone(), payloads.clone());
        let repository = &self.gateway.repository;
        Ok(repository.execute::<IdempotentNoun<Run>>(&self.stream, &context, commands).await?)
    }

    /// Executes a command on the run and all runs within it, once for each request, and returns the
    /// run.
    async fn execute_on_family(
        &self,
        command: RunCommand,
        payloads: Vec<Payload>,
    ) -> Result<Json<RunView>, ApiError> {
        let context = self.gateway.decision_context(self.caller);
        let request = idempotency::request_id(self.caller, self.headers)?;
        let command = RequestedCommand { request, command };
        let repository = &self.gateway.repository;
        repository.steer_family_once(&self.stream, &context, command, payloads).await?;
        self.load_view().await
    }

    /// Returns the event at which the run has executed this request, if it has.
    fn applied_at(&self, state: &RunState) -> Result<Option<Seq>, ApiError> {
        let request = idempotency::request_id(self.caller, self.headers)?;
        Ok(request.and_then(|request| state.requests.seq_of(request)))
    }

    async fn load_view(&self) -> Result<Json<RunView>, ApiError> {
        load_run_view(self.gateway, self.caller, &self.stream.id.to_string()).await.map(Json)
    }
}

/// Routes that control active runs.
pub(crate) fn control_routes() -> ApiRoutes {
    OpenApiRouter::new()
        .routes(routes!(pause_run))
        .routes(routes!(resume_run))
        .routes(routes!(retry_run))
        .routes(routes!(signal_run))
        .routes(routes!(resolve_step))
        .routes(routes!(resume_graph_run))
        .routes(routes!(checkpoint_run))
}

/// Pauses a run and all runs within it: no further step starts, those under way finish. Twice
/// changes nothing.
#[utoipa::path(post, path = "/v1/runs/{id}/pause", tag = "runs", params(
    ("id" = String, Path, description = "The run"),
), request_body = Option<ReasonRequest>, responses(
    (status = 200, description = "The run is paused", body = RunView),
    (status = 400, description = "The request is not valid", body = Problem),
    (status = 404, description = "There is no such run", body = Problem),
    (status = 409, description = "The run has ended", body = Problem),
))]
async fn pause_run(
    State(gateway): App,
    Extension(caller): Caller,
    Path(id): Path<String>,
    headers: HeaderMap,
    body: Bytes,
) -> Result<Json<RunView>, ApiError> {
    let run_request = RunRequest::new(&gateway, &caller, &headers, &id)?;
    let request: ReasonRequest = read_optional_body(&body)?;
    run_request.check_key("pause", &body).await?;
    let (reason, payloads) = seal_reason(request.reason, REASON_CHARACTERS_LIMIT, 0);
    run_request.execute_on_family(RunCommand::Pause { reason }, payloads).await
}

/// Lets a paused run go on, with all runs within it that are paused with it. The time of the pause
/// does not count against its budget, and open questions and waits end that much later.
#[utoipa::path(post, path = "/v1/runs/{id}/resume", tag = "runs", params(
    ("id" = String, Path, description = "The run"),
), responses(
    (status = 200, description = "The run goes on", body = RunView),
    (status = 404, description = "There is no such run", body = Problem),
    (status = 409, description = "The run has ended", body = Problem),
))]
async fn resume_run(
    State(gateway): App,
    Extension(caller): Caller,
    Path(id): Path<String>,
    headers: HeaderMap,
) -> Result<Json<RunView>, ApiError> {
    let run_request = RunRequest::new(&gateway, &caller, &headers, &id)?;
    run_request.check_key("resume", b"").await?;
    run_request.execute_on_family(RunCommand::Resume, Vec::new()).await
}

/// Lets a failed run go on: the steps that ended it get another series of tries, runs within go on
/// from where they were, and nothing that is done is done again.
#[utoipa::path(post, path = "/v1/runs/{id}/retry", tag = "runs", params(
    ("id" = String, Path, description = "The run"),
), request_body = Option<RetryRequest>, responses(
    (status = 200, description = "The run goes on", body = RunView),
    (status = 400, description = "The request is not valid", body = Problem),
    (status = 404, description = "There is no such run", body = Problem),
    (status = 409, description = "The run or the step has not failed", body = Problem),
))]
async fn retry_run(
    State(gateway): App,
    Extension(caller): Caller,
    Path(id): Path<String>,
    headers: HeaderMap,
    body: Bytes,
) -> Result<Json<RunView>, ApiError> {
    let run_request = RunRequest::new(&gateway, &caller, &headers, &id)?;
    let request: RetryRequest = read_optional_body(&body)?;
    let state = gateway.repository.load::<Run>(&run_request.stream).await?.state;
    let Some((graph, version)) = &state.graph else { return Err(ApiError::not_found("run")) };
    run_request.check_key("retry", &body).await?;
    // A repetition must not retry again if the run has failed once more since.
    if run_request.applied_at(&state)?.is_some() {
        return run_request.load_view().await;
    }
    let (_, graph) = load_manifest(&gateway, &caller, *graph, Some(version.as_str())).await?;
    // All steps that ended the run are retried; `step` must be one of them.
    let steps = fatal_steps(&state, &graph);
    if let Some(step) = request.step.filter(|_| !steps.is_empty()) {
        let is_requested = |known: &StepId| known.to_string() == step;
        if !steps.iter().any(is_requested) {
            let names: Vec<String> = steps.iter().map(ToString::to_string).collect();
            let detail = format!("`{step}` did not end the run: {} did", names.join(", "));
            return Err(ApiError::new(error_code::REQUEST_CONFLICT, detail));
        }
    }
    run_request.execute_and_view(RunCommand::Retry { steps }, Vec::new()).await
}

/// Tells a run of an outside event. With an `Idempotency-Key` it counts once.
#[utoipa::path(post, path = "/v1/runs/{id}/signal", tag = "runs", params(
    ("id" = String, Path, description = "The run"),
), request_body = SignalRequest, responses(
    (status = 200, description = "The run has it", body = RunView),
    (status = 400, description = "The request is not valid", body = Problem),
    (status = 404, description = "There is no such run", body = Problem),
    (status = 409, description = "No node of the run's graph waits for it, the run has ended, or \
        has all the signals it takes", body = Problem),
    (status = 413, description = "The payload is too large", body = Problem),
))]
async fn signal_run(
    State(gateway): App,
    Extension(caller): Caller,
    Path(id): Path<String>,
    headers: HeaderMap,
    body: Bytes,
) -> Result<Json<RunView>, ApiError> {
    let run_request = RunRequest::new(&gateway, &caller, &headers, &id)?;
    let request: SignalRequest = read_body(&body)?;
    let name: SignalName =
        request.name.parse().map_err(|error: convergio_domain::id::InvalidId| {
            ApiError::invalid_request(format!("name: {error}"))
        })?;
    let payload = json_payload(&request.payload, PayloadPurpose::Signal)?;
    run_request.check_key("signal", &body).await?;
    let id = match idempotency::idempotency_key(&headers)? {
        Some(key) => {
            let run = run_request.stream.id.to_string();
            derive_uuid(&["signal/v1", caller.tenant.as_str(), &run, key])
        }
        None => Uuid::now_v7(),
    };
    // The run remembers each signal by this id, so the command needs no request id.
    let signal = SendSignal { id, name, payload: PayloadSlot(0) };
    check_signal_of_run(&gateway, &caller, &run_request.stream, &signal).await?;
    let commands = |_: &_, _| (RunCommand::Signal(signal.clone()), vec![payload.clone()]);
    let context = gateway.decision_context(&caller);
    gateway.repository.submit_command::<Run>(&run_request.stream, &context, commands).await?;
    run_request.load_view().await
}

/// Decides what becomes of a step that waits for a decision: one of unknown outcome, or a failed
/// one whose node says `on_error: ask`.
#[utoipa::path(post, path = "/v1/runs/{id}/resolve", tag = "runs", params(
    ("id" = String, Path, description = "The run"),
), request_body = ResolveRequest, responses(
    (status = 200, description = "It is decided", body = RunView),
    (status = 400, description = "The request is not valid", body = Problem),
    (status = 404, description = "There is no such run", body = Problem),
    (status = 409, description = "The step does not wait, or for another decision", body = Problem),
    (status = 413, description = "The output is too large", body = Problem),
))]
async fn resolve_step(
    State(gateway): App,
    Extension(caller): Caller,
    Path(id): Path<String>,
    headers: HeaderMap,
    body: Bytes,
) -> Result<Json<RunView>, ApiError> {
    let run_request = RunRequest::new(&gateway, &caller, &headers, &id)?;
    let request: ResolveRequest = read_body(&body)?;
    // Before the step is looked at: a missing run is 404 and not a missing step.
    if gateway.repository.event_log().stream_head(&run_request.stream).await?.is_none() {
        return Err(ApiError::not_found("run"));
    }
    let step = request.step.parse();
    let step: StepId = step.map_err(|error: convergio_domain::id::InvalidId| {
        ApiError::invalid_request(format!("step: {error}"))
    })?;
    let output = request.output.as_ref().map(|output| json_payload(output, PayloadPurpose::Output));
    let mut payloads: Vec<Payload> = output.transpose()?.into_iter().collect();
    // The reason's payload follows the output's, if there is one.
    let slot = u16::from(request.output.is_some());
    let (reason, reason_payloads) = seal_reason(request.reason, REASON_CHARACTERS_LIMIT, slot);
    payloads.extend(reason_payloads);
    let command = ResolveStep {
        step,
        resolution: match request.decision {
            StepDecision::Completed => Resolution::Completed,
            StepDecision::Failed => Resolution::Failed,
            StepDecision::Retry => Resolution::Retry,
            StepDecision::Skip => Resolution::Skip,
        },
        output: request.output.map(|_| PayloadSlot(0)),
        reason,
    };
    run_request.check_key("resolve", &body).await?;
    run_request.execute_and_view(RunCommand::Resolve(command), payloads).await
}

/// Checks that the request's run is one of this graph.
async fn check_run_of_graph(
    gateway: &Gateway,
    run_request: &RunRequest<'_>,
    graph: &str,
) -> Result<(), ApiError> {
    let state = gateway.repository.load::<Run>(&run_request.stream).await?.state;
    let belongs_to_graph = state.graph.is_some_and(|(known, _)| known.to_string() == graph);
    if belongs_to_graph { Ok(()) } else { Err(ApiError::not_found("run of this graph")) }
}

/// Lets a run of a graph go on: from where it was paused, or, as a new run, from any of its events.
#[utoipa::path(post, path = "/v1/graphs/{id}/resume", tag = "runs", params(
    ("id" = String, Path, description = "The graph"),
), request_body = ResumeRequest, responses(
    (status = 200, description = "The run, or the new one", body = RunView),
    (status = 400, description = "There is no such event", body = Problem),
    (status = 404, description = "There is no such run of this graph", body = Problem),
    (status = 409, description = "The run has ended, or had ended there", body = Problem),
))]
async fn resume_graph_run(
    State(gateway): App,
    Extension(caller): Caller,
    Path(id): Path<String>,
    headers: HeaderMap,
    body: Bytes,
) -> Result<Json<RunView>, ApiError> {
    let request: ResumeRequest = read_body(&body)?;
    let run_request = RunRequest::new(&gateway, &caller, &headers, &request.run_id)?;
    check_run_of_graph(&gateway, &run_request, &id).await?;
    if request.at.is_none() {
        run_request.check_key("resume", &body).await?;
        return run_request.execute_on_family(RunCommand::Resume, Vec::new()).await;
    }
    // A resume from an event is a fork: history is never rewritten.
    let fork = ForkRequest { at: request.at, ..ForkRequest::default() };
    let accepted = fork::begin_fork(&gateway, &caller, &headers, &run_request.stream, fork).await?;
    load_run_view(&gateway, &caller, &accepted.run_id).await.map(Json)
}

/// Marks this point of a run, and keeps its state at hand.
#[utoipa::path(post, path = "/v1/graphs/{id}/checkpoint", tag = "runs", params(
    ("id" = String, Path, description = "The graph"),
), request_body = CheckpointRequest, responses(
    (status = 201, description = "The point", body = CheckpointView),
    (status = 400, description = "The request is not valid", body = Problem),
    (status = 404, description = "There is no such run of this graph", body = Problem),
))]
async fn checkpoint_run(
    State(gateway): App,
    Extension(caller): Caller,
    Path(id): Path<String>,
    headers: HeaderMap,
    body: Bytes,
) -> Result<(StatusCode, Json<CheckpointView>), ApiError> {
    let request: CheckpointRequest = read_body(&body)?;
    let run_request = RunRequest::new(&gateway, &caller, &headers, &request.run_id)?;
    check_run_of_graph(&gateway, &run_request, &id).await?;
    run_request.check_key("checkpoint", &body).await?;
    let (label, payloads) = seal_reason(request.label, LABEL_CHARACTERS_LIMIT, 0);
    let mut loaded = run_request.execute_once(RunCommand::Mark { label }, payloads).await?;
    // Stores a checkpoint, so that loading the state at this event folds no history.
    gateway.repository.write_checkpoint(&mut loaded);
    let mut state = loaded.state;
    // The mark follows the request's own event; the run may have continued since.
    let mark_seq = run_request.applied_at(&state)?.map(|seq| seq.offset_by(1));
    if let Some(seq) = mark_seq.filter(|seq| *seq < state.seq) {
        let loaded_at_mark =
            gateway.repository.load_at::<Run>(&run_request.stream, seq, false).await?;
        state = loaded_at_mark.ok_or_else(|| ApiError::not_found("event of this run"))?.state;
    }
    let (seq, fingerprint) = (state.seq.0, state.refresh_fingerprint().to_string());
    let run_id = run_request.stream.id.to_string();
    Ok((StatusCode::CREATED, Json(CheckpointView { run_id, seq, fingerprint })))
}
