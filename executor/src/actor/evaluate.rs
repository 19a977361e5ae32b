//! Evaluation of templates, conditions, schemas and manifests: in place within an allowance, else
//! outside of the actor.
//!
//! A plan is made in one go, during the run's write turn, which must not wait for an expensive
//! evaluation. Such a plan is abandoned with `OutputError::Evaluation`, others may write, and once
//! the result is there a new plan finds it under the job's fingerprint.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use convergio_domain::expr::{
    Allowance, BoundedEvalError, ExprScope, first_true_condition_within, render_text_within,
    render_value_within,
};
use convergio_domain::graph::manifest::Graph;
use convergio_domain::graph::{Diagnostic, check_inputs_within};
use convergio_domain::platform_text;
use convergio_evaluation::{EvaluationError, EvaluationJob, JobDigest, JobResult};
use serde_json::Value;
use tokio::sync::Notify;

use super::effect::new_failure;
use super::prepare::template_failure;
use super::{Actor, ActorError};
use crate::outputs::OutputError;

/// Delay before an evaluation that was refused as busy is tried again.
const BUSY_RETRY_DELAY: Duration = Duration::from_secs(1);

/// Result of an evaluation outside of the actor.
pub(super) struct OutsideEvaluation {
    answer: Result<JobResult, EvaluationError>,
    is_used: AtomicBool,
}

impl Actor {
    /// Renders every template within a value.
    pub(super) async fn render_value(
        &self,
        template: &Value,
        scope: &ExprScope,
    ) -> Result<Value, OutputError> {
        let allowance = &mut Allowance::IN_PLACE.clone();
        // Most templates are small: a job would cost more than the evaluation.
        match completed_in_place(render_value_within(template, scope, allowance)) {
            Some(rendered) => rendered,
            None => {
                let template = Arc::new(template.clone());
                let job = EvaluationJob::Value { template, scope: scope.clone() };
                match self.require_evaluation(job).await? {
                    JobResult::Value(value) => value.map_err(|error| template_failure(&error)),
                    _ => Err(mismatched_answer()),
                }
            }
        }
    }

    /// Renders texts; the first error fails all of them.
    pub(super) async fn render_texts(
        &self,
        templates: &[&str],
        scope: &ExprScope,
    ) -> Result<Vec<String>, OutputError> {
        let allowance = &mut Allowance::IN_PLACE.clone();
        let texts = templates.iter().map(|text| render_text_within(text, scope, allowance));
        match completed_in_place(texts.collect()) {
            Some(rendered) => rendered,
            None => {
                let templates = templates.iter().map(|text| (*text).to_owned()).collect();
                let job = EvaluationJob::Texts { templates, scope: scope.clone() };
                match self.require_evaluation(job).await? {
                    JobResult::Texts(texts) => texts.map_err(|error| template_failure(&error)),
                    _ => Err(mismatched_answer()),
                }
            }
        }
    }

    /// Returns the number of the first condition that holds; their count if none does.
    pub(super) async fn find_first_true(
        &self,
        conditions: &[&str],
        scope: &ExprScope,
    ) -> Result<usize, OutputError> {
        let allowance = &mut Allowance::IN_PLACE.clone();
        match completed_in_place(first_true_condition_within(conditions, scope, allowance)) {
            Some(number) => number,
            None => {
                let conditions = conditions.iter().map(|text| (*text).to_owned()).collect();
                let job = EvaluationJob::Conditions { conditions, scope: scope.clone() };
                match self.require_evaluation(job).await? {
                    JobResult::Condition(number) => {
                        number.map_err(|error| template_failure(&error))
                    }
                    _ => Err(mismatched_answer()),
                }
            }
        }
    }

    /// Returns the violations of a schema by a value.
    pub(super) async fn check_schema(
        &self,
        schema: &Value,
        value: &Value,
    ) -> Result<Vec<String>, OutputError> {
        let allowance = &mut Allowance::IN_PLACE.clone();
        if let Some(mistakes) = check_inputs_within(schema, value, allowance) {
            return Ok(mistakes);
        }
        let (schema, value) = (Arc::new(schema.clone()), Arc::new(value.clone()));
        match self.require_evaluation(EvaluationJob::Check { schema, value }).await? {
            JobResult::Mistakes(mistakes) => Ok(mistakes),
            _ => Err(mismatched_answer()),
        }
    }

    /// Parses a manifest to its graph, or returns its mistakes.
    pub(super) async fn parse_manifest(
        &self,
        text: String,
    ) -> Result<Result<Graph, Vec<Diagnostic>>, OutputError> {
        let job = EvaluationJob::Manifest { text };
        let answer = match self.shared.config.evaluator.evaluate_in_place(&job) {
            Some(answer) => answer,
            None => self.require_evaluation(job).await?,
        };
        match answer {
            JobResult::Manifest(parsed) => Ok(parsed.map(|parsed| parsed.graph)),
            _ => Err(mismatched_answer()),
        }
    }

    /// Returns the result of a job that runs outside of the actor. Without one, the returned error
    /// abandons the plan and carries the job.
    async fn require_evaluation(&self, job: EvaluationJob) -> Result<JobResult, OutputError> {
        let (job, print) = with_fingerprint(job).await?;
        let Some(evaluation) = self.evaluations.get(&print) else {
            return Err(OutputError::Evaluation(Box::new(job)));
        };
        // Marked, so that the commit which uses the result can drop it.
        evaluation.is_used.store(true, Ordering::Relaxed);
        evaluation.answer.clone().map_err(|error| {
            let message = platform_text!("an evaluation took more than it may");
            OutputError::Failure(new_failure("evaluation.limit", message).with_detail(error))
        })
    }

    /// Returns whether the plan in preparation uses the result of an outside evaluation.
    pub(super) fn has_used_evaluation(&self) -> bool {
        self.evaluations.values().any(|known| known.is_used.load(Ordering::Relaxed))
    }

    /// Drops the results that a commit has used.
    pub(super) fn forget_used_evaluations(&mut self) {
        self.evaluations.retain(|_, known| !known.is_used.load(Ordering::Relaxed));
    }

    /// Waits for an evaluation, and handles everything else that happens to the run meanwhile. The
    /// end or a pause of the run stops the wait.
    pub(super) async fn wait_for_evaluation(
        &mut self,
        job: EvaluationJob,
        signal: &Notify,
    ) -> Result<(), ActorError> {
        // The abandoned plan had taken steps from the ready ones.
        self.rebuild_derived()?;
        // The next plan decides anew which results it uses.
        self.evaluations.values().for_each(|known| known.is_used.store(false, Ordering::Relaxed));
        let (job, print) = with_fingerprint(job).await?;
        let evaluator = self.shared.config.evaluator.clone();
        let (tenant, abandon_token) =
            (self.run.stream.tenant.clone(), self.shared.abandon_token.clone());
        let evaluation = async {
            loop {
                match evaluator.evaluate_isolated(&tenant, &job).await {
                    // The evaluator has no capacity for this tenant now.
                    Err(EvaluationError::Busy(reason)) => {
                        tracing::warn!(reason, "a run waits for an evaluation");
                        tokio::time::sleep(BUSY_RETRY_DELAY).await;
                    }
                    answer => return answer,
                }
            }
        };
        tokio::pin!(evaluation);
        loop {
            tokio::select! {
                answer = &mut evaluation => {
                    let is_used = AtomicBool::new(false);
                    self.evaluations.insert(print, OutsideEvaluation { answer, is_used });
                    return Ok(());
                }
                Some(done) = self.effects.join_next() => self.handle_finished_effect(done),
                () = signal.notified() => {
                    if self.shared.repository.refresh(&mut self.run).await? {
                        self.sync_with_state().await?;
                        self.ensure_due_children().await?;
                    }
                    if self.run.state.phase.is_ended() || self.run.state.paused {
                        return Ok(());
                    }
                }
                () = abandon_token.cancelled() => return Err(ActorError::Stopping),
            }
        }
    }
}

/// Computes a job's fingerprint on a blocking thread, since a large job takes long to hash.
async fn with_fingerprint(job: EvaluationJob) -> Result<(EvaluationJob, JobDigest), OutputError> {
    let hashed = tokio::task::spawn_blocking(move || {
        let print = job.job_digest();
        (job, print)
    });
    hashed.await.map_err(|error| {
        let message = platform_text!("an evaluation could not be begun: please report it");
        OutputError::Failure(new_failure("internal", message).with_detail(error))
    })
}

/// Returns the result of an evaluation in place; `None` if it exceeded the allowance.
fn completed_in_place<T>(evaluated: Result<T, BoundedEvalError>) -> Option<Result<T, OutputError>> {
    match evaluated {
        Ok(value) => Some(Ok(value)),
        Err(BoundedEvalError::Expression(error)) => Some(Err(template_failure(&error))),
        Err(BoundedEvalError::OverAllowance) => None,
    }
}

fn mismatched_answer() -> OutputError {
    let message =
        platform_text!("an evaluation was answered with something else: please report it");
    OutputError::Failure(new_failure("internal", message))
}
