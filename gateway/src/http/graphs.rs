//! Graphs: register, list, show.

use axum::extract::{Path, State};
use axum::http::StatusCode;
use axum::{Extension, Json};
use bytes::Bytes;
use convergio_domain::id::GraphId;
use convergio_domain::stream::StreamKey;
use convergio_schemas::wire::{GraphAccepted, GraphSummary, GraphView, MistakeView, Page, Problem};
use utoipa_axum::router::OpenApiRouter;
use utoipa_axum::routes;

use super::query_params::{Paging, QueryParams};
use crate::convert;
use crate::problem::ApiError;
use crate::state::{ApiRoutes, App, CallerExtension};

/// Routes that register, list and show graphs.
pub(crate) fn graph_routes() -> ApiRoutes {
    OpenApiRouter::new().routes(routes!(register_graph, list_graphs)).routes(routes!(show_graph))
}

/// Registers a version of a graph. The same manifest again is the same version.
#[utoipa::path(post, path = "/v1/graphs", tag = "graphs",
    request_body(content = String, description = "The manifest, YAML or JSON",
        content_type = "application/yaml"),
    responses(
        (status = 201, description = "The version is registered", body = GraphAccepted),
        (status = 400, description = "Every mistake of the manifest", body = Problem),
        (status = 413, description = "The manifest is too large", body = Problem),
            (status = 503, description = "The log is not available", body = Problem),
    ))]
async fn register_graph(
    State(gateway): App,
    Extension(caller): CallerExtension,
    body: Bytes,
) -> Result<(StatusCode, Json<GraphAccepted>), ApiError> {
    gateway.use_cases().check_scoped_key(&caller, "POST /v1/graphs", &body).await?;
    let use_cases = gateway.graph_use_cases();
    let (parsed, id, version) = use_cases.register_manifest(&caller, &body).await?;
    let warnings = parsed.warnings.into_iter().map(|warning| MistakeView {
        line: warning.line,
        column: warning.column,
        path: warning.path,
        message: warning.message,
    });
    let accepted = GraphAccepted {
        id: id.to_string(),
        name: parsed.graph.name,
        version: version.to_string(),
        warnings: warnings.collect(),
    };
    Ok((StatusCode::CREATED, Json(accepted)))
}

/// Lists registered versions, the newest first.
#[utoipa::path(get, path = "/v1/graphs", tag = "graphs", params(Paging), responses(
    (status = 200, description = "A page of versions", body = Page<GraphSummary>),
    (status = 400, description = "The cursor is not ours", body = Problem),
))]
async fn list_graphs(
    State(gateway): App,
    Extension(caller): CallerExtension,
    QueryParams(paging): QueryParams<Paging>,
) -> Result<Json<Page<GraphSummary>>, ApiError> {
    let (tenant, cursor) = (caller.tenant.as_str(), paging.cursor.as_deref());
    let listed = gateway.queries.list_graphs(tenant, cursor, paging.page_limit()).await?;
    let items = listed.items.into_iter().map(convert::to_graph_summary).collect();
    Ok(Json(Page { items, next_cursor: listed.next_cursor }))
}

/// Shows a graph with its versions.
#[utoipa::path(get, path = "/v1/graphs/{id}", tag = "graphs", params(
    ("id" = String, Path, description = "The graph"),
), responses(
    (status = 200, description = "The graph", body = GraphView),
    (status = 404, description = "There is no such graph", body = Problem),
))]
async fn show_graph(
    State(gateway): App,
    Extension(caller): CallerExtension,
    Path(id): Path<String>,
) -> Result<Json<GraphView>, ApiError> {
    let id: GraphId = id.parse().map_err(|_| ApiError::not_found("graph"))?;
    // The listing below must include a version registered just before.
    gateway.catch_up(&StreamKey::for_graph(caller.tenant.clone(), id)).await?;
    let versions =
        gateway.queries.list_graph_versions(caller.tenant.as_str(), &id.to_string()).await?;
    let name = versions.first().ok_or_else(|| ApiError::not_found("graph"))?.name.clone();
    let versions = versions.into_iter().map(convert::to_graph_summary).collect();
    Ok(Json(GraphView { id: id.to_string(), name, versions }))
}
