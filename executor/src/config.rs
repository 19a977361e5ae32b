//! Settings and limits of one executor process.

use std::sync::Arc;
use std::time::Duration;

use convergio_domain::id::ExecutorId;
use convergio_domain::policy::child_runs::WIDTH_LIMIT;
use convergio_evaluation::Evaluator;
use convergio_eventstore::{ComponentHealth, SlotSet};
use tokio::sync::watch;

use crate::memory::MemoryPort;
use crate::tool;

/// Settings of one executor process.
#[derive(Debug, Clone)]
pub struct ExecutorConfig {
    /// Identity of this start of the process. Every start needs a new one: step starts carry it, so
    /// that those of a dead process are told apart.
    pub id: ExecutorId,
    /// Maximum runs in memory at once; further ones wait in the log.
    pub active_runs: usize,
    /// Maximum model calls in flight at once, over all runs.
    pub model_calls: usize,
    /// Maximum model calls in flight at once in one run.
    pub model_calls_per_run: usize,
    /// Maximum open child runs of one run; further ones are queued.
    pub child_runs_per_run: usize,
    /// Maximum steps in flight at once in one run.
    pub steps_per_run: usize,
    /// Time that steps in flight get after a shutdown request before they are abandoned.
    pub shutdown_grace: Duration,
    /// Index from which agents recall memories; without one the `memory.recall` tool fails.
    pub memory: MemoryPort,
    /// Evaluator of templates, conditions, schemas and manifests.
    pub evaluator: Evaluator,
    /// The slots of streams that this process executes, where several processes share the runs.
    pub slot_set: watch::Receiver<SlotSet>,
    /// Reports whether the dispatcher can read the log.
    pub health: ComponentHealth,
}

impl ExecutorConfig {
    /// The defaults; the process owns all slots and has no memory index.
    pub fn new(id: ExecutorId) -> Self {
        Self {
            id,
            active_runs: 256,
            model_calls: 64,
            model_calls_per_run: 10,
            child_runs_per_run: WIDTH_LIMIT,
            steps_per_run: 64,
            shutdown_grace: Duration::from_secs(5),
            memory: MemoryPort::default(),
            evaluator: Evaluator::in_process(Arc::new(tool::builtin_catalog())),
            slot_set: watch::channel(SlotSet::ALL).1,
            health: ComponentHealth::default(),
        }
    }
}
