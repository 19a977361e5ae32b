//! Values that the events of a run and its state share: they depend on neither.

use serde::{Deserialize, Serialize};

use crate::id::{RunId, StepId};
use crate::money::Money;
use crate::time::Span;

/// Limits on what a run may spend, including its child runs. A missing limit does not bind.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct Budget {
    /// Maximum tokens, input and output together.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub tokens: Option<u64>,
    /// Maximum cost, in the currency of the prices.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub cost: Option<Money>,
    /// Maximum active time. Pauses do not count, nor does time in which all of the run waits for
    /// people, signals or timers.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub wall: Option<Span>,
    /// Maximum time from creation to end, without interruption.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub deadline: Option<Span>,
}

impl Budget {
    /// A budget without limits.
    pub const UNBOUND: Self = Self { tokens: None, cost: None, wall: None, deadline: None };

    /// Returns the lower of each pair of limits.
    #[must_use]
    pub fn narrowed_by(self, other: Self) -> Self {
        fn min_limit<T: Ord>(one: Option<T>, other: Option<T>) -> Option<T> {
            match (one, other) {
                (Some(one), Some(other)) => Some(one.min(other)),
                (one, other) => one.or(other),
            }
        }
        Self {
            tokens: min_limit(self.tokens, other.tokens),
            cost: min_limit(self.cost, other.cost),
            wall: min_limit(self.wall, other.wall),
            deadline: min_limit(self.deadline, other.deadline),
        }
    }
}

impl Default for Budget {
    fn default() -> Self {
        Self {
            tokens: Some(100_000),
            cost: None,
            wall: Some(Span::from_seconds(600)),
            deadline: None,
        }
    }
}

/// Link from a child run to its parent.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct RunOrigin {
    /// Id of the parent run.
    pub run: RunId,
    /// Step of the parent that waits for this run.
    pub step: StepId,
    /// Nesting depth of this run: 1 for a child, 2 for a grandchild.
    pub depth: u32,
}

/// Decision about a failed or lost step.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Resolution {
    /// Attempt the step again.
    Retry,
    /// Treat the step as completed.
    Completed,
    /// Let the step fail for good.
    Failed,
    /// Continue the run without the step.
    Skip,
}

/// Number of a tool call of an agent: its turn, and its position there.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
pub struct ToolCallNumber {
    /// Turn whose answer requested the call; 0 precedes the first turn.
    pub turn: u32,
    /// Number of the call in the turn, from 0.
    pub call: u32,
}
