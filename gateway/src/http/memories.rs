//! Memories: list, recall, store, forget.

use axum::extract::rejection::JsonRejection;
use axum::extract::{Path, State};
use axum::http::StatusCode;
use axum::{Extension, Json};
use convergio_application::{MemoryWrite, choose_memory_id};
use convergio_domain::memory::{IMPORTANCE_DEFAULT, MemoryId, RecalledMemory, Subject};
use convergio_schemas::wire::{
    MemoryForgotten, MemoryStored, MemoryView, NewMemory, Page, Problem,
};
use serde::Deserialize;
use utoipa::IntoParams;
use utoipa_axum::router::OpenApiRouter;
use utoipa_axum::routes;

use super::query_params::{PAGE_ITEMS, PageLimit, QueryParams};
use crate::convert;
use crate::problem::ApiError;
use crate::state::{ApiRoutes, App, CallerExtension};

/// Token budget of a recall that names none.
const DEFAULT_RECALL_TOKENS: u32 = 1000;

/// Query parameters of listing and recall.
#[derive(Debug, Deserialize, IntoParams)]
#[into_params(parameter_in = Query)]
pub(crate) struct MemoriesQuery {
    /// The subject of the memories.
    subject: String,
    /// A question: those that fit it best come, best first, in place of the newest.
    query: Option<String>,
    /// With a question: tokens that all of them take together, at most; 1000 when absent.
    tokens: Option<u32>,
    /// Without one: how many, 1 to 1000; 50 when absent.
    #[param(value_type = Option<u16>, minimum = 1, maximum = 1000)]
    limit: Option<PageLimit>,
}

/// Query parameter that names a memory's subject.
#[derive(Debug, Deserialize, IntoParams)]
#[into_params(parameter_in = Query)]
pub(crate) struct SubjectQuery {
    /// The subject of the memory.
    subject: String,
}

/// Routes that recall, store and forget memories.
pub(crate) fn memory_routes() -> ApiRoutes {
    OpenApiRouter::new().routes(routes!(list_memories, store_memory)).routes(routes!(forget_memory))
}

/// Lists what is remembered of a subject, the newest first, or what fits a question best.
#[utoipa::path(get, path = "/v1/memories", tag = "memories", params(MemoriesQuery), responses(
    (status = 200, description = "Memories", body = Page<MemoryView>),
    (status = 400, description = "The query is not valid", body = Problem),
    (status = 503, description = "The log is not available", body = Problem),
))]
async fn list_memories(
    State(gateway): App,
    Extension(caller): CallerExtension,
    QueryParams(query): QueryParams<MemoriesQuery>,
) -> Result<Json<Page<MemoryView>>, ApiError> {
    let subject = parse_subject(&query.subject)?;
    let memories = &gateway.memories;
    let items: Vec<MemoryView> = match &query.query {
        Some(question) => {
            let (now, budget) = (gateway.repository.clock().now(), query.tokens);
            let budget = budget.unwrap_or(DEFAULT_RECALL_TOKENS);
            let found =
                memories.recall_memories(&caller.tenant, &subject, question, now, budget).await?;
            found
                .into_iter()
                .map(|item| MemoryView { score: Some(item.score), ..to_memory_view(item) })
                .collect()
        }
        None => {
            let limit = query.limit.map_or(PAGE_ITEMS, usize::from);
            let found = memories.list_memories(&caller.tenant, &subject, limit).await?;
            found.into_iter().map(to_memory_view).collect()
        }
    };
    Ok(Json(Page { items, next_cursor: None }))
}

/// Remembers a text about a subject.
#[utoipa::path(post, path = "/v1/memories", tag = "memories", request_body = NewMemory, responses(
    (status = 201, description = "It is remembered", body = MemoryStored),
    (status = 400, description = "The memory is not valid", body = Problem),
    (status = 409, description = "The subject has too many memories", body = Problem),
    (status = 503, description = "The log is not available", body = Problem),
))]
async fn store_memory(
    State(gateway): App,
    Extension(caller): CallerExtension,
    body: Result<Json<NewMemory>, JsonRejection>,
) -> Result<(StatusCode, Json<MemoryStored>), ApiError> {
    let Json(request) = body?;
    let subject = parse_subject(&request.subject)?;
    let hashed_body = serde_json::to_vec(&request).unwrap_or_default();
    let use_cases = gateway.use_cases();
    use_cases.check_scoped_key(&caller, "POST /v1/memories", &hashed_body).await?;
    // Derived from the key, so that a repetition stores no second memory.
    let memory = choose_memory_id(&caller);
    let write = MemoryWrite {
        subject: &subject,
        memory,
        text: &request.text,
        importance: request.importance.unwrap_or(IMPORTANCE_DEFAULT),
    };
    use_cases.store_memory(&caller, write).await?;
    Ok((StatusCode::CREATED, Json(MemoryStored { id: memory.to_string() })))
}

/// Forgets a memory and erases its text.
#[utoipa::path(delete, path = "/v1/memories/{id}", tag = "memories", params(
    ("id" = String, Path, description = "The memory"), SubjectQuery,
), responses(
    (status = 200, description = "It is forgotten", body = MemoryForgotten),
    (status = 400, description = "The query is not valid", body = Problem),
    (status = 404, description = "There is no such memory", body = Problem),
    (status = 503, description = "The log is not available", body = Problem),
))]
async fn forget_memory(
    State(gateway): App,
    Extension(caller): CallerExtension,
    Path(id): Path<String>,
    QueryParams(query): QueryParams<SubjectQuery>,
) -> Result<Json<MemoryForgotten>, ApiError> {
    let subject = parse_subject(&query.subject)?;
    let memory: MemoryId = id.parse().map_err(|_| ApiError::not_found("memory"))?;
    let forgotten = gateway.use_cases().forget_memory(&caller, &subject, memory).await?;
    let forgotten = forgotten.ok_or_else(|| ApiError::not_found("memory"))?;
    Ok(Json(MemoryForgotten { id: memory.to_string(), forgotten }))
}

fn parse_subject(text: &str) -> Result<Subject, ApiError> {
    text.parse().map_err(|error| ApiError::invalid_request(format!("`subject`: {error}")))
}

fn to_memory_view(item: RecalledMemory) -> MemoryView {
    MemoryView {
        id: item.id.to_string(),
        text: item.text,
        tokens: item.tokens,
        importance: item.importance,
        stored_at: convert::format_rfc3339(item.stored.0),
        score: None,
    }
}
