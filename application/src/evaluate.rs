//! Evaluation of untrusted manifests and inputs, under limits of time and memory.

use std::sync::Arc;

use convergio_domain::expr::Allowance;
use convergio_domain::graph::check_inputs_within;
use convergio_evaluation::{EvaluationJob, JobResult, ParsedManifest};
use serde_json::Value;

use crate::caller::Caller;
use crate::error::UseCaseError;
use crate::use_cases::GraphUseCases;

impl GraphUseCases<'_> {
    /// Parses a manifest.
    ///
    /// # Errors
    /// The manifest has mistakes, or exceeds the limits of evaluation.
    pub async fn parse_manifest(
        self,
        caller: &Caller,
        text: &str,
    ) -> Result<ParsedManifest, UseCaseError> {
        let job = EvaluationJob::Manifest { text: text.to_owned() };
        match self.evaluator.evaluate_job(&caller.tenant, &job).await? {
            JobResult::Manifest(parsed) => parsed.map_err(UseCaseError::InvalidManifest),
            _ => Err(UseCaseError::UnexpectedEvaluation),
        }
    }

    /// Validates inputs against a graph's schema; the error has all mistakes.
    pub(crate) async fn check_inputs(
        self,
        caller: &Caller,
        schema: &Value,
        inputs: &Value,
    ) -> Result<(), UseCaseError> {
        let allowance = &mut Allowance::IN_PLACE.clone();
        let mistakes = match check_inputs_within(schema, inputs, allowance) {
            Some(mistakes) => mistakes,
            // Small inputs are checked on the spot; only what exceeds the allowance goes to the
            // evaluator.
            None => self.check_inputs_isolated(caller, schema, inputs).await?,
        };
        if mistakes.is_empty() { Ok(()) } else { Err(UseCaseError::Invalid(mistakes.join("; "))) }
    }

    async fn check_inputs_isolated(
        self,
        caller: &Caller,
        schema: &Value,
        inputs: &Value,
    ) -> Result<Vec<String>, UseCaseError> {
        let (schema, value) = (Arc::new(schema.clone()), Arc::new(inputs.clone()));
        let job = EvaluationJob::Check { schema, value };
        match self.evaluator.evaluate_isolated(&caller.tenant, &job).await? {
            JobResult::Mistakes(mistakes) => Ok(mistakes),
            _ => Err(UseCaseError::UnexpectedEvaluation),
        }
    }
}
