//! Results of evaluations outside of the actor, by the fingerprint of their job.

use std::collections::BTreeMap;
use std::sync::atomic::{AtomicBool, Ordering};

use convergio_domain::platform_text;
use convergio_evaluation::{EvaluationError, EvaluationJob, JobDigest, JobResult};

use crate::outputs::OutputError;
use crate::plan::new_failure;

/// Result of an evaluation outside of the actor.
struct OutsideEvaluation {
    answer: Result<JobResult, EvaluationError>,
    is_used: AtomicBool,
}

/// The results that no commit has used yet.
#[derive(Default)]
pub(crate) struct OutsideEvaluations {
    by_job: BTreeMap<JobDigest, OutsideEvaluation>,
}

impl OutsideEvaluations {
    /// Returns the result of a job that runs outside of the actor. Without one, the returned error
    /// abandons the plan and carries the job.
    pub(super) async fn require_evaluation(
        &self,
        job: EvaluationJob,
    ) -> Result<JobResult, OutputError> {
        let (job, print) = with_fingerprint(job).await?;
        let Some(evaluation) = self.by_job.get(&print) else {
            return Err(OutputError::Evaluation(Box::new(job)));
        };
        // Marked, so that the commit which uses the result can drop it.
        evaluation.is_used.store(true, Ordering::Relaxed);
        evaluation.answer.clone().map_err(|error| {
            let message = platform_text!("an evaluation took more than it may");
            OutputError::Failure(new_failure("evaluation.limit", message).with_detail(error))
        })
    }

    /// Adds the result of a job.
    pub(crate) fn add_answer(
        &mut self,
        print: JobDigest,
        answer: Result<JobResult, EvaluationError>,
    ) {
        self.by_job.insert(print, OutsideEvaluation { answer, is_used: AtomicBool::new(false) });
    }

    /// Returns whether the plan in preparation uses a result.
    pub(crate) fn has_used(&self) -> bool {
        self.by_job.values().any(|known| known.is_used.load(Ordering::Relaxed))
    }

    /// Drops the results that a commit has used.
    pub(crate) fn forget_used(&mut self) {
        self.by_job.retain(|_, known| !known.is_used.load(Ordering::Relaxed));
    }

    /// Takes back all marks of use: the next plan decides anew which results it uses.
    pub(crate) fn unmark_used(&mut self) {
        self.by_job.values().for_each(|known| known.is_used.store(false, Ordering::Relaxed));
    }
}

/// Computes a job's fingerprint on a blocking thread, since a large job takes long to hash.
pub(crate) async fn with_fingerprint(
    job: EvaluationJob,
) -> Result<(EvaluationJob, JobDigest), OutputError> {
    let hashed = tokio::task::spawn_blocking(move || {
        let print = job.job_digest();
        (job, print)
    });
    hashed.await.map_err(|error| {
        let message = platform_text!("an evaluation could not be begun: please report it");
        OutputError::Failure(new_failure("internal", message).with_detail(error))
    })
}
