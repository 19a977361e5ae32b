//! Graph versions, runs and approvals.

use convergio_domain::event::{Event, lifecycle, run};
use convergio_domain::id::{GraphId, GraphVersion, RunId, StepId};
use convergio_domain::money::Money;
use convergio_domain::payload::PayloadRef;
use convergio_domain::run::Origin;
use convergio_domain::stream::Seq;
use convergio_domain::time::Span;
use convergio_eventstore::Record;
use sqlx::AnyConnection;

use super::{Applied, Page, imported, signed, storable};
use crate::rows::RunRow;

pub(super) async fn register(to: &mut AnyConnection, a: &Applied<'_>) -> sqlx::Result<()> {
    let Event::GraphRegistered(graph) = a.event else { return Ok(()) };
    // The same version may be registered again; only its position moves, and with it the order of
    // lists.
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

pub(super) async fn apply(page: &mut Page<'_>, a: &Applied<'_>) -> sqlx::Result<()> {
    match a.event {
        Event::RunCreated(created) => create(page, a, New::created(created)),
        Event::RunForked(forked) => create(page, a, New::forked(forked)),
        Event::RunPaused(_) => status(page, a, "paused").await?,
        // Resumed while something else still pauses it: nothing changes for readers.
        Event::RunResumed(resumed) if resumed.stays_paused => {}
        Event::RunResumed(resumed) => {
            status(page, a, "running").await?;
            shift_questions(page, a, resumed.stood).await?;
        }
        Event::RunReopened(reopened) => {
            reopen(page, a).await?;
            shift_questions(page, a, reopened.stood).await?;
        }
        Event::UsageRecorded(usage) => spend(page, a, usage).await?,
        Event::RunImported(mark) => imported::apply(page, a, mark).await?,
        Event::RunMigrated(migrated) => {
            change(page, a, |row| row.version = migrated.to.to_string()).await?;
        }
        Event::RunCompleted(done) => end(page, a, End::completed(done)).await?,
        Event::RunFailed(failed) => end(page, a, End::failed(failed)).await?,
        Event::RunCancelled(_) => end(page, a, End::of("cancelled")).await?,
        Event::ApprovalRequested(asked) => {
            page.held.run(page.to, &a.record.stream).await?.has_asked = true;
            ask(page.to, a, asked).await?;
        }
        Event::ApprovalGranted(answer) => answered(page.to, a, answer, "granted").await?,
        Event::ApprovalDenied(answer) => answered(page.to, a, answer, "denied").await?,
        _ => {}
    }
    Ok(())
}

/// Sets the run's last sequence number and time of change. Called once a record, not once an event.
pub(super) async fn touch(page: &mut Page<'_>, record: &Record) -> sqlx::Result<()> {
    let run = page.held.run(page.to, &record.stream).await?;
    run.change(|row| {
        row.seq = signed(record.last_seq().0);
        row.updated_ms = record.body.time.0;
    });
    Ok(())
}

/// The start of a run, whether it was created or forked.
struct New<'a> {
    graph: GraphId,
    version: &'a GraphVersion,
    input: String,
    forked_from: Option<(RunId, Seq)>,
    origin: Option<&'a Origin>,
}

impl<'a> New<'a> {
    fn created(created: &'a run::Created) -> Self {
        let input = created.input.to_string();
        let (graph, version, origin) = (created.graph, &created.version, created.origin.as_ref());
        Self { graph, version, input, forked_from: None, origin }
    }

    fn forked(forked: &'a lifecycle::Forked) -> Self {
        let input = forked.input.map(|input| input.to_string()).unwrap_or_default();
        let forked_from = Some((forked.parent, forked.seq));
        Self { graph: forked.graph, version: &forked.version, input, forked_from, origin: None }
    }
}

/// Changes the run's row in the cache.
pub(super) async fn change(
    page: &mut Page<'_>,
    a: &Applied<'_>,
    change: impl FnOnce(&mut RunRow),
) -> sqlx::Result<()> {
    page.held.run(page.to, &a.record.stream).await?.change(change);
    Ok(())
}

async fn status(page: &mut Page<'_>, a: &Applied<'_>, status: &str) -> sqlx::Result<()> {
    change(page, a, |row| status.clone_into(&mut row.status)).await
}

/// Reopens a failed run: its error is cleared and its void approvals are open again.
async fn reopen(page: &mut Page<'_>, a: &Applied<'_>) -> sqlx::Result<()> {
    change(page, a, |row| {
        "running".clone_into(&mut row.status);
        (row.ended_ms, row.error_code) = (None, None);
        (row.error_message, row.error_detail, row.error_step) = (None, None, None);
    })
    .await?;
    // `void` approvals were open when the run failed.
    let sql = "UPDATE approval SET state = 'open' WHERE tenant = $1 AND run = $2 \
        AND state = 'void'";
    sqlx::query(sql).bind(a.tenant()).bind(a.id()).execute(&mut *page.to).await?;
    Ok(())
}

/// Extends the deadlines of open approvals by the time that the run was paused.
async fn shift_questions(
    page: &mut Page<'_>,
    a: &Applied<'_>,
    stood: Option<Span>,
) -> sqlx::Result<()> {
    // A run that never asked anything costs no statement.
    let run = page.held.run(page.to, &a.record.stream).await?;
    let has_questions = !run.is_whole || run.has_asked;
    let Some(stood) = stood.filter(|stood| stood.0 > 0 && has_questions) else { return Ok(()) };
    let sql = "UPDATE approval SET expires_ms = expires_ms + $1 WHERE tenant = $2 AND run = $3 \
        AND state = 'open' AND expires_ms IS NOT NULL";
    let query = sqlx::query(sql).bind(signed(stood.0)).bind(a.tenant()).bind(a.id());
    query.execute(&mut *page.to).await?;
    Ok(())
}

fn create(page: &mut Page<'_>, a: &Applied<'_>, new: New<'_>) {
    let row = RunRow {
        run: a.id(),
        graph: new.graph.to_string(),
        version: new.version.to_string(),
        name: None,
        status: "running".to_owned(),
        actor: a.record.body.actor.to_string(),
        created_ms: a.at().0,
        updated_ms: a.at().0,
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
        seq: signed(a.seq.0),
        created_pos: a.pos(),
        forked_from: new.forked_from.map(|(run, _)| run.to_string()),
        forked_seq: new.forked_from.map(|(_, seq)| signed(seq.0)),
        parent: new.origin.map(|origin| origin.run.to_string()),
        parent_step: new.origin.map(|origin| origin.step.to_string()),
        imported_by: None,
        imported_ms: None,
        imported_file: None,
        imported_signer: None,
    };
    page.held.begin(&a.record.stream, row);
}

async fn spend(
    page: &mut Page<'_>,
    a: &Applied<'_>,
    usage: &run::UsageRecorded,
) -> sqlx::Result<()> {
    change(page, a, |row| {
        row.tokens_in += signed(usage.usage.tokens_in());
        row.tokens_out += signed(usage.usage.tokens_out());
        row.cost = sum(&row.cost, usage);
        row.unpriced += i64::from(usage.charge.is_none());
    })
    .await
}

/// Adds the charge of a usage record to a cost column, in units of 1e-15 as text.
pub(super) fn sum(before: &str, usage: &run::UsageRecorded) -> String {
    let before: i128 = before.parse().unwrap_or(0);
    let amount = usage.charge.as_ref().map_or(Money::ZERO, |charge| charge.amount);
    (before + amount.scaled()).to_string()
}

/// The end of a run as its row shows it.
struct End<'a> {
    status: &'static str,
    output: Option<PayloadRef>,
    failed: Option<&'a run::Failed>,
}

impl<'a> End<'a> {
    fn of(status: &'static str) -> Self {
        Self { status, output: None, failed: None }
    }

    fn completed(completed: &run::Completed) -> Self {
        Self { output: completed.output, ..Self::of("completed") }
    }

    fn failed(failed: &'a run::Failed) -> Self {
        Self { failed: Some(failed), ..Self::of("failed") }
    }
}

async fn end(page: &mut Page<'_>, a: &Applied<'_>, end: End<'_>) -> sqlx::Result<()> {
    let run = page.held.run(page.to, &a.record.stream).await?;
    run.change(|row| {
        end.status.clone_into(&mut row.status);
        row.ended_ms = Some(a.at().0);
        row.output = end.output.map(|output| output.to_string());
        row.error_code = end.failed.map(|failed| failed.error.code.to_string());
        row.error_message = end.failed.map(|failed| storable(&failed.error.message));
        row.error_detail = end.failed.and_then(|failed| Some(failed.error.detail?.to_string()));
        row.error_step = end.failed.and_then(|failed| failed.step.as_ref()).map(StepId::to_string);
    });
    // A run that is cached since its start is known to have requested approvals or not: without
    // any, the statement would match nothing.
    if run.is_whole && !run.has_asked {
        return Ok(());
    }
    let sql = "UPDATE approval SET state = 'void' WHERE tenant = $1 AND run = $2 \
        AND state = 'open'";
    sqlx::query(sql).bind(a.tenant()).bind(a.id()).execute(&mut *page.to).await?;
    Ok(())
}

/// Inserts an approval. An imported file may hold anything, also the same approval twice.
async fn ask(
    to: &mut AnyConnection,
    a: &Applied<'_>,
    asked: &run::ApprovalRequested,
) -> sqlx::Result<()> {
    let sql = "INSERT INTO approval (tenant, approval, run, step, role, content, content_hash, \
        state, asked_ms, expires_ms, pos) VALUES ($1, $2, $3, $4, $5, $6, $7, 'open', $8, $9, $10) \
        ON CONFLICT (tenant, approval, run) DO NOTHING";
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
    let sql = "UPDATE approval SET state = $1, answered_by = $2, answered_ms = $3, reason = $4, \
        reason_at = $5 WHERE tenant = $6 AND approval = $7 AND run = $8";
    sqlx::query(sql)
        .bind(state)
        .bind(answer.by.as_str())
        .bind(a.at().0)
        .bind(answer.reason.as_deref().map(storable))
        .bind(answer.reason_at.map(|reference| reference.to_string()))
        .bind(a.tenant())
        .bind(answer.approval.to_string())
        .bind(a.id())
        .execute(to)
        .await?;
    Ok(())
}
