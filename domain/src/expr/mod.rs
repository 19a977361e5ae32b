//! Templates (minijinja) and conditions (CEL): pure, deterministic, with bounded work.
//!
//! - `scope`: the values that expressions see.
//! - `template`, `filters`, `filter_meter`: rendering, its filters, and the metering of their work.
//! - `condition`: evaluation of conditions.
//! - `token_scan`, `condition_refs`, `refs`: the names that an expression uses, and the checks
//!   before it is compiled, which bound the parsers' recursion. `expr_refs`: the names themselves.
//! - `error`: why an expression cannot be parsed or has no value.
//! - `allowance`, `weight`, `condition_cost`: bounds of the work, for callers that evaluate on a
//!   thread which others share.
//!
//! `template` and `condition` call all others. Each has a plain function, whose worst case may take
//! seconds, and one that ends in `_within` and gives up if the work may exceed an allowance.
//! Nothing here reads a clock, draws random numbers or does IO.

mod allowance;
mod condition;
mod condition_cost;
mod condition_refs;
mod error;
mod expr_refs;
mod filter_meter;
mod filters;
mod refs;
mod scope;
mod template;
mod token_scan;
mod weight;

pub use allowance::{Allowance, BoundedEvalError};
pub use condition::{condition_holds, first_true_condition, first_true_condition_within};
pub(crate) use condition_cost::pattern_states;
pub use error::ExprError;
pub use expr_refs::{ExprRefs, NameLines};
pub use refs::{nodes_in_value, refs_in_condition, refs_in_text};
pub use scope::{ExprScope, NodeView};
pub use template::{render_text, render_text_within, render_value, render_value_within};
pub use weight::ValueWeight;
