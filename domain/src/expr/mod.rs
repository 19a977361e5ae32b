//! Templates (minijinja) and conditions (CEL): pure, deterministic, with bounded work.
//!
//! - `scope`: the values that expressions see.
//! - `template`, `filters`, `filter_meter`: rendering, its filters, and the metering of their work.
//! - `condition`: evaluation of conditions.
//! - `token_scan`, `condition_refs`, `refs`: the names that an expression uses, and the checks
//!   before it is compiled, which bound the parsers' recursion.
//! - `allowance`, `weight`, `condition_cost`: bounds of the work, for callers that evaluate on a
//!   thread which others share.
//!
//! `template` and `condition` call all others. Each has a plain function, whose worst case may take
//! seconds, and one that ends in `_within` and gives up if the work may exceed an allowance.
//! Nothing here reads a clock, draws random numbers or does IO.

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

/// Error of an expression that cannot be parsed or has no value.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{message}")]
pub struct ExprError {
    /// The error, with the expression that has it.
    pub message: String,
    /// Line within the text, from 1, if known.
    pub line: Option<usize>,
}

impl ExprError {
    fn new(message: impl Into<String>) -> Self {
        Self { message: cut(message.into()), line: None }
    }
}

/// Longest message in bytes: a library may repeat a whole value in its message.
const MESSAGE_BYTES: usize = 2 << 10;

fn cut(mut message: String) -> String {
    if message.len() > MESSAGE_BYTES {
        let end = (0..=MESSAGE_BYTES).rev().find(|at| message.is_char_boundary(*at));
        message.truncate(end.unwrap_or(0));
        message.push_str(" (cut)");
    }
    message
}
