//! Steps of runs: status, kind, attempts, usage and errors.

use convergio_domain::event::Event;
use convergio_domain::event::run::{Failure, UsageRecorded};
use convergio_domain::id::{NodeId, StepId};

use super::run::add_cost;
use super::{AppliedEvent, ApplyBatch, replace_nul, to_column};
use crate::rows::StepRow;

pub(super) async fn apply(
    batch: &mut ApplyBatch<'_>,
    applied: &AppliedEvent<'_>,
) -> sqlx::Result<()> {
    match applied.event {
        Event::StepScheduled(e) => set_step_status(batch, applied, &e.step, "scheduled").await,
        Event::StepStarted(e) => start_attempt(batch, applied, &e.step, e.attempt).await,
        Event::MapExpanded(e) => {
            set_step_kind(batch, applied, &StepId::for_node(e.node.clone()), "map").await
        }
        Event::BranchDecided(e) => {
            let step = StepId::for_node(e.node.clone());
            set_step_status(batch, applied, &step, "completed").await?;
            set_step_kind(batch, applied, &step, "branch").await
        }
        Event::ModelCallIntended(e) => {
            change_step(batch, applied, &e.step, |row| {
                "agent".clone_into(&mut row.kind);
                row.provider = Some(replace_nul(&e.provider));
                row.model = Some(replace_nul(&e.model));
            })
            .await
        }
        // A child of an agent's tool call leaves the step as it is: the agent is at work.
        Event::ChildIntended(e) if e.tool_call.is_none() => {
            begin_wait(batch, applied, &e.step, ("graph", "waiting")).await
        }
        Event::TimerSet(e) => begin_wait(batch, applied, &e.step, ("sleep", "sleeping")).await,
        Event::ApprovalRequested(e) => {
            begin_wait(batch, applied, &e.step, ("approval", "waiting")).await
        }
        Event::SignalAwaited(e) => begin_wait(batch, applied, &e.step, ("signal", "waiting")).await,
        Event::StepAsked(e) => set_step_status(batch, applied, &e.step, "undecided").await,
        Event::StepSkipped(e) => {
            set_step_status(batch, applied, &e.step, "skipped").await?;
            skip_nodes(batch, applied, &e.skipped).await
        }
        // After the run's own row has its end, so that open steps count as abandoned.
        Event::RunCompleted(_) | Event::RunFailed(_) | Event::RunCancelled(_) => {
            let stream = &applied.record.stream;
            batch
                .row_cache
                .load_run(batch.transaction, stream)
                .await?
                .abandon_steps(batch.transaction, stream)
                .await
        }
        Event::ChildReopened(e) => set_step_status(batch, applied, &e.step, "waiting").await,
        Event::RunReopened(e) => reopen_steps(batch, applied, &e.steps).await,
        Event::StepUnknown(e) => set_step_status(batch, applied, &e.step, "unknown").await,
        Event::StepRetried(e) => set_step_status(batch, applied, &e.step, "retrying").await,
        Event::StepCompleted(e) => {
            let output = e.output.map(|output| output.to_string());
            let end =
                StepEndUpdate { status: "completed", attempt: e.attempt, output, error: None };
            end_attempt(batch, applied, &e.step, end).await?;
            skip_nodes(batch, applied, &e.skipped).await
        }
        Event::StepFailed(e) => {
            let error = Some(&e.error);
            let end = StepEndUpdate { status: "failed", attempt: e.attempt, output: None, error };
            end_attempt(batch, applied, &e.step, end).await?;
            skip_nodes(batch, applied, &e.skipped).await
        }
        Event::UsageRecorded(e) => add_step_usage(batch, applied, e).await,
        _ => Ok(()),
    }
}

/// Sets kind and status of a step that waits from now on.
async fn begin_wait(
    batch: &mut ApplyBatch<'_>,
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
    batch: &mut ApplyBatch<'_>,
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
    batch: &mut ApplyBatch<'_>,
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
    batch: &mut ApplyBatch<'_>,
    applied: &AppliedEvent<'_>,
    step: &StepId,
    status: &str,
) -> sqlx::Result<()> {
    let stream = &applied.record.stream;
    let run = batch.row_cache.load_run(batch.transaction, stream).await?;
    run.set_status(batch.transaction, (stream, step), to_column(applied.seq.0), status).await
}

async fn set_step_kind(
    batch: &mut ApplyBatch<'_>,
    applied: &AppliedEvent<'_>,
    step: &StepId,
    kind: &str,
) -> sqlx::Result<()> {
    change_step(batch, applied, step, |row| kind.clone_into(&mut row.kind)).await
}

async fn start_attempt(
    batch: &mut ApplyBatch<'_>,
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
    batch: &mut ApplyBatch<'_>,
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
    batch: &mut ApplyBatch<'_>,
    applied: &AppliedEvent<'_>,
    nodes: &[NodeId],
) -> sqlx::Result<()> {
    for node in nodes {
        set_step_status(batch, applied, &StepId::for_node(node.clone()), "skipped").await?;
    }
    Ok(())
}

async fn add_step_usage(
    batch: &mut ApplyBatch<'_>,
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
