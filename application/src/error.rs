//! Errors of use cases. Callers give each its code and its answer; a command whose only errors are
//! the repository's returns [`CommitError`] itself.

use convergio_domain::agent::AgentNotFound;
use convergio_domain::graph::{Diagnostic, GraphRejection};
use convergio_domain::id::GraphVersion;
use convergio_domain::run::RunRejection;
use convergio_evaluation::EvaluationError;
use convergio_eventstore::{CommitError, LogError};

use crate::graphs::ManifestError;
use crate::ports::ReplayError;

/// Error of a use case; nothing was changed unless its function says so.
#[derive(Debug, thiserror::Error)]
pub enum UseCaseError {
    /// The caller's tenant has no such object; the text names its kind.
    #[error("there is no such {0}")]
    NotFound(&'static str),
    /// The request is not valid; the text says what would be.
    #[error("{0}")]
    Invalid(String),
    /// A value of the request has too many bytes.
    #[error("{0}")]
    TooLarge(String),
    /// The request contradicts the state of its object.
    #[error("{0}")]
    Conflict(String),
    /// The run was changed by others during every attempt; the same request may succeed later.
    #[error("the run goes on all the time: send the request again")]
    RunMoved,
    /// The run cannot go on by the version.
    #[error("the run cannot go on by version {version}: {reason}")]
    Diverged {
        /// Version that was to be the run's.
        version: GraphVersion,
        /// Explanation for the person who asked.
        reason: String,
    },
    /// The manifest has mistakes.
    #[error("the manifest has {} mistakes", .0.len())]
    InvalidManifest(Vec<Diagnostic>),
    /// A manifest or inputs cannot be evaluated within the limits, or not now.
    #[error(transparent)]
    Evaluation(#[from] EvaluationError),
    /// The evaluator gave the result of another kind of job: a defect.
    #[error("an evaluation was answered with something else")]
    UnexpectedEvaluation,
    /// The run cannot be replayed.
    #[error(transparent)]
    Replay(#[from] ReplayError),
    /// A graph's manifest cannot be had.
    #[error(transparent)]
    Manifest(#[from] ManifestError),
    /// The log cannot be read.
    #[error(transparent)]
    Log(#[from] LogError),
    /// A command to a run was not committed.
    #[error(transparent)]
    Run(#[from] CommitError<RunRejection>),
    /// A graph version was not registered.
    #[error(transparent)]
    Graph(#[from] CommitError<GraphRejection>),
    /// A command to an agent was not committed.
    #[error(transparent)]
    Agent(#[from] CommitError<AgentNotFound>),
}

impl From<RunRejection> for UseCaseError {
    fn from(rejection: RunRejection) -> Self {
        Self::Run(CommitError::Rejected(rejection))
    }
}
