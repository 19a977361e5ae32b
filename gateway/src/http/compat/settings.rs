//! Operator settings of the compatible APIs.

use convergio_domain::run::Budget;
use convergio_domain::time::Span;

/// Maximum tokens of a call; far more than any model's context, so it only stops defects.
const CALL_TOKENS_LIMIT: u64 = 100_000_000;
/// Maximum duration of a call in seconds, retries included.
const CALL_WALL_SECONDS: u64 = 1800;

/// Operator settings of the compatible APIs.
#[derive(Debug, Clone)]
pub struct CompatSettings {
    /// True if undeclared request fields pass to the provider unchanged; otherwise they are
    /// rejected by name.
    pub passes_unknown_fields: bool,
    /// Budget of each call, whatever the request asks for.
    pub budget: Budget,
}

impl Default for CompatSettings {
    fn default() -> Self {
        let wall = Some(Span::from_seconds(CALL_WALL_SECONDS));
        let budget = Budget { tokens: Some(CALL_TOKENS_LIMIT), wall, ..Budget::UNBOUND };
        Self { passes_unknown_fields: false, budget }
    }
}
