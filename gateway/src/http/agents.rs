//! Agents: define, list, show, run, terminate, stream. An agent is a graph of one node under a
//! name.

use axum::extract::ws::WebSocketUpgrade;
use axum::extract::ws::rejection::WebSocketUpgradeRejection;
use axum::extract::{Path, State};
use axum::http::{HeaderMap, StatusCode};
use axum::response::{IntoResponse, Response};
use axum::{Extension, Json};
use convergio_application::{Caller, request_hash};
use convergio_domain::agent::{AGENT_NAME_LIMIT, agent_id};
use convergio_domain::id::{AgentId, TokenId};
use convergio_domain::stream::{Seq, StreamKey};
use convergio_projections::AgentRow;
use convergio_schemas::wire::{AgentMessage, AgentRequest, AgentView, Page, Problem, RunAccepted};
use futures_util::StreamExt;
use serde::Deserialize;
use utoipa::IntoParams;
use utoipa_axum::router::OpenApiRouter;
use utoipa_axum::routes;

use super::events::StreamStatus;
use super::json_body::JsonBody;
use super::list_filters::AgentStatus;
use super::query_params::{PAGE_ITEMS, PageLimit, QueryParams};
use super::{events, run_lookup};
use crate::problem::ApiError;
use crate::state::{ApiRoutes, App, CallerExtension, Gateway};
use crate::{convert, idempotent_answers};

/// Routes that define, list, show, run and end agents.
pub(crate) fn agent_routes() -> ApiRoutes {
    OpenApiRouter::new()
        .routes(routes!(define_agent, list_agents))
        .routes(routes!(show_agent, terminate_agent))
        .routes(routes!(run_agent))
        .routes(routes!(stream_agent_events))
}

/// Defines an agent. The same name again changes it, or brings a terminated one back.
#[utoipa::path(post, path = "/v1/agents", tag = "agents", params(
), request_body = AgentRequest, responses(
    (status = 201, description = "The agent is this from now on", body = AgentView),
    (status = 400, description = "Every mistake of the definition", body = Problem),
    (status = 503, description = "The log is not available", body = Problem),
))]
async fn define_agent(
    State(gateway): App,
    Extension(caller): CallerExtension,
    body: Result<JsonBody<AgentRequest>, ApiError>,
) -> Result<(StatusCode, Json<AgentView>), ApiError> {
    let JsonBody(request) = body?;
    let hashed_body = serde_json::to_vec(&request).unwrap_or_default();
    gateway.use_cases().check_scoped_key(&caller, "POST /v1/agents", &hashed_body).await?;
    let id = gateway.graph_use_cases().define_agent(&caller, request).await?;
    // The view waits for the read models, so it shows this definition.
    Ok((StatusCode::CREATED, Json(load_agent_view(&gateway, &caller, id).await?)))
}

/// Query parameters of the listing.
#[derive(Debug, Deserialize, IntoParams)]
#[into_params(parameter_in = Query)]
pub(crate) struct AgentsQuery {
    /// `active` (the default), `terminated` or `all`.
    #[param(inline)]
    status: Option<AgentStatus>,
    /// The `next_cursor` of the page before.
    cursor: Option<String>,
    /// Items of a page, 1 to 1000; 50 when absent.
    #[param(value_type = Option<u16>, minimum = 1, maximum = 1000)]
    limit: Option<PageLimit>,
}

/// Lists agents, those defined last first.
#[utoipa::path(get, path = "/v1/agents", tag = "agents", params(AgentsQuery), responses(
    (status = 200, description = "A page of agents, without definitions", body = Page<AgentView>),
    (status = 400, description = "The query is not valid", body = Problem),
))]
async fn list_agents(
    State(gateway): App,
    Extension(caller): CallerExtension,
    QueryParams(query): QueryParams<AgentsQuery>,
) -> Result<Json<Page<AgentView>>, ApiError> {
    let status = query.status.unwrap_or_default().as_filter();
    let limit = query.limit.map_or(PAGE_ITEMS, usize::from);
    let (tenant, cursor) = (caller.tenant.as_str(), query.cursor.as_deref());
    let listed = gateway.queries.list_agents(tenant, status, cursor, limit).await?;
    let items = listed.items.into_iter().map(to_agent_view).collect();
    Ok(Json(Page { items, next_cursor: listed.next_cursor }))
}

/// Shows an agent with its definition.
#[utoipa::path(get, path = "/v1/agents/{id}", tag = "agents", params(
    ("id" = String, Path, description = "The agent, by its id or its name"),
), responses(
    (status = 200, description = "The agent", body = AgentView),
    (status = 404, description = "There is no such agent", body = Problem),
))]
async fn show_agent(
    State(gateway): App,
    Extension(caller): CallerExtension,
    Path(id): Path<String>,
) -> Result<Json<AgentView>, ApiError> {
    load_agent_view(&gateway, &caller, parse_agent_id(&caller, &id)?).await.map(Json)
}

/// Returns the id that a path names; names are shorter than ids, so the length tells them apart.
fn parse_agent_id(caller: &Caller, id: &str) -> Result<AgentId, ApiError> {
    if id.len() <= AGENT_NAME_LIMIT {
        return Ok(agent_id(&caller.tenant, id));
    }
    id.parse().map_err(|_| ApiError::not_found("agent"))
}

async fn load_agent_view(
    gateway: &Gateway,
    caller: &Caller,
    id: AgentId,
) -> Result<AgentView, ApiError> {
    let stream = StreamKey::for_agent(caller.tenant.clone(), id);
    // Waits for the read models, so that an agent is shown as the command before left it.
    if !gateway.catch_up(&stream).await? {
        return Err(ApiError::not_found("agent"));
    }
    let row = gateway.queries.find_agent(caller.tenant.as_str(), &id.to_string()).await?;
    let row = row.ok_or_else(|| ApiError::not_found("agent"))?;
    let definition = Some(gateway.open_payload(&stream, &row.definition).await?);
    Ok(AgentView { definition, ..to_agent_view(row) })
}

fn to_agent_view(row: AgentRow) -> AgentView {
    AgentView {
        id: row.agent,
        name: row.name,
        status: row.status,
        graph_id: row.graph,
        version: row.version,
        definition: None,
        runs: u64::try_from(row.runs).unwrap_or(0),
        last_run: row.last_run,
        created_at: convert::format_rfc3339(row.created_ms),
        updated_at: convert::format_rfc3339(row.updated_ms),
    }
}

/// Runs an agent; with `Accept: text/event-stream` its events come as they happen. With an
/// `Idempotency-Key`, the same message gives the same run for ever.
#[utoipa::path(post, path = "/v1/agents/{id}/run", tag = "agents", params(
    ("id" = String, Path, description = "The agent, by its id or its name"),
), request_body = AgentMessage, responses(
    (status = 202, description = "The run will be executed", body = RunAccepted),
    (status = 200, description = "The events of the run, as a stream"),
    (status = 400, description = "The message is not valid", body = Problem),
    (status = 404, description = "There is no such agent", body = Problem),
    (status = 409, description = "The agent was terminated", body = Problem),
    (status = 503, description = "The log is not available", body = Problem),
))]
async fn run_agent(
    State(gateway): App,
    Extension(caller): CallerExtension,
    Path(id): Path<String>,
    headers: HeaderMap,
    body: Result<JsonBody<AgentMessage>, ApiError>,
) -> Result<Response, ApiError> {
    let id = parse_agent_id(&caller, &id)?;
    let JsonBody(request) = body?;
    let scope = format!("POST /v1/agents/{id}/run");
    let hashed_body = serde_json::to_vec(&request).unwrap_or_default();
    let request_hash = request_hash(&scope, &hashed_body);
    let use_cases = gateway.graph_use_cases();
    let accepted = use_cases.run_agent(&caller, id, request, request_hash).await?;
    // The run's id derives from the key, so that a repetition streams the same run.
    if idempotent_answers::wants_event_stream(&headers) {
        let stream = run_lookup::run_stream(&caller, &accepted.run_id)?;
        return events::sse_response(gateway, stream, Seq(0)).await;
    }
    Ok((StatusCode::ACCEPTED, Json(accepted)).into_response())
}

/// Terminates an agent: it runs no more. Runs that are under way go on. Twice changes nothing.
#[utoipa::path(delete, path = "/v1/agents/{id}", tag = "agents", params(
    ("id" = String, Path, description = "The agent, by its id or its name"),
), responses(
    (status = 200, description = "The agent runs no more", body = AgentView),
    (status = 404, description = "There is no such agent", body = Problem),
    (status = 503, description = "The log is not available", body = Problem),
))]
async fn terminate_agent(
    State(gateway): App,
    Extension(caller): CallerExtension,
    Path(id): Path<String>,
) -> Result<Json<AgentView>, ApiError> {
    let id = parse_agent_id(&caller, &id)?;
    gateway.use_cases().terminate_agent(&caller, id).await?;
    load_agent_view(&gateway, &caller, id).await.map(Json)
}

/// Streams what happens to an agent over a WebSocket, one JSON frame each: its definitions, its
/// runs from now on, its end.
#[utoipa::path(get, path = "/v1/agents/{id}/stream", tag = "agents", params(
    ("id" = String, Path, description = "The agent, by its id or its name"), events::StreamQuery,
), responses(
    (status = 101, description = "The WebSocket is open"),
    (status = 400, description = "Not a WebSocket request", body = Problem),
    (status = 404, description = "There is no such agent", body = Problem),
))]
async fn stream_agent_events(
    State(gateway): App,
    Extension(caller): CallerExtension,
    Extension(token): Extension<TokenId>,
    Path(id): Path<String>,
    QueryParams(query): QueryParams<events::StreamQuery>,
    upgrade: Result<WebSocketUpgrade, WebSocketUpgradeRejection>,
) -> Result<Response, ApiError> {
    let stream = StreamKey::for_agent(caller.tenant.clone(), parse_agent_id(&caller, &id)?);
    if gateway.repository.event_log().stream_head(&stream).await?.is_none() {
        return Err(ApiError::not_found("agent"));
    }
    let upgrade = upgrade.map_err(|error| ApiError::invalid_request(error.body_text()))?;
    // A WebSocket outlives the request's authentication, so it ends with the token.
    let revocation = gateway.tokens.wait_for_revocation(token);
    let frames =
        events::follow_stream(gateway, stream, Seq(query.after_seq()), StreamStatus::default());
    let frames = frames.take_until(Box::pin(revocation));
    Ok(upgrade.on_upgrade(move |socket| events::send_frames(socket, frames)))
}
