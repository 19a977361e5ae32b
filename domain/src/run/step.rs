//! State of a step, and of the model call that it has in flight.

use std::collections::BTreeSet;

use serde::{Deserialize, Serialize};

use super::fallback::Fallback;
use super::turns::AgentTurns;
use super::values::Resolution;
use crate::billing::Meter;
use crate::failure::Failure;
use crate::id::{ApprovalId, ExecutorId, RunId, SignalName};
use crate::money::Money;
use crate::payload::PayloadRef;
use crate::time::Timestamp;

/// Status of a step.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub enum StepStatus {
    /// Ready to start, but not before `due`.
    Scheduled {
        /// Earliest start; `None` means at once.
        due: Option<Timestamp>,
    },
    /// An executor performs the step; its intent is committed.
    Started {
        /// Executor process that performs it.
        executor: ExecutorId,
        /// Time at which the attempt began.
        at: Timestamp,
    },
    /// The executor died; the outcome is unknown.
    Unknown,
    /// Sleeps until a time.
    Sleeping {
        /// Time at which the sleep ends.
        due: Timestamp,
    },
    /// Waits for a person's approval.
    Asking {
        /// Id of the approval request.
        approval: ApprovalId,
    },
    /// Waits for an external event.
    Awaiting {
        /// Name of the awaited event.
        signal: SignalName,
        /// Time at which the step gives up waiting and fails.
        expires: Option<Timestamp>,
        /// Content of the event, once it has arrived.
        received: Option<PayloadRef>,
    },
    /// Waits for a person's decision after a failure or a lost attempt.
    Undecided {
        /// True if the attempt's outcome is unknown, false if it failed.
        unknown: bool,
        /// Decision, and the output that goes with it, once there is one.
        decision: Option<(Resolution, Option<PayloadRef>)>,
    },
    /// A map node whose items run.
    Expanded,
    /// The step succeeded, or counts as such by decision.
    Completed,
    /// The step failed and no attempt follows.
    Failed,
    /// The step will never run.
    Skipped,
}

/// State of a step.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct RunStep {
    /// Current status of the step.
    pub status: StepStatus,
    /// Number of the last attempt; 0 before the first.
    pub attempt: u32,
    /// Output of the step, in the run's history.
    pub output: Option<PayloadRef>,
    /// Index of the case that a branch took.
    pub case: Option<u32>,
    /// Width and maximum parallelism of an expanded map.
    pub map: Option<(u32, u32)>,
    /// Model call in flight, with its budget hold.
    pub call: Option<PendingModelCall>,
    /// Number of failed attempts; attempts of unknown outcome do not count.
    pub failures: u32,
    /// Failure of the last attempt.
    pub error: Option<Failure>,
    /// Models that the step must not call again, with the reasons.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub avoid: Vec<Fallback>,
    /// Turns of an agent with tools.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub turns: Option<Box<AgentTurns>>,
    /// Child run that the last attempt consists of.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub child: Option<RunId>,
    /// Child runs that the step waits for.
    #[serde(default, skip_serializing_if = "BTreeSet::is_empty")]
    pub awaits: BTreeSet<RunId>,
    /// Idempotency key of a lost model call, which the next attempt repeats.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub lost_call: Option<String>,
    /// Hash of this part, as last added to the run's fingerprint.
    #[serde(skip)]
    pub(super) fingerprint: u64,
}

/// A model call in flight, with its budget hold.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct PendingModelCall {
    /// Turn of the agent, from 1; 0 for an agent without tools.
    #[serde(default, skip_serializing_if = "is_zero")]
    pub turn: u32,
    /// Configured name of the provider.
    pub provider: String,
    /// Model id in the provider's spelling.
    pub model: String,
    /// Worst case of tokens, held against the budget.
    pub reserved_tokens: u64,
    /// Worst case of cost, held against the budget; zero without a price.
    pub reserved_cost: Money,
    /// Estimated input tokens of the request.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub estimated_tokens: Option<u64>,
    /// Meter of the estimate for calls that are no chat; fresh input tokens if absent.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub estimated_meter: Option<Meter>,
    /// Key by which the provider recognises a repeated call.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub idempotency_key: Option<String>,
}

impl RunStep {
    pub(super) fn new(status: StepStatus) -> Self {
        Self {
            status,
            attempt: 0,
            output: None,
            case: None,
            map: None,
            call: None,
            failures: 0,
            error: None,
            avoid: Vec::new(),
            turns: None,
            child: None,
            awaits: BTreeSet::new(),
            lost_call: None,
            fingerprint: 0,
        }
    }

    /// True if an executor can work on the step right now.
    pub(super) fn is_runnable(&self) -> bool {
        use StepStatus::{Scheduled, Started, Unknown};
        match self.status {
            Scheduled { due: None } | Unknown => true,
            Started { .. } => !self.is_parked(),
            _ => false,
        }
    }

    /// True if an attempt is under way. The log then accepts its outcome and nothing else.
    pub fn is_under_way(&self) -> bool {
        use StepStatus::{Asking, Awaiting, Expanded, Sleeping, Started, Undecided, Unknown};
        matches!(
            self.status,
            Started { .. }
                | Unknown
                | Asking { .. }
                | Awaiting { .. }
                | Undecided { .. }
                | Expanded
                | Sleeping { .. }
        )
    }

    /// True if the step completed, failed or was skipped.
    pub fn is_ended(&self) -> bool {
        use StepStatus::{Completed, Failed, Skipped};
        matches!(self.status, Completed | Failed | Skipped)
    }

    /// True if something of the step can proceed without an external event.
    pub(super) fn is_active(&self) -> bool {
        match &self.status {
            StepStatus::Scheduled { .. } | StepStatus::Unknown => true,
            StepStatus::Started { .. } => !self.is_parked(),
            StepStatus::Awaiting { received, .. } => received.is_some(),
            StepStatus::Undecided { decision, .. } => decision.is_some(),
            _ => false,
        }
    }

    /// Returns the number of the step's queued tool calls.
    pub(super) fn queued_call_count(&self) -> u32 {
        let count = self.turns.as_deref().map_or(0, |turns| turns.queued_calls().count());
        u32::try_from(count).unwrap_or(u32::MAX)
    }

    /// True if the step waits only for child runs.
    pub fn is_parked(&self) -> bool {
        let waits = match self.turns.as_deref() {
            Some(turns) => !turns.is_complete() && turns.awaits_only(&self.awaits),
            None => self.child.is_some_and(|child| self.awaits.contains(&child)),
        };
        waits && self.call.is_none()
    }

    /// True if the executor's death would lose work in flight. Child runs proceed by themselves,
    /// and their results are in the log.
    pub fn has_work_at_risk(&self) -> bool {
        match self.turns.as_deref() {
            // A model call is paid for, whatever becomes of its answer.
            _ if self.call.is_some() => true,
            Some(turns) => turns.is_computing(),
            None => self.child.is_none(),
        }
    }
}

#[expect(clippy::trivially_copy_pass_by_ref, reason = "serde hands out references")]
fn is_zero(turn: &u32) -> bool {
    *turn == 0
}
