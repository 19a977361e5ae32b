//! Evaluates input whose cost a stranger chooses: schemas, conditions, templates and manifests.
//!
//! Jobs that are certain to be cheap are evaluated on the calling thread; the bounds are pure
//! functions of `convergio_domain`. Every other [`EvaluationJob`] goes to an [`EvaluationBackend`]:
//! in a server that is a [`pool::WorkerPool`] of processes, each with limits of time and memory,
//! which may be killed. The result of a job is the same wherever it is evaluated.
//!
//! - `job`: what can be evaluated, and the results; `wire`: both as bytes; `error`.
//! - `pool`: the worker pool, which takes a turn from `gate` (fairness among tenants), notes the
//!   attempt in `attempts` (crash counting) and speaks to a `process`.
//! - `worker`: the other end of the pipe, in the worker process.
//!
//! Nothing here reads the log or calls a model: a worker process has no secrets and no network
//! code.

mod attempts;
mod error;
mod gate;
mod job;
pub mod pool;
mod process;
mod wire;
pub mod worker;

use std::fmt;
use std::sync::Arc;

use async_trait::async_trait;
use convergio_domain::id::TenantId;

pub use error::EvaluationError;
pub use job::{EvaluationJob, JobDigest, JobResult, ParsedManifest};

/// Place where jobs are evaluated that may be expensive.
#[async_trait]
pub trait EvaluationBackend: Send + Sync {
    /// Evaluates a job of a tenant.
    ///
    /// # Errors
    /// The job exceeds a limit, or no worker is available now.
    async fn evaluate_job(
        &self,
        tenant: &TenantId,
        job: &EvaluationJob,
    ) -> Result<JobResult, EvaluationError>;
}

/// Evaluates jobs: cheap ones on the calling thread, others by a backend.
#[derive(Clone)]
pub struct Evaluator {
    backend: Arc<dyn EvaluationBackend>,
    tools: Arc<convergio_domain::graph::ToolCatalog>,
}

impl fmt::Debug for Evaluator {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Evaluator").finish_non_exhaustive()
    }
}

impl Evaluator {
    /// Creates an evaluator. `tools` are those that manifests may name.
    pub fn new(
        place: Arc<dyn EvaluationBackend>,
        tools: Arc<convergio_domain::graph::ToolCatalog>,
    ) -> Self {
        Self { backend: place, tools }
    }

    /// Creates an evaluator that does every job in this process, without limits: for tests, and for
    /// commands whose user can only hurt themselves.
    pub fn in_process(tools: Arc<convergio_domain::graph::ToolCatalog>) -> Self {
        let place = InProcessBackend(Arc::clone(&tools));
        Self::new(Arc::new(place), tools)
    }

    /// Evaluates a job, on the calling thread if it is certain to be cheap.
    ///
    /// # Errors
    /// The job exceeds a limit, or no worker is available now.
    pub async fn evaluate_job(
        &self,
        tenant: &TenantId,
        job: &EvaluationJob,
    ) -> Result<JobResult, EvaluationError> {
        match self.evaluate_in_place(job) {
            Some(answer) => Ok(answer),
            None => self.evaluate_isolated(tenant, job).await,
        }
    }

    /// Evaluates a job on the calling thread if it is certain to be cheap; `None` if it may not be.
    pub fn evaluate_in_place(&self, job: &EvaluationJob) -> Option<JobResult> {
        job.evaluate_if_small(&self.tools)
    }

    /// Evaluates a job by the backend, whatever its cost.
    ///
    /// # Errors
    /// As [`Self::evaluate_job`].
    pub async fn evaluate_isolated(
        &self,
        tenant: &TenantId,
        job: &EvaluationJob,
    ) -> Result<JobResult, EvaluationError> {
        self.backend.evaluate_job(tenant, job).await
    }
}

/// Backend that evaluates every job in this process, without limits.
struct InProcessBackend(Arc<convergio_domain::graph::ToolCatalog>);

#[async_trait]
impl EvaluationBackend for InProcessBackend {
    async fn evaluate_job(
        &self,
        _: &TenantId,
        job: &EvaluationJob,
    ) -> Result<JobResult, EvaluationError> {
        Ok(job.evaluate_unbounded(&self.0))
    }
}
