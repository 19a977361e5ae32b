//! Runs: execute, list, show, cancel.

use axum::extract::{Path, State};
use axum::http::StatusCode;
use axum::{Extension, Json};
use bytes::Bytes;
use convergio_application::request_hash;
use convergio_domain::id::{GraphId, RunId};
use convergio_projections::{RunFamily, RunFilter};
use convergio_schemas::wire::{ExecuteRequest, Page, Problem, ReasonRequest, RunAccepted, RunView};
use serde::Deserialize;
use utoipa::IntoParams;
use utoipa_axum::router::OpenApiRouter;
use utoipa_axum::routes;

use super::body::read_optional_body;
use super::json_body::JsonBody;
use super::list_filters::{self, RunStatus};
use super::query_params::{PAGE_ITEMS, PageLimit, QueryParams};
use super::run_lookup::parse_run;
use super::run_view::load_run_view;
use crate::convert;
use crate::problem::ApiError;
use crate::state::{ApiRoutes, App, CallerExtension};

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
    Extension(caller): CallerExtension,
    Path(id): Path<String>,
    body: Result<JsonBody<ExecuteRequest>, ApiError>,
) -> Result<(StatusCode, Json<RunAccepted>), ApiError> {
    let JsonBody(request) = body?;
    let graph: GraphId = id.parse().map_err(|_| ApiError::not_found("graph"))?;
    let scope = format!("POST /v1/graphs/{graph}/execute");
    let hashed_body = serde_json::to_vec(&request).unwrap_or_default();
    let request_hash = request_hash(&scope, &hashed_body);
    let use_cases = gateway.graph_use_cases();
    let accepted = use_cases.execute_graph(&caller, graph, request, request_hash).await?;
    Ok((StatusCode::ACCEPTED, Json(accepted)))
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
    Extension(caller): CallerExtension,
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
    Extension(caller): CallerExtension,
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
    Extension(caller): CallerExtension,
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
    Extension(caller): CallerExtension,
    Path(id): Path<String>,
    body: Bytes,
) -> Result<Json<RunView>, ApiError> {
    let (run, use_cases) = (parse_run(&id)?, gateway.use_cases());
    let request: ReasonRequest = read_optional_body(&body)?;
    let scope = format!("POST /v1/runs/{id}/cancel");
    use_cases.check_scoped_key(&caller, &scope, &body).await?;
    use_cases.cancel_run(&caller, run, request.reason).await?;
    load_run_view(&gateway, &caller, &id).await.map(Json)
}
