//! Steps of runs: status, kind, attempts, usage and errors.

use convergio_domain::event::Event;
use convergio_domain::event::run::{Failure, UsageRecorded};
use convergio_domain::id::{NodeId, StepId};

use super::run::sum;
use super::{Applied, Page, signed, storable};
use crate::rows::StepRow;

pub(super) async fn apply(page: &mut Page<'_>, a: &Applied<'_>) -> sqlx::Result<()> {
    match a.event {
        Event::StepScheduled(e) => set(page, a, &e.step, "scheduled").await,
        Event::StepStarted(e) => start(page, a, &e.step, e.attempt).await,
        Event::MapExpanded(e) => kind(page, a, &StepId::node(e.node.clone()), "map").await,
        Event::BranchDecided(e) => {
            let step = StepId::node(e.node.clone());
            set(page, a, &step, "completed").await?;
            kind(page, a, &step, "branch").await
        }
        Event::ModelCallIntended(e) => {
            change(page, a, &e.step, |row| {
                "agent".clone_into(&mut row.kind);
                row.provider = Some(storable(&e.provider));
                row.model = Some(storable(&e.model));
            })
            .await
        }
        // A child of an agent's tool call leaves the step as it is: the agent is at work.
        Event::ChildIntended(e) if e.at.is_none() => {
            kind(page, a, &e.step, "graph").await?;
            set(page, a, &e.step, "waiting").await
        }
        Event::TimerSet(e) => {
            kind(page, a, &e.step, "sleep").await?;
            set(page, a, &e.step, "sleeping").await
        }
        Event::ApprovalRequested(e) => {
            kind(page, a, &e.step, "approval").await?;
            set(page, a, &e.step, "waiting").await
        }
        Event::SignalAwaited(e) => {
            kind(page, a, &e.step, "signal").await?;
            set(page, a, &e.step, "waiting").await
        }
        Event::StepAsked(e) => set(page, a, &e.step, "undecided").await,
        Event::StepSkipped(e) => {
            set(page, a, &e.step, "skipped").await?;
            skip(page, a, &e.skipped).await
        }
        // After the run's own row has its end, so that open steps count as abandoned.
        Event::RunCompleted(_) | Event::RunFailed(_) | Event::RunCancelled(_) => {
            let stream = &a.record.stream;
            page.held.run(page.to, stream).await?.abandon_steps(page.to, stream).await
        }
        Event::ChildReopened(e) => set(page, a, &e.step, "waiting").await,
        Event::RunReopened(e) => reopen(page, a, &e.steps).await,
        Event::StepUnknown(e) => set(page, a, &e.step, "unknown").await,
        Event::StepRetried(e) => set(page, a, &e.step, "retrying").await,
        Event::StepCompleted(e) => {
            let output = e.output.map(|output| output.to_string());
            let end = End { status: "completed", attempt: e.attempt, output, error: None };
            conclude(page, a, &e.step, end).await?;
            skip(page, a, &e.skipped).await
        }
        Event::StepFailed(e) => {
            let error = Some(&e.error);
            let end = End { status: "failed", attempt: e.attempt, output: None, error };
            conclude(page, a, &e.step, end).await?;
            skip(page, a, &e.skipped).await
        }
        Event::UsageRecorded(e) => spend(page, a, e).await,
        _ => Ok(()),
    }
}

/// Reopens a run's steps: abandoned ones return to where they were, and `steps` get another series
/// of attempts.
async fn reopen(page: &mut Page<'_>, a: &Applied<'_>, steps: &[StepId]) -> sqlx::Result<()> {
    let stream = &a.record.stream;
    page.held.run(page.to, stream).await?.resume_steps(page.to, stream).await?;
    for step in steps {
        set(page, a, step, "scheduled").await?;
        // A map's items run again; the map itself has started and is not scheduled again.
        let run = page.held.run(page.to, stream).await?;
        if run.step(page.to, stream, step).await?.is_map() {
            set(page, a, step, "started").await?;
        }
    }
    Ok(())
}

/// Changes a step's row, if it has one.
async fn change(
    page: &mut Page<'_>,
    a: &Applied<'_>,
    step: &StepId,
    change: impl FnOnce(&mut StepRow),
) -> sqlx::Result<()> {
    let stream = &a.record.stream;
    let run = page.held.run(page.to, stream).await?;
    run.change_step(page.to, (stream, step), change).await
}

/// Sets the status of a step; its first event inserts its row.
async fn set(
    page: &mut Page<'_>,
    a: &Applied<'_>,
    step: &StepId,
    status: &str,
) -> sqlx::Result<()> {
    let stream = &a.record.stream;
    let run = page.held.run(page.to, stream).await?;
    run.set_status(page.to, (stream, step), signed(a.seq.0), status).await
}

async fn kind(page: &mut Page<'_>, a: &Applied<'_>, step: &StepId, kind: &str) -> sqlx::Result<()> {
    change(page, a, step, |row| kind.clone_into(&mut row.kind)).await
}

async fn start(
    page: &mut Page<'_>,
    a: &Applied<'_>,
    step: &StepId,
    attempt: u32,
) -> sqlx::Result<()> {
    set(page, a, step, "started").await?;
    change(page, a, step, |row| {
        row.attempt = i64::from(attempt);
        // The start of the first attempt stays: retries do not reset the step's duration.
        row.started_ms = row.started_ms.or(Some(a.at().0));
    })
    .await
}

/// The end of an attempt as the step's row shows it.
struct End<'a> {
    status: &'static str,
    attempt: u32,
    output: Option<String>,
    error: Option<&'a Failure>,
}

async fn conclude(
    page: &mut Page<'_>,
    a: &Applied<'_>,
    step: &StepId,
    end: End<'_>,
) -> sqlx::Result<()> {
    set(page, a, step, end.status).await?;
    change(page, a, step, |row| {
        row.attempt = i64::from(end.attempt);
        row.ended_ms = Some(a.at().0);
        row.output = end.output;
        row.error_code = end.error.map(|error| error.code.to_string());
        row.error_message = end.error.map(|error| storable(&error.message));
        row.error_detail = end.error.and_then(|error| Some(error.detail?.to_string()));
    })
    .await
}

async fn skip(page: &mut Page<'_>, a: &Applied<'_>, nodes: &[NodeId]) -> sqlx::Result<()> {
    for node in nodes {
        set(page, a, &StepId::node(node.clone()), "skipped").await?;
    }
    Ok(())
}

async fn spend(page: &mut Page<'_>, a: &Applied<'_>, usage: &UsageRecorded) -> sqlx::Result<()> {
    change(page, a, &usage.step, |row| {
        row.tokens_in += signed(usage.usage.tokens_in());
        row.tokens_out += signed(usage.usage.tokens_out());
        row.cost = sum(&row.cost, usage);
    })
    .await
}
