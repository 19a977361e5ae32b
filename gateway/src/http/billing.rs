//! Usage lines, the ledger with its balances, and the audit trail.

use axum::extract::State;
use axum::{Extension, Json};
use convergio_application::Caller;
use convergio_domain::stream::StreamKey;
use convergio_schemas::wire::{AuditEntry, LedgerView, Page, Problem, UsageLine};
use serde::Deserialize;
use utoipa::IntoParams;
use utoipa_axum::router::OpenApiRouter;
use utoipa_axum::routes;

use super::list_filters;
use super::query_params::{PAGE_ITEMS, PageLimit, QueryParams};
use crate::convert;
use crate::problem::ApiError;
use crate::state::{ApiRoutes, App, CallerExtension};

/// Query parameters of usage and ledger.
#[derive(Debug, Deserialize, IntoParams)]
#[into_params(parameter_in = Query)]
pub(crate) struct LinesQuery {
    /// Only of this run.
    run: Option<String>,
    /// The `next_cursor` of the page before.
    cursor: Option<String>,
    /// Items of a page, 1 to 1000; 50 when absent.
    #[param(value_type = Option<u16>, minimum = 1, maximum = 1000)]
    limit: Option<PageLimit>,
}

impl LinesQuery {
    fn page_limit(&self) -> usize {
        self.limit.map_or(PAGE_ITEMS, usize::from)
    }
}

/// Routes of usage, ledger and audit trail.
pub(crate) fn billing_routes() -> ApiRoutes {
    OpenApiRouter::new()
        .routes(routes!(list_usage))
        .routes(routes!(show_ledger))
        .routes(routes!(list_audit_trail))
}

/// Lists usage, the oldest first.
#[utoipa::path(get, path = "/v1/usage", tag = "billing", params(LinesQuery), responses(
    (status = 200, description = "A page of usage lines", body = Page<UsageLine>),
    (status = 400, description = "The query is not valid", body = Problem),
))]
async fn list_usage(
    State(gateway): App,
    Extension(caller): CallerExtension,
    QueryParams(query): QueryParams<LinesQuery>,
) -> Result<Json<Page<UsageLine>>, ApiError> {
    let run = list_filters::resolve_run(&gateway, &caller, query.run.as_deref()).await?;
    let (tenant, run) = (caller.tenant.as_str(), run.as_deref());
    let lines = gateway
        .queries
        .list_usage_lines(tenant, run, query.cursor.as_deref(), query.page_limit())
        .await?;
    let items = lines.items.into_iter().map(convert::to_usage_line).collect();
    Ok(Json(Page { items, next_cursor: lines.next_cursor }))
}

/// Lists ledger entries, the oldest first, with the balances of all accounts.
#[utoipa::path(get, path = "/v1/ledger", tag = "billing", params(LinesQuery), responses(
    (status = 200, description = "A page of the ledger", body = LedgerView),
    (status = 400, description = "The query is not valid", body = Problem),
))]
async fn show_ledger(
    State(gateway): App,
    Extension(caller): CallerExtension,
    QueryParams(query): QueryParams<LinesQuery>,
) -> Result<Json<LedgerView>, ApiError> {
    let run = list_filters::resolve_run(&gateway, &caller, query.run.as_deref()).await?;
    let (tenant, run) = (caller.tenant.as_str(), run.as_deref());
    let page = gateway
        .queries
        .list_ledger_entries(tenant, run, query.cursor.as_deref(), query.page_limit())
        .await?;
    let balances = gateway.queries.list_balances(tenant).await?;
    let unpriced = gateway.queries.count_unpriced_usage(tenant).await?;
    Ok(Json(LedgerView {
        entries: page.items.into_iter().map(convert::to_ledger_entry).collect(),
        next_cursor: page.next_cursor,
        balances: balances.into_iter().map(convert::to_balance).collect(),
        unpriced_lines: u64::try_from(unpriced).unwrap_or(0),
    }))
}

/// Query parameters of the audit trail.
#[derive(Debug, Deserialize, IntoParams)]
#[into_params(parameter_in = Query)]
pub(crate) struct AuditQuery {
    /// Only of this stream, as `run/<uuid>`.
    stream: Option<String>,
    /// Only by this actor.
    actor: Option<String>,
    /// Only of this type, as `run.model_call.intended.v1`.
    #[serde(rename = "type")]
    kind: Option<String>,
    /// The `next_cursor` of the page before.
    cursor: Option<String>,
    /// Items of a page, 1 to 1000; 50 when absent.
    #[param(value_type = Option<u16>, minimum = 1, maximum = 1000)]
    limit: Option<PageLimit>,
}

impl AuditQuery {
    // Unknown filter values are errors: an empty page would look like an empty audit trail.
    fn check_filters(&self, caller: &Caller) -> Result<(), ApiError> {
        if let Some(stream) = &self.stream {
            let stream = StreamKey::parse_name(caller.tenant.clone(), stream);
            stream.map_err(|error| ApiError::invalid_request(format!("stream: {error}")))?;
        }
        if let Some(actor) = &self.actor {
            list_filters::check_actor(actor)?;
        }
        self.kind.as_deref().map_or(Ok(()), list_filters::check_event_type)
    }
}

/// Lists the audit trail, the oldest first.
#[utoipa::path(get, path = "/v1/audit", tag = "audit", params(AuditQuery), responses(
    (status = 200, description = "A page of the audit trail", body = Page<AuditEntry>),
    (status = 400, description = "The query is not valid", body = Problem),
))]
async fn list_audit_trail(
    State(gateway): App,
    Extension(caller): CallerExtension,
    QueryParams(query): QueryParams<AuditQuery>,
) -> Result<Json<Page<AuditEntry>>, ApiError> {
    query.check_filters(&caller)?;
    let filter = [query.stream.as_deref(), query.actor.as_deref(), query.kind.as_deref()];
    let limit = query.limit.map_or(PAGE_ITEMS, usize::from);
    let (tenant, cursor) = (caller.tenant.as_str(), query.cursor.as_deref());
    let listed = gateway.queries.list_audit_events(tenant, filter, cursor, limit).await?;
    let items = listed.items.into_iter().map(convert::to_audit_entry).collect();
    Ok(Json(Page { items, next_cursor: listed.next_cursor }))
}
