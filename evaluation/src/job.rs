//! Jobs and their results.

use std::fmt;
use std::sync::Arc;

use convergio_domain::expr::{
    Allowance, ExprError, Scope, Unevaluated, first_holding, first_holding_within, render_text,
    render_text_within, render_value, render_value_within,
};
use convergio_domain::graph::manifest::Graph;
use convergio_domain::graph::{
    Mistake, ToolCatalog, check_inputs, check_inputs_within, parse, parse_if_small,
};
use serde_json::Value;

/// One evaluation, with everything that its result depends on but the tool catalogue.
#[derive(Debug, Clone)]
pub enum Job {
    /// Renders every template within a value.
    Value {
        /// Value whose strings are templates.
        template: Arc<Value>,
        /// Values that its templates see.
        scope: Scope,
    },
    /// Renders several templates to text.
    Texts {
        /// Templates in the order of the results.
        templates: Vec<String>,
        /// Values that the templates see.
        scope: Scope,
    },
    /// Finds the first of several conditions that is true.
    Conditions {
        /// Conditions in the order in which they are tried.
        conditions: Vec<String>,
        /// Values that the conditions see.
        scope: Scope,
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
pub enum Answer {
    /// The rendered value, or the error of a template.
    Value(Result<Value, ExprError>),
    /// The rendered texts, or the error of a template.
    Texts(Result<Vec<String>, ExprError>),
    /// Index of the first true condition, or the number of conditions if none is.
    Condition(Result<usize, ExprError>),
    /// Schema errors; empty if the value is valid.
    Mistakes(Vec<String>),
    /// The valid manifest, or all its errors.
    Manifest(Result<ParsedManifest, Vec<Mistake>>),
}

/// A valid manifest.
#[derive(Debug, Clone, PartialEq)]
pub struct ParsedManifest {
    /// Graph with every default filled in.
    pub graph: Graph,
    /// Uses that are allowed and probably not meant.
    pub warnings: Vec<Mistake>,
}

/// BLAKE3 of everything that a job's result depends on.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub struct Print([u8; 32]);

impl Print {
    pub(crate) fn of(hash: blake3::Hash) -> Self {
        Self(*hash.as_bytes())
    }
}

impl fmt::Display for Print {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.iter().try_for_each(|byte| write!(f, "{byte:02x}"))
    }
}

impl fmt::Debug for Print {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(self, f)
    }
}

impl Job {
    /// Returns the job's digest, equal for jobs that have the same result.
    pub fn print(&self) -> Print {
        let mut hasher = blake3::Hasher::new();
        // Hashing does not fail, and every job can be written.
        drop(crate::wire::write_job(self, &mut hasher));
        Print::of(hasher.finalize())
    }

    /// Evaluates the job on this thread, whatever it costs.
    pub fn perform(&self, tools: &ToolCatalog) -> Answer {
        match self {
            Self::Value { template, scope } => Answer::Value(render_value(template, scope)),
            Self::Texts { templates, scope } => {
                let texts = templates.iter().map(|text| render_text(text, scope));
                Answer::Texts(texts.collect())
            }
            Self::Conditions { conditions, scope } => {
                Answer::Condition(first_holding(conditions, scope))
            }
            Self::Check { schema, value } => Answer::Mistakes(check_inputs(schema, value)),
            Self::Manifest { text } => Answer::Manifest(manifest(parse(text, tools))),
        }
    }

    /// Evaluates the job on this thread if it is certain to be cheap; `None` if it may not be.
    pub fn perform_if_small(&self, tools: &ToolCatalog) -> Option<Answer> {
        let allowance = &mut Allowance::IN_PLACE.clone();
        match self {
            Self::Value { template, scope } => {
                decided(render_value_within(template, scope, allowance)).map(Answer::Value)
            }
            Self::Texts { templates, scope } => {
                let texts = templates.iter().map(|t| render_text_within(t, scope, allowance));
                decided(texts.collect()).map(Answer::Texts)
            }
            Self::Conditions { conditions, scope } => {
                decided(first_holding_within(conditions, scope, allowance)).map(Answer::Condition)
            }
            Self::Check { schema, value } => {
                check_inputs_within(schema, value, allowance).map(Answer::Mistakes)
            }
            Self::Manifest { text } => {
                parse_if_small(text, tools).map(|parsed| Answer::Manifest(manifest(parsed)))
            }
        }
    }
}

fn manifest(
    parsed: Result<convergio_domain::graph::Parsed, Vec<Mistake>>,
) -> Result<ParsedManifest, Vec<Mistake>> {
    parsed.map(|parsed| ParsedManifest { graph: parsed.graph, warnings: parsed.warnings })
}

/// Returns the result of an evaluation, or `None` if it was over its allowance.
fn decided<T>(evaluated: Result<T, Unevaluated>) -> Option<Result<T, ExprError>> {
    match evaluated {
        Ok(value) => Some(Ok(value)),
        Err(Unevaluated::Mistake(error)) => Some(Err(error)),
        Err(Unevaluated::TooMuch) => None,
    }
}
