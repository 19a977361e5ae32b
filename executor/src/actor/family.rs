//! What a run does because of the runs that it belongs to: before anything of it is called, it asks
//! whether one of them has ended or is paused. A pause or a cancellation that was acknowledged
//! stands in every run of the family that existed then; this is for those that were created since,
//! and for a family whose steering was interrupted.

use convergio_domain::id::RunId;
use convergio_domain::run::{FamilyCommand, Phase, Run, RunCommand, RunState, Step, StepStatus};
use convergio_domain::stream::StreamKey;
use convergio_eventstore::{Loaded, LogError};

use super::{Actor, ActorError, Shared, no_run};

impl Actor {
    /// Does as the runs that this one belongs to do.
    pub(super) async fn follow_ancestors(&mut self) -> Result<(), ActorError> {
        if !is_to_ask(&self.run.state) {
            return Ok(());
        }
        let found = steering_ancestor(&self.shared, &self.run).await?;
        let Some((ancestor, command)) = found else {
            return self.follow_late_resumption().await;
        };
        let (repository, context) = (self.shared.repository.clone(), self.shared.context());
        repository.steer_descendants(&ancestor, &context, command).await?;
        repository.refresh(&mut self.run).await?;
        if !self.run.state.phase.is_ended() && !self.run.state.paused {
            // It is not in the log yet, and could not be told: it is taken up again when it is.
            return Err(no_run(&self.run.stream));
        }
        self.rebuild()?;
        self.follow_late_resumption().await
    }

    /// The pause may have ended between the look and the word of it.
    async fn follow_late_resumption(&mut self) -> Result<(), ActorError> {
        let state = &self.run.state;
        if state.phase != Phase::Running || !state.pause.inherited {
            return Ok(());
        }
        if steering_ancestor(&self.shared, &self.run).await?.is_none() {
            self.resume_with_family().await?;
            self.rebuild()?;
        }
        Ok(())
    }

    async fn resume_with_family(&mut self) -> Result<(), ActorError> {
        let (repository, context) = (self.shared.repository.clone(), self.shared.context());
        let command = |_: &_, _| (RunCommand::Inherit(FamilyCommand::Resume), Vec::new());
        self.run = repository.execute::<Run>(&self.run.stream, &context, command).await?;
        repository.steer_descendants(&self.run, &context, FamilyCommand::Resume).await?;
        Ok(())
    }
}

/// Whether the run is about to call something for the first time, or again after its executor left
/// it; or is paused with its family.
fn is_to_ask(state: &RunState) -> bool {
    let may_call = |step: &Step| match step.status {
        StepStatus::Scheduled { .. } | StepStatus::Unknown => true,
        StepStatus::Started { .. } => step.is_exposed(),
        _ => false,
    };
    let is_about_to = || state.steps.is_empty() || state.steps.values().any(may_call);
    let is_within = state.origin.is_some() && state.phase == Phase::Running;
    is_within && (state.pause.inherited || (!state.paused && is_about_to()))
}

/// The outermost run that this one belongs to and that has ended; else the outermost that is
/// paused. A run that went on by itself after its end was told is not held by those around it.
async fn steering_ancestor(
    shared: &Shared,
    run: &Loaded<Run>,
) -> Result<Option<(Loaded<Run>, FamilyCommand)>, LogError> {
    let mut found = None;
    let mut child = RunId(run.stream.id);
    let mut origin = run.state.origin.clone();
    while let Some(within) = origin {
        let stream = StreamKey::run(run.stream.tenant.clone(), within.run);
        let ancestor = shared.repository.load::<Run>(&stream).await?;
        let is_open = |known: &convergio_domain::run::Child| known.ended.is_none();
        if !ancestor.state.children.get(&child).is_some_and(is_open) {
            break;
        }
        (child, origin) = (within.run, ancestor.state.origin.clone());
        let is_cancelled = matches!(found, Some((_, FamilyCommand::Cancel)));
        if ancestor.state.phase.is_ended() {
            found = Some((ancestor, FamilyCommand::Cancel));
        } else if ancestor.state.paused && !is_cancelled {
            found = Some((ancestor, FamilyCommand::Pause));
        }
    }
    Ok(found)
}
