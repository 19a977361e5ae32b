//! Amending runs: other limits or another version of the graph. A failed run continues with
//! everything that was done; one under way continues under the new limits.

use axum::extract::{Path, State};
use axum::{Extension, Json};
use bytes::Bytes;
use convergio_domain::run::NewLimits;
use convergio_schemas::wire::{AmendRequest, MigrateRequest, Problem, RunView};
use utoipa_axum::router::OpenApiRouter;
use utoipa_axum::routes;

use super::body::read_optional_body;
use super::run_lookup::parse_run;
use super::run_view::load_run_view;
use crate::problem::ApiError;
use crate::state::{ApiRoutes, App, CallerExtension};

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
    Extension(caller): CallerExtension,
    Path(id): Path<String>,
    body: Bytes,
) -> Result<Json<RunView>, ApiError> {
    let run = parse_run(&id)?;
    let request: AmendRequest = read_optional_body(&body)?;
    let limits = read_limits(&request)?;
    let AmendRequest { manifest, version, reason, .. } = request;
    let target = MigrateRequest { version, manifest };
    gateway.graph_use_cases().amend_run(&caller, run, limits, target, reason).await?;
    load_run_view(&gateway, &caller, &id).await.map(Json)
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
