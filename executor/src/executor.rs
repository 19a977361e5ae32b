//! The executor as others see it: start it, shut it down.

use std::sync::Arc;

use convergio_domain::id::ActorId;
use convergio_domain::metering::PriceBook;
use convergio_eventstore::{LiveHub, LogError, Repository};
use tokio::sync::Semaphore;
use tokio::task::JoinHandle;
use tokio_util::sync::CancellationToken;

use crate::actor::Shared;
use crate::config::ExecutorConfig;
use crate::dispatcher::Dispatcher;
use crate::graphs::GraphCache;
use crate::model::ModelCatalog;

/// Executes the runs of a log until it is shut down. Dropping it leaves the work to go on.
pub struct Executor {
    task: JoinHandle<Result<(), LogError>>,
    stopping: CancellationToken,
}

impl Executor {
    /// Starts executing: first what was left under way, then what arrives.
    ///
    /// # Panics
    /// Never: the actor's name is a valid one.
    pub fn start(
        config: ExecutorConfig,
        repository: Repository,
        models: Arc<ModelCatalog>,
        live: LiveHub,
        prices: Arc<PriceBook>,
    ) -> Self {
        let actor: ActorId = "executor".parse().expect("`executor` is a valid name");
        let stopping = CancellationToken::new();
        let shared = Shared {
            model_calls: Arc::new(Semaphore::new(config.model_calls)),
            value_room: Arc::default(),
            config,
            actor,
            repository,
            graphs: GraphCache::default(),
            models,
            prices,
            live,
            stopping: stopping.clone(),
            stopped: CancellationToken::new(),
        };
        let task = tokio::spawn(Dispatcher::new(Arc::new(shared)).run());
        Self { task, stopping }
    }

    /// Waits until the executor ends by itself, which it should not, and tells why.
    pub async fn failed(&mut self) -> LogError {
        match (&mut self.task).await {
            Ok(Ok(())) => LogError::Closed,
            Ok(Err(error)) => error,
            Err(error) => LogError::Unavailable(format!("the executor's task: {error}")),
        }
    }

    /// Starts no further step, lets those under way finish within the grace, and records them.
    ///
    /// # Errors
    /// The log failed while the executor worked.
    pub async fn shutdown(self) -> Result<(), LogError> {
        self.stopping.cancel();
        if self.task.is_finished() {
            // Why was told by `failed`.
            return Ok(());
        }
        match self.task.await {
            Ok(result) => result,
            Err(error) => Err(LogError::Unavailable(format!("the executor's task: {error}"))),
        }
    }
}
