//! Graphs: register, list, show.

use axum::extract::{Path, State};
use axum::http::{HeaderMap, StatusCode};
use axum::{Extension, Json};
use bytes::Bytes;
use convergio_domain::graph::manifest::Graph;
use convergio_domain::graph::{self, GraphNoun, RegisterGraph};
use convergio_domain::id::{GraphId, GraphVersion};
use convergio_domain::idempotency::{IdempotentNoun, RequestedCommand};
use convergio_domain::payload::{PayloadPurpose, PayloadSlot};
use convergio_domain::stream::StreamKey;
use convergio_eventstore::Payload;
use convergio_schemas::error_code;
use convergio_schemas::wire::{GraphAccepted, GraphSummary, GraphView, MistakeView, Page, Problem};
use utoipa_axum::router::OpenApiRouter;
use utoipa_axum::routes;
use uuid::Uuid;

use super::query_params::{Paging, QueryParams};
use crate::identity::Identity;
use crate::problem::ApiError;
use crate::state::{ApiRoutes, App, Caller, Gateway};
use crate::{convert, idempotency};

/// Maximum bytes of a manifest.
const MANIFEST_LIMIT: usize = 1 << 20;

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
    Extension(caller): Caller,
    headers: HeaderMap,
    body: Bytes,
) -> Result<(StatusCode, Json<GraphAccepted>), ApiError> {
    if body.len() > MANIFEST_LIMIT {
        let detail = format!("a manifest has at most {MANIFEST_LIMIT} bytes");
        return Err(ApiError::new(error_code::REQUEST_TOO_LARGE, detail));
    }
    let text = std::str::from_utf8(&body)
        .map_err(|_| ApiError::invalid_request("the manifest must be UTF-8 text, YAML or JSON"))?;
    let parsed = gateway.parse_manifest(&caller, text).await?;
    idempotency::check_scoped_key(&gateway, &caller, &headers, "POST /v1/graphs", &body).await?;
    let request_id = idempotency::request_id(&caller, &headers)?;
    let graph = parsed.graph;
    let (id, version) = store_version(&gateway, &caller, &graph, request_id).await?;
    let warnings = parsed.warnings.into_iter().map(|warning| MistakeView {
        line: warning.line,
        column: warning.column,
        path: warning.path,
        message: warning.message,
    });
    let accepted = GraphAccepted {
        id: id.to_string(),
        name: graph.name,
        version: version.to_string(),
        warnings: warnings.collect(),
    };
    Ok((StatusCode::CREATED, Json(accepted)))
}

/// Registers a version under the id of its graph's name; a repeated request changes nothing.
pub(super) async fn store_version(
    gateway: &Gateway,
    caller: &Identity,
    graph: &Graph,
    request: Option<Uuid>,
) -> Result<(GraphId, GraphVersion), ApiError> {
    let id = graph::graph_id(&caller.tenant, &graph.name);
    append_version(gateway, caller, id, request, (graph, false)).await?;
    Ok((id, graph.compute_version()))
}

/// Registers a version under an id without making it the graph's latest: a fork's changed graph
/// must not become the default of new runs.
pub(super) async fn store_derived_version(
    gateway: &Gateway,
    caller: &Identity,
    id: GraphId,
    graph: &Graph,
) -> Result<(), ApiError> {
    append_version(gateway, caller, id, None, (graph, true)).await
}

async fn append_version(
    gateway: &Gateway,
    caller: &Identity,
    id: GraphId,
    request: Option<Uuid>,
    (graph, is_derived): (&Graph, bool),
) -> Result<(), ApiError> {
    let register = RegisterGraph {
        name: graph.name.clone(),
        version: graph.compute_version(),
        nodes: u32::try_from(graph.nodes.len()).unwrap_or(u32::MAX),
        manifest: PayloadSlot(0),
        is_derived,
    };
    let manifest = Payload {
        bytes: Bytes::from(graph.canonical_manifest()),
        media_type: "application/json".into(),
        purpose: PayloadPurpose::Manifest,
        subject: None,
    };
    let command = RequestedCommand { request, command: register };
    let command = |_: &_, _| (command.clone(), vec![manifest.clone()]);
    let stream = StreamKey::for_graph(caller.tenant.clone(), id);
    let context = gateway.decision_context(caller);
    gateway.repository.execute::<IdempotentNoun<GraphNoun>>(&stream, &context, command).await?;
    Ok(())
}

/// Lists registered versions, the newest first.
#[utoipa::path(get, path = "/v1/graphs", tag = "graphs", params(Paging), responses(
    (status = 200, description = "A page of versions", body = Page<GraphSummary>),
    (status = 400, description = "The cursor is not ours", body = Problem),
))]
async fn list_graphs(
    State(gateway): App,
    Extension(caller): Caller,
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
    Extension(caller): Caller,
    Path(id): Path<String>,
) -> Result<Json<GraphView>, ApiError> {
    let id: convergio_domain::id::GraphId = id.parse().map_err(|_| ApiError::not_found("graph"))?;
    // The listing below must include a version registered just before.
    gateway.catch_up(&StreamKey::for_graph(caller.tenant.clone(), id)).await?;
    let versions =
        gateway.queries.list_graph_versions(caller.tenant.as_str(), &id.to_string()).await?;
    let name = versions.first().ok_or_else(|| ApiError::not_found("graph"))?.name.clone();
    let versions = versions.into_iter().map(convert::to_graph_summary).collect();
    Ok(Json(GraphView { id: id.to_string(), name, versions }))
}
