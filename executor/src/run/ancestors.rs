//! The influence of ancestor runs. Before a run calls anything, it checks whether an ancestor has
//! ended or is paused. An acknowledged pause or cancellation is recorded in every run of the family
//! that existed then; this check covers runs created since, and steering that was interrupted.

use convergio_domain::id::RunId;
use convergio_domain::run::{
    FamilyCommand, Run, RunCommand, RunPhase, RunState, RunStep, StepStatus,
};
use convergio_domain::stream::StreamKey;
use convergio_eventstore::{LoadedStream, LogError};

use super::actor::RunActor;
use crate::error::{ActorError, missing_run_error};
use crate::services::SharedServices;

impl RunActor {
    /// Cancels or pauses the run like its ancestors, or resumes it if their pause is over.
    pub(super) async fn follow_ancestors(&mut self) -> Result<(), ActorError> {
        if !is_ancestor_check_due(&self.run.state) {
            return Ok(());
        }
        let steering = find_steering_ancestor(&self.shared, &self.run).await?;
        let Some((ancestor, command)) = steering else {
            return Box::pin(self.follow_late_resumption()).await;
        };
        let (repository, context) = (self.shared.repository.clone(), self.shared.command_context());
        Box::pin(repository.steer_descendants(&ancestor, &context, command)).await?;
        repository.refresh(&mut self.run).await?;
        if !self.run.state.phase.is_ended() && !self.run.state.paused {
            // The run's first record is not durable yet, so it could not be steered: it is loaded
            // again later.
            return Err(missing_run_error(&self.run.stream));
        }
        self.rebuild_derived()?;
        Box::pin(self.follow_late_resumption()).await
    }

    /// Resumes the run if the ancestor's pause ended between the check and the steering.
    async fn follow_late_resumption(&mut self) -> Result<(), ActorError> {
        let state = &self.run.state;
        // A pause of the run's own is not lifted by its family.
        if state.phase != RunPhase::Running || !state.pause.inherited {
            return Ok(());
        }
        if find_steering_ancestor(&self.shared, &self.run).await?.is_none() {
            self.resume_with_family().await?;
            self.rebuild_derived()?;
        }
        Ok(())
    }

    async fn resume_with_family(&mut self) -> Result<(), ActorError> {
        let (repository, context) = (self.shared.repository.clone(), self.shared.command_context());
        let command = |_: &_, _| (RunCommand::Inherit(FamilyCommand::Resume), Vec::new());
        self.run = repository.execute::<Run>(&self.run.stream, &context, command).await?;
        repository.steer_descendants(&self.run, &context, FamilyCommand::Resume).await?;
        Ok(())
    }
}

/// Returns whether the ancestors must be checked: the run is about to call something for the first
/// time or again after a crash, or is paused with its family.
fn is_ancestor_check_due(state: &RunState) -> bool {
    let may_call = |step: &RunStep| match step.status {
        StepStatus::Scheduled { .. } | StepStatus::Unknown => true,
        StepStatus::Started { .. } => step.has_work_at_risk(),
        _ => false,
    };
    let is_about_to = || state.steps.is_empty() || state.steps.values().any(may_call);
    let is_within = state.origin.is_some() && state.phase == RunPhase::Running;
    is_within && (state.pause.inherited || (!state.paused && is_about_to()))
}

/// Finds the outermost ancestor that has ended, else the outermost that is paused. A run that went
/// on by itself after its end was reported is not bound by its ancestors.
async fn find_steering_ancestor(
    shared: &SharedServices,
    run: &LoadedStream<Run>,
) -> Result<Option<(LoadedStream<Run>, FamilyCommand)>, LogError> {
    let mut steering = None;
    let mut child = RunId(run.stream.id);
    let mut origin = run.state.origin.clone();
    while let Some(child_origin) = origin {
        let stream = StreamKey::for_run(run.stream.tenant.clone(), child_origin.run);
        let ancestor = shared.repository.load::<Run>(&stream).await?;
        // The chain ends at a parent that has recorded the child's end.
        let is_open = |known: &convergio_domain::run::RunChild| known.ended.is_none();
        if !ancestor.state.children.get(&child).is_some_and(is_open) {
            break;
        }
        (child, origin) = (child_origin.run, ancestor.state.origin.clone());
        // An end outweighs a pause, whichever is further out.
        let is_cancelled = matches!(steering, Some((_, FamilyCommand::Cancel)));
        if ancestor.state.phase.is_ended() {
            steering = Some((ancestor, FamilyCommand::Cancel));
        } else if ancestor.state.paused && !is_cancelled {
            steering = Some((ancestor, FamilyCommand::Pause));
        }
    }
    Ok(steering)
}
