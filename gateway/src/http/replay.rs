//! Replay of runs. The work is done behind [`Replayer`](crate::ports::Replayer): the gateway
//! executes nothing.

use axum::body::Bytes;
use axum::extract::{Path, State};
use axum::{Extension, Json};
use convergio_schemas::wire::{Problem, ReplayReport, ReplayRequest};
use utoipa_axum::router::OpenApiRouter;
use utoipa_axum::routes;

use super::body::read_optional_body;
use super::run_lookup::run_stream;
use crate::problem::ApiError;
use crate::state::{ApiRoutes, App, CallerExtension};

/// The route that replays a run.
pub(crate) fn replay_routes() -> ApiRoutes {
    OpenApiRouter::new().routes(routes!(replay_run))
}

/// Computes a run again without any effect, and names the first difference from what was written.
#[utoipa::path(post, path = "/v1/runs/{id}/replay", tag = "runs", params(
    ("id" = String, Path, description = "The run"),
), request_body = Option<ReplayRequest>, responses(
    (status = 200, description = "What was found", body = ReplayReport),
    (status = 400, description = "No such event, or the manifest has mistakes", body = Problem),
    (status = 404, description = "There is no such run", body = Problem),
))]
async fn replay_run(
    State(gateway): App,
    Extension(caller): CallerExtension,
    Path(id): Path<String>,
    body: Bytes,
) -> Result<Json<ReplayReport>, ApiError> {
    let stream = run_stream(&caller, &id)?;
    if gateway.repository.event_log().stream_head(&stream).await?.is_none() {
        return Err(ApiError::not_found("run"));
    }
    let request: ReplayRequest = read_optional_body(&body)?;
    let graph = match request.manifest {
        Some(text) => Some(gateway.graph_use_cases().parse_manifest(&caller, &text).await?.graph),
        None => None,
    };
    Ok(Json(gateway.replayer.replay_run(&stream, request.at, graph).await?))
}
