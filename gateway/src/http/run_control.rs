//! Control of active runs: pause, resume, retry, signals, decisions about steps, and marks.

use axum::extract::{Path, State};
use axum::http::StatusCode;
use axum::{Extension, Json};
use bytes::Bytes;
use convergio_application::{Caller, NewResolution, RunMark, UseCases};
use convergio_domain::id::{InvalidId, RunId};
use convergio_domain::run::Resolution;
use convergio_schemas::wire::{
    CheckpointRequest, CheckpointView, ForkRequest, Problem, ReasonRequest, ResolveRequest,
    ResumeRequest, RetryRequest, RunView, SignalRequest, StepDecision,
};
use utoipa_axum::router::OpenApiRouter;
use utoipa_axum::routes;

use super::body::{read_body, read_optional_body};
use super::run_lookup::parse_run;
use super::run_view::load_run_view;
use crate::problem::ApiError;
use crate::state::{ApiRoutes, App, CallerExtension};

/// Rejects a key that an older log has bound to another request of this kind.
async fn check_key(
    use_cases: UseCases<'_>,
    caller: &Caller,
    (path, run): (&str, RunId),
    body: &[u8],
) -> Result<(), ApiError> {
    let scope = format!("POST {path} {run}");
    Ok(use_cases.check_scoped_key(caller, &scope, body).await?)
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
    Extension(caller): CallerExtension,
    Path(id): Path<String>,
    body: Bytes,
) -> Result<Json<RunView>, ApiError> {
    let (run, use_cases) = (parse_run(&id)?, gateway.use_cases());
    let request: ReasonRequest = read_optional_body(&body)?;
    check_key(use_cases, &caller, ("pause", run), &body).await?;
    use_cases.pause_run(&caller, run, request.reason).await?;
    load_run_view(&gateway, &caller, &id).await.map(Json)
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
    Extension(caller): CallerExtension,
    Path(id): Path<String>,
) -> Result<Json<RunView>, ApiError> {
    let (run, use_cases) = (parse_run(&id)?, gateway.use_cases());
    check_key(use_cases, &caller, ("resume", run), b"").await?;
    use_cases.resume_run(&caller, run).await?;
    load_run_view(&gateway, &caller, &id).await.map(Json)
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
    Extension(caller): CallerExtension,
    Path(id): Path<String>,
    body: Bytes,
) -> Result<Json<RunView>, ApiError> {
    let (run, use_cases) = (parse_run(&id)?, gateway.use_cases());
    let request: RetryRequest = read_optional_body(&body)?;
    check_key(use_cases, &caller, ("retry", run), &body).await?;
    use_cases.retry_run(&caller, run, request.step.as_deref()).await?;
    load_run_view(&gateway, &caller, &id).await.map(Json)
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
    Extension(caller): CallerExtension,
    Path(id): Path<String>,
    body: Bytes,
) -> Result<Json<RunView>, ApiError> {
    let (run, use_cases) = (parse_run(&id)?, gateway.use_cases());
    let request: SignalRequest = read_body(&body)?;
    let name = request
        .name
        .parse()
        .map_err(|error: InvalidId| ApiError::invalid_request(format!("name: {error}")))?;
    check_key(use_cases, &caller, ("signal", run), &body).await?;
    use_cases.signal_run(&caller, run, name, &request.payload).await?;
    load_run_view(&gateway, &caller, &id).await.map(Json)
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
    Extension(caller): CallerExtension,
    Path(id): Path<String>,
    body: Bytes,
) -> Result<Json<RunView>, ApiError> {
    let (run, use_cases) = (parse_run(&id)?, gateway.use_cases());
    let request: ResolveRequest = read_body(&body)?;
    // Before the step is looked at: a missing run is 404 and not a missing step.
    if !use_cases.has_run(&caller, run).await? {
        return Err(ApiError::not_found("run"));
    }
    let step = request
        .step
        .parse()
        .map_err(|error: InvalidId| ApiError::invalid_request(format!("step: {error}")))?;
    let resolution = match request.decision {
        StepDecision::Completed => Resolution::Completed,
        StepDecision::Failed => Resolution::Failed,
        StepDecision::Retry => Resolution::Retry,
        StepDecision::Skip => Resolution::Skip,
    };
    let ResolveRequest { output, reason, .. } = request;
    check_key(use_cases, &caller, ("resolve", run), &body).await?;
    let resolution = NewResolution { step, resolution, output, reason };
    use_cases.resolve_step(&caller, run, resolution).await?;
    load_run_view(&gateway, &caller, &id).await.map(Json)
}

/// Checks that a run is one of this graph.
async fn check_run_of_graph(
    use_cases: UseCases<'_>,
    caller: &Caller,
    run: RunId,
    graph: &str,
) -> Result<(), ApiError> {
    let known = use_cases.graph_of_run(caller, run).await?;
    let belongs_to_graph = known.is_some_and(|known| known.to_string() == graph);
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
    Extension(caller): CallerExtension,
    Path(id): Path<String>,
    body: Bytes,
) -> Result<Json<RunView>, ApiError> {
    let request: ResumeRequest = read_body(&body)?;
    let (run, use_cases) = (parse_run(&request.run_id)?, gateway.use_cases());
    check_run_of_graph(use_cases, &caller, run, &id).await?;
    if request.at.is_none() {
        check_key(use_cases, &caller, ("resume", run), &body).await?;
        use_cases.resume_run(&caller, run).await?;
        return load_run_view(&gateway, &caller, &request.run_id).await.map(Json);
    }
    // A resume from an event is a fork: history is never rewritten.
    let fork = ForkRequest { at: request.at, ..ForkRequest::default() };
    let accepted = gateway.graph_use_cases().fork_run(&caller, run, fork).await?;
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
    Extension(caller): CallerExtension,
    Path(id): Path<String>,
    body: Bytes,
) -> Result<(StatusCode, Json<CheckpointView>), ApiError> {
    let request: CheckpointRequest = read_body(&body)?;
    let (run, use_cases) = (parse_run(&request.run_id)?, gateway.use_cases());
    check_run_of_graph(use_cases, &caller, run, &id).await?;
    check_key(use_cases, &caller, ("checkpoint", run), &body).await?;
    let RunMark { seq, fingerprint } = use_cases.mark_run(&caller, run, request.label).await?;
    let (run_id, fingerprint) = (run.to_string(), fingerprint.to_string());
    Ok((StatusCode::CREATED, Json(CheckpointView { run_id, seq: seq.0, fingerprint })))
}
