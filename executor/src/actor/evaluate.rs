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
    Allowance, Scope, Unevaluated, first_holding_within, render_text_within, render_value_within,
};
use convergio_domain::graph::manifest::Graph;
use convergio_domain::graph::{Mistake, check_inputs_within};
use convergio_domain::platform_text;
use convergio_evaluation::{Answer, EvaluationError, Job, Print};
use serde_json::Value;
use tokio::sync::Notify;

use super::effect::failure;
use super::prepare::failed;
use super::{Actor, ActorError};
use crate::outputs::OutputError;

/// Delay before an evaluation that was refused as busy is tried again.
const BUSY_WAIT: Duration = Duration::from_secs(1);

/// Result of an evaluation outside of the actor.
pub(super) struct Evaluated {
    answer: Result<Answer, EvaluationError>,
    is_used: AtomicBool,
}

impl Actor {
    /// Renders every template within a value.
    pub(super) async fn render(
        &self,
        template: &Value,
        scope: &Scope,
    ) -> Result<Value, OutputError> {
        let allowance = &mut Allowance::IN_PLACE.clone();
        // Most templates are small: a job would cost more than the evaluation.
        match in_place(render_value_within(template, scope, allowance)) {
            Some(rendered) => rendered,
            None => {
                let template = Arc::new(template.clone());
                let job = Job::Value { template, scope: scope.clone() };
                match self.evaluated(job).await? {
                    Answer::Value(value) => value.map_err(|error| failed(&error)),
                    _ => Err(of_another_kind()),
                }
            }
        }
    }

    /// Renders texts; the first error fails all of them.
    pub(super) async fn render_texts(
        &self,
        templates: &[&str],
        scope: &Scope,
    ) -> Result<Vec<String>, OutputError> {
        let allowance = &mut Allowance::IN_PLACE.clone();
        let texts = templates.iter().map(|text| render_text_within(text, scope, allowance));
        match in_place(texts.collect()) {
            Some(rendered) => rendered,
            None => {
                let templates = templates.iter().map(|text| (*text).to_owned()).collect();
                let job = Job::Texts { templates, scope: scope.clone() };
                match self.evaluated(job).await? {
                    Answer::Texts(texts) => texts.map_err(|error| failed(&error)),
                    _ => Err(of_another_kind()),
                }
            }
        }
    }

    /// Returns the number of the first condition that holds; their count if none does.
    pub(super) async fn first_holding(
        &self,
        conditions: &[&str],
        scope: &Scope,
    ) -> Result<usize, OutputError> {
        let allowance = &mut Allowance::IN_PLACE.clone();
        match in_place(first_holding_within(conditions, scope, allowance)) {
            Some(number) => number,
            None => {
                let conditions = conditions.iter().map(|text| (*text).to_owned()).collect();
                let job = Job::Conditions { conditions, scope: scope.clone() };
                match self.evaluated(job).await? {
                    Answer::Condition(number) => number.map_err(|error| failed(&error)),
                    _ => Err(of_another_kind()),
                }
            }
        }
    }

    /// Returns the violations of a schema by a value.
    pub(super) async fn check(
        &self,
        schema: &Value,
        value: &Value,
    ) -> Result<Vec<String>, OutputError> {
        let allowance = &mut Allowance::IN_PLACE.clone();
        if let Some(mistakes) = check_inputs_within(schema, value, allowance) {
            return Ok(mistakes);
        }
        let (schema, value) = (Arc::new(schema.clone()), Arc::new(value.clone()));
        match self.evaluated(Job::Check { schema, value }).await? {
            Answer::Mistakes(mistakes) => Ok(mistakes),
            _ => Err(of_another_kind()),
        }
    }

    /// Parses a manifest to its graph, or returns its mistakes.
    pub(super) async fn parse(
        &self,
        text: String,
    ) -> Result<Result<Graph, Vec<Mistake>>, OutputError> {
        let job = Job::Manifest { text };
        let answer = match self.shared.config.evaluator.evaluate_in_place(&job) {
            Some(answer) => answer,
            None => self.evaluated(job).await?,
        };
        match answer {
            Answer::Manifest(parsed) => Ok(parsed.map(|parsed| parsed.graph)),
            _ => Err(of_another_kind()),
        }
    }

    /// Returns the result of a job that runs outside of the actor. Without one, the returned error
    /// abandons the plan and carries the job.
    async fn evaluated(&self, job: Job) -> Result<Answer, OutputError> {
        let (job, print) = with_print(job).await?;
        let Some(known) = self.evaluated.get(&print) else {
            return Err(OutputError::Evaluation(Box::new(job)));
        };
        // Marked, so that the commit which uses the result can drop it.
        known.is_used.store(true, Ordering::Relaxed);
        known.answer.clone().map_err(|error| {
            let message = platform_text!("an evaluation took more than it may");
            OutputError::Failure(failure("evaluation.limit", message).with_detail(error))
        })
    }

    /// Returns whether the plan in preparation uses the result of an outside evaluation.
    pub(super) fn has_used_evaluation(&self) -> bool {
        self.evaluated.values().any(|known| known.is_used.load(Ordering::Relaxed))
    }

    /// Drops the results that a commit has used.
    pub(super) fn forget_used_evaluations(&mut self) {
        self.evaluated.retain(|_, known| !known.is_used.load(Ordering::Relaxed));
    }

    /// Waits for an evaluation, and handles everything else that happens to the run meanwhile. The
    /// end or a pause of the run stops the wait.
    pub(super) async fn wait_for_evaluation(
        &mut self,
        job: Job,
        signal: &Notify,
    ) -> Result<(), ActorError> {
        // The abandoned plan had taken steps from the ready ones.
        self.rebuild()?;
        // The next plan decides anew which results it uses.
        self.evaluated.values().for_each(|known| known.is_used.store(false, Ordering::Relaxed));
        let (job, print) = with_print(job).await?;
        let evaluator = self.shared.config.evaluator.clone();
        let (tenant, stopped) = (self.run.stream.tenant.clone(), self.shared.stopped.clone());
        let evaluation = async {
            loop {
                match evaluator.evaluate_apart(&tenant, &job).await {
                    // The evaluator has no capacity for this tenant now.
                    Err(EvaluationError::Busy(reason)) => {
                        tracing::warn!(reason, "a run waits for an evaluation");
                        tokio::time::sleep(BUSY_WAIT).await;
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
                    self.evaluated.insert(print, Evaluated { answer, is_used });
                    return Ok(());
                }
                Some(done) = self.effects.join_next() => self.landed(done),
                () = signal.notified() => {
                    if self.shared.repository.refresh(&mut self.run).await? {
                        self.renew().await?;
                        self.look_after_children().await?;
                    }
                    if self.run.state.phase.is_ended() || self.run.state.paused {
                        return Ok(());
                    }
                }
                () = stopped.cancelled() => return Err(ActorError::Stopping),
            }
        }
    }
}

/// Computes a job's fingerprint on a blocking thread, since a large job takes long to hash.
async fn with_print(job: Job) -> Result<(Job, Print), OutputError> {
    let hashed = tokio::task::spawn_blocking(move || {
        let print = job.print();
        (job, print)
    });
    hashed.await.map_err(|error| {
        let message = platform_text!("an evaluation could not be begun: please report it");
        OutputError::Failure(failure("internal", message).with_detail(error))
    })
}

/// Returns the result of an evaluation in place; `None` if it exceeded the allowance.
fn in_place<T>(evaluated: Result<T, Unevaluated>) -> Option<Result<T, OutputError>> {
    match evaluated {
        Ok(value) => Some(Ok(value)),
        Err(Unevaluated::Mistake(error)) => Some(Err(failed(&error))),
        Err(Unevaluated::TooMuch) => None,
    }
}

fn of_another_kind() -> OutputError {
    let message =
        platform_text!("an evaluation was answered with something else: please report it");
    OutputError::Failure(failure("internal", message))
}
