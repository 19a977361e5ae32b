//! The child runs of an actor's run: created again after a crash, and checked when their time has
//! come.

use std::sync::Arc;

use convergio_domain::id::RunId;
use convergio_domain::run::{RunCommand, RunState};
use convergio_domain::stream::StreamKey;
use convergio_domain::time::Timestamp;
use convergio_eventstore::CommitError;

use super::actor::RunActor;
use crate::effect::create_child;
use crate::error::ActorError;
use crate::plan::NewChild;

impl RunActor {
    /// Creates open child runs that do not exist, because an executor died first, and reopens or
    /// resumes those that must go on with this run.
    pub(super) async fn ensure_children(&mut self) -> Result<(), ActorError> {
        if self.run.state.phase.is_ended() {
            return Ok(());
        }
        // A child without a check time is known to exist.
        let open = self.run.state.open_children();
        let open: Vec<(RunId, Timestamp)> =
            open.filter_map(|(run, child)| Some((*run, child.look?))).collect();
        let (log, now) = (self.shared.repository.event_log(), self.shared.current_time());
        let mut checked_runs = Vec::new();
        for (run, check_at) in open {
            checked_runs.extend((check_at <= now).then_some(run));
            let stream = StreamKey::for_run(self.run.stream.tenant.clone(), run);
            let exists = log.stream_head(&stream).await?.is_some();
            // A child past its check time is visited even if it exists: it may wait to go on.
            if !exists || check_at <= now {
                let (shared, parent) = (Arc::clone(&self.shared), self.run.stream.clone());
                let Some(new_child) = NewChild::from_parent(&self.run, run) else { continue };
                // Boxed, as all that few runs need: the future of every run is moved whole.
                Box::pin(create_child(&shared, &parent, new_child, &shared.abandon_token)).await;
            }
        }
        Box::pin(self.confirm_created(checked_runs)).await
    }

    /// Ensures the child runs if a check of one is due, after another writer changed the run.
    pub(super) async fn ensure_due_children(&mut self) -> Result<(), ActorError> {
        if is_child_check_due(&self.run.state, self.shared.current_time()) {
            self.ensure_children().await?;
        }
        Ok(())
    }

    /// Records child runs that exist, so that they are not checked again.
    async fn confirm_created(&mut self, children: Vec<RunId>) -> Result<(), ActorError> {
        if children.is_empty() {
            return Ok(());
        }
        let (command, context) =
            (RunCommand::ChildrenCreated(children), self.shared.command_context());
        let repository = &self.shared.repository;
        match repository.commit(&mut self.run, command, Vec::new(), &context).await {
            // Another writer was first: the next check records it.
            Ok(_) | Err(CommitError::Conflict) => self.rebuild_derived(),
            Err(error) => Err(error.into()),
        }
    }
}

/// Returns whether a check of a child run is due.
fn is_child_check_due(state: &RunState, now: Timestamp) -> bool {
    state.next_existence_check().is_some_and(|look| look <= now)
}
