//! What use cases need and this crate cannot do itself; the composition root provides it.

use async_trait::async_trait;
use convergio_domain::graph::manifest::Graph;
use convergio_domain::run::RunState;
use convergio_domain::stream::StreamKey;
use convergio_evaluation::EvaluationError;
use convergio_eventstore::LogError;
use convergio_schemas::wire::{FleetRun, ReplayReport};

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
    /// The read models cannot be read or recomputed, for the reason in the text.
    #[error("{0}")]
    ReadModels(String),
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
