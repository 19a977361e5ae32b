//! Amending runs: other limits or another version of the graph. A failed run continues with
//! everything that was done; one under way continues under the new limits.

use axum::extract::{Path, State};
use axum::http::HeaderMap;
use axum::{Extension, Json};
use bytes::Bytes;
use convergio_domain::graph::manifest::Graph;
use convergio_domain::idempotency::{IdempotentNoun, RequestedCommand};
use convergio_domain::policy::reopening::fatal_steps;
use convergio_domain::run::{
    AmendRun, CommandReason, NewLimits, Run, RunCommand, RunPhase, RunState, find_loosened_node,
};
use convergio_domain::stream::StreamKey;
use convergio_eventstore::{CommitError, LoadedStream, Payload};
use convergio_schemas::error_code;
use convergio_schemas::wire::{AmendRequest, MigrateRequest, Problem, RunView, Verdict};
use utoipa_axum::router::OpenApiRouter;
use utoipa_axum::routes;
use uuid::Uuid;

use super::body::{REASON_CHARACTERS_LIMIT, read_optional_body, seal_reason};
use super::migrate::MigrationTarget;
use super::run_lookup::{load_manifest, run_stream};
use super::run_view::load_run_view;
use crate::idempotency;
use crate::identity::Identity;
use crate::problem::ApiError;
use crate::state::{ApiRoutes, App, Caller, Gateway};

/// Maximum attempts against concurrent writers of the run.
const MAX_ATTEMPTS: u32 = 8;

/// The route that gives a run other limits or a corrected graph.
pub(crate) fn amend_routes() -> ApiRoutes {
    OpenApiRouter::new().routes(routes!(amend_run))
}

/// Gives a run other limits or a corrected graph. One that failed goes on with all that was done;
/// one that is under way goes on by them.
#[utoipa::path(post, path = "/v1/runs/{id}/amend", tag = "runs", params(
    ("id" = String, Path, description = "The run"),
), request_body = AmendRequest, responses(
    (status = 200, description = "The run goes on", body = RunView),
    (status = 400, description = "A limit or the manifest is not valid", body = Problem),
    (status = 404, description = "There is no such run or version", body = Problem),
    (status = 409, description = "The run has ended otherwise, a limit is used up already, or the \
        graph does not fit what was done", body = Problem),
))]
async fn amend_run(
    State(gateway): App,
    Extension(caller): Caller,
    Path(id): Path<String>,
    headers: HeaderMap,
    body: Bytes,
) -> Result<Json<RunView>, ApiError> {
    let stream = run_stream(&caller, &id)?;
    let request: AmendRequest = read_optional_body(&body)?;
    let limits = read_limits(&request)?;
    let state = gateway.repository.load::<Run>(&stream).await?.state;
    let Some((graph, _)) = state.graph else { return Err(ApiError::not_found("run")) };
    let AmendRequest { manifest, version, reason, .. } = request;
    let target = match (&manifest, &version) {
        (None, None) => None,
        _ => {
            let request = MigrateRequest { version, manifest };
            Some(MigrationTarget::resolve_target(&gateway, &caller, graph, request).await?)
        }
    };
    let request_id = idempotency::request_id(&caller, &headers)?;
    // The reason is a payload, so that it can be erased.
    let (reason, payloads) = seal_reason(reason, REASON_CHARACTERS_LIMIT, 0);
    let amendment = Amendment { limits, target, reason, payloads, request_id };
    for _ in 0..MAX_ATTEMPTS {
        if amendment.apply_to_run(&gateway, &caller, &stream).await? {
            return load_run_view(&gateway, &caller, &id).await.map(Json);
        }
    }
    Err(ApiError::write_contention("the run goes on all the time: send the request again"))
}

/// Parses the limits of a request.
fn read_limits(request: &AmendRequest) -> Result<NewLimits, ApiError> {
    fn parse_limit<T: std::str::FromStr<Err: std::fmt::Display>>(
        field: &str,
        text: Option<&str>,
    ) -> Result<Option<T>, ApiError> {
        let parsed = text.map(str::parse).transpose();
        parsed.map_err(|error| ApiError::invalid_request(format!("{field}: {error}")))
    }
    Ok(NewLimits {
        tokens: request.tokens,
        cost: parse_limit("cost", request.cost.as_deref())?,
        wall: parse_limit("wall", request.wall.as_deref())?,
        deadline: parse_limit("deadline", request.deadline.as_deref())?,
    })
}

/// The change that a request asks for, ready to be tried several times.
struct Amendment {
    limits: NewLimits,
    /// The version to continue by; `None` keeps the run's own.
    target: Option<MigrationTarget>,
    reason: Option<CommandReason>,
    payloads: Vec<Payload>,
    /// Id of the request, if it has an idempotency key.
    request_id: Option<Uuid>,
}

impl Amendment {
    /// Amends the run as it is now; returns false if a concurrent writer was faster.
    async fn apply_to_run(
        &self,
        gateway: &Gateway,
        caller: &Identity,
        stream: &StreamKey,
    ) -> Result<bool, ApiError> {
        // Loaded again for each attempt: a concurrent writer has moved the run.
        let mut loaded = gateway.repository.load::<IdempotentNoun<Run>>(stream).await?;
        // The same request has amended the run already; it may have continued, or failed again,
        // since.
        if self.request_id.is_some_and(|id| loaded.state.requests.seq_of(id).is_some()) {
            return Ok(true);
        }
        let current = current_graph(gateway, caller, &loaded.state).await?;
        if let Some(target) = &self.target {
            check_privacy(&current, &target.graph)?;
            // Checked before anything is written: an incompatible version is not even registered.
            if !can_continue(gateway, &loaded, target).await? {
                return Ok(false);
            }
            if target.is_unregistered {
                super::graphs::store_version(gateway, caller, &target.graph, self.request_id)
                    .await?;
            }
        }
        let graph = self.target.as_ref().map_or(&current, |target| &target.graph);
        let is_failed = loaded.state.phase == RunPhase::Failed;
        let command = RunCommand::Amend(AmendRun {
            limits: self.limits,
            version: self.target.as_ref().map(|target| target.version.clone()),
            // A failed run must retry the steps that ended it; a running one continues as it is.
            steps: if is_failed { fatal_steps(&loaded.state, graph) } else { Vec::new() },
            reason: self.reason.clone(),
        });
        let command = RequestedCommand { request: self.request_id, command };
        let (context, payloads) = (gateway.decision_context(caller), self.payloads.clone());
        match gateway.repository.commit(&mut loaded, command, payloads, &context).await {
            Err(CommitError::Conflict) => Ok(false),
            Err(error) => Err(error.into()),
            Ok(_) => Ok(true),
        }
    }
}

async fn current_graph(
    gateway: &Gateway,
    caller: &Identity,
    state: &RunState,
) -> Result<Graph, ApiError> {
    let Some((graph, version)) = &state.graph else { return Err(ApiError::not_found("run")) };
    load_manifest(gateway, caller, *graph, Some(version.as_str())).await.map(|(_, graph)| graph)
}

/// Rejects a version that loosens the privacy of a node: conversations of a run must not reach
/// providers that the run was not created for.
fn check_privacy(current: &Graph, other: &Graph) -> Result<(), ApiError> {
    let Some(node) = find_loosened_node(current, other) else { return Ok(()) };
    let detail = format!("nodes.{node}: its privacy would be loosened: begin a new run for that");
    Err(ApiError::invalid_request(detail))
}

/// Returns whether the run is still at the event at which its replay was checked.
///
/// # Errors
/// `run.diverged` if the run cannot continue by the target version.
async fn can_continue(
    gateway: &Gateway,
    loaded: &LoadedStream<IdempotentNoun<Run>>,
    target: &MigrationTarget,
) -> Result<bool, ApiError> {
    let replay = gateway.replayer.check_migration(&loaded.stream, Some(&target.graph)).await?;
    if replay.verdict == Verdict::Pin {
        let reason = replay.reason.unwrap_or_default();
        let detail = format!("the run cannot go on by version {}: {reason}", target.version);
        return Err(ApiError::new(error_code::RUN_DIVERGED, detail));
    }
    Ok(replay.seq == loaded.state.seq.0)
}
