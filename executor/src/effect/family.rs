//! The end of a run among its relatives: child runs are cancelled, the parent is told.

use convergio_domain::id::RunId;
use convergio_domain::run::{FamilyCommand, Run, RunCommand, RunRejection};
use convergio_domain::stream::StreamKey;
use convergio_eventstore::LoadedStream;

use super::sub_run::create_child;
use super::sub_run_report::{child_report, report_to_parent};
use crate::error::ActorError;
use crate::plan::NewChild;
use crate::services::SharedServices;

/// Settles an ended run with its relatives: cancels open child runs and, once all have ended,
/// reports the end to the parent.
pub(crate) async fn settle_family(
    shared: &SharedServices,
    run: &mut LoadedStream<Run>,
) -> Result<(), ActorError> {
    if !run.state.phase.is_ended() || !run.state.has_open_obligations() {
        return Ok(());
    }
    let open: Vec<RunId> = run.state.open_children().map(|(child, _)| *child).collect();
    for child in &open {
        Box::pin(cancel_child(shared, run, *child)).await?;
    }
    let Some(origin) = run.state.origin.clone() else { return Ok(()) };
    // The report must have the total: tokens still held are not settled yet.
    if !open.is_empty() || run.state.spent.reserved_tokens > 0 {
        return Ok(());
    }
    let (end_report, output) = child_report(shared, run).await?;
    let parent = StreamKey::for_run(run.stream.tenant.clone(), origin.run);
    match Box::pin(report_to_parent(shared, &parent, end_report, output)).await {
        // A parent that does not know this run needs no report.
        Ok(()) | Err(ActorError::Rejected(_)) => {}
        Err(error) => return Err(error),
    }
    record_parent_notified(shared, run).await
}

/// Records that the parent was notified. Others may still write to an ended run, so the command is
/// retried after them.
async fn record_parent_notified(
    shared: &SharedServices,
    run: &mut LoadedStream<Run>,
) -> Result<(), ActorError> {
    let (command, context) =
        (|_: &_, _| (RunCommand::ParentTold, Vec::new()), shared.command_context());
    shared.repository.execute_on(run, &context, command).await.map_err(ActorError::from)
}

/// Cancels a child of an ended run. One that does not exist yet is created first, so that no
/// executor creates it later.
async fn cancel_child(
    shared: &SharedServices,
    run: &LoadedStream<Run>,
    child: RunId,
) -> Result<(), ActorError> {
    let stream = StreamKey::for_run(run.stream.tenant.clone(), child);
    let command = |_: &_, _| (RunCommand::Inherit(FamilyCommand::Cancel), Vec::new());
    let cancelled =
        shared.repository.submit_command::<Run>(&stream, &shared.command_context(), command).await;
    match cancelled.map_err(ActorError::from) {
        // An ended child needs no cancellation.
        Ok(_) | Err(ActorError::Rejected(RunRejection::Ended(_))) => Ok(()),
        Err(ActorError::Rejected(RunRejection::NotFound)) => {
            let Some(new_child) = NewChild::from_parent(run, child) else { return Ok(()) };
            create_child(shared, &run.stream, new_child, &shared.abandon_token).await;
            let again = shared
                .repository
                .submit_command::<Run>(&stream, &shared.command_context(), command)
                .await;
            match again.map_err(ActorError::from) {
                Ok(_) | Err(ActorError::Rejected(_)) => Ok(()),
                Err(error) => Err(error),
            }
        }
        Err(error) => Err(error),
    }
}
