//! Reasons for which a command to a run is rejected.

use std::fmt;

use super::state::RunPhase;
use super::values::Resolution;
use crate::id::{ApprovalId, RunId, SignalName, StepId};
use crate::stream::Seq;

/// Rejection of a command that contradicts the run's state. Nothing was recorded.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum RunRejection {
    /// The run does not exist.
    #[error("there is no such run")]
    NotFound,
    /// The run exists and was created by another request under the same key.
    #[error("this idempotency key was used for another request: use a new key")]
    IdempotencyMismatch,
    /// The run was imported from a file, and is read-only.
    #[error(
        "the run was imported: it is history, and nothing is added to it; fork it, and the new run \
        goes on: convergio runs fork RUN --at EVENT"
    )]
    Imported,
    /// The command needs a running run, and the run has ended.
    #[error("the run has ended ({0}): nothing can be changed")]
    Ended(RunPhase),
    /// An outcome was reported for a step of which no attempt is under way.
    #[error("step {0} is not under way")]
    NotUnderWay(StepId),
    /// An outcome was reported for another attempt than the current one.
    #[error("step {step}: try {reported} was reported, try {current} is under way")]
    StaleAttempt {
        /// Step that was reported.
        step: StepId,
        /// Attempt that was reported.
        reported: u32,
        /// Attempt that is under way.
        current: u32,
    },
    /// A step was started that is not ready to start.
    #[error("step {0} is not scheduled")]
    NotScheduled(StepId),
    /// A step was reported as ready for a second time.
    #[error("step {0} was scheduled before")]
    ScheduledBefore(StepId),
    /// One command reports a step twice.
    #[error("step {0} is told of twice in one command")]
    ReportedTwice(StepId),
    /// A result was reported for a tool call that has ended or was never requested.
    #[error("step {0}: the tool call is not under way")]
    ToolCallEnded(StepId),
    /// An intent does not follow from the state of the agent's turn.
    #[error("step {0}: its turn is not over, or what begins is not of it")]
    TurnOpen(StepId),
    /// The child run does not exist in this run.
    #[error("there is no run {0} within this run")]
    NoSuchChild(RunId),
    /// The command needs an ended run, and the run is running.
    #[error("the run has not ended")]
    NotEnded,
    /// The approval request does not exist in this run.
    #[error("there is no approval {0} in this run")]
    NoSuchApproval(ApprovalId),
    /// The actor lacks the role that may answer the approval.
    #[error("approval {0} is for the role `{1}`, which your token does not have: ask who has it")]
    NotInRole(ApprovalId, String),
    /// The approval was answered differently before.
    #[error("approval {0} was answered otherwise before")]
    AnsweredBefore(ApprovalId),
    /// The approval request has expired.
    #[error("approval {0} has expired")]
    ApprovalExpired(ApprovalId),
    /// The answer names other content than the approval request.
    #[error("approval {0} is for other content: read it again and answer with its content_hash")]
    ContentChanged(ApprovalId),
    /// A step was started while the run is paused.
    #[error("the run is paused: no step starts")]
    Paused,
    /// An ended run cannot be resumed.
    #[error(
        "the run has ended ({0}) and cannot be resumed: fork it at an earlier event, or retry it \
        if it failed"
    )]
    NotResumable(RunPhase),
    /// Only a failed run can be retried.
    #[error("the run has not failed ({0}): only failed steps of a failed run can be retried")]
    NotFailed(RunPhase),
    /// The failure of the run was not that of a step.
    #[error(
        "no failed step ended the run: mend what did with `convergio runs amend`, a larger budget \
        or a corrected graph, and the run goes on with all that is done"
    )]
    NothingToRetry,
    /// An amendment of a failed run changes nothing.
    #[error("nothing is amended: name a limit or a graph that the run does not have yet")]
    NothingAmended,
    /// A new limit is lower than what has been used already.
    #[error("{limit}: {used} are used already, {given} would end the run at once: raise it")]
    LimitUsedUp {
        /// Name of the limit in the manifest, as `budget.tokens`.
        limit: &'static str,
        /// Requested value of the limit.
        given: String,
        /// Amount used so far.
        used: String,
    },
    /// The run is paused because its parent run is.
    #[error("the run that this one belongs to is paused: resume that one")]
    ParentPaused,
    /// A step is to be retried that has not failed.
    #[error("step {0} has not failed")]
    HasNotFailed(StepId),
    /// The run has received its maximum of signals.
    #[error("a run takes {} signals at most", super::command::SIGNALS_LIMIT)]
    TooManySignals,
    /// No node of the run's graph waits for the signal.
    #[error(
        "no node of the run's graph waits for a signal `{signal}`{}",
        names_of(.names)
    )]
    UnknownSignal {
        /// Name of the signal that was sent.
        signal: SignalName,
        /// Names that the graph waits for, in alphabetical order.
        names: Vec<SignalName>,
    },
    /// No decision about the step is pending.
    #[error("step {0} does not wait for a decision")]
    NotUndecided(StepId),
    /// The step was decided differently before.
    #[error("step {0} was decided otherwise before ({1})")]
    DecidedBefore(StepId, Resolution),
    /// The decision does not fit the step's outcome.
    #[error(
        "step {step} cannot be decided as `{resolution}` that way: a step of unknown outcome is \
        `completed` (with its output), `failed` or `retry`; a failed one is `retry`, `skip` or \
        `failed`"
    )]
    NoSuchDecision {
        /// Step to decide about.
        step: StepId,
        /// Decision that was sent.
        resolution: Resolution,
        /// True if the step's outcome is unknown, false if the step failed.
        unknown: bool,
    },
    /// The run had ended at the event at which it was to be forked.
    #[error("the run had ended ({0}) at event {1}: fork it at an earlier event")]
    NotForkable(RunPhase, Seq),
}

/// Maximum number of names in a message.
const SHOWN_NAMES: usize = 20;

/// Lists the valid names for an error message.
fn names_of(names: &[SignalName]) -> String {
    let shown: Vec<String> =
        names.iter().take(SHOWN_NAMES).map(|name| format!("`{name}`")).collect();
    // A graph can wait for hundreds of signals; the message stays readable.
    match names.len().checked_sub(SHOWN_NAMES) {
        _ if names.is_empty() => ": it waits for none".to_owned(),
        None | Some(0) => format!(": it waits for {}", shown.join(", ")),
        Some(more) => format!(": it waits for {} and {more} more", shown.join(", ")),
    }
}

impl fmt::Display for RunPhase {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::New => "new",
            Self::Running => "running",
            Self::Completed => "completed",
            Self::Failed => "failed",
            Self::Cancelled => "cancelled",
        })
    }
}

impl fmt::Display for Resolution {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Retry => "retry",
            Self::Completed => "completed",
            Self::Failed => "failed",
            Self::Skip => "skip",
        })
    }
}
