//! Why a command to a run is refused.

use crate::id::{ApprovalId, RunId, StepId};
use crate::run::Phase;

/// A command that contradicts the state of the run. Nothing was recorded.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum Rejection {
    /// The run does not exist.
    #[error("there is no such run")]
    NotFound,
    /// The run exists, and was asked for by another request.
    #[error("this idempotency key was used for another request: use a new key")]
    IdempotencyMismatch,
    /// The run has ended.
    #[error("the run has ended ({0:?}): nothing can be changed")]
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
    /// The question was answered otherwise.
    #[error("approval {0} was answered otherwise before")]
    AnsweredBefore(ApprovalId),
    /// The question lapsed.
    #[error("approval {0} has expired")]
    ApprovalExpired(ApprovalId),
    /// The answer names other content than the question.
    #[error("approval {0} is for other content: read it again and answer with its content_hash")]
    ContentChanged(ApprovalId),
}
