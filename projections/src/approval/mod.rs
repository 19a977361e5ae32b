//! Approvals: questions of runs that people answer.

mod apply;
mod query;
pub(crate) mod rows;

use std::collections::HashMap;

use convergio_domain::event::Event;
use convergio_domain::run::event::RunEvent;
use convergio_domain::stream::StreamKey;
use sqlx::AnyConnection;

use crate::read_model::{AppliedEvent, CACHED_ROWS_LIMIT, ReadModel, ReadModelTable, RunColumn};

/// The read model of approvals. Most runs ask for none, and cost no statement.
#[derive(Default)]
pub(crate) struct ApprovalReadModel {
    /// Runs under way that began while they were kept here, and whether each has asked.
    new_runs: HashMap<StreamKey, bool>,
}

impl ReadModel for ApprovalReadModel {
    const NAME: &'static str = "approval";
    const TABLES: &'static [ReadModelTable] =
        &[ReadModelTable { name: "approval", runs: RunColumn::Id }];

    async fn apply_event(
        &mut self,
        connection: &mut AnyConnection,
        applied: &AppliedEvent<'_>,
    ) -> sqlx::Result<()> {
        let stream = &applied.record.stream;
        let Event::Run(event) = applied.event else { return Ok(()) };
        let may_have_approvals = self.new_runs.get(stream).copied().unwrap_or(true);
        match event {
            RunEvent::RunCreated(_) | RunEvent::RunForked(_) => {
                self.new_runs.insert(stream.clone(), false);
            }
            RunEvent::ApprovalRequested(requested) => {
                self.new_runs.entry(stream.clone()).and_modify(|has_asked| *has_asked = true);
                apply::insert_approval(connection, applied, requested).await?;
            }
            RunEvent::ApprovalGranted(answer) => {
                apply::update_approval(connection, applied, answer, "granted").await?;
            }
            RunEvent::ApprovalDenied(answer) => {
                apply::update_approval(connection, applied, answer, "denied").await?;
            }
            RunEvent::RunImported(_) => {
                apply::void_imported_approvals(connection, applied).await?;
            }
            _ if may_have_approvals => follow_run(connection, applied, event).await?,
            _ => {}
        }
        if let RunEvent::RunCompleted(_) | RunEvent::RunFailed(_) | RunEvent::RunCancelled(_) =
            event
        {
            // Ended runs hardly change again.
            self.new_runs.remove(stream);
        }
        Ok(())
    }

    async fn flush_rows(&mut self, _connection: &mut AnyConnection) -> sqlx::Result<()> {
        if self.new_runs.len() > CACHED_ROWS_LIMIT {
            self.new_runs.clear();
        }
        Ok(())
    }
}

/// Moves the approvals of a run that ends, goes on, or is reopened.
async fn follow_run(
    connection: &mut AnyConnection,
    applied: &AppliedEvent<'_>,
    event: &RunEvent,
) -> sqlx::Result<()> {
    match event {
        RunEvent::RunCompleted(_) | RunEvent::RunFailed(_) | RunEvent::RunCancelled(_) => {
            apply::move_approvals(connection, applied, ("open", "void")).await
        }
        // Resumed while something else still pauses it: nothing changes for readers.
        RunEvent::RunResumed(resumed) if !resumed.stays_paused => {
            apply::extend_deadlines(connection, applied, resumed.stood).await
        }
        RunEvent::RunReopened(reopened) => {
            apply::move_approvals(&mut *connection, applied, ("void", "open")).await?;
            apply::extend_deadlines(connection, applied, reopened.stood).await
        }
        _ => Ok(()),
    }
}
