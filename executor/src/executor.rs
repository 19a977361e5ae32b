//! The handle of a started executor: start it, wait for its failure, shut it down.

use std::sync::Arc;

use convergio_domain::billing::PriceBook;
use convergio_domain::id::ActorId;
use convergio_eventstore::{LiveHub, LogError, Repository};
use tokio::sync::Semaphore;
use tokio::task::JoinHandle;
use tokio_util::sync::CancellationToken;

use crate::catalog::ModelCatalog;
use crate::config::ExecutorConfig;
use crate::dispatcher::Dispatcher;
use crate::graphs::GraphCache;
use crate::services::SharedServices;

/// Executes the runs of a log until it is shut down. Dropping the handle does not stop the work.
pub struct Executor {
    task: JoinHandle<Result<(), LogError>>,
    drain_token: CancellationToken,
}

impl Executor {
    /// Starts the dispatcher on the current Tokio runtime: it resumes unfinished runs first, then
    /// follows the log for new ones.
    ///
    /// # Panics
    /// Never: the actor name `executor` is valid.
    pub fn start(
        config: ExecutorConfig,
        repository: Repository,
        models: Arc<ModelCatalog>,
        live: LiveHub,
        prices: Arc<PriceBook>,
    ) -> Self {
        let actor: ActorId = "executor".parse().expect("`executor` is a valid name");
        let drain_token = CancellationToken::new();
        let shared = SharedServices {
            model_calls: Arc::new(Semaphore::new(config.model_calls)),
            large_value_gate: Arc::default(),
            config,
            actor,
            repository,
            graphs: GraphCache::default(),
            models,
            prices,
            live,
            drain_token: drain_token.clone(),
            // Cancelled by the dispatcher once the grace is over, not by this handle.
            abandon_token: CancellationToken::new(),
        };
        let task = tokio::spawn(Dispatcher::new(Arc::new(shared)).run());
        Self { task, drain_token }
    }

    /// Waits until the executor ends without a shutdown, which only a failure of the log causes,
    /// and returns the reason.
    pub async fn wait_for_failure(&mut self) -> LogError {
        match (&mut self.task).await {
            Ok(Ok(())) => LogError::Closed,
            Ok(Err(error)) => error,
            Err(error) => LogError::Unavailable(format!("the executor's task: {error}")),
        }
    }

    /// Stops starting steps, lets those in flight finish within `shutdown_grace`, and commits their
    /// outcomes.
    ///
    /// # Errors
    /// The log failed while the executor worked.
    pub async fn shut_down(self) -> Result<(), LogError> {
        self.drain_token.cancel();
        if self.task.is_finished() {
            // `wait_for_failure` has returned the reason already.
            return Ok(());
        }
        match self.task.await {
            Ok(result) => result,
            Err(error) => Err(LogError::Unavailable(format!("the executor's task: {error}"))),
        }
    }
}
