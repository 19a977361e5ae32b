//! Runs: execute, list, show, cancel.

use axum::extract::{Path, State};
use axum::http::{HeaderMap, StatusCode};
use axum::{Extension, Json};
use bytes::Bytes;
use convergio_domain::chat::Privacy;
use convergio_domain::id::{GraphId, GraphVersion, RunId};
use convergio_domain::idempotency::RequestedCommand;
use convergio_domain::payload::{PayloadPurpose, PayloadSlot};
use convergio_domain::run::{Budget, CreateRun, Provenance, Run, RunCommand, run_id_for_key};
use convergio_domain::stream::StreamKey;
use convergio_projections::{RunFamily, RunFilter};
use convergio_schemas::wire::{ExecuteRequest, Page, Problem, ReasonRequest, RunAccepted, RunView};
use serde::Deserialize;
use serde_json::{Value, json};
use utoipa::IntoParams;
use utoipa_axum::router::OpenApiRouter;
use utoipa_axum::routes;
use uuid::Uuid;

use super::body::{REASON_CHARACTERS_LIMIT, new_payload, read_optional_body, seal_reason};
use super::json_body::JsonBody;
use super::list_filters::{self, RunStatus};
use super::query_params::{PAGE_ITEMS, PageLimit, QueryParams};
use super::run_lookup::{load_manifest, run_stream};
use super::run_view::load_run_view;
use crate::identity::Identity;
use crate::problem::ApiError;
use crate::state::{ApiRoutes, App, Caller, Gateway};
use crate::{convert, idempotency};

/// Routes that begin, show and cancel runs.
pub(crate) fn run_routes() -> ApiRoutes {
    OpenApiRouter::new()
        .routes(routes!(execute_graph))
        .routes(routes!(show_graph_run))
        .routes(routes!(list_runs))
        .routes(routes!(show_run))
        .routes(routes!(cancel_run))
}

/// Asks for a run. With an `Idempotency-Key`, the same request gives the same run for ever.
#[utoipa::path(post, path = "/v1/graphs/{id}/execute", tag = "runs", params(
    ("id" = String, Path, description = "The graph"),
), request_body = ExecuteRequest, responses(
    (status = 202, description = "The run will be executed", body = RunAccepted),
    (status = 400, description = "The inputs do not satisfy the graph's schema", body = Problem),
    (status = 404, description = "There is no such graph or version", body = Problem),
    (status = 413, description = "The inputs are too large", body = Problem),
    (status = 503, description = "The log is not available", body = Problem),
    (status = 507, description = "The log's disk is full", body = Problem),
))]
async fn execute_graph(
    State(gateway): App,
    Extension(caller): Caller,
    Path(id): Path<String>,
    headers: HeaderMap,
    body: Result<JsonBody<ExecuteRequest>, ApiError>,
) -> Result<(StatusCode, Json<RunAccepted>), ApiError> {
    let JsonBody(request) = body?;
    let graph: GraphId = id.parse().map_err(|_| ApiError::not_found("graph"))?;
    let scope = format!("POST /v1/graphs/{graph}/execute");
    let hashed_body = serde_json::to_vec(&request).unwrap_or_default();
    // Before the manifest is read: a repetition succeeds even if the graph has changed since.
    if let Some(accepted) =
        find_accepted_run(&gateway, &caller, &headers, &scope, &hashed_body).await?
    {
        return Ok((StatusCode::ACCEPTED, Json(accepted)));
    }
    let (version, manifest) =
        load_manifest(&gateway, &caller, graph, request.version.as_deref()).await?;
    let inputs = if request.inputs.is_null() { json!({}) } else { request.inputs.clone() };
    gateway.check_inputs(&caller, &manifest.inputs, &inputs).await?;
    let privacy: Privacy =
        request.privacy.as_deref().unwrap_or("any").parse().map_err(ApiError::invalid_request)?;
    let (budget, lineage) = (manifest.budget, Provenance::default());
    let new_run = NewRun { graph, version, budget, privacy, inputs, lineage };
    let accepted = create_run(&gateway, &caller, &headers, &scope, &hashed_body, new_run).await?;
    Ok((StatusCode::ACCEPTED, Json(accepted)))
}

/// Finds the run that the same request has created already, by its key.
pub(super) async fn find_accepted_run(
    gateway: &Gateway,
    caller: &Identity,
    headers: &HeaderMap,
    scope: &str,
    hashed_body: &[u8],
) -> Result<Option<RunAccepted>, ApiError> {
    let Some(key) = idempotency::idempotency_key(headers)? else { return Ok(None) };
    let run = run_id_for_key(&caller.tenant, key);
    let request_hash = idempotency::request_hash(scope, hashed_body);
    let state = idempotency::find_run(gateway, caller, run, &request_hash).await?;
    let accepted = |(graph, version): (GraphId, GraphVersion)| RunAccepted {
        run_id: run.to_string(),
        graph_id: graph.to_string(),
        version: version.to_string(),
    };
    Ok(state.and_then(|state| state.graph).map(accepted))
}

/// Parameters of a run to be created.
pub(super) struct NewRun {
    pub(super) graph: GraphId,
    pub(super) version: GraphVersion,
    pub(super) budget: Budget,
    pub(super) privacy: Privacy,
    /// Inputs, already validated against the graph's schema.
    pub(super) inputs: Value,
    pub(super) lineage: Provenance,
}

/// Creates a run, or returns the one that the same key has created.
pub(super) async fn create_run(
    gateway: &Gateway,
    caller: &Identity,
    headers: &HeaderMap,
    scope: &str,
    hashed_body: &[u8],
    new_run: NewRun,
) -> Result<RunAccepted, ApiError> {
    let NewRun { graph, version, budget, privacy, inputs, lineage } = new_run;
    let run = match idempotency::idempotency_key(headers)? {
        Some(key) => run_id_for_key(&caller.tenant, key),
        None => RunId(Uuid::now_v7()),
    };
    let create = CreateRun {
        graph,
        version: version.clone(),
        input: PayloadSlot(0),
        budget,
        privacy,
        request_hash: idempotency::request_hash(scope, hashed_body),
        provenance: lineage,
    };
    let input = new_payload(serde_json::to_vec(&inputs).unwrap_or_default(), PayloadPurpose::Input);
    let command = |_: &_, _| (RunCommand::Create(create.clone()), vec![input.clone()]);
    let stream = StreamKey::for_run(caller.tenant.clone(), run);
    let created = gateway
        .repository
        .execute::<Run>(&stream, &gateway.decision_context(caller), command)
        .await?;
    // A repetition answers with the version of the run that exists.
    let version = created.state.graph.map_or(version, |(_, version)| version);
    let (run_id, graph_id) = (run.to_string(), graph.to_string());
    Ok(RunAccepted { run_id, graph_id, version: version.to_string() })
}

/// Query parameter that names a run of the graph.
#[derive(Debug, Deserialize, IntoParams)]
#[into_params(parameter_in = Query)]
pub(crate) struct StatusQuery {
    /// Id of the run.
    run_id: String,
}

/// Shows how a run of a graph stands.
#[utoipa::path(get, path = "/v1/graphs/{id}/status", tag = "runs", params(
    ("id" = String, Path, description = "The graph"), StatusQuery,
), responses(
    (status = 200, description = "The run", body = RunView),
    (status = 400, description = "The query is not valid", body = Problem),
    (status = 404, description = "There is no such run of this graph", body = Problem),
))]
async fn show_graph_run(
    State(gateway): App,
    Extension(caller): Caller,
    Path(id): Path<String>,
    QueryParams(query): QueryParams<StatusQuery>,
) -> Result<Json<RunView>, ApiError> {
    let run = load_run_view(&gateway, &caller, &query.run_id).await?;
    if run.graph_id == id { Ok(Json(run)) } else { Err(ApiError::not_found("run of this graph")) }
}

/// Query parameters of the listing.
#[derive(Debug, Deserialize, IntoParams)]
#[into_params(parameter_in = Query)]
pub(crate) struct RunsQuery {
    /// Only of this graph, by its id or its name.
    graph: Option<String>,
    /// Only in this status.
    #[param(inline)]
    status: Option<RunStatus>,
    /// Only asked for by this actor.
    actor: Option<String>,
    /// Only runs right within this one.
    parent: Option<String>,
    /// Also runs that are within others; without it and `parent`, only those that are not.
    all: Option<bool>,
    /// The `next_cursor` of the page before.
    cursor: Option<String>,
    /// Items of a page, 1 to 1000; 50 when absent.
    #[param(value_type = Option<u16>, minimum = 1, maximum = 1000)]
    limit: Option<PageLimit>,
}

/// Lists runs, the newest first: those that are within no other, unless `parent` or `all` says so.
#[utoipa::path(get, path = "/v1/runs", tag = "runs", params(RunsQuery), responses(
    (status = 200, description = "A page of runs, without steps and outputs", body = Page<RunView>),
    (status = 400, description = "The query is not valid", body = Problem),
    (status = 404, description = "There is no such graph", body = Problem),
))]
async fn list_runs(
    State(gateway): App,
    Extension(caller): Caller,
    QueryParams(query): QueryParams<RunsQuery>,
) -> Result<Json<Page<RunView>>, ApiError> {
    let RunsQuery { graph, status, actor, parent, all, cursor, limit } = query;
    let graph = match graph {
        Some(graph) => Some(list_filters::resolve_graph(&gateway, &caller, &graph).await?),
        None => None,
    };
    actor.as_deref().map_or(Ok(()), list_filters::check_actor)?;
    let status = status.map(|status| status.as_str().to_owned());
    let family = read_family(parent, all)?;
    let filter = RunFilter { family, graph, status, actor };
    let limit = limit.map_or(PAGE_ITEMS, usize::from);
    let tenant = caller.tenant.as_str();
    let listed = gateway.queries.list_runs(tenant, &filter, cursor.as_deref(), limit).await?;
    let items = listed.items.into_iter().map(convert::to_run_view).collect();
    Ok(Json(Page { items, next_cursor: listed.next_cursor }))
}

/// Decides which runs a listing covers: top-level ones, all, or the children of one.
fn read_family(parent: Option<String>, all: Option<bool>) -> Result<RunFamily, ApiError> {
    match (parent, all.unwrap_or(false)) {
        (Some(_), true) => Err(ApiError::invalid_request(
            "`parent` and `all` exclude each other: ask for one of them",
        )),
        (Some(parent), false) => {
            let run: RunId = parent.parse().map_err(|_| {
                ApiError::invalid_request(format!("parent: `{parent}` is not the id of a run"))
            })?;
            Ok(RunFamily::ChildrenOf(run.to_string()))
        }
        (None, true) => Ok(RunFamily::All),
        (None, false) => Ok(RunFamily::TopLevel),
    }
}

/// Shows a run with its steps and output.
#[utoipa::path(get, path = "/v1/runs/{id}", tag = "runs", params(
    ("id" = String, Path, description = "The run"),
), responses(
    (status = 200, description = "The run", body = RunView),
    (status = 404, description = "There is no such run", body = Problem),
))]
async fn show_run(
    State(gateway): App,
    Extension(caller): Caller,
    Path(id): Path<String>,
) -> Result<Json<RunView>, ApiError> {
    load_run_view(&gateway, &caller, &id).await.map(Json)
}

/// Cancels a run with all runs within it. Model calls under way are stopped. Cancelling twice
/// changes nothing.
#[utoipa::path(post, path = "/v1/runs/{id}/cancel", tag = "runs", params(
    ("id" = String, Path, description = "The run"),
), request_body = Option<ReasonRequest>, responses(
    (status = 200, description = "The run is cancelled", body = RunView),
    (status = 404, description = "There is no such run", body = Problem),
    (status = 409, description = "The run has ended otherwise", body = Problem),
))]
async fn cancel_run(
    State(gateway): App,
    Extension(caller): Caller,
    Path(id): Path<String>,
    headers: HeaderMap,
    body: Bytes,
) -> Result<Json<RunView>, ApiError> {
    let stream = run_stream(&caller, &id)?;
    let request: ReasonRequest = read_optional_body(&body)?;
    let scope = format!("POST /v1/runs/{id}/cancel");
    idempotency::check_scoped_key(&gateway, &caller, &headers, &scope, &body).await?;
    let (reason, payloads) = seal_reason(request.reason, REASON_CHARACTERS_LIMIT, 0);
    let request = idempotency::request_id(&caller, &headers)?;
    let command = RequestedCommand { request, command: RunCommand::Cancel { reason } };
    let (repository, context) = (&gateway.repository, gateway.decision_context(&caller));
    repository.steer_family_once(&stream, &context, command, payloads).await?;
    load_run_view(&gateway, &caller, &id).await.map(Json)
}
