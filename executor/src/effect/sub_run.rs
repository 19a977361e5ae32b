//! The creation of child runs. Every operation here is idempotent, since a crash may repeat it.

use std::time::Duration;

use convergio_application::NewRun;
use convergio_domain::graph::manifest::Graph;
use convergio_domain::payload::PayloadRef;
use convergio_domain::platform_text;
use convergio_domain::run::{Provenance, RunChild};
use convergio_domain::stream::StreamKey;
use convergio_eventstore::CommitError;
use tokio_util::sync::CancellationToken;

use super::sub_run_reopen::align_child;
use super::sub_run_report::{never_started_report, read_payload, report_to_parent};
use crate::error::ActorError;
use crate::failures::seal_failure;
use crate::plan::{EffectOutcome, NewChild, new_failure};
use crate::services::SharedServices;

/// Delay before an unavailable log is tried again.
const RETRY_DELAY: Duration = Duration::from_millis(500);

/// Creates a child run, or lets it go on, and retries until the log takes it. A child that can
/// never be created is reported as failed before it started.
pub(crate) async fn create_child(
    shared: &SharedServices,
    parent: &StreamKey,
    new_child: NewChild,
    cancel: &CancellationToken,
) -> EffectOutcome {
    loop {
        let error = match try_create_child(shared, parent, &new_child).await {
            Ok(()) => return EffectOutcome::ChildCreated,
            Err(error) => error,
        };
        // A failure that no retry cures is reported; an unavailable log is waited for.
        if let Some(failure) = error.fatal_failure() {
            let (failure, payloads) = seal_failure(failure);
            match report_to_parent(
                shared,
                parent,
                never_started_report(new_child.run, failure),
                payloads,
            )
            .await
            {
                Ok(()) => return EffectOutcome::ChildCreated,
                Err(error) => tracing::warn!(stream = %parent, %error, "a run within"),
            }
        } else {
            tracing::warn!(stream = %parent, %error, "a run within cannot be created now");
        }
        tokio::select! {
            () = tokio::time::sleep(RETRY_DELAY) => {}
            () = cancel.cancelled() => return EffectOutcome::ChildCreated,
        }
    }
}

async fn try_create_child(
    shared: &SharedServices,
    parent: &StreamKey,
    new_child: &NewChild,
) -> Result<(), ActorError> {
    let child = &new_child.child;
    let stream = StreamKey::for_run(parent.tenant.clone(), new_child.run);
    // It exists: a crash came between the creation and its record, or the child must go on.
    if shared.repository.event_log().stream_head(&stream).await?.is_some() {
        return align_child(shared, parent, new_child).await;
    }
    if let Some(manifest) = child.manifest {
        register_child_graph(shared, parent, child, manifest).await?;
    }
    let input = read_payload(shared, parent, child.input).await?;
    let new_run = NewRun {
        run: new_child.run,
        budget: child.budget,
        privacy: child.privacy,
        // A repeated creation has the same id and hash, and is a no-op.
        request_hash: format!("{}/{}", new_child.origin.run, new_child.origin.step),
        provenance: Provenance { origin: Some(new_child.origin.clone()), agent: child.agent },
        ..NewRun::of_version(child.graph, child.version.clone(), input)
    };
    shared.use_cases().create_run(&shared.to_caller(&parent.tenant), new_run).await?;
    Ok(())
}

/// Registers a proposed graph, whose manifest the parent stored with its intent.
async fn register_child_graph(
    shared: &SharedServices,
    parent: &StreamKey,
    child: &RunChild,
    manifest: PayloadRef,
) -> Result<(), ActorError> {
    let bytes = read_payload(shared, parent, manifest).await?;
    let graph: Graph = serde_json::from_slice(&bytes).map_err(|error| {
        let message = platform_text!("the stored manifest cannot be read");
        ActorError::Failure(new_failure("internal", message).with_cause(error))
    })?;
    let (version, caller) = (child.version.clone(), shared.to_caller(&parent.tenant));
    let registered = shared
        .use_cases()
        .register_stored_graph(&caller, child.graph, version, &graph, bytes)
        .await;
    match registered {
        Ok(()) => Ok(()),
        Err(CommitError::Append(error)) => Err(error.into()),
        Err(CommitError::Log(error)) => Err(error.into()),
        Err(CommitError::Conflict | CommitError::Rejected(_)) => Err(ActorError::Conflict),
    }
}
