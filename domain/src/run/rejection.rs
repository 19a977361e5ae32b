//! Why a command to a run is refused.

use std::fmt;

use crate::id::{ApprovalId, RunId, SignalName, StepId};
use crate::run::{Phase, Resolution};
use crate::stream::Seq;

/// A command that contradicts the state of the run. Nothing was recorded.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum Rejection {
    /// The run does not exist.
    #[error("there is no such run")]
    NotFound,
    /// The run exists, and was asked for by another request.
    #[error("this idempotency key was used for another request: use a new key")]
    IdempotencyMismatch,
    /// The run came as a file.
    #[error(
        "the run was imported: it is history, and nothing is added to it; fork it, and the new run \
        goes on: convergio runs fork RUN --at EVENT"
    )]
    Imported,
    /// The run has ended.
    #[error("the run has ended ({0}): nothing can be changed")]
    Ended(Phase),
    /// An outcome for a step that nobody started.
    #[error("step {0} is not under way")]
    NotUnderWay(StepId),
    /// An outcome for another try than the one under way.
    #[error("step {step}: try {told} was reported, try {current} is under way")]
    StaleAttempt {
        /// The step.
        step: StepId,
        /// The try reported.
        told: u32,
        /// The try under way.
        current: u32,
    },
    /// A start of a step that is not scheduled.
    #[error("step {0} is not scheduled")]
    NotScheduled(StepId),
    /// A step was made ready twice.
    #[error("step {0} was scheduled before")]
    ScheduledBefore(StepId),
    /// One command speaks of a step twice.
    #[error("step {0} is told of twice in one command")]
    ToldTwice(StepId),
    /// A tool call that is over, or that nobody asked for.
    #[error("step {0}: the tool call is not under way")]
    ToolCallEnded(StepId),
    /// What begins within the step does not follow from where it stands.
    #[error("step {0}: its turn is not over, or what begins is not of it")]
    TurnOpen(StepId),
    /// The run within does not exist.
    #[error("there is no run {0} within this run")]
    NoSuchChild(RunId),
    /// The run has not ended.
    #[error("the run has not ended")]
    NotEnded,
    /// The question does not exist in this run.
    #[error("there is no approval {0} in this run")]
    NoSuchApproval(ApprovalId),
    /// The question is for others.
    #[error("approval {0} is for the role `{1}`, which your token does not have: ask who has it")]
    NotInRole(ApprovalId, String),
    /// The question was answered otherwise.
    #[error("approval {0} was answered otherwise before")]
    AnsweredBefore(ApprovalId),
    /// The question lapsed.
    #[error("approval {0} has expired")]
    ApprovalExpired(ApprovalId),
    /// The answer names other content than the question.
    #[error("approval {0} is for other content: read it again and answer with its content_hash")]
    ContentChanged(ApprovalId),
    /// A step would start while the run is paused.
    #[error("the run is paused: no step starts")]
    Paused,
    /// The run has ended, and is to be resumed.
    #[error(
        "the run has ended ({0}) and cannot be resumed: fork it at an earlier event, or retry it \
        if it failed"
    )]
    NotResumable(Phase),
    /// Only failed runs are retried.
    #[error("the run has not failed ({0}): only failed steps of a failed run can be retried")]
    NotFailed(Phase),
    /// No step's failure ended the run.
    #[error(
        "no failed step ended the run: mend what did with `convergio runs amend`, a larger budget \
        or a corrected graph, and the run goes on with all that is done"
    )]
    NothingToRetry,
    /// An amendment that changes nothing of a run that failed.
    #[error("nothing is amended: name a limit or a graph that the run does not have yet")]
    NothingAmended,
    /// A limit that the run has gone beyond already.
    #[error("{limit}: {used} are used already, {given} would end the run at once: raise it")]
    LimitUsedUp {
        /// Which limit.
        limit: &'static str,
        /// What it would be.
        given: String,
        /// What is used.
        used: String,
    },
    /// The run is paused because a run that it belongs to is.
    #[error("the run that this one belongs to is paused: resume that one")]
    PausedAbove,
    /// The step is to be retried and has not failed.
    #[error("step {0} has not failed")]
    HasNotFailed(StepId),
    /// The run has taken in as many outside events as it may.
    #[error("a run takes {} signals at most", super::steer::SIGNALS_LIMIT)]
    TooManySignals,
    /// No node of the run's graph waits for the event.
    #[error(
        "no node of the run's graph waits for a signal `{signal}`{}",
        names_of(.names)
    )]
    UnknownSignal {
        /// The name that was sent.
        signal: SignalName,
        /// The names that the graph waits for, in order.
        names: Vec<SignalName>,
    },
    /// Nobody asks what becomes of the step.
    #[error("step {0} does not wait for a decision")]
    NotUndecided(StepId),
    /// It was decided otherwise.
    #[error("step {0} was decided otherwise before ({1})")]
    DecidedBefore(StepId, Resolution),
    /// The decision does not fit what is asked.
    #[error(
        "step {step} cannot be decided as `{resolution}` that way: a step of unknown outcome is \
        `completed` (with its output), `failed` or `retry`; a failed one is `retry`, `skip` or \
        `failed`"
    )]
    NoSuchDecision {
        /// The step.
        step: StepId,
        /// What was decided.
        resolution: Resolution,
        /// Whether its outcome is unknown; else it failed.
        unknown: bool,
    },
    /// A fork would begin after the end.
    #[error("the run had ended ({0}) at event {1}: fork it at an earlier event")]
    NotForkable(Phase, Seq),
}

/// Names that a message lists at most.
const SHOWN_NAMES: usize = 20;

/// The names that would be right.
fn names_of(names: &[SignalName]) -> String {
    let shown: Vec<String> =
        names.iter().take(SHOWN_NAMES).map(|name| format!("`{name}`")).collect();
    match names.len().checked_sub(SHOWN_NAMES) {
        _ if names.is_empty() => ": it waits for none".to_owned(),
        None | Some(0) => format!(": it waits for {}", shown.join(", ")),
        Some(more) => format!(": it waits for {} and {more} more", shown.join(", ")),
    }
}

impl fmt::Display for Phase {
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
