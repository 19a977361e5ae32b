//! Evaluation of templates, conditions, schemas and manifests: in place within an allowance, else
//! outside of the actor.
//!
//! A plan is made in one go, during the run's write turn, which must not wait for an expensive
//! evaluation. Such a plan is abandoned with `OutputError::Evaluation`, others may write, and once
//! the result is there a new plan finds it under the job's fingerprint.

use std::sync::Arc;

use convergio_domain::expr::{
    Allowance, BoundedEvalError, ExprError, ExprScope, first_true_condition_within,
    render_text_within, render_value_within,
};
use convergio_domain::failure::UnsealedFailure;
use convergio_domain::graph::manifest::Graph;
use convergio_domain::graph::{Diagnostic, check_inputs_within};
use convergio_domain::platform_text;
use convergio_evaluation::{EvaluationJob, JobResult};
use serde_json::Value;

use super::planner::Planner;
use crate::outputs::OutputError;
use crate::plan::new_failure;

impl Planner<'_> {
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
                match self.caches.evaluations.require_evaluation(job).await? {
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
                match self.caches.evaluations.require_evaluation(job).await? {
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
                match self.caches.evaluations.require_evaluation(job).await? {
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
        match self
            .caches
            .evaluations
            .require_evaluation(EvaluationJob::Check { schema, value })
            .await?
        {
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
            None => self.caches.evaluations.require_evaluation(job).await?,
        };
        match answer {
            JobResult::Manifest(parsed) => Ok(parsed.map(|parsed| parsed.graph)),
            _ => Err(mismatched_answer()),
        }
    }
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

fn template_failure(error: &ExprError) -> OutputError {
    let message = platform_text!("a template or condition has no value that can be used");
    OutputError::Failure(UnsealedFailure::new("template.invalid", message).with_detail(error))
}
