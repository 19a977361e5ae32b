//! Liveness and readiness. Both read the log and the read models afresh and compare them; no
//! component is trusted to report its own state.

use std::time::Duration;

use axum::Json;
use axum::extract::State;
use convergio_eventstore::{ComponentFailure, Position};
use convergio_schemas::error_code;
use convergio_schemas::wire::{Health, Problem};
use tokio::time::{Instant, timeout};
use utoipa_axum::router::OpenApiRouter;
use utoipa_axum::routes;

use crate::problem::ApiError;
use crate::state::{ApiRoutes, App, Gateway};

/// Timeout for the read models to reach the log's tail as of the request, and for each component to
/// answer.
const READY_TIMEOUT: Duration = Duration::from_secs(1);
/// Interval at which the read models are polled.
const POLL_INTERVAL: Duration = Duration::from_millis(20);

/// Returns the log's last position.
async fn read_tail(gateway: &Gateway) -> Result<Position, ApiError> {
    // A read beyond the end returns no record, only the tail.
    Ok(gateway.repository.event_log().read_all(Position(u64::MAX >> 1), 1).await?.tail)
}

fn build_health(gateway: &Gateway, status: &str, tail: Position, read: Position) -> Health {
    Health {
        status: status.to_owned(),
        version: env!("CARGO_PKG_VERSION").into(),
        durability: gateway.repository.event_log().durability().as_str().into(),
        log_position: tail.0,
        read_position: read.0,
        projection_lag: tail.0.saturating_sub(read.0),
    }
}

/// Routes of the health checks, which need no token.
pub(crate) fn health_routes() -> ApiRoutes {
    OpenApiRouter::new().routes(routes!(check_liveness)).routes(routes!(check_readiness))
}

/// Tells whether the server runs.
#[utoipa::path(get, path = "/healthz", tag = "health", responses(
    (status = 200, description = "The server runs", body = Health),
    (status = 503, description = "The log cannot be read", body = Problem),
))]
async fn check_liveness(State(gateway): App) -> Result<Json<Health>, ApiError> {
    let tail = read_tail(&gateway).await?;
    // Broken read models are reported here, and fail readiness only.
    let (status, read) = match timeout(READY_TIMEOUT, gateway.queries.read_position()).await {
        Ok(Ok(read)) => ("ok", read),
        _ => ("the read models cannot be read", gateway.queries.applied_position()),
    };
    Ok(Json(build_health(&gateway, status, tail, read)))
}

/// The server can take requests, and what it answers is up to date.
#[utoipa::path(get, path = "/readyz", tag = "health", responses(
    (status = 200, description = "The server can take requests", body = Health),
    (status = 503, description = "A part does not work or is behind: `detail` says which, why and \
        by how much", body = Problem),
))]
async fn check_readiness(State(gateway): App) -> Result<Json<Health>, ApiError> {
    check_log(&gateway).await?;
    let tail = read_tail(&gateway).await?;
    let (from, read) = poll_read_models(&gateway, tail).await?;
    let failures = gateway.health.current_failures();
    // All reasons together: an operator should not find them one by one.
    if read < tail || !failures.is_empty() {
        return Err(not_ready(not_ready_reason(tail, (from, read), &failures)));
    }
    Ok(Json(build_health(&gateway, "ok", tail, read)))
}

/// Fails unless the log accepts commits.
async fn check_log(gateway: &Gateway) -> Result<(), ApiError> {
    match timeout(READY_TIMEOUT, gateway.repository.check_writable()).await {
        Ok(Ok(())) => Ok(()),
        Ok(Err(error)) => Err(not_ready(error.to_string())),
        Err(_) => Err(not_ready("the log's writer does not answer".to_owned())),
    }
}

/// Polls the read models until they reach a position or time is up; returns their first and last
/// position, which shows whether they advance.
async fn poll_read_models(
    gateway: &Gateway,
    tail: Position,
) -> Result<(Position, Position), ApiError> {
    let until = Instant::now() + READY_TIMEOUT;
    let from = read_position(gateway).await?;
    let mut read = from;
    // A failed component makes waiting useless.
    while read < tail && Instant::now() < until && gateway.health.current_failures().is_empty() {
        tokio::time::sleep(POLL_INTERVAL).await;
        read = read_position(gateway).await?;
    }
    Ok((from, read))
}

async fn read_position(gateway: &Gateway) -> Result<Position, ApiError> {
    match timeout(READY_TIMEOUT, gateway.queries.read_position()).await {
        Ok(Ok(position)) => Ok(position),
        Ok(Err(error)) => Err(not_ready(format!("the read models cannot be read: {error}"))),
        Err(_) => Err(not_ready("the read models' database does not answer".to_owned())),
    }
}

/// Describes why the server is not ready, with numbers for its operator.
fn not_ready_reason(
    tail: Position,
    (from, read): (Position, Position),
    failures: &[ComponentFailure],
) -> String {
    let failure = |failure: &ComponentFailure| {
        let ComponentFailure { component, reason, duration } = failure;
        format!("{component}: {reason}, for {} ms", duration.as_millis())
    };
    let mut reasons: Vec<String> = failures.iter().map(failure).collect();
    if read < tail {
        let progress = match from < read {
            true => format!("came from {} to {}", from.0, read.0),
            false => "did not move".to_owned(),
        };
        let lag = tail.0 - read.0;
        reasons.push(format!(
            "the read models hold {} of {} records, {lag} behind, and {progress} within {} ms",
            read.0,
            tail.0,
            READY_TIMEOUT.as_millis()
        ));
    }
    reasons.join("; ")
}

fn not_ready(reason: String) -> ApiError {
    ApiError::retryable_error(error_code::NOT_READY, reason)
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use convergio_eventstore::{ComponentFailure, Position};

    use super::not_ready_reason;

    #[test]
    fn the_reason_names_who_fails_and_how_far_behind_the_read_models_are() {
        let reason = not_ready_reason(Position(9), (Position(4), Position(4)), &[]);
        let expected =
            "the read models hold 4 of 9 records, 5 behind, and did not move within 1000 ms";
        assert_eq!(reason, expected);
        let failure = ComponentFailure {
            component: "read models",
            reason: "no room".into(),
            duration: Duration::from_millis(70),
        };
        let reason = not_ready_reason(Position(9), (Position(4), Position(6)), &[failure]);
        assert!(reason.starts_with("read models: no room, for 70 ms; "), "{reason}");
        assert!(reason.contains("3 behind, and came from 4 to 6"), "{reason}");
    }
}
