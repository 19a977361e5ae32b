//! The roles of a process, one file each: what a role starts, and how it ends.
//!
//! `server` starts them in the order in which they depend on each other: the projector's read
//! models are what the gateway asks, and the executor's models are what it lists. No role uses
//! another one's file; what they share is [`SharedParts`].

pub(crate) mod executor;
pub(crate) mod gateway;
pub(crate) mod projector;

use std::sync::Arc;

use convergio_evaluation::Evaluator;
use convergio_evaluation::pool::WorkerPool;
use convergio_eventstore::{
    CheckpointFolder, EventLog, HealthRegistry, LiveHub, LogWriter, Repository, SteadyClock,
};
use convergio_executor::tool;
use convergio_process::exit;
use convergio_projections::MemoryIndexes;
use tokio::sync::watch;

use crate::config::ServerConfig;
use crate::data_dir::DataDir;
use crate::log_location::OpenLog;

/// The log, and what all roles of a process share around it.
pub(crate) struct SharedParts {
    pub(crate) opened_log: OpenLog,
    pub(crate) log: Arc<dyn EventLog>,
    pub(crate) repository: Repository,
    pub(crate) clock: Arc<SteadyClock>,
    pub(crate) live: LiveHub,
    pub(crate) health: HealthRegistry,
    pub(crate) memories: Arc<MemoryIndexes>,
    /// Becomes true when the process ends.
    pub(crate) stop: watch::Sender<bool>,
}

impl SharedParts {
    pub(crate) async fn open(config: &ServerConfig) -> anyhow::Result<Self> {
        let location = &config.log_location;
        let opened_log = location.open_with_patience(&config.data, config.folder_patience).await?;
        let (repository, clock) = open_repository(&config.data, opened_log.as_log_writer()).await?;
        let log = repository.event_log();
        Ok(Self {
            opened_log,
            repository,
            clock,
            live: LiveHub::new(),
            health: HealthRegistry::default(),
            memories: Arc::new(MemoryIndexes::new(Arc::clone(&log))),
            stop: watch::channel(false).0,
            log,
        })
    }
}

/// Opens the repository, with checkpoints of long runs in the data folder, and its clock.
async fn open_repository(
    data: &DataDir,
    log: Arc<dyn LogWriter>,
) -> anyhow::Result<(Repository, Arc<SteadyClock>)> {
    let checkpoints = Arc::new(CheckpointFolder::new(&data.checkpoints_folder()));
    let clock = Arc::new(SteadyClock::from_log(&*log).await?);
    let repository = Repository::new(log, Arc::<SteadyClock>::clone(&clock));
    Ok((repository.with_checkpoints(checkpoints), clock))
}

/// Starts the evaluator of untrusted expressions and schemas: small ones are evaluated here, all
/// others in worker processes that can be killed.
pub(crate) fn start_evaluator(config: &ServerConfig) -> anyhow::Result<Evaluator> {
    let limits = config.evaluation;
    let folder = config.data.evaluations_folder();
    let pool =
        WorkerPool::new(limits.worker_program(), limits.to_pool_limits(), Some(folder.clone()));
    let pool = pool.map_err(|error| {
        exit::unavailable_error(format!("cannot note evaluations in {}: {error}", folder.display()))
    })?;
    Ok(Evaluator::new(Arc::new(pool), Arc::new(tool::builtin_catalog())))
}
