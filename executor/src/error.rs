//! The error with which an actor leaves its run, and what it means for the run.

use convergio_domain::failure::UnsealedFailure;
use convergio_domain::platform_text;
use convergio_domain::run::RunRejection;
use convergio_domain::stream::StreamKey;
use convergio_evaluation::EvaluationJob;
use convergio_eventstore::{AppendError, CommitError, LogError};

use crate::graphs::GraphError;
use crate::outputs::OutputError;

/// Error that makes an actor leave its run.
#[derive(Debug, thiserror::Error)]
pub(crate) enum ActorError {
    #[error(transparent)]
    Log(#[from] LogError),
    #[error(transparent)]
    Graph(#[from] GraphError),
    #[error("{0}")]
    Failure(UnsealedFailure),
    #[error("the log refuses what the executor did: {0}")]
    Rejected(#[from] RunRejection),
    #[error(transparent)]
    Append(#[from] AppendError),
    #[error("others wrote to the run, and its own turn did not come in time")]
    Conflict,
    #[error("a plan that changes nothing was to be written: this is a defect, please report it")]
    EmptyPlan,
    #[error("the executor is stopping")]
    Stopping,
    #[error("the run was imported: it is never executed")]
    Imported,
    #[error("an evaluation is under way")]
    Evaluation(Box<EvaluationJob>),
}

impl ActorError {
    /// Returns the failure that ends the run, if retrying cannot help.
    pub(crate) fn fatal_failure(&self) -> Option<UnsealedFailure> {
        match self {
            Self::Failure(failure) | Self::Graph(GraphError::Broken(failure)) => {
                Some(failure.clone())
            }
            Self::Append(AppendError::TooLarge { .. }) => {
                let message = platform_text!("the log takes nothing so large");
                let failure = UnsealedFailure::new("request.too_large", message);
                Some(failure.with_cause(self))
            }
            _ => None,
        }
    }

    /// Returns whether the same operation may succeed later.
    pub(crate) fn is_transient(&self) -> bool {
        match self {
            Self::Log(error) => matches!(error, LogError::Unavailable(_)),
            Self::Append(error) => {
                matches!(error, AppendError::Unavailable(_) | AppendError::Busy | AppendError::Full)
            }
            Self::Conflict => true,
            _ => false,
        }
    }
}

impl From<CommitError<RunRejection>> for ActorError {
    fn from(error: CommitError<RunRejection>) -> Self {
        match error {
            CommitError::Rejected(rejection) => Self::Rejected(rejection),
            CommitError::Conflict => Self::Conflict,
            CommitError::Append(error) => Self::Append(error),
            CommitError::Log(error) => Self::Log(error),
        }
    }
}

impl From<OutputError> for ActorError {
    fn from(error: OutputError) -> Self {
        match error {
            OutputError::Log(error) => Self::Log(error),
            OutputError::Failure(failure) => Self::Failure(failure),
            OutputError::Evaluation(job) => Self::Evaluation(job),
        }
    }
}

/// The wake index names only streams with events, so a log without events of the stream lags
/// behind.
pub(crate) fn missing_run_error(stream: &StreamKey) -> ActorError {
    ActorError::Log(LogError::Unavailable(format!("{stream} has no events yet")))
}
