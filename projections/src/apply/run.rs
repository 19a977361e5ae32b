//! Graph versions, runs and approvals.

use convergio_domain::graph::event::GraphEvent;
use convergio_domain::id::{GraphId, GraphVersion, RunId, StepId};
use convergio_domain::money::Money;
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
    ApprovalAnswered, ApprovalRequested, RunCompleted, RunCreated, RunFailed, RunForked,
    UsageRecorded,
};
use convergio_domain::stream::Seq;
use convergio_domain::time::Span;
use convergio_eventstore::Record;
use sqlx::AnyConnection;

use super::{AppliedEvent, ApplyBatch, imported, replace_nul, to_column};
use crate::rows::RunRow;

pub(super) async fn insert_graph_version(
    connection: &mut AnyConnection,
    applied: &AppliedEvent<'_>,
    GraphEvent::GraphRegistered(graph): &GraphEvent,
) -> sqlx::Result<()> {
    // The same version may be registered again; only its position moves, and with it the order of
    // lists.
    let sql = "INSERT INTO graph_version (tenant, graph, version, name, nodes, manifest, \
        registered_ms, pos, derived) VALUES ($1, $2, $3, $4, $5, $6, $7, $8, $9) \
        ON CONFLICT (tenant, graph, version) DO UPDATE SET pos = excluded.pos";
    sqlx::query(sql)
        .bind(applied.tenant_id())
        .bind(applied.stream_id())
        .bind(graph.version.as_str())
        .bind(&graph.name)
        .bind(i64::from(graph.nodes))
        .bind(graph.manifest.to_string())
        .bind(applied.recorded_at().0)
        .bind(applied.log_position())
        .bind(i64::from(graph.is_derived))
        .execute(connection)
        .await?;
    Ok(())
}

pub(super) async fn apply(
    batch: &mut ApplyBatch<'_>,
    applied: &AppliedEvent<'_>,
    event: &RunEvent,
) -> sqlx::Result<()> {
    match event {
        RunEvent::RunCreated(created) => {
            insert_run(batch, applied, NewRunRow::from_created(created))
        }
        RunEvent::RunForked(forked) => insert_run(batch, applied, NewRunRow::from_forked(forked)),
        RunEvent::RunPaused(_) => set_run_status(batch, applied, "paused").await?,
        // Resumed while something else still pauses it: nothing changes for readers.
        RunEvent::RunResumed(resumed) if resumed.stays_paused => {}
        RunEvent::RunResumed(resumed) => {
            set_run_status(batch, applied, "running").await?;
            extend_approval_deadlines(batch, applied, resumed.stood).await?;
        }
        RunEvent::RunReopened(reopened) => {
            reopen_run(batch, applied).await?;
            extend_approval_deadlines(batch, applied, reopened.stood).await?;
        }
        RunEvent::UsageRecorded(usage) => add_run_usage(batch, applied, usage).await?,
        RunEvent::RunImported(mark) => imported::apply(batch, applied, mark).await?,
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
        RunEvent::ApprovalRequested(asked) => {
            insert_approval(batch, applied, asked).await?;
        }
        RunEvent::ApprovalGranted(answer) => {
            update_approval(batch.transaction, applied, answer, "granted").await?;
        }
        RunEvent::ApprovalDenied(answer) => {
            update_approval(batch.transaction, applied, answer, "denied").await?;
        }
        RunEvent::ModelCallCompleted(_) => {}
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
    batch: &mut ApplyBatch<'_>,
    record: &Record,
) -> sqlx::Result<()> {
    let run = batch.row_cache.load_run(batch.transaction, &record.stream).await?;
    run.change_row(|row| {
        row.seq = to_column(record.last_seq().0);
        row.updated_ms = record.body.time.0;
    });
    Ok(())
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

/// Changes the run's row in the cache.
pub(super) async fn change_run(
    batch: &mut ApplyBatch<'_>,
    applied: &AppliedEvent<'_>,
    change: impl FnOnce(&mut RunRow),
) -> sqlx::Result<()> {
    batch.row_cache.load_run(batch.transaction, &applied.record.stream).await?.change_row(change);
    Ok(())
}

async fn set_run_status(
    batch: &mut ApplyBatch<'_>,
    applied: &AppliedEvent<'_>,
    status: &str,
) -> sqlx::Result<()> {
    change_run(batch, applied, |row| status.clone_into(&mut row.status)).await
}

/// Reopens a failed run: its error is cleared and its void approvals are open again.
async fn reopen_run(batch: &mut ApplyBatch<'_>, applied: &AppliedEvent<'_>) -> sqlx::Result<()> {
    change_run(batch, applied, |row| {
        "running".clone_into(&mut row.status);
        (row.ended_ms, row.error_code) = (None, None);
        (row.error_message, row.error_detail, row.error_step) = (None, None, None);
    })
    .await?;
    // `void` approvals were open when the run failed.
    let sql = "UPDATE approval SET state = 'open' WHERE tenant = $1 AND run = $2 \
        AND state = 'void'";
    sqlx::query(sql)
        .bind(applied.tenant_id())
        .bind(applied.stream_id())
        .execute(&mut *batch.transaction)
        .await?;
    Ok(())
}

/// Extends the deadlines of open approvals by the time that the run was paused.
async fn extend_approval_deadlines(
    batch: &mut ApplyBatch<'_>,
    applied: &AppliedEvent<'_>,
    paused_for: Option<Span>,
) -> sqlx::Result<()> {
    // A run that never asked anything costs no statement.
    let run = batch.row_cache.load_run(batch.transaction, &applied.record.stream).await?;
    let may_have_approvals = !run.is_complete || run.has_approvals;
    let Some(paused_for) = paused_for.filter(|stood| stood.0 > 0 && may_have_approvals) else {
        return Ok(());
    };
    let sql = "UPDATE approval SET expires_ms = expires_ms + $1 WHERE tenant = $2 AND run = $3 \
        AND state = 'open' AND expires_ms IS NOT NULL";
    let query = sqlx::query(sql)
        .bind(to_column(paused_for.0))
        .bind(applied.tenant_id())
        .bind(applied.stream_id());
    query.execute(&mut *batch.transaction).await?;
    Ok(())
}

fn insert_run(batch: &mut ApplyBatch<'_>, applied: &AppliedEvent<'_>, new: NewRunRow<'_>) {
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
    batch: &mut ApplyBatch<'_>,
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

/// Adds the charge of a usage record to a cost column, in units of 1e-15 as text.
pub(super) fn add_cost(before: &str, usage: &UsageRecorded) -> String {
    let before: i128 = before.parse().unwrap_or(0);
    let amount = usage.charge.as_ref().map_or(Money::ZERO, |charge| charge.amount);
    (before + amount.as_scaled()).to_string()
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
    batch: &mut ApplyBatch<'_>,
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
    // A run that is cached since its start is known to have requested approvals or not: without
    // any, the statement would match nothing.
    if run.is_complete && !run.has_approvals {
        return Ok(());
    }
    let sql = "UPDATE approval SET state = 'void' WHERE tenant = $1 AND run = $2 \
        AND state = 'open'";
    sqlx::query(sql)
        .bind(applied.tenant_id())
        .bind(applied.stream_id())
        .execute(&mut *batch.transaction)
        .await?;
    Ok(())
}

/// Inserts an approval. An imported file may hold anything, also the same approval twice.
async fn insert_approval(
    batch: &mut ApplyBatch<'_>,
    applied: &AppliedEvent<'_>,
    requested: &ApprovalRequested,
) -> sqlx::Result<()> {
    let run = batch.row_cache.load_run(batch.transaction, &applied.record.stream).await?;
    run.has_approvals = true;
    let sql = "INSERT INTO approval (tenant, approval, run, step, role, content, content_hash, \
        state, asked_ms, expires_ms, pos) VALUES ($1, $2, $3, $4, $5, $6, $7, 'open', $8, $9, $10) \
        ON CONFLICT (tenant, approval, run) DO NOTHING";
    sqlx::query(sql)
        .bind(applied.tenant_id())
        .bind(requested.approval.to_string())
        .bind(applied.stream_id())
        .bind(requested.step.to_string())
        .bind(&requested.role)
        .bind(requested.content.to_string())
        .bind(&requested.content_hash)
        .bind(applied.recorded_at().0)
        .bind(requested.expires.map(|expires| expires.0))
        .bind(applied.log_position())
        .execute(&mut *batch.transaction)
        .await?;
    Ok(())
}

async fn update_approval(
    connection: &mut AnyConnection,
    applied: &AppliedEvent<'_>,
    answer: &ApprovalAnswered,
    state: &str,
) -> sqlx::Result<()> {
    let sql = "UPDATE approval SET state = $1, answered_by = $2, answered_ms = $3, reason = $4, \
        reason_at = $5 WHERE tenant = $6 AND approval = $7 AND run = $8";
    sqlx::query(sql)
        .bind(state)
        .bind(answer.by.as_str())
        .bind(applied.recorded_at().0)
        .bind(answer.reason.as_deref().map(replace_nul))
        .bind(answer.reason_at.map(|reference| reference.to_string()))
        .bind(applied.tenant_id())
        .bind(answer.approval.to_string())
        .bind(applied.stream_id())
        .execute(connection)
        .await?;
    Ok(())
}
