//! Evaluation of untrusted manifests and inputs, under limits of time and memory.

use std::sync::Arc;

use convergio_domain::expr::Allowance;
use convergio_domain::graph::check_inputs_within;
use convergio_evaluation::{EvaluationError, EvaluationJob, JobResult, ParsedManifest};
use convergio_schemas::error_code;
use serde_json::Value;

use crate::identity::Identity;
use crate::problem::ApiError;
use crate::state::Gateway;

impl Gateway {
    /// Parses a manifest.
    ///
    /// # Errors
    /// `graph.invalid` with every diagnostic; `evaluation.limit` or `server.busy` from the
    /// evaluator.
    pub(crate) async fn parse_manifest(
        &self,
        caller: &Identity,
        text: &str,
    ) -> Result<ParsedManifest, ApiError> {
        let job = EvaluationJob::Manifest { text: text.to_owned() };
        match self.evaluator.evaluate_job(&caller.tenant, &job).await? {
            JobResult::Manifest(parsed) => parsed.map_err(ApiError::invalid_manifest),
            _ => Err(unexpected_evaluation()),
        }
    }

    /// Validates inputs against a schema.
    ///
    /// # Errors
    /// `request.invalid` with all mistakes.
    pub(crate) async fn check_inputs(
        &self,
        caller: &Identity,
        schema: &Value,
        inputs: &Value,
    ) -> Result<(), ApiError> {
        let allowance = &mut Allowance::IN_PLACE.clone();
        let mistakes = match check_inputs_within(schema, inputs, allowance) {
            Some(mistakes) => mistakes,
            // Small inputs are checked on the spot; only what exceeds the allowance goes to the
            // evaluator.
            None => self.check_inputs_isolated(caller, schema, inputs).await?,
        };
        if mistakes.is_empty() {
            Ok(())
        } else {
            Err(ApiError::invalid_request(mistakes.join("; ")))
        }
    }

    async fn check_inputs_isolated(
        &self,
        caller: &Identity,
        schema: &Value,
        inputs: &Value,
    ) -> Result<Vec<String>, ApiError> {
        let (schema, value) = (Arc::new(schema.clone()), Arc::new(inputs.clone()));
        let job = EvaluationJob::Check { schema, value };
        match self.evaluator.evaluate_isolated(&caller.tenant, &job).await? {
            JobResult::Mistakes(mistakes) => Ok(mistakes),
            _ => Err(unexpected_evaluation()),
        }
    }
}

fn unexpected_evaluation() -> ApiError {
    ApiError::new(error_code::INTERNAL, "an evaluation was answered with something else")
}

impl From<EvaluationError> for ApiError {
    fn from(error: EvaluationError) -> Self {
        match error {
            EvaluationError::Limit(reason) => Self::new(error_code::EVALUATION_LIMIT, reason),
            EvaluationError::Busy(reason) => Self::retryable_error(error_code::SERVER_BUSY, reason),
        }
    }
}
