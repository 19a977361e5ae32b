//! Replay of runs. The work is done behind [`Replayer`], which the composition root provides: the
//! gateway executes nothing.

use async_trait::async_trait;
use axum::body::Bytes;
use axum::extract::{Path, State};
use axum::{Extension, Json};
use convergio_domain::graph;
use convergio_domain::json::read_json;
use convergio_domain::run::RunState;
use convergio_domain::stream::StreamKey;
use convergio_evaluation::EvaluationError;
use convergio_eventstore::LogError;
use convergio_projections::ProjectionError;
use convergio_schemas::wire::{FleetRun, Problem, ReplayReport, ReplayRequest};

use super::runs::run_stream;
use crate::app::{App, Caller};
use crate::problem::ApiError;

/// Recomputes runs from their recorded events, without effects.
#[async_trait]
pub trait Replayer: Send + Sync {
    /// Replays a run up to an event, against its own graph version or another graph.
    ///
    /// # Errors
    /// See [`ReplayError`].
    async fn replay_run(
        &self,
        run: &StreamKey,
        at: Option<u64>,
        graph: Option<graph::manifest::Graph>,
    ) -> Result<ReplayReport, ReplayError>;

    /// Checks that the kernel can continue from a state with this graph.
    ///
    /// # Errors
    /// The reason why it cannot.
    fn check_state_fits(
        &self,
        state: &RunState,
        graph: &graph::manifest::Graph,
    ) -> Result<(), String>;

    /// Replays an active run and reports whether it could continue by another version of its graph;
    /// without one, whether its own version still decides the same.
    ///
    /// # Errors
    /// See [`ReplayError`].
    async fn check_migration(
        &self,
        run: &StreamKey,
        graph: Option<&graph::manifest::Graph>,
    ) -> Result<FleetRun, ReplayError>;
}

/// Reasons why a run cannot be replayed.
#[derive(Debug, thiserror::Error)]
pub enum ReplayError {
    /// The log cannot be read.
    #[error(transparent)]
    Log(#[from] LogError),
    /// The read models cannot be read or recomputed.
    #[error(transparent)]
    ReadModels(#[from] ProjectionError),
    /// The run has no event of that number.
    #[error("the run has {events} events: there is no event {asked}")]
    BeyondTheEnd {
        /// Number of the run's events.
        events: u64,
        /// The event that was asked for.
        asked: u64,
    },
    /// The inputs cannot be validated now, or their validation exceeds its limits.
    #[error(transparent)]
    Evaluation(#[from] EvaluationError),
    /// The graph version is missing or unusable.
    #[error("{0}")]
    Graph(String),
}

impl From<ReplayError> for ApiError {
    fn from(error: ReplayError) -> Self {
        match error {
            ReplayError::Log(error) => error.into(),
            ReplayError::ReadModels(error) => error.into(),
            ReplayError::Evaluation(error) => error.into(),
            other => Self::invalid_request(other.to_string()),
        }
    }
}

/// Computes a run again without any effect, and names the first difference from what was written.
#[utoipa::path(post, path = "/v1/runs/{id}/replay", tag = "runs", params(
    ("id" = String, Path, description = "The run"),
), request_body = Option<ReplayRequest>, responses(
    (status = 200, description = "What was found", body = ReplayReport),
    (status = 400, description = "No such event, or the manifest has mistakes", body = Problem),
    (status = 401, description = "Not signed in", body = Problem),
    (status = 404, description = "There is no such run", body = Problem),
))]
pub(crate) async fn replay_run(
    State(gateway): App,
    Extension(caller): Caller,
    Path(id): Path<String>,
    body: Bytes,
) -> Result<Json<ReplayReport>, ApiError> {
    let stream = run_stream(&caller, &id)?;
    if gateway.repository.event_log().stream_head(&stream).await?.is_none() {
        return Err(ApiError::not_found("run"));
    }
    let request: ReplayRequest = match body.is_empty() {
        true => ReplayRequest::default(),
        false => read_json(&body).map_err(|error| ApiError::invalid_request(error.to_string()))?,
    };
    let graph = match request.manifest {
        Some(text) => Some(gateway.parse_manifest(&caller, &text).await?.graph),
        None => None,
    };
    Ok(Json(gateway.replayer.replay_run(&stream, request.at, graph).await?))
}
