//! Steering a run together with all its sub-runs: a pause, resumption or cancellation is durable in
//! the whole family before it is acknowledged.

use convergio_domain::decider::DecisionContext;
use convergio_domain::id::RunId;
use convergio_domain::idempotency::{IdempotentNoun, RequestedCommand};
use convergio_domain::run::{FamilyCommand, Run, RunCommand, RunRejection};
use convergio_domain::stream::StreamKey;
use futures_util::future::BoxFuture;
use futures_util::stream::{self, StreamExt, TryStreamExt};

use crate::commit::Payload;
use crate::repository::{CommitError, LoadedStream, Repository};

/// Sub-runs of one run that are steered concurrently.
const CONCURRENT_CHILDREN: usize = 16;

impl Repository {
    /// Executes a command on a run, and propagates a pause, a resumption or a cancellation to all
    /// its sub-runs. Repeating it is idempotent, and completes a propagation that was interrupted.
    ///
    /// A sub-run that does not exist yet is not created: its executor asks the ancestors for their
    /// state before its first step.
    ///
    /// # Errors
    /// See [`CommitError`]. A part of the family may have been steered already.
    pub async fn steer_family(
        &self,
        run: &StreamKey,
        context: &DecisionContext,
        command: RunCommand,
    ) -> Result<LoadedStream<Run>, CommitError<RunRejection>> {
        let command = RequestedCommand { request: None, command };
        self.steer_family_once(run, context, command, Vec::new()).await
    }

    /// Steers like [`Repository::steer_family`] with a command that is executed once per request
    /// id. A repeated request changes nothing in the run itself, and propagates the run's current
    /// state to its sub-runs.
    ///
    /// # Errors
    /// As those of [`Repository::steer_family`].
    pub async fn steer_family_once(
        &self,
        run: &StreamKey,
        context: &DecisionContext,
        command: RequestedCommand<RunCommand>,
        payloads: Vec<Payload>,
    ) -> Result<LoadedStream<Run>, CommitError<RunRejection>> {
        let commands = |_: &_, _| (command.clone(), payloads.clone());
        let steered =
            self.execute::<IdempotentNoun<Run>>(run, context, commands).await?.into_noun();
        let inherited = match command.command {
            RunCommand::Cancel { .. } => Some(FamilyCommand::Cancel),
            RunCommand::Pause { .. } => Some(FamilyCommand::Pause),
            RunCommand::Resume => Some(FamilyCommand::Resume),
            _ => None,
        };
        if let Some(inherited) = inherited {
            self.steer_descendants(&steered, context, inherited).await?;
        }
        Ok(steered)
    }

    /// Propagates a command to all sub-runs of a run, from the outside to the inside: a run that
    /// has taken the command starts no further sub-run, so none is missed.
    ///
    /// # Errors
    /// See [`CommitError`].
    pub fn steer_descendants<'a>(
        &'a self,
        run: &'a LoadedStream<Run>,
        context: &'a DecisionContext,
        command: FamilyCommand,
    ) -> BoxFuture<'a, Result<(), CommitError<RunRejection>>> {
        let children: Vec<RunId> = match reaches_children(run, command) {
            true => run.state.open_children().map(|(child, _)| *child).collect(),
            false => Vec::new(),
        };
        let tenant = run.stream.tenant.clone();
        Box::pin(async move {
            let commands = stream::iter(children).map(|child| {
                let child = StreamKey::for_run(tenant.clone(), child);
                self.steer_child(child, context, command)
            });
            commands.buffer_unordered(CONCURRENT_CHILDREN).try_collect().await
        })
    }

    async fn steer_child(
        &self,
        child: StreamKey,
        context: &DecisionContext,
        command: FamilyCommand,
    ) -> Result<(), CommitError<RunRejection>> {
        // Not created yet; see `steer_family`.
        if self.event_log().stream_head(&child).await?.is_none() {
            return Ok(());
        }
        let commands = |_: &_, _| (RunCommand::Inherit(command), Vec::new());
        let steered = self.execute::<Run>(&child, context, commands).await?;
        self.steer_descendants(&steered, context, command).await
    }
}

/// Returns whether a command reaches the sub-runs: an ended run ends its sub-runs, and a run that
/// is paused by itself stays paused together with them.
fn reaches_children(run: &LoadedStream<Run>, command: FamilyCommand) -> bool {
    // An imported run's list of sub-runs comes from a file, not from this log: it is not trusted.
    if run.state.is_imported {
        return false;
    }
    match command {
        FamilyCommand::Cancel => run.state.phase.is_ended(),
        FamilyCommand::Pause => run.state.paused,
        FamilyCommand::Resume => !run.state.paused,
    }
}
