//! Graphs, runs and approvals.

use convergio_domain::event::{Event, lifecycle, run};
use convergio_domain::id::{GraphId, GraphVersion, RunId};
use convergio_domain::money::Money;
use convergio_domain::stream::Seq;
use convergio_eventstore::Record;
use sqlx::{AnyConnection, Row};

use super::{Applied, signed, storable};

pub(super) async fn register(to: &mut AnyConnection, a: &Applied<'_>) -> sqlx::Result<()> {
    let Event::GraphRegistered(graph) = a.event else { return Ok(()) };
    let sql = "INSERT INTO graph_version (tenant, graph, version, name, nodes, manifest, \
        registered_ms, pos, derived) VALUES ($1, $2, $3, $4, $5, $6, $7, $8, $9) \
        ON CONFLICT (tenant, graph, version) DO UPDATE SET pos = excluded.pos";
    sqlx::query(sql)
        .bind(a.tenant())
        .bind(a.id())
        .bind(graph.version.as_str())
        .bind(&graph.name)
        .bind(i64::from(graph.nodes))
        .bind(graph.manifest.to_string())
        .bind(a.at().0)
        .bind(a.pos())
        .bind(i64::from(graph.is_derived))
        .execute(to)
        .await?;
    Ok(())
}

pub(super) async fn apply(to: &mut AnyConnection, a: &Applied<'_>) -> sqlx::Result<()> {
    match a.event {
        Event::RunCreated(created) => create(to, a, &New::created(created)).await,
        Event::RunForked(forked) => create(to, a, &New::forked(forked)).await,
        Event::RunPaused(_) => status(to, a, "paused").await,
        Event::RunResumed(_) => status(to, a, "running").await,
        Event::RunReopened(_) => reopen(to, a).await,
        Event::UsageRecorded(usage) => spend(to, a, usage).await,
        Event::RunMigrated(migrated) => migrate(to, a, migrated).await,
        Event::RunCompleted(done) => {
            end(to, a, "completed", done.output.map(|o| o.to_string()), None).await
        }
        Event::RunFailed(failed) => end(to, a, "failed", None, Some(&failed.error)).await,
        Event::RunCancelled(_) => end(to, a, "cancelled", None, None).await,
        Event::ApprovalRequested(asked) => ask(to, a, asked).await,
        Event::ApprovalGranted(answer) => answered(to, a, answer, "granted").await,
        Event::ApprovalDenied(answer) => answered(to, a, answer, "denied").await,
        _ => Ok(()),
    }
}

/// Notes the last event of a run.
pub(super) async fn touch(to: &mut AnyConnection, record: &Record) -> sqlx::Result<()> {
    let sql = "UPDATE run_status SET seq = $1, updated_ms = $2 WHERE tenant = $3 AND run = $4";
    sqlx::query(sql)
        .bind(signed(record.last_seq().0))
        .bind(record.body.time.0)
        .bind(record.stream.tenant.as_str())
        .bind(record.stream.id.to_string())
        .execute(to)
        .await?;
    Ok(())
}

/// What there is to say of a run when it begins.
struct New<'a> {
    graph: GraphId,
    version: &'a GraphVersion,
    input: String,
    parent: Option<(RunId, Seq)>,
}

impl<'a> New<'a> {
    fn created(created: &'a run::Created) -> Self {
        let input = created.input.to_string();
        Self { graph: created.graph, version: &created.version, input, parent: None }
    }

    fn forked(forked: &'a lifecycle::Forked) -> Self {
        let input = forked.input.map(|input| input.to_string()).unwrap_or_default();
        let parent = Some((forked.parent, forked.seq));
        Self { graph: forked.graph, version: &forked.version, input, parent }
    }
}

async fn status(to: &mut AnyConnection, a: &Applied<'_>, status: &str) -> sqlx::Result<()> {
    let sql = "UPDATE run_status SET status = $1 WHERE tenant = $2 AND run = $3";
    sqlx::query(sql).bind(status).bind(a.tenant()).bind(a.id()).execute(to).await?;
    Ok(())
}

/// A failed run goes on: its questions are open again.
async fn reopen(to: &mut AnyConnection, a: &Applied<'_>) -> sqlx::Result<()> {
    let sql = "UPDATE run_status SET status = 'running', ended_ms = NULL, error_code = NULL, \
        error_message = NULL WHERE tenant = $1 AND run = $2";
    sqlx::query(sql).bind(a.tenant()).bind(a.id()).execute(&mut *to).await?;
    let sql = "UPDATE approval SET state = 'open' WHERE tenant = $1 AND run = $2 \
        AND state = 'void'";
    sqlx::query(sql).bind(a.tenant()).bind(a.id()).execute(to).await?;
    Ok(())
}

async fn create(to: &mut AnyConnection, a: &Applied<'_>, new: &New<'_>) -> sqlx::Result<()> {
    let sql = "INSERT INTO run_status (tenant, run, graph, version, status, actor, created_ms, \
        updated_ms, steps_done, steps_total, tokens_in, tokens_out, cost, unpriced, input, seq, \
        created_pos, parent, parent_seq) VALUES \
        ($1, $2, $3, $4, 'running', $5, $6, $6, 0, 0, 0, 0, '0', 0, $7, $8, $9, $10, $11)";
    sqlx::query(sql)
        .bind(a.tenant())
        .bind(a.id())
        .bind(new.graph.to_string())
        .bind(new.version.as_str())
        .bind(a.record.body.actor.as_str())
        .bind(a.at().0)
        .bind(&new.input)
        .bind(signed(a.seq.0))
        .bind(a.pos())
        .bind(new.parent.map(|(run, _)| run.to_string()))
        .bind(new.parent.map(|(_, seq)| signed(seq.0)))
        .execute(to)
        .await?;
    Ok(())
}

async fn migrate(
    to: &mut AnyConnection,
    a: &Applied<'_>,
    migrated: &run::Migrated,
) -> sqlx::Result<()> {
    let sql = "UPDATE run_status SET version = $1 WHERE tenant = $2 AND run = $3";
    let row = sqlx::query(sql).bind(migrated.to.as_str()).bind(a.tenant()).bind(a.id());
    row.execute(to).await?;
    Ok(())
}

async fn spend(
    to: &mut AnyConnection,
    a: &Applied<'_>,
    usage: &run::UsageRecorded,
) -> sqlx::Result<()> {
    let sql = "SELECT cost FROM run_status WHERE tenant = $1 AND run = $2";
    let row = sqlx::query(sql).bind(a.tenant()).bind(a.id()).fetch_one(&mut *to).await?;
    let cost: i128 = row.try_get::<String, _>(0)?.parse().unwrap_or(0);
    let amount = usage.charge.as_ref().map_or(Money::ZERO, |charge| charge.amount);
    let sql = "UPDATE run_status SET tokens_in = tokens_in + $1, tokens_out = tokens_out + $2, \
        cost = $3, unpriced = unpriced + $4 WHERE tenant = $5 AND run = $6";
    sqlx::query(sql)
        .bind(signed(usage.usage.tokens_in()))
        .bind(signed(usage.usage.tokens_out()))
        .bind((cost + amount.scaled()).to_string())
        .bind(i64::from(usage.charge.is_none()))
        .bind(a.tenant())
        .bind(a.id())
        .execute(to)
        .await?;
    Ok(())
}

async fn end(
    to: &mut AnyConnection,
    a: &Applied<'_>,
    status: &str,
    output: Option<String>,
    error: Option<&run::Failure>,
) -> sqlx::Result<()> {
    let sql = "UPDATE run_status SET status = $1, ended_ms = $2, output = $3, error_code = $4, \
        error_message = $5 WHERE tenant = $6 AND run = $7";
    sqlx::query(sql)
        .bind(status)
        .bind(a.at().0)
        .bind(output)
        .bind(error.map(|error| error.code.as_str()))
        .bind(error.map(|error| storable(&error.message)))
        .bind(a.tenant())
        .bind(a.id())
        .execute(&mut *to)
        .await?;
    let sql = "UPDATE approval SET state = 'void' WHERE tenant = $1 AND run = $2 \
        AND state = 'open'";
    sqlx::query(sql).bind(a.tenant()).bind(a.id()).execute(to).await?;
    Ok(())
}

async fn ask(
    to: &mut AnyConnection,
    a: &Applied<'_>,
    asked: &run::ApprovalRequested,
) -> sqlx::Result<()> {
    let sql = "INSERT INTO approval (tenant, approval, run, step, role, content, content_hash, \
        state, asked_ms, expires_ms, pos) VALUES ($1, $2, $3, $4, $5, $6, $7, 'open', $8, $9, $10)";
    sqlx::query(sql)
        .bind(a.tenant())
        .bind(asked.approval.to_string())
        .bind(a.id())
        .bind(asked.step.to_string())
        .bind(&asked.role)
        .bind(asked.content.to_string())
        .bind(&asked.content_hash)
        .bind(a.at().0)
        .bind(asked.expires.map(|expires| expires.0))
        .bind(a.pos())
        .execute(to)
        .await?;
    Ok(())
}

async fn answered(
    to: &mut AnyConnection,
    a: &Applied<'_>,
    answer: &run::ApprovalAnswered,
    state: &str,
) -> sqlx::Result<()> {
    let sql = "UPDATE approval SET state = $1, answered_by = $2, answered_ms = $3, reason = $4 \
        WHERE tenant = $5 AND approval = $6";
    sqlx::query(sql)
        .bind(state)
        .bind(answer.by.as_str())
        .bind(a.at().0)
        .bind(answer.reason.as_deref().map(storable))
        .bind(a.tenant())
        .bind(answer.approval.to_string())
        .execute(to)
        .await?;
    Ok(())
}
