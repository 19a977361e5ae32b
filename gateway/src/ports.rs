//! What the gateway needs and does not do itself; the composition root provides it.

use async_trait::async_trait;
use convergio_domain::graph::manifest::Graph;
use convergio_domain::id::TenantId;
use convergio_domain::run::RunState;
use convergio_domain::stream::StreamKey;
use convergio_evaluation::EvaluationError;
use convergio_eventstore::LogError;
use convergio_projections::ProjectionError;
use convergio_schemas::wire::{FleetRun, ReplayReport};

use crate::problem::ApiError;

/// A model that callers may name.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ModelEntry {
    /// Name of the model, as `PROVIDER/MODEL`.
    pub id: String,
    /// Name of the provider.
    pub owner: String,
}

/// The models that callers may name; implemented by the composition root.
#[async_trait]
pub trait ModelDirectory: Send + Sync {
    /// Lists the models that a tenant can call now.
    async fn list_models(&self, tenant: &TenantId) -> Vec<ModelEntry>;
}

/// A directory without models, for tests and tools.
#[async_trait]
impl ModelDirectory for () {
    async fn list_models(&self, _tenant: &TenantId) -> Vec<ModelEntry> {
        Vec::new()
    }
}

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
        graph: Option<Graph>,
    ) -> Result<ReplayReport, ReplayError>;

    /// Checks that the kernel can continue from a state with this graph.
    ///
    /// # Errors
    /// The reason why it cannot.
    fn check_state_fits(&self, state: &RunState, graph: &Graph) -> Result<(), String>;

    /// Replays an active run and reports whether it could continue by another version of its graph;
    /// without one, whether its own version still decides the same.
    ///
    /// # Errors
    /// See [`ReplayError`].
    async fn check_migration(
        &self,
        run: &StreamKey,
        graph: Option<&Graph>,
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
