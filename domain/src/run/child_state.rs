//! A child run as its parent knows it.

use serde::{Deserialize, Serialize};

use super::values::{Budget, ToolCallNumber};
use crate::chat::Privacy;
use crate::failure::Failure;
use crate::id::{AgentId, GraphId, GraphVersion, StepId};
use crate::money::Money;
use crate::payload::PayloadRef;
use crate::time::Timestamp;

/// A child run as its parent knows it.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct RunChild {
    /// Step that waits for the child run.
    pub step: StepId,
    /// Attempt of that step.
    pub attempt: u32,
    /// Tool call that the child run answers; `None` if it is the whole step.
    pub at: Option<ToolCallNumber>,
    /// Graph that the child run executes.
    pub graph: GraphId,
    /// Graph version to which it was pinned at its creation.
    pub version: GraphVersion,
    /// Inputs of the child run, in the parent's history.
    pub input: PayloadRef,
    /// Canonical manifest, if the graph has to be registered first.
    pub manifest: Option<PayloadRef>,
    /// Total budget of the child run.
    pub budget: Budget,
    /// Farthest that its prompts may travel.
    pub privacy: Privacy,
    /// Agent that it executes, if any.
    pub agent: Option<AgentId>,
    /// Time of the next check that the child run exists, or runs again after a resumption; `None`
    /// once that is certain.
    pub look: Option<Timestamp>,
    /// Outcome of the child run; `None` while it is open.
    pub ended: Option<ChildOutcome>,
    /// Number of times the child run was reopened, as far as the parent knows.
    #[serde(default, skip_serializing_if = "is_zero")]
    pub reopenings: u32,
    /// Graph version with which it continues after its end, if it changes.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub reopened_version: Option<GraphVersion>,
    /// Hash of this part, as last added to the run's fingerprint.
    #[serde(skip)]
    pub(super) fingerprint: u64,
}

/// Outcome of a child run, as its parent knows it.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct ChildOutcome {
    /// Failure or cancellation; `None` if it completed.
    pub error: Option<Failure>,
    /// Output of the child run, in the parent's history.
    pub output: Option<PayloadRef>,
    /// True if it was cancelled only because this run or an ancestor ended.
    #[serde(default, skip_serializing_if = "is_false")]
    pub inherited: bool,
}

impl ChildOutcome {
    /// True if the child run may continue: it failed, or was cancelled only because this run ended.
    /// A cancellation by a person is final.
    pub fn is_reopenable(&self) -> bool {
        self.error.as_ref().is_some_and(|error| self.inherited || error.code != "run.cancelled")
    }
}

/// Usage of a child run that this run has booked so far. A child reports totals, so that only the
/// difference to the account is new.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
pub(super) struct ChildAccount {
    /// Idle time of this run when the child began, in milliseconds.
    pub(super) idle_at_begin_ms: u64,
    /// Tokens booked so far.
    pub(super) tokens: u64,
    /// Cost booked so far, in the currency of the prices.
    pub(super) cost: Money,
    /// Active time booked so far, in milliseconds.
    pub(super) active_ms: u64,
}

#[expect(clippy::trivially_copy_pass_by_ref, reason = "serde hands out references")]
fn is_false(value: &bool) -> bool {
    !*value
}

#[expect(clippy::trivially_copy_pass_by_ref, reason = "serde hands out references")]
fn is_zero(number: &u32) -> bool {
    *number == 0
}
