//! What events change in the row of a run.

use convergio_domain::id::{GraphId, GraphVersion, RunId, StepId};
use convergio_domain::payload::PayloadRef;
use convergio_domain::run::RunOrigin;
use convergio_domain::run::event::RunEvent::{
    self, AgentSpawned, BranchDecided, BudgetExhausted, CheckpointSaved, ChildCreated, ChildEnded,
    ChildIntended, ChildReopened, MapExpanded, ModelCallFailed, ModelCallIntended, ParentTold,
    RunAmended, SignalAwaited, SignalReceived, StepAsked, StepCompleted, StepFailed, StepResolved,
    StepRetried, StepScheduled, StepSkipped, StepStarted, StepUnknown, TimerFired, TimerSet,
    ToolCallCompleted, ToolCallDenied, ToolCallFailed, ToolCallIntended, ToolCallQueued,
};
use convergio_domain::run::event::{
    RunCompleted, RunCreated, RunFailed, RunForked, RunImported, UsageRecorded,
};
use convergio_domain::stream::Seq;

use super::row_cache::{RunBatch, add_cost};
use super::rows::RunRow;
use crate::read_model::{AppliedEvent, replace_nul, to_column};

pub(super) async fn apply_to_run(
    batch: &mut RunBatch<'_>,
    applied: &AppliedEvent<'_>,
    event: &RunEvent,
) -> sqlx::Result<()> {
    match event {
        RunEvent::RunCreated(created) => {
            insert_run(batch, applied, NewRunRow::from_created(created));
        }
        RunEvent::RunForked(forked) => insert_run(batch, applied, NewRunRow::from_forked(forked)),
        RunEvent::RunPaused(_) => set_run_status(batch, applied, "paused").await?,
        // Resumed while something else still pauses it: nothing changes for readers.
        RunEvent::RunResumed(resumed) if resumed.stays_paused => {}
        RunEvent::RunResumed(_) => set_run_status(batch, applied, "running").await?,
        RunEvent::RunReopened(_) => reopen_run(batch, applied).await?,
        RunEvent::UsageRecorded(usage) => add_run_usage(batch, applied, usage).await?,
        RunEvent::RunImported(mark) => mark_imported(batch, applied, mark).await?,
        RunEvent::RunMigrated(migrated) => {
            change_run(batch, applied, |row| row.version = migrated.to.to_string()).await?;
        }
        RunEvent::RunCompleted(done) => {
            end_run(batch, applied, RunEndUpdate::from_completed(done)).await?;
        }
        RunEvent::RunFailed(failed) => {
            end_run(batch, applied, RunEndUpdate::from_failed(failed)).await?;
        }
        RunEvent::RunCancelled(_) => {
            end_run(batch, applied, RunEndUpdate::from_status("cancelled")).await?;
        }
        RunEvent::ApprovalRequested(_)
        | RunEvent::ApprovalGranted(_)
        | RunEvent::ApprovalDenied(_)
        | RunEvent::ToolIntended(_)
        | RunEvent::ModelCallCompleted(_) => {}
        StepScheduled(_) | StepStarted(_) | MapExpanded(_) | StepCompleted(_) | StepFailed(_)
        | StepUnknown(_) | StepRetried(_) | BranchDecided(_) | TimerSet(_) | TimerFired(_)
        | ModelCallIntended(_) | ModelCallFailed(_) | ToolCallIntended(_) | ToolCallQueued(_)
        | ToolCallCompleted(_) | ToolCallFailed(_) | ToolCallDenied(_) | ChildIntended(_)
        | ChildCreated(_) | ChildEnded(_) | ChildReopened(_) | ParentTold(_) | AgentSpawned(_)
        | BudgetExhausted(_) | RunAmended(_) | SignalAwaited(_) | SignalReceived(_)
        | StepAsked(_) | StepResolved(_) | StepSkipped(_) | CheckpointSaved(_) => {}
    }
    Ok(())
}

/// Sets the run's last sequence number and time of change. Called once a record, not once an event.
pub(super) async fn update_last_event(
    batch: &mut RunBatch<'_>,
    applied: &AppliedEvent<'_>,
) -> sqlx::Result<()> {
    change_run(batch, applied, |row| {
        row.seq = to_column(applied.seq.0);
        row.updated_ms = applied.recorded_at().0;
    })
    .await
}

/// The start of a run, whether it was created or forked.
struct NewRunRow<'a> {
    graph: GraphId,
    version: &'a GraphVersion,
    input: String,
    forked_from: Option<(RunId, Seq)>,
    origin: Option<&'a RunOrigin>,
}

impl<'a> NewRunRow<'a> {
    fn from_created(created: &'a RunCreated) -> Self {
        let input = created.input.to_string();
        let (graph, version, origin) = (created.graph, &created.version, created.origin.as_ref());
        Self { graph, version, input, forked_from: None, origin }
    }

    fn from_forked(forked: &'a RunForked) -> Self {
        let input = forked.input.map(|input| input.to_string()).unwrap_or_default();
        let forked_from = Some((forked.parent, forked.seq));
        Self { graph: forked.graph, version: &forked.version, input, forked_from, origin: None }
    }
}

/// Marks an imported run. Its history is shown as it is.
async fn mark_imported(
    batch: &mut RunBatch<'_>,
    applied: &AppliedEvent<'_>,
    import: &RunImported,
) -> sqlx::Result<()> {
    change_run(batch, applied, |row| {
        row.imported_by = Some(import.by.to_string());
        row.imported_ms = Some(applied.recorded_at().0);
        row.imported_file = Some(import.file_hash.clone());
        row.imported_signer.clone_from(&import.signer);
    })
    .await
}

/// Changes the run's row in the cache.
async fn change_run(
    batch: &mut RunBatch<'_>,
    applied: &AppliedEvent<'_>,
    change: impl FnOnce(&mut RunRow),
) -> sqlx::Result<()> {
    batch.row_cache.load_run(batch.transaction, &applied.record.stream).await?.change_row(change);
    Ok(())
}

async fn set_run_status(
    batch: &mut RunBatch<'_>,
    applied: &AppliedEvent<'_>,
    status: &str,
) -> sqlx::Result<()> {
    change_run(batch, applied, |row| status.clone_into(&mut row.status)).await
}

/// Reopens a failed run: its error is cleared and its void approvals are open again.
async fn reopen_run(batch: &mut RunBatch<'_>, applied: &AppliedEvent<'_>) -> sqlx::Result<()> {
    change_run(batch, applied, |row| {
        "running".clone_into(&mut row.status);
        (row.ended_ms, row.error_code) = (None, None);
        (row.error_message, row.error_detail, row.error_step) = (None, None, None);
    })
    .await
}

fn insert_run(batch: &mut RunBatch<'_>, applied: &AppliedEvent<'_>, new: NewRunRow<'_>) {
    let row = RunRow {
        run: applied.stream_id(),
        graph: new.graph.to_string(),
        version: new.version.to_string(),
        name: None,
        status: "running".to_owned(),
        actor: applied.record.body.actor.to_string(),
        created_ms: applied.recorded_at().0,
        updated_ms: applied.recorded_at().0,
        ended_ms: None,
        steps_done: 0,
        steps_abandoned: 0,
        steps_total: 0,
        tokens_in: 0,
        tokens_out: 0,
        cost: "0".to_owned(),
        unpriced: 0,
        error_code: None,
        error_message: None,
        error_detail: None,
        error_step: None,
        input: new.input,
        output: None,
        seq: to_column(applied.seq.0),
        created_pos: applied.log_position(),
        forked_from: new.forked_from.map(|(run, _)| run.to_string()),
        forked_seq: new.forked_from.map(|(_, seq)| to_column(seq.0)),
        parent: new.origin.map(|origin| origin.run.to_string()),
        parent_step: new.origin.map(|origin| origin.step.to_string()),
        imported_by: None,
        imported_ms: None,
        imported_file: None,
        imported_signer: None,
    };
    batch.row_cache.insert_new_run(&applied.record.stream, row);
}

async fn add_run_usage(
    batch: &mut RunBatch<'_>,
    applied: &AppliedEvent<'_>,
    usage: &UsageRecorded,
) -> sqlx::Result<()> {
    change_run(batch, applied, |row| {
        row.tokens_in += to_column(usage.usage.tokens_in());
        row.tokens_out += to_column(usage.usage.tokens_out());
        row.cost = add_cost(&row.cost, usage);
        row.unpriced += i64::from(usage.charge.is_none());
    })
    .await
}

/// The end of a run as its row shows it.
struct RunEndUpdate<'a> {
    status: &'static str,
    output: Option<PayloadRef>,
    failure: Option<&'a RunFailed>,
}

impl<'a> RunEndUpdate<'a> {
    fn from_status(status: &'static str) -> Self {
        Self { status, output: None, failure: None }
    }

    fn from_completed(completed: &RunCompleted) -> Self {
        Self { output: completed.output, ..Self::from_status("completed") }
    }

    fn from_failed(failed: &'a RunFailed) -> Self {
        Self { failure: Some(failed), ..Self::from_status("failed") }
    }
}

async fn end_run(
    batch: &mut RunBatch<'_>,
    applied: &AppliedEvent<'_>,
    end: RunEndUpdate<'_>,
) -> sqlx::Result<()> {
    let run = batch.row_cache.load_run(batch.transaction, &applied.record.stream).await?;
    run.change_row(|row| {
        end.status.clone_into(&mut row.status);
        row.ended_ms = Some(applied.recorded_at().0);
        row.output = end.output.map(|output| output.to_string());
        row.error_code = end.failure.map(|failed| failed.error.code.to_string());
        row.error_message = end.failure.map(|failed| replace_nul(&failed.error.message));
        row.error_detail = end.failure.and_then(|failed| Some(failed.error.detail?.to_string()));
        row.error_step = end.failure.and_then(|failed| failed.step.as_ref()).map(StepId::to_string);
    });
    Ok(())
}
