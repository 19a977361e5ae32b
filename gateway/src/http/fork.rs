//! Forks: new runs that inherit a prefix of another run's history.

use axum::extract::{Path, State};
use axum::http::StatusCode;
use axum::{Extension, Json};
use bytes::Bytes;
use convergio_schemas::wire::{ForkAccepted, ForkRequest, Problem};
use utoipa_axum::router::OpenApiRouter;
use utoipa_axum::routes;

use super::body::read_optional_body;
use super::run_lookup::parse_run;
use crate::problem::ApiError;
use crate::state::{ApiRoutes, App, CallerExtension};

/// The route that forks a run.
pub(crate) fn fork_routes() -> ApiRoutes {
    OpenApiRouter::new().routes(routes!(fork_run))
}

/// Begins a new run with the history of another one up to an event: with other inputs, another
/// model, other prompts, or another version of the graph. What is inherited costs nothing.
#[utoipa::path(post, path = "/v1/runs/{id}/fork", tag = "runs", params(
    ("id" = String, Path, description = "The run"),
), request_body = Option<ForkRequest>, responses(
    (status = 202, description = "The new run will be executed", body = ForkAccepted),
    (status = 400, description = "There is no such event, or a change is not valid",
        body = Problem),
    (status = 404, description = "There is no such run or version", body = Problem),
    (status = 409, description = "The run had ended there", body = Problem),
    (status = 413, description = "The inputs are too large", body = Problem),
))]
async fn fork_run(
    State(gateway): App,
    Extension(caller): CallerExtension,
    Path(id): Path<String>,
    body: Bytes,
) -> Result<(StatusCode, Json<ForkAccepted>), ApiError> {
    let run = parse_run(&id)?;
    let request: ForkRequest = read_optional_body(&body)?;
    let accepted = gateway.graph_use_cases().fork_run(&caller, run, request).await?;
    Ok((StatusCode::ACCEPTED, Json(accepted)))
}
