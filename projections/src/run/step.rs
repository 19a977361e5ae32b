//! What events change in the rows of steps: status, kind, attempts, usage and errors.

use convergio_domain::failure::Failure;
use convergio_domain::id::{NodeId, StepId};
use convergio_domain::run::event::RunEvent::{
    self, AgentSpawned, ApprovalDenied, ApprovalGranted, BudgetExhausted, CheckpointSaved,
    ChildCreated, ChildEnded, ModelCallFailed, ParentTold, RunAmended, RunCreated, RunForked,
    RunImported, RunMigrated, RunPaused, RunResumed, SignalReceived, StepResolved, TimerFired,
    ToolCallCompleted, ToolCallDenied, ToolCallFailed, ToolCallIntended, ToolCallQueued,
    ToolIntended,
};
use convergio_domain::run::event::{ModelCallIntended, UsageRecorded};

use super::row_cache::{RunBatch, add_cost};
use super::rows::StepRow;
use crate::read_model::{AppliedEvent, replace_nul, to_column};

pub(super) async fn apply_to_steps(
    batch: &mut RunBatch<'_>,
    applied: &AppliedEvent<'_>,
    event: &RunEvent,
) -> sqlx::Result<()> {
    match event {
        RunEvent::StepScheduled(e) => set_step_status(batch, applied, &e.step, "scheduled").await,
        RunEvent::StepStarted(e) => start_attempt(batch, applied, &e.step, e.attempt).await,
        RunEvent::MapExpanded(e) => {
            set_step_kind(batch, applied, &StepId::for_node(e.node.clone()), "map").await
        }
        RunEvent::BranchDecided(e) => {
            let step = StepId::for_node(e.node.clone());
            set_step_status(batch, applied, &step, "completed").await?;
            set_step_kind(batch, applied, &step, "branch").await
        }
        RunEvent::ModelCallIntended(e) => begin_model_call(batch, applied, e).await,
        // A child of an agent's tool call leaves the step as it is: the agent is at work.
        RunEvent::ChildIntended(e) if e.tool_call.is_none() => {
            begin_wait(batch, applied, &e.step, ("graph", "waiting")).await
        }
        RunEvent::TimerSet(e) => begin_wait(batch, applied, &e.step, ("sleep", "sleeping")).await,
        RunEvent::ApprovalRequested(e) => {
            begin_wait(batch, applied, &e.step, ("approval", "waiting")).await
        }
        RunEvent::SignalAwaited(e) => {
            begin_wait(batch, applied, &e.step, ("signal", "waiting")).await
        }
        RunEvent::StepAsked(e) => set_step_status(batch, applied, &e.step, "undecided").await,
        RunEvent::StepSkipped(e) => {
            set_step_status(batch, applied, &e.step, "skipped").await?;
            skip_nodes(batch, applied, &e.skipped).await
        }
        // After the run's own row has its end, so that open steps count as abandoned.
        RunEvent::RunCompleted(_) | RunEvent::RunFailed(_) | RunEvent::RunCancelled(_) => {
            abandon_steps(batch, applied).await
        }
        RunEvent::ChildReopened(e) => set_step_status(batch, applied, &e.step, "waiting").await,
        RunEvent::RunReopened(e) => reopen_steps(batch, applied, &e.steps).await,
        RunEvent::StepUnknown(e) => set_step_status(batch, applied, &e.step, "unknown").await,
        RunEvent::StepRetried(e) => set_step_status(batch, applied, &e.step, "retrying").await,
        RunEvent::StepCompleted(e) => {
            let output = e.output.map(|output| output.to_string());
            let end =
                StepEndUpdate { status: "completed", attempt: e.attempt, output, error: None };
            end_attempt(batch, applied, &e.step, end).await?;
            skip_nodes(batch, applied, &e.skipped).await
        }
        RunEvent::StepFailed(e) => {
            let error = Some(&e.error);
            let end = StepEndUpdate { status: "failed", attempt: e.attempt, output: None, error };
            end_attempt(batch, applied, &e.step, end).await?;
            skip_nodes(batch, applied, &e.skipped).await
        }
        RunEvent::UsageRecorded(e) => add_step_usage(batch, applied, e).await,
        RunEvent::ChildIntended(_) | RunEvent::ModelCallCompleted(_) => Ok(()),
        RunCreated(_) | TimerFired(_) | ApprovalGranted(_) | ApprovalDenied(_)
        | ModelCallFailed(_) | ToolIntended(_) | ToolCallIntended(_) | ToolCallQueued(_)
        | ToolCallCompleted(_) | ToolCallFailed(_) | ToolCallDenied(_) | ChildCreated(_)
        | ChildEnded(_) | ParentTold(_) | AgentSpawned(_) | BudgetExhausted(_) | RunPaused(_)
        | RunResumed(_) | RunAmended(_) | RunForked(_) | RunImported(_) | SignalReceived(_)
        | StepResolved(_) | CheckpointSaved(_) | RunMigrated(_) => Ok(()),
    }
}

async fn begin_model_call(
    batch: &mut RunBatch<'_>,
    applied: &AppliedEvent<'_>,
    call: &ModelCallIntended,
) -> sqlx::Result<()> {
    change_step(batch, applied, &call.step, |row| {
        "agent".clone_into(&mut row.kind);
        row.provider = Some(replace_nul(&call.provider));
        row.model = Some(replace_nul(&call.model));
    })
    .await
}

async fn abandon_steps(batch: &mut RunBatch<'_>, applied: &AppliedEvent<'_>) -> sqlx::Result<()> {
    let stream = &applied.record.stream;
    let run = batch.row_cache.load_run(batch.transaction, stream).await?;
    run.abandon_steps(batch.transaction, stream).await
}

/// Sets kind and status of a step that waits from now on.
async fn begin_wait(
    batch: &mut RunBatch<'_>,
    applied: &AppliedEvent<'_>,
    step: &StepId,
    (kind, status): (&'static str, &'static str),
) -> sqlx::Result<()> {
    set_step_kind(batch, applied, step, kind).await?;
    set_step_status(batch, applied, step, status).await
}

/// Reopens a run's steps: abandoned ones return to where they were, and `steps` get another series
/// of attempts.
async fn reopen_steps(
    batch: &mut RunBatch<'_>,
    applied: &AppliedEvent<'_>,
    steps: &[StepId],
) -> sqlx::Result<()> {
    let stream = &applied.record.stream;
    batch
        .row_cache
        .load_run(batch.transaction, stream)
        .await?
        .resume_steps(batch.transaction, stream)
        .await?;
    for step in steps {
        set_step_status(batch, applied, step, "scheduled").await?;
        // A map's items run again; the map itself has started and is not scheduled again.
        let run = batch.row_cache.load_run(batch.transaction, stream).await?;
        if run.load_step(batch.transaction, stream, step).await?.is_map() {
            set_step_status(batch, applied, step, "started").await?;
        }
    }
    Ok(())
}

/// Changes a step's row, if it has one.
async fn change_step(
    batch: &mut RunBatch<'_>,
    applied: &AppliedEvent<'_>,
    step: &StepId,
    change: impl FnOnce(&mut StepRow),
) -> sqlx::Result<()> {
    let stream = &applied.record.stream;
    let run = batch.row_cache.load_run(batch.transaction, stream).await?;
    run.change_step(batch.transaction, (stream, step), change).await
}

/// Sets the status of a step; its first event inserts its row.
async fn set_step_status(
    batch: &mut RunBatch<'_>,
    applied: &AppliedEvent<'_>,
    step: &StepId,
    status: &str,
) -> sqlx::Result<()> {
    let stream = &applied.record.stream;
    let run = batch.row_cache.load_run(batch.transaction, stream).await?;
    run.set_status(batch.transaction, (stream, step), to_column(applied.seq.0), status).await
}

async fn set_step_kind(
    batch: &mut RunBatch<'_>,
    applied: &AppliedEvent<'_>,
    step: &StepId,
    kind: &str,
) -> sqlx::Result<()> {
    change_step(batch, applied, step, |row| kind.clone_into(&mut row.kind)).await
}

async fn start_attempt(
    batch: &mut RunBatch<'_>,
    applied: &AppliedEvent<'_>,
    step: &StepId,
    attempt: u32,
) -> sqlx::Result<()> {
    set_step_status(batch, applied, step, "started").await?;
    change_step(batch, applied, step, |row| {
        row.attempt = i64::from(attempt);
        // The start of the first attempt stays: retries do not reset the step's duration.
        row.started_ms = row.started_ms.or(Some(applied.recorded_at().0));
    })
    .await
}

/// The end of an attempt as the step's row shows it.
struct StepEndUpdate<'a> {
    status: &'static str,
    attempt: u32,
    output: Option<String>,
    error: Option<&'a Failure>,
}

async fn end_attempt(
    batch: &mut RunBatch<'_>,
    applied: &AppliedEvent<'_>,
    step: &StepId,
    end: StepEndUpdate<'_>,
) -> sqlx::Result<()> {
    set_step_status(batch, applied, step, end.status).await?;
    change_step(batch, applied, step, |row| {
        row.attempt = i64::from(end.attempt);
        row.ended_ms = Some(applied.recorded_at().0);
        row.output = end.output;
        row.error_code = end.error.map(|error| error.code.to_string());
        row.error_message = end.error.map(|error| replace_nul(&error.message));
        row.error_detail = end.error.and_then(|error| Some(error.detail?.to_string()));
    })
    .await
}

async fn skip_nodes(
    batch: &mut RunBatch<'_>,
    applied: &AppliedEvent<'_>,
    nodes: &[NodeId],
) -> sqlx::Result<()> {
    for node in nodes {
        set_step_status(batch, applied, &StepId::for_node(node.clone()), "skipped").await?;
    }
    Ok(())
}

async fn add_step_usage(
    batch: &mut RunBatch<'_>,
    applied: &AppliedEvent<'_>,
    usage: &UsageRecorded,
) -> sqlx::Result<()> {
    change_step(batch, applied, &usage.step, |row| {
        row.tokens_in += to_column(usage.usage.tokens_in());
        row.tokens_out += to_column(usage.usage.tokens_out());
        row.cost = add_cost(&row.cost, usage);
    })
    .await
}
