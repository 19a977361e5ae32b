//! Jobs: what is to be evaluated, and what comes of it.

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

/// What is to be evaluated.
#[derive(Debug, Clone)]
pub enum Job {
    /// Every template within a value.
    Value {
        /// The value.
        template: Arc<Value>,
        /// What its templates see.
        scope: Scope,
    },
    /// Several texts.
    Texts {
        /// The texts.
        templates: Vec<String>,
        /// What they see.
        scope: Scope,
    },
    /// The first of several conditions that holds.
    Conditions {
        /// The conditions, in order.
        conditions: Vec<String>,
        /// What they see.
        scope: Scope,
    },
    /// What is wrong with a value by a schema.
    Check {
        /// The schema.
        schema: Arc<Value>,
        /// The value.
        value: Arc<Value>,
    },
    /// A manifest's text.
    Manifest {
        /// The text.
        text: String,
    },
}

/// What came of a job; each kind has its own.
#[expect(clippy::large_enum_variant, reason = "there are as many as evaluations under way")]
#[derive(Debug, Clone, PartialEq)]
pub enum Answer {
    /// A value, rendered.
    Value(Result<Value, ExprError>),
    /// Texts, rendered.
    Texts(Result<Vec<String>, ExprError>),
    /// The number of the condition that holds, or how many there are.
    Condition(Result<usize, ExprError>),
    /// What is wrong with a value.
    Mistakes(Vec<String>),
    /// A manifest, or its mistakes.
    Manifest(Result<ParsedManifest, Vec<Mistake>>),
}

/// A manifest that is a valid one.
#[derive(Debug, Clone, PartialEq)]
pub struct ParsedManifest {
    /// The graph.
    pub graph: Graph,
    /// What is allowed and probably not meant.
    pub warnings: Vec<Mistake>,
}

/// What a job is, as a hash of all that it depends on.
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
    /// What the job is: the same for jobs that have the same answer.
    pub fn print(&self) -> Print {
        let mut hasher = blake3::Hasher::new();
        // Hashing does not fail, and every job can be written.
        drop(crate::wire::write_job(self, &mut hasher));
        Print::of(hasher.finalize())
    }

    /// Does it here, whatever it takes.
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

    /// Does it here if it costs little in any case.
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

/// What was evaluated, unless it was too much.
fn decided<T>(evaluated: Result<T, Unevaluated>) -> Option<Result<T, ExprError>> {
    match evaluated {
        Ok(value) => Some(Ok(value)),
        Err(Unevaluated::Mistake(error)) => Some(Err(error)),
        Err(Unevaluated::TooMuch) => None,
    }
}
