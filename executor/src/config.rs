//! What bounds an executor.

use std::sync::Arc;
use std::time::Duration;

use convergio_domain::id::ExecutorId;
use convergio_domain::run::WIDTH_LIMIT;
use convergio_evaluation::Evaluator;
use convergio_eventstore::{ComponentHealth, Share};
use tokio::sync::watch;

use crate::memory::MemoryPort;
use crate::tool;

/// Settings of one executor process.
#[derive(Debug, Clone)]
pub struct ExecutorConfig {
    /// This life of the process; a new one for every start.
    pub id: ExecutorId,
    /// Runs held in memory at once; the rest wait in the log.
    pub active_runs: usize,
    /// Model calls under way at once, over all runs.
    pub model_calls: usize,
    /// Model calls under way at once in one run.
    pub model_calls_per_run: usize,
    /// Runs that one run may have within it at once; more of them wait for a place.
    pub child_runs_per_run: usize,
    /// Steps under way at once in one run.
    pub steps_per_run: usize,
    /// How long steps under way may go on after a shutdown was asked for.
    pub grace: Duration,
    /// What agents remember.
    pub memory: MemoryPort,
    /// Where templates, conditions, schemas and manifests are evaluated.
    pub evaluator: Evaluator,
    /// Which runs are ours, where several processes share them.
    pub share: watch::Receiver<Share>,
    /// Where the dispatcher reports whether it can read the log.
    pub health: ComponentHealth,
}

impl ExecutorConfig {
    /// The defaults, for this life of the process.
    pub fn new(id: ExecutorId) -> Self {
        Self {
            id,
            active_runs: 256,
            model_calls: 64,
            model_calls_per_run: 10,
            child_runs_per_run: WIDTH_LIMIT,
            steps_per_run: 64,
            grace: Duration::from_secs(5),
            memory: MemoryPort::default(),
            evaluator: Evaluator::in_process(Arc::new(tool::catalog())),
            share: watch::channel(Share::ALL).1,
            health: ComponentHealth::default(),
        }
    }
}
