//! Steering a run with all runs within it: what is told to one run is durable in its whole family
//! before it is acknowledged.

use convergio_domain::decider::Context;
use convergio_domain::id::RunId;
use convergio_domain::once::{Once, RequestedCommand};
use convergio_domain::run::{FamilyCommand, Rejection, Run, RunCommand};
use convergio_domain::stream::StreamKey;
use futures_util::future::BoxFuture;
use futures_util::stream::{self, StreamExt, TryStreamExt};

use crate::commit::Payload;
use crate::repository::{CommitError, Loaded, Repository};

/// Runs within one run that are steered at once.
const AT_ONCE: usize = 16;

impl Repository {
    /// Gives a command to a run, and to every run within it what follows for them from a pause, a
    /// resumption or a cancellation. Told again it changes nothing, and brings to its end what was
    /// interrupted.
    ///
    /// A run within that does not exist yet is not created: whoever executes it asks the runs that
    /// it belongs to before its first step.
    ///
    /// # Errors
    /// See [`CommitError`]. A part of the family may have been told already.
    pub async fn steer_family(
        &self,
        run: &StreamKey,
        context: &Context,
        command: RunCommand,
    ) -> Result<Loaded<Run>, CommitError<Rejection>> {
        let command = RequestedCommand { request: None, command };
        self.steer_family_once(run, context, command, Vec::new()).await
    }

    /// The same for a command that is carried out once for each request. Told again by its request
    /// it changes nothing in the run, and reaches those within as the run stands now.
    ///
    /// # Errors
    /// As those of [`Repository::steer_family`].
    pub async fn steer_family_once(
        &self,
        run: &StreamKey,
        context: &Context,
        command: RequestedCommand<RunCommand>,
        payloads: Vec<Payload>,
    ) -> Result<Loaded<Run>, CommitError<Rejection>> {
        let commands = |_: &_, _| (command.clone(), payloads.clone());
        let steered = self.execute::<Once<Run>>(run, context, commands).await?.into_noun();
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

    /// Tells all runs within a run what it does, from the outside to the inside: a run that has
    /// been told begins no further run within it that would not be told.
    ///
    /// # Errors
    /// See [`CommitError`].
    pub fn steer_descendants<'a>(
        &'a self,
        run: &'a Loaded<Run>,
        context: &'a Context,
        command: FamilyCommand,
    ) -> BoxFuture<'a, Result<(), CommitError<Rejection>>> {
        let children: Vec<RunId> = match reaches_children(run, command) {
            true => run.state.open_children().map(|(child, _)| *child).collect(),
            false => Vec::new(),
        };
        let tenant = run.stream.tenant.clone();
        Box::pin(async move {
            let told = stream::iter(children).map(|child| {
                let child = StreamKey::run(tenant.clone(), child);
                self.steer_child(child, context, command)
            });
            told.buffer_unordered(AT_ONCE).try_collect().await
        })
    }

    async fn steer_child(
        &self,
        child: StreamKey,
        context: &Context,
        command: FamilyCommand,
    ) -> Result<(), CommitError<Rejection>> {
        if self.log().head(&child).await?.is_none() {
            return Ok(());
        }
        let commands = |_: &_, _| (RunCommand::Inherit(command), Vec::new());
        let steered = self.execute::<Run>(&child, context, commands).await?;
        self.steer_descendants(&steered, context, command).await
    }
}

/// Whether the runs within a run do as it was told: what has ended takes along what is within it,
/// and a run that somebody paused stays paused with all within it.
fn reaches_children(run: &Loaded<Run>, command: FamilyCommand) -> bool {
    // Whatever an imported run says that it has within is not believed.
    if run.state.is_imported {
        return false;
    }
    match command {
        FamilyCommand::Cancel => run.state.phase.is_ended(),
        FamilyCommand::Pause => run.state.paused,
        FamilyCommand::Resume => !run.state.paused,
    }
}
