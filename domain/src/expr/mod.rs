//! Templates and conditions: pure, deterministic, bounded.

mod condition;
mod filters;
mod refs;
mod scope;
mod template;
mod tokens;
mod walk;

pub use condition::holds;
pub use refs::{Named, Refs, nodes_in_value, refs_in_condition, refs_in_text};
pub use scope::{NodeView, Scope};
pub use template::{render_text, render_value};

/// An expression that cannot be read or has no value.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{message}")]
pub struct ExprError {
    /// What is wrong, and in which expression.
    pub message: String,
    /// The line within the text, from 1, when known.
    pub line: Option<usize>,
}

impl ExprError {
    fn new(message: impl Into<String>) -> Self {
        Self { message: message.into(), line: None }
    }
}
