//! Work whose size a stranger chooses: schemas, conditions, templates and manifests.
//!
//! What costs little in any case is done where it is asked for; the bounds are pure functions of
//! `convergio_domain`. Everything else is a [`Job`] for an [`Evaluation`]: in a server that is a
//! [`pool::WorkerPool`] of processes that may be killed, with limits of time and memory each. What
//! comes of a job is the same wherever it is done.

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
pub use job::{Answer, Job, ParsedManifest, Print};

/// Where a job is done.
#[async_trait]
pub trait Evaluation: Send + Sync {
    /// Does a job of a tenant.
    ///
    /// # Errors
    /// It takes more than a job may, or cannot be done now.
    async fn evaluate(&self, tenant: &TenantId, job: &Job) -> Result<Answer, EvaluationError>;
}

/// Does jobs: in place, or where they harm nobody.
#[derive(Clone)]
pub struct Evaluator {
    place: Arc<dyn Evaluation>,
    tools: Arc<convergio_domain::graph::ToolCatalog>,
}

impl fmt::Debug for Evaluator {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Evaluator").finish_non_exhaustive()
    }
}

impl Evaluator {
    /// Does jobs there, and small ones where they are asked for. `tools` are those that manifests
    /// may call.
    pub fn new(
        place: Arc<dyn Evaluation>,
        tools: Arc<convergio_domain::graph::ToolCatalog>,
    ) -> Self {
        Self { place, tools }
    }

    /// Does every job in this process: for tests and for tools whose user is its only victim.
    pub fn in_process(tools: Arc<convergio_domain::graph::ToolCatalog>) -> Self {
        let place = InProcess(Arc::clone(&tools));
        Self::new(Arc::new(place), tools)
    }

    /// Does a job: at once if it is small in any case.
    ///
    /// # Errors
    /// It takes more than a job may, or cannot be done now.
    pub async fn evaluate(&self, tenant: &TenantId, job: &Job) -> Result<Answer, EvaluationError> {
        match self.evaluate_in_place(job) {
            Some(answer) => Ok(answer),
            None => self.evaluate_apart(tenant, job).await,
        }
    }

    /// Does a job at once, if it is small in any case.
    pub fn evaluate_in_place(&self, job: &Job) -> Option<Answer> {
        job.perform_if_small(&self.tools)
    }

    /// Does a job that is not small.
    ///
    /// # Errors
    /// As those of [`Self::evaluate`].
    pub async fn evaluate_apart(
        &self,
        tenant: &TenantId,
        job: &Job,
    ) -> Result<Answer, EvaluationError> {
        self.place.evaluate(tenant, job).await
    }
}

/// Every job in this process.
struct InProcess(Arc<convergio_domain::graph::ToolCatalog>);

#[async_trait]
impl Evaluation for InProcess {
    async fn evaluate(&self, _: &TenantId, job: &Job) -> Result<Answer, EvaluationError> {
        Ok(job.perform(&self.0))
    }
}
