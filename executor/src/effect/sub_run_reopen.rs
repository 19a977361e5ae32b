//! Child runs that exist already, brought in line with their parent.

use std::sync::Arc;

use convergio_domain::id::GraphVersion;
use convergio_domain::platform_text;
use convergio_domain::policy::reopening::fatal_steps;
use convergio_domain::run::{
    FamilyCommand, ReopenRun, Run, RunChild, RunCommand, RunRejection, RunState,
};
use convergio_domain::stream::StreamKey;

use super::sub_run_report::{child_report, report_to_parent};
use crate::error::ActorError;
use crate::graphs::CompiledGraph;
use crate::plan::{NewChild, new_failure};
use crate::services::SharedServices;

/// Brings an existing child run in line with its parent: reopens it after its end, and resumes it
/// after a pause.
pub(super) async fn align_child(
    shared: &SharedServices,
    parent: &StreamKey,
    new_child: &NewChild,
) -> Result<(), ActorError> {
    let stream = StreamKey::for_run(parent.tenant.clone(), new_child.run);
    let state = shared.repository.load::<Run>(&stream).await?.state;
    // An id of an imported run is taken; executing it would repeat its effects.
    if state.is_imported {
        let message =
            platform_text!("the run within would be {}, which was imported", new_child.run);
        return Err(ActorError::Failure(new_failure("run.imported", message)));
    }
    if state.reopenings < new_child.child.reopenings {
        return reopen_child(shared, parent, new_child, &state).await;
    }
    if state.pause.inherited {
        let family = shared.repository.load::<Run>(parent).await?;
        if !family.state.paused {
            let context = shared.command_context();
            let repository = &shared.repository;
            repository.steer_descendants(&family, &context, FamilyCommand::Resume).await?;
        }
    }
    Ok(())
}

/// Reopens a child run. One that cannot go on reports its end again.
async fn reopen_child(
    shared: &SharedServices,
    parent: &StreamKey,
    new_child: &NewChild,
    state: &RunState,
) -> Result<(), ActorError> {
    let child = &new_child.child;
    let own_version = state.graph.as_ref().map_or(&child.version, |(_, version)| version);
    let version = child.reopened_version.as_ref().unwrap_or(own_version).clone();
    let graph = load_child_graph(shared, parent, child, &version).await?;
    let stream = StreamKey::for_run(parent.tenant.clone(), new_child.run);
    let command = |state: &RunState, _| {
        let reopen = ReopenRun {
            reopenings: child.reopenings,
            steps: fatal_steps(state, &graph.graph),
            budget: child.budget,
            version: version.clone(),
        };
        (RunCommand::Reopen(reopen), Vec::new())
    };
    let reopened =
        shared.repository.execute::<Run>(&stream, &shared.command_context(), command).await;
    match reopened.map_err(ActorError::from) {
        Ok(_) => Ok(()),
        Err(ActorError::Rejected(RunRejection::Ended(_))) => {
            let ended = shared.repository.load::<Run>(&stream).await?;
            let (mut end_report, output) = child_report(shared, &ended).await?;
            end_report.reopenings = child.reopenings;
            report_to_parent(shared, parent, end_report, output).await
        }
        Err(error) => Err(error),
    }
}

async fn load_child_graph(
    shared: &SharedServices,
    parent: &StreamKey,
    child: &RunChild,
    version: &GraphVersion,
) -> Result<Arc<CompiledGraph>, ActorError> {
    let (repository, tenant) = (&shared.repository, &parent.tenant);
    Ok(shared.graphs.get(repository, tenant, child.graph, version).await?)
}
