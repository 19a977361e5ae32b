//! What an operator says of the doors.

use convergio_domain::run::Budget;
use convergio_domain::time::Span;

/// Tokens that one call may use: far more than any model's context.
const TOKENS: u64 = 100_000_000;
/// Longest time that one call may take, with its tries.
const WALL_SECONDS: u64 = 1800;

/// What an operator says of the doors.
#[derive(Debug, Clone)]
pub struct DoorSettings {
    /// Whether fields of a request that the platform does not know go on to the provider as they
    /// are; they are refused by name otherwise.
    pub passes_unknown_fields: bool,
    /// The most that one call may use, whatever it asks for.
    pub budget: Budget,
}

impl Default for DoorSettings {
    fn default() -> Self {
        let wall = Some(Span::seconds(WALL_SECONDS));
        let budget = Budget { tokens: Some(TOKENS), wall, ..Budget::UNBOUND };
        Self { passes_unknown_fields: false, budget }
    }
}
