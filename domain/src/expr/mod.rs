//! Templates and conditions: pure, deterministic, bounded.

mod allowance;
mod condition;
mod filters;
mod meter;
mod refs;
mod scope;
mod template;
mod tokens;
mod walk;
mod weight;
mod work;

pub use allowance::{Allowance, Unevaluated};
pub use condition::{first_holding, first_holding_within, holds};
pub use refs::{Named, Refs, nodes_in_value, refs_in_condition, refs_in_text};
pub use scope::{NodeView, Scope};
pub use template::{render_text, render_text_within, render_value, render_value_within};
pub use weight::Weight;
pub(crate) use work::pattern_states;

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
        Self { message: cut(message.into()), line: None }
    }
}

/// Bytes of a message: a library may repeat a whole value in its own.
const MESSAGE_BYTES: usize = 2 << 10;

fn cut(mut message: String) -> String {
    if message.len() > MESSAGE_BYTES {
        let end = (0..=MESSAGE_BYTES).rev().find(|at| message.is_char_boundary(*at));
        message.truncate(end.unwrap_or(0));
        message.push_str(" (cut)");
    }
    message
}
