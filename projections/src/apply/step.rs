//! Steps.

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
            done(page, a).await?;
            skip(page, a, &e.skipped).await
        }
        Event::RunReopened(e) => {
            for step in &e.steps {
                set(page, a, step, "scheduled").await?;
            }
            Ok(())
        }
        Event::ChildReopened(e) => set(page, a, &e.step, "waiting").await,
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

/// A step's row, made at its first event; the run's count grows with it.
async fn set(
    page: &mut Page<'_>,
    a: &Applied<'_>,
    step: &StepId,
    status: &str,
) -> sqlx::Result<()> {
    let stream = &a.record.stream;
    let run = page.held.run(page.to, stream).await?;
    let new = || new(step, status);
    if run.has_step(page.to, (stream, step), signed(a.seq.0), new).await? {
        let set = |row: &mut StepRow| status.clone_into(&mut row.status);
        return run.change_step(page.to, (stream, step), set).await;
    }
    run.change(|row| row.steps_total += 1);
    Ok(())
}

fn new(step: &StepId, status: &str) -> StepRow {
    StepRow {
        step: step.to_string(),
        node: step.node.to_string(),
        item: step.item.map_or(-1, i64::from),
        kind: "tool".to_owned(),
        status: status.to_owned(),
        attempt: 0,
        started_ms: None,
        ended_ms: None,
        provider: None,
        model: None,
        tokens_in: 0,
        tokens_out: 0,
        cost: "0".to_owned(),
        error_code: None,
        error_message: None,
        output: None,
    }
}

/// One step more of the run is done.
async fn done(page: &mut Page<'_>, a: &Applied<'_>) -> sqlx::Result<()> {
    page.held.run(page.to, &a.record.stream).await?.change(|row| row.steps_done += 1);
    Ok(())
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
        row.started_ms = row.started_ms.or(Some(a.at().0));
    })
    .await
}

/// How a try ended.
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
        row.error_code = end.error.map(|error| error.code.clone());
        row.error_message = end.error.map(|error| storable(&error.message));
    })
    .await?;
    if end.status == "completed" {
        done(page, a).await?;
    }
    Ok(())
}

async fn skip(page: &mut Page<'_>, a: &Applied<'_>, nodes: &[NodeId]) -> sqlx::Result<()> {
    for node in nodes {
        set(page, a, &StepId::node(node.clone()), "skipped").await?;
        done(page, a).await?;
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
