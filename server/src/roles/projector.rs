//! The projector's role: keeps the read models up to date with the log.

use std::sync::Arc;

use convergio_process::exit;
use convergio_projections::{ProjectionError, Projections, Queries, ReadModelStore};
use tokio::sync::oneshot;
use tokio::task::JoinHandle;

use super::SharedParts;
use crate::config::{ServerConfig, ServerRole};
use crate::log_location::LogLocation;

/// The projector's task and its stop signal.
pub(crate) struct ProjectorTask {
    task: JoinHandle<Result<(), ProjectionError>>,
    stop: oneshot::Sender<()>,
}

/// Opens the read models if the role uses them, and starts the projector if it keeps them. Returns
/// what queries them.
pub(crate) async fn start_projector(
    config: &ServerConfig,
    parts: &SharedParts,
) -> anyhow::Result<(Option<Queries>, Option<ProjectorTask>)> {
    if config.role == ServerRole::Executor {
        return Ok((None, None));
    }
    let store = &config.projector.read_models;
    let models = open_read_models(store).await?;
    let queries = models.query_handle();
    // A log in a folder has one process, which therefore projects whatever its role.
    let is_embedded = matches!(config.log_location, LogLocation::Folder);
    let runs_projector = is_embedded || config.role.runs_projector(store);
    let task = runs_projector.then(|| ProjectorTask::spawn_projector(models, parts));
    Ok((Some(queries), task))
}

/// Opens read models.
///
/// # Errors
/// They cannot be used; the error names their location, without a password.
pub async fn open_read_models(store: &ReadModelStore) -> anyhow::Result<Projections> {
    Projections::open(store.clone()).await.map_err(|error| {
        let location = match store {
            ReadModelStore::File(file) => file.display().to_string(),
            // The URL may hold a password.
            ReadModelStore::Server(_) => {
                "the PostgreSQL server (--database, DATABASE_URL)".to_owned()
            }
        };
        exit::unavailable_error(format!("cannot use the read models in {location}: {error}"))
    })
}

impl ProjectorTask {
    fn spawn_projector(models: Projections, parts: &SharedParts) -> Self {
        let models = models.with_health(parts.health.component_health("projector"));
        let (log, (stop, stopped)) = (Arc::clone(&parts.log), oneshot::channel());
        let task = tokio::spawn(async move { models.run(log, stopped).await });
        Self { task, stop }
    }

    /// Waits until the task ends, which it should not, and returns the reason.
    pub(crate) async fn wait_for_failure(&mut self) -> anyhow::Error {
        match (&mut self.task).await {
            Ok(Err(error)) => anyhow::anyhow!("the projections ended: {error}"),
            _ => anyhow::anyhow!("the projections ended"),
        }
    }

    /// Stops the task; records that it has not applied are applied by the next start.
    pub(crate) async fn shut_down(self) {
        // A task that has ended already was reported by `wait_for_failure`.
        if !self.task.is_finished() {
            let _stopping = self.stop.send(());
            let _projector = self.task.await;
        }
    }
}
