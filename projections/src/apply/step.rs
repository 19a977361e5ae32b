//! Steps.

use convergio_domain::event::Event;
use convergio_domain::event::run::{Failure, UsageRecorded};
use convergio_domain::id::StepId;
use convergio_domain::money::Money;
use sqlx::{AnyConnection, Row};

use super::{Applied, signed, storable};

pub(super) async fn apply(to: &mut AnyConnection, a: &Applied<'_>) -> sqlx::Result<()> {
    match a.event {
        Event::StepScheduled(e) => set(to, a, &e.step, "scheduled").await,
        Event::StepStarted(e) => start(to, a, &e.step, e.attempt).await,
        Event::MapExpanded(e) => kind(to, a, &StepId::node(e.node.clone()), "map").await,
        Event::BranchDecided(e) => {
            let step = StepId::node(e.node.clone());
            set(to, a, &step, "completed").await?;
            kind(to, a, &step, "branch").await
        }
        Event::ModelCallIntended(e) => {
            kind(to, a, &e.step, "agent").await?;
            let sql = "UPDATE step SET provider = $1, model = $2 WHERE tenant = $3 AND run = $4 \
                AND step = $5";
            let row = sqlx::query(sql).bind(storable(&e.provider)).bind(storable(&e.model));
            row.bind(a.tenant()).bind(a.id()).bind(e.step.to_string()).execute(to).await?;
            Ok(())
        }
        Event::ChildIntended(e) if e.at.is_none() => {
            kind(to, a, &e.step, "graph").await?;
            set(to, a, &e.step, "waiting").await
        }
        Event::TimerSet(e) => {
            kind(to, a, &e.step, "sleep").await?;
            set(to, a, &e.step, "sleeping").await
        }
        Event::ApprovalRequested(e) => {
            kind(to, a, &e.step, "approval").await?;
            set(to, a, &e.step, "waiting").await
        }
        Event::SignalAwaited(e) => {
            kind(to, a, &e.step, "signal").await?;
            set(to, a, &e.step, "waiting").await
        }
        Event::StepAsked(e) => set(to, a, &e.step, "undecided").await,
        Event::StepSkipped(e) => {
            set(to, a, &e.step, "skipped").await?;
            count(to, a, "steps_done").await?;
            skip(to, a, &e.skipped).await
        }
        Event::RunReopened(e) => {
            for step in &e.steps {
                set(to, a, step, "scheduled").await?;
            }
            Ok(())
        }
        Event::StepUnknown(e) => set(to, a, &e.step, "unknown").await,
        Event::StepRetried(e) => set(to, a, &e.step, "retrying").await,
        Event::StepCompleted(e) => {
            let output = e.output.map(|output| output.to_string());
            let end = End { status: "completed", attempt: e.attempt, output, error: None };
            conclude(to, a, &e.step, end).await?;
            skip(to, a, &e.skipped).await
        }
        Event::StepFailed(e) => {
            let error = Some(&e.error);
            let end = End { status: "failed", attempt: e.attempt, output: None, error };
            conclude(to, a, &e.step, end).await?;
            skip(to, a, &e.skipped).await
        }
        Event::UsageRecorded(e) => spend(to, a, e).await,
        _ => Ok(()),
    }
}

/// A step's row, made at its first event; the run's count grows with it.
async fn set(
    to: &mut AnyConnection,
    a: &Applied<'_>,
    step: &StepId,
    status: &str,
) -> sqlx::Result<()> {
    let sql = "UPDATE step SET status = $1 WHERE tenant = $2 AND run = $3 AND step = $4";
    let row = sqlx::query(sql).bind(status).bind(a.tenant()).bind(a.id()).bind(step.to_string());
    if row.execute(&mut *to).await?.rows_affected() > 0 {
        return Ok(());
    }
    let sql = "INSERT INTO step (tenant, run, step, node, item, kind, status, attempt, tokens_in, \
        tokens_out, cost, first_seq) VALUES ($1, $2, $3, $4, $5, 'tool', $6, 0, 0, 0, '0', $7)";
    sqlx::query(sql)
        .bind(a.tenant())
        .bind(a.id())
        .bind(step.to_string())
        .bind(step.node.as_str())
        .bind(step.item.map_or(-1, i64::from))
        .bind(status)
        .bind(signed(a.seq.0))
        .execute(&mut *to)
        .await?;
    count(to, a, "steps_total = steps_total + 1").await
}

async fn count(to: &mut AnyConnection, a: &Applied<'_>, change: &'static str) -> sqlx::Result<()> {
    let sql = match change {
        "steps_total = steps_total + 1" => {
            "UPDATE run_status SET steps_total = steps_total + 1 WHERE tenant = $1 AND run = $2"
        }
        _ => "UPDATE run_status SET steps_done = steps_done + 1 WHERE tenant = $1 AND run = $2",
    };
    sqlx::query(sql).bind(a.tenant()).bind(a.id()).execute(to).await?;
    Ok(())
}

async fn kind(
    to: &mut AnyConnection,
    a: &Applied<'_>,
    step: &StepId,
    kind: &str,
) -> sqlx::Result<()> {
    let sql = "UPDATE step SET kind = $1 WHERE tenant = $2 AND run = $3 AND step = $4";
    let row = sqlx::query(sql).bind(kind).bind(a.tenant()).bind(a.id()).bind(step.to_string());
    row.execute(to).await?;
    Ok(())
}

async fn start(
    to: &mut AnyConnection,
    a: &Applied<'_>,
    step: &StepId,
    attempt: u32,
) -> sqlx::Result<()> {
    set(to, a, step, "started").await?;
    let sql = "UPDATE step SET attempt = $1, started_ms = coalesce(started_ms, $2) \
        WHERE tenant = $3 AND run = $4 AND step = $5";
    sqlx::query(sql)
        .bind(i64::from(attempt))
        .bind(a.at().0)
        .bind(a.tenant())
        .bind(a.id())
        .bind(step.to_string())
        .execute(to)
        .await?;
    Ok(())
}

/// How a try ended.
struct End<'a> {
    status: &'static str,
    attempt: u32,
    output: Option<String>,
    error: Option<&'a Failure>,
}

async fn conclude(
    to: &mut AnyConnection,
    a: &Applied<'_>,
    step: &StepId,
    end: End<'_>,
) -> sqlx::Result<()> {
    set(to, a, step, end.status).await?;
    let sql = "UPDATE step SET attempt = $1, ended_ms = $2, output = $3, error_code = $4, \
        error_message = $5 WHERE tenant = $6 AND run = $7 AND step = $8";
    sqlx::query(sql)
        .bind(i64::from(end.attempt))
        .bind(a.at().0)
        .bind(end.output)
        .bind(end.error.map(|error| error.code.as_str()))
        .bind(end.error.map(|error| storable(&error.message)))
        .bind(a.tenant())
        .bind(a.id())
        .bind(step.to_string())
        .execute(&mut *to)
        .await?;
    if end.status == "completed" {
        count(to, a, "steps_done").await?;
    }
    Ok(())
}

async fn skip(
    to: &mut AnyConnection,
    a: &Applied<'_>,
    nodes: &[convergio_domain::id::NodeId],
) -> sqlx::Result<()> {
    for node in nodes {
        set(to, a, &StepId::node(node.clone()), "skipped").await?;
        count(to, a, "steps_done").await?;
    }
    Ok(())
}

async fn spend(to: &mut AnyConnection, a: &Applied<'_>, usage: &UsageRecorded) -> sqlx::Result<()> {
    let step = usage.step.to_string();
    let sql = "SELECT cost FROM step WHERE tenant = $1 AND run = $2 AND step = $3";
    let row = sqlx::query(sql).bind(a.tenant()).bind(a.id()).bind(&step);
    let cost: i128 = row.fetch_one(&mut *to).await?.try_get::<String, _>(0)?.parse().unwrap_or(0);
    let amount = usage.charge.as_ref().map_or(Money::ZERO, |charge| charge.amount);
    let sql = "UPDATE step SET tokens_in = tokens_in + $1, tokens_out = tokens_out + $2, \
        cost = $3 WHERE tenant = $4 AND run = $5 AND step = $6";
    sqlx::query(sql)
        .bind(signed(usage.usage.tokens_in()))
        .bind(signed(usage.usage.tokens_out()))
        .bind((cost + amount.scaled()).to_string())
        .bind(a.tenant())
        .bind(a.id())
        .bind(step)
        .execute(to)
        .await?;
    Ok(())
}
