//! Jobs and their results.

use std::fmt;
use std::sync::Arc;

use convergio_domain::expr::{
    Allowance, BoundedEvalError, ExprError, ExprScope, first_true_condition,
    first_true_condition_within, render_text, render_text_within, render_value,
    render_value_within,
};
use convergio_domain::graph::manifest::Graph;
use convergio_domain::graph::{
    Diagnostic, ToolCatalog, check_inputs, check_inputs_within, parse_manifest,
    parse_manifest_if_small,
};
use serde_json::Value;

/// One evaluation, with everything that its result depends on but the tool catalogue.
#[derive(Debug, Clone)]
pub enum EvaluationJob {
    /// Renders every template within a value.
    Value {
        /// Value whose strings are templates.
        template: Arc<Value>,
        /// Values that its templates see.
        scope: ExprScope,
    },
    /// Renders several templates to text.
    Texts {
        /// Templates in the order of the results.
        templates: Vec<String>,
        /// Values that the templates see.
        scope: ExprScope,
    },
    /// Finds the first of several conditions that is true.
    Conditions {
        /// Conditions in the order in which they are tried.
        conditions: Vec<String>,
        /// Values that the conditions see.
        scope: ExprScope,
    },
    /// Checks a value against a JSON Schema.
    Check {
        /// JSON Schema of the value.
        schema: Arc<Value>,
        /// Value to be checked.
        value: Arc<Value>,
    },
    /// Parses and checks a manifest.
    Manifest {
        /// YAML or JSON of the manifest.
        text: String,
    },
}

/// Result of a job, with one variant for each kind.
#[expect(clippy::large_enum_variant, reason = "there are as many as evaluations under way")]
#[derive(Debug, Clone, PartialEq)]
pub enum JobResult {
    /// The rendered value, or the error of a template.
    Value(Result<Value, ExprError>),
    /// The rendered texts, or the error of a template.
    Texts(Result<Vec<String>, ExprError>),
    /// Index of the first true condition, or the number of conditions if none is.
    Condition(Result<usize, ExprError>),
    /// Schema errors; empty if the value is valid.
    Mistakes(Vec<String>),
    /// The valid manifest, or all its errors.
    Manifest(Result<ParsedManifest, Vec<Diagnostic>>),
}

/// A valid manifest.
#[derive(Debug, Clone, PartialEq)]
pub struct ParsedManifest {
    /// Graph with every default filled in.
    pub graph: Graph,
    /// Uses that are allowed and probably not meant.
    pub warnings: Vec<Diagnostic>,
}

/// BLAKE3 of everything that a job's result depends on.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub struct JobDigest([u8; 32]);

impl JobDigest {
    pub(crate) fn from_hash(hash: blake3::Hash) -> Self {
        Self(*hash.as_bytes())
    }
}

impl fmt::Display for JobDigest {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.iter().try_for_each(|byte| write!(f, "{byte:02x}"))
    }
}

impl fmt::Debug for JobDigest {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(self, f)
    }
}

impl EvaluationJob {
    /// Returns the job's digest, equal for jobs that have the same result.
    pub fn job_digest(&self) -> JobDigest {
        let mut hasher = blake3::Hasher::new();
        // Hashing does not fail, and every job can be written.
        drop(crate::wire::write_job(self, &mut hasher));
        JobDigest::from_hash(hasher.finalize())
    }

    /// Evaluates the job on this thread, whatever it costs.
    pub fn evaluate_unbounded(&self, tools: &ToolCatalog) -> JobResult {
        match self {
            Self::Value { template, scope } => JobResult::Value(render_value(template, scope)),
            Self::Texts { templates, scope } => {
                let texts = templates.iter().map(|text| render_text(text, scope));
                JobResult::Texts(texts.collect())
            }
            Self::Conditions { conditions, scope } => {
                JobResult::Condition(first_true_condition(conditions, scope))
            }
            Self::Check { schema, value } => JobResult::Mistakes(check_inputs(schema, value)),
            Self::Manifest { text } => {
                JobResult::Manifest(to_parsed_manifest(parse_manifest(text, tools)))
            }
        }
    }

    /// Evaluates the job on this thread if it is certain to be cheap; `None` if it may not be.
    pub fn evaluate_if_small(&self, tools: &ToolCatalog) -> Option<JobResult> {
        let allowance = &mut Allowance::IN_PLACE.clone();
        match self {
            Self::Value { template, scope } => {
                within_allowance(render_value_within(template, scope, allowance))
                    .map(JobResult::Value)
            }
            Self::Texts { templates, scope } => {
                let texts = templates.iter().map(|t| render_text_within(t, scope, allowance));
                within_allowance(texts.collect()).map(JobResult::Texts)
            }
            Self::Conditions { conditions, scope } => {
                within_allowance(first_true_condition_within(conditions, scope, allowance))
                    .map(JobResult::Condition)
            }
            Self::Check { schema, value } => {
                check_inputs_within(schema, value, allowance).map(JobResult::Mistakes)
            }
            Self::Manifest { text } => parse_manifest_if_small(text, tools)
                .map(|parsed| JobResult::Manifest(to_parsed_manifest(parsed))),
        }
    }
}

fn to_parsed_manifest(
    parsed: Result<convergio_domain::graph::ValidManifest, Vec<Diagnostic>>,
) -> Result<ParsedManifest, Vec<Diagnostic>> {
    parsed.map(|parsed| ParsedManifest { graph: parsed.graph, warnings: parsed.warnings })
}

/// Returns the result of an evaluation, or `None` if it was over its allowance.
fn within_allowance<T>(evaluated: Result<T, BoundedEvalError>) -> Option<Result<T, ExprError>> {
    match evaluated {
        Ok(value) => Some(Ok(value)),
        Err(BoundedEvalError::Expression(error)) => Some(Err(error)),
        Err(BoundedEvalError::OverAllowance) => None,
    }
}
