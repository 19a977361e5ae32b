//! Export of a run as a file that `convergio runs import` reads.

use axum::Extension;
use axum::body::Body;
use axum::extract::{Path, State};
use axum::http::header;
use axum::response::{IntoResponse, Response};
use convergio_domain::event::Event;
use convergio_domain::run::event::RunEvent;
use convergio_domain::stream::Seq;
use convergio_eventstore::run_file;
use convergio_schemas::error_code;
use convergio_schemas::wire::Problem;
use serde::Deserialize;
use utoipa::IntoParams;
use utoipa_axum::router::OpenApiRouter;
use utoipa_axum::routes;

use super::query_params::QueryParams;
use super::run_lookup::run_stream;
use crate::problem::ApiError;
use crate::state::{ApiRoutes, App, CallerExtension};

/// Query parameters of an export.
#[derive(Debug, Deserialize, IntoParams)]
#[into_params(parameter_in = Query)]
pub(crate) struct ExportQuery {
    /// False leaves out the payloads' plaintexts; true by default.
    payloads: Option<bool>,
}

/// The route that exports a run.
pub(crate) fn export_routes() -> ApiRoutes {
    OpenApiRouter::new().routes(routes!(export_run))
}

/// Exports a run as JSON lines: its graph versions, every record with its hashes, and the payloads
/// with what proves them. A file that ends early is known by its first line.
#[utoipa::path(get, path = "/v1/runs/{id}/export", tag = "runs", params(
    ("id" = String, Path, description = "The run"), ExportQuery,
), responses(
    (status = 200, description = "The file", body = String, content_type = "application/x-ndjson"),
    (status = 400, description = "The query is not valid", body = Problem),
    (status = 404, description = "There is no such run", body = Problem),
    (status = 409, description = "The run is a fork, which begins in another", body = Problem),
))]
async fn export_run(
    State(gateway): App,
    Extension(caller): CallerExtension,
    Path(id): Path<String>,
    QueryParams(query): QueryParams<ExportQuery>,
) -> Result<Response, ApiError> {
    let stream = run_stream(&caller, &id)?;
    let first = gateway.repository.event_log().read_stream(&stream, Seq(0), 1).await?;
    // A fork's first event names its parent, whose history the file would need.
    if let Some(Event::Run(RunEvent::RunForked(fork))) =
        first.first().and_then(|record| record.body.events.first())
    {
        let detail = format!("a fork begins in run {}: export that one", fork.parent);
        return Err(ApiError::new(error_code::REQUEST_CONFLICT, detail));
    }
    let payloads = query.payloads.unwrap_or(true);
    let file = run_file::export_run(gateway.repository.clone(), stream, payloads).await?;
    let file = file.ok_or_else(|| ApiError::not_found("run"))?;
    let kind = [(header::CONTENT_TYPE, "application/x-ndjson")];
    Ok((kind, Body::from_stream(file)).into_response())
}
