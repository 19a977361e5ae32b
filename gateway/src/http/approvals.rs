//! Approvals: list, show, answer. The questions that runs put to people.

use axum::extract::rejection::JsonRejection;
use axum::extract::{Path, State};
use axum::{Extension, Json};
use convergio_application::{Caller, NewApprovalAnswer};
use convergio_domain::id::ApprovalId;
use convergio_projections::ApprovalRow;
use convergio_schemas::wire::{ApprovalAnswer, ApprovalView, Decision, Page, Problem};
use serde::Deserialize;
use utoipa::IntoParams;
use utoipa_axum::router::OpenApiRouter;
use utoipa_axum::routes;

use super::list_filters::{self, QuestionState};
use super::query_params::{PAGE_ITEMS, PageLimit, QueryParams};
use super::run_lookup::{parse_run, run_stream};
use crate::convert;
use crate::problem::ApiError;
use crate::state::{ApiRoutes, App, CallerExtension, Gateway};

/// Query parameters of the listing.
#[derive(Debug, Deserialize, IntoParams)]
#[into_params(parameter_in = Query)]
pub(crate) struct ApprovalsQuery {
    /// Only of this run.
    run: Option<String>,
    /// `open` (the default), `granted`, `denied`, `void` or `all`.
    #[param(inline)]
    state: Option<QuestionState>,
    /// The `next_cursor` of the page before.
    cursor: Option<String>,
    /// Items of a page, 1 to 1000; 50 when absent.
    #[param(value_type = Option<u16>, minimum = 1, maximum = 1000)]
    limit: Option<PageLimit>,
}

/// Routes that list, show and answer approvals.
pub(crate) fn approval_routes() -> ApiRoutes {
    OpenApiRouter::new()
        .routes(routes!(list_approvals))
        .routes(routes!(show_approval, answer_approval))
}

/// Lists questions, the oldest first.
#[utoipa::path(get, path = "/v1/approvals", tag = "approvals", params(ApprovalsQuery), responses(
    (status = 200, description = "A page of questions", body = Page<ApprovalView>),
    (status = 400, description = "The query is not valid", body = Problem),
))]
async fn list_approvals(
    State(gateway): App,
    Extension(caller): CallerExtension,
    QueryParams(query): QueryParams<ApprovalsQuery>,
) -> Result<Json<Page<ApprovalView>>, ApiError> {
    let run = list_filters::resolve_run(&gateway, &caller, query.run.as_deref()).await?;
    let filter = [run.as_deref(), query.state.unwrap_or_default().as_filter()];
    let limit = query.limit.map_or(PAGE_ITEMS, usize::from);
    let (tenant, cursor) = (caller.tenant.as_str(), query.cursor.as_deref());
    let listed = gateway.queries.list_approvals(tenant, filter, cursor, limit).await?;
    let items = listed.items.into_iter().map(convert::to_approval_view).collect();
    Ok(Json(Page { items, next_cursor: listed.next_cursor }))
}

async fn find_approval(
    gateway: &Gateway,
    caller: &Caller,
    id: &str,
) -> Result<ApprovalRow, ApiError> {
    let row = gateway.queries.find_approval(caller.tenant.as_str(), id).await?;
    row.ok_or_else(|| ApiError::not_found("approval"))
}

async fn load_approval_view(
    gateway: &Gateway,
    caller: &Caller,
    id: &str,
) -> Result<ApprovalView, ApiError> {
    let row = find_approval(gateway, caller, id).await?;
    let stream = run_stream(caller, &row.run)?;
    let content = gateway.open_payload(&stream, &row.content).await?;
    let reason = match &row.reason_at {
        // Older logs have the reason's text in the event, and so in the row.
        Some(reference) => {
            gateway.open_payload(&stream, reference).await?.as_str().map(str::to_owned)
        }
        None => row.reason.clone(),
    };
    Ok(ApprovalView { content: Some(content), reason, ..convert::to_approval_view(row) })
}

/// Shows a question with what is to be approved.
#[utoipa::path(get, path = "/v1/approvals/{id}", tag = "approvals", params(
    ("id" = String, Path, description = "The question"),
), responses(
    (status = 200, description = "The question", body = ApprovalView),
    (status = 404, description = "There is no such question", body = Problem),
))]
async fn show_approval(
    State(gateway): App,
    Extension(caller): CallerExtension,
    Path(id): Path<String>,
) -> Result<Json<ApprovalView>, ApiError> {
    load_approval_view(&gateway, &caller, &id).await.map(Json)
}

/// Answers a question for one of the caller's roles. The answer is bound to the content that was
/// seen, by its hash.
#[utoipa::path(post, path = "/v1/approvals/{id}", tag = "approvals", params(
    ("id" = String, Path, description = "The question"),
), request_body = ApprovalAnswer, responses(
    (status = 200, description = "The question is answered", body = ApprovalView),
    (status = 400, description = "The answer is not valid", body = Problem),
    (status = 403, description = "The question is for another role", body = Problem),
    (status = 404, description = "There is no such question", body = Problem),
    (status = 409, description = "Answered otherwise, expired, or other content", body = Problem),
))]
async fn answer_approval(
    State(gateway): App,
    Extension(caller): CallerExtension,
    Path(id): Path<String>,
    body: Result<Json<ApprovalAnswer>, JsonRejection>,
) -> Result<Json<ApprovalView>, ApiError> {
    let Json(request) = body?;
    let row = find_approval(&gateway, &caller, &id).await?;
    let approval: ApprovalId = id.parse().map_err(|_| ApiError::not_found("approval"))?;
    let scope = format!("POST /v1/approvals/{id}");
    let hashed_body = serde_json::to_vec(&request).unwrap_or_default();
    gateway.use_cases().check_scoped_key(&caller, &scope, &hashed_body).await?;
    let answer = NewApprovalAnswer {
        approval,
        content_hash: request.content_hash,
        is_granted: request.decision == Decision::Grant,
        reason: request.reason,
    };
    let run = parse_run(&row.run)?;
    gateway.use_cases().answer_approval(&caller, run, answer).await?;
    // The view that follows must include the answer.
    gateway.catch_up(&caller.run_stream(run)).await?;
    load_approval_view(&gateway, &caller, &id).await.map(Json)
}
