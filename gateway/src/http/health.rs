//! Whether the server is alive and ready.

use axum::Json;
use axum::extract::State;
use convergio_eventstore::Position;
use convergio_schemas::wire::{Health, Problem};

use crate::app::{App, Gateway};
use crate::problem::ApiError;

async fn health(gateway: &Gateway) -> Result<Health, ApiError> {
    let log = gateway.repository.log();
    let tail = log.read_all(Position(u64::MAX >> 1), 1).await?.tail;
    Ok(Health {
        status: "ok".into(),
        version: env!("CARGO_PKG_VERSION").into(),
        durability: log.durability().as_str().into(),
        projection_lag: tail.0.saturating_sub(gateway.queries.applied().0),
    })
}

/// The server runs.
#[utoipa::path(get, path = "/healthz", tag = "health", responses(
    (status = 200, description = "The server runs", body = Health),
    (status = 503, description = "The log cannot be read", body = Problem),
))]
pub(crate) async fn healthz(State(gateway): App) -> Result<Json<Health>, ApiError> {
    health(&gateway).await.map(Json)
}

/// The server can take requests.
#[utoipa::path(get, path = "/readyz", tag = "health", responses(
    (status = 200, description = "The server can take requests", body = Health),
    (status = 503, description = "The log cannot be read", body = Problem),
))]
pub(crate) async fn readyz(State(gateway): App) -> Result<Json<Health>, ApiError> {
    health(&gateway).await.map(Json)
}
