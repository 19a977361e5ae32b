//! Rows that are held in memory while their run is under way: changed there as often as events say,
//! written once a page.

use std::collections::{BTreeMap, HashMap};

use convergio_domain::id::{StepId, TenantId};
use convergio_domain::stream::StreamKey;
use sqlx::AnyConnection;

use super::audit::AuditLine;
use super::billing::{Account, Balance, Entry, UsageLine};
use super::bulk::{Bound, Bulk};
use super::{audit, billing};
use crate::rows::{RunRow, StepRow};

/// Rows of runs under way that are kept from page to page.
const LIMIT: usize = 4096;

/// What is known of the rows in the database, and what is to be written there. It holds as long as
/// nobody else writes, which the position proves page by page.
#[derive(Default)]
pub(crate) struct Held {
    runs: HashMap<StreamKey, HeldRun>,
    pub(super) balances: HashMap<(TenantId, Account), Balance>,
    pub(super) audit: Vec<AuditLine>,
    pub(super) usage: Vec<UsageLine>,
    pub(super) entries: Vec<Entry>,
}

/// A run and those of its steps that were touched.
#[derive(Default)]
pub(super) struct HeldRun {
    pub(super) row: Option<RunRow>,
    pub(super) is_changed: bool,
    pub(super) steps: BTreeMap<String, HeldStep>,
    /// Whether it was created while it was held: the database has nothing of it that is not here.
    pub(super) is_whole: bool,
    /// Whether it asked a person something, as far as is known here.
    pub(super) has_asked: bool,
    /// Quantities by usage line.
    pub(super) lines: BTreeMap<String, i64>,
}

pub(super) struct HeldStep {
    pub(super) row: Option<StepRow>,
    /// The event that it was first heard of by; the database's own word stays if there is one.
    pub(super) first_seq: i64,
    pub(super) is_changed: bool,
}

impl Held {
    /// A run; asked of the database the first time.
    pub(super) async fn run(
        &mut self,
        to: &mut AnyConnection,
        stream: &StreamKey,
    ) -> sqlx::Result<&mut HeldRun> {
        if !self.runs.contains_key(stream) {
            let sql = "SELECT * FROM run_status WHERE tenant = $1 AND run = $2";
            let row = sqlx::query_as(sql).bind(stream.tenant.as_str()).bind(stream.id.to_string());
            let row = row.fetch_optional(to).await?;
            self.runs.insert(stream.clone(), HeldRun { row, ..HeldRun::default() });
        }
        Ok(self.runs.entry(stream.clone()).or_default())
    }

    /// A run that begins.
    pub(super) fn begin(&mut self, stream: &StreamKey, row: RunRow) {
        let run =
            HeldRun { row: Some(row), is_changed: true, is_whole: true, ..HeldRun::default() };
        self.runs.insert(stream.clone(), run);
    }

    /// Writes everything that is not written yet.
    pub(crate) async fn flush(&mut self, to: &mut AnyConnection) -> sqlx::Result<()> {
        self.write_runs(to).await?;
        self.write_steps(to).await?;
        audit::write(to, &std::mem::take(&mut self.audit)).await?;
        billing::write_usage(to, &std::mem::take(&mut self.usage)).await?;
        billing::write_entries(to, &std::mem::take(&mut self.entries)).await?;
        billing::write_balances(to, &mut self.balances).await?;
        self.let_go();
        Ok(())
    }

    async fn write_runs(&mut self, to: &mut AnyConnection) -> sqlx::Result<()> {
        let changed = self.runs.iter_mut().filter_map(|(stream, run)| {
            let is_changed = std::mem::take(&mut run.is_changed);
            run.row.as_ref().filter(|_| is_changed).map(|row| (stream, row))
        });
        let rows: Vec<_> = changed.collect();
        RUNS.write(to, &rows, |query, (stream, row)| bind_run(query, stream, row)).await
    }

    async fn write_steps(&mut self, to: &mut AnyConnection) -> sqlx::Result<()> {
        let changed = self.runs.iter_mut().flat_map(|(stream, run)| {
            run.steps.values_mut().filter_map(move |step| {
                let is_changed = std::mem::take(&mut step.is_changed);
                let row = step.row.as_ref().filter(|_| is_changed)?;
                Some((stream, step.first_seq, row))
            })
        });
        let rows: Vec<_> = changed.collect();
        STEPS.write(to, &rows, |query, row| bind_step(query, row.0, row.1, row.2)).await
    }

    /// Keeps what will be asked for again, and not more than a limit.
    fn let_go(&mut self) {
        self.runs.retain(|_, run| run.row.as_ref().is_some_and(|row| row.ended_ms.is_none()));
        if self.runs.values().map(|run| 1 + run.steps.len()).sum::<usize>() > LIMIT {
            self.runs.clear();
        }
        if self.balances.len() > LIMIT {
            self.balances.clear();
        }
    }
}

impl HeldStep {
    pub(super) fn is_map(&self) -> bool {
        self.row.as_ref().is_some_and(|row| row.kind == "map")
    }
}

impl HeldRun {
    /// The run's row, to be changed.
    pub(super) fn change(&mut self, change: impl FnOnce(&mut RunRow)) {
        if let Some(row) = &mut self.row {
            change(row);
            self.is_changed = true;
        }
    }

    /// A step's row, to be changed; nothing happens if there is none.
    pub(super) async fn change_step(
        &mut self,
        to: &mut AnyConnection,
        (stream, step): (&StreamKey, &StepId),
        change: impl FnOnce(&mut StepRow),
    ) -> sqlx::Result<()> {
        let held = self.step(to, stream, step).await?;
        if let Some(row) = &mut held.row {
            change(row);
            held.is_changed = true;
        }
        Ok(())
    }

    /// Takes every step in that has not come to its own end; what is held is newer.
    pub(super) async fn load_unfinished_steps(
        &mut self,
        to: &mut AnyConnection,
        stream: &StreamKey,
    ) -> sqlx::Result<()> {
        if self.is_whole {
            return Ok(());
        }
        let sql = "SELECT * FROM step WHERE tenant = $1 AND run = $2 \
            AND status NOT IN ('completed', 'failed', 'skipped')";
        let rows = sqlx::query_as(sql).bind(stream.tenant.as_str()).bind(stream.id.to_string());
        let rows: Vec<StepRow> = rows.fetch_all(to).await?;
        for row in rows {
            let unchanged = |row| HeldStep { row: Some(row), first_seq: 0, is_changed: false };
            self.steps.entry(row.step.clone()).or_insert_with(|| unchanged(row));
        }
        Ok(())
    }

    /// A step, as far as it is known; asked of the database the first time.
    pub(super) async fn step(
        &mut self,
        to: &mut AnyConnection,
        stream: &StreamKey,
        step: &StepId,
    ) -> sqlx::Result<&mut HeldStep> {
        let name = step.to_string();
        if !self.is_whole && !self.steps.contains_key(&name) {
            let sql = "SELECT * FROM step WHERE tenant = $1 AND run = $2 AND step = $3";
            let row = sqlx::query_as(sql).bind(stream.tenant.as_str()).bind(stream.id.to_string());
            let row = row.bind(&name).fetch_optional(to).await?;
            self.steps.insert(name.clone(), HeldStep { row, first_seq: 0, is_changed: false });
        }
        let none = || HeldStep { row: None, first_seq: 0, is_changed: false };
        Ok(self.steps.entry(name).or_insert_with(none))
    }
}

static RUNS: Bulk = Bulk::new(
    "INSERT INTO run_status (tenant, run, graph, version, status, actor, created_ms, updated_ms, \
     ended_ms, steps_done, steps_abandoned, steps_total, tokens_in, tokens_out, cost, unpriced, \
     error_code, error_message, error_step, input, output, seq, created_pos, forked_from, \
     forked_seq, parent, parent_step, imported_by, imported_ms, imported_file, imported_signer, \
     error_detail)",
    32,
    "ON CONFLICT (tenant, run) DO UPDATE SET version = excluded.version, \
     status = excluded.status, updated_ms = excluded.updated_ms, ended_ms = excluded.ended_ms, \
     steps_done = excluded.steps_done, steps_abandoned = excluded.steps_abandoned, \
     steps_total = excluded.steps_total, \
     tokens_in = excluded.tokens_in, tokens_out = excluded.tokens_out, cost = excluded.cost, \
     unpriced = excluded.unpriced, error_code = excluded.error_code, \
     error_message = excluded.error_message, error_step = excluded.error_step, \
     error_detail = excluded.error_detail, output = excluded.output, seq = excluded.seq, \
     imported_by = excluded.imported_by, imported_ms = excluded.imported_ms, \
     imported_file = excluded.imported_file, imported_signer = excluded.imported_signer",
);

fn bind_run<'q>(query: Bound<'q>, stream: &'q StreamKey, row: &'q RunRow) -> Bound<'q> {
    query
        .bind(stream.tenant.as_str())
        .bind(&row.run)
        .bind(&row.graph)
        .bind(&row.version)
        .bind(&row.status)
        .bind(&row.actor)
        .bind(row.created_ms)
        .bind(row.updated_ms)
        .bind(row.ended_ms)
        .bind(row.steps_done)
        .bind(row.steps_abandoned)
        .bind(row.steps_total)
        .bind(row.tokens_in)
        .bind(row.tokens_out)
        .bind(&row.cost)
        .bind(row.unpriced)
        .bind(row.error_code.as_deref())
        .bind(row.error_message.as_deref())
        .bind(row.error_step.as_deref())
        .bind(&row.input)
        .bind(row.output.as_deref())
        .bind(row.seq)
        .bind(row.created_pos)
        .bind(row.forked_from.as_deref())
        .bind(row.forked_seq)
        .bind(row.parent.as_deref())
        .bind(row.parent_step.as_deref())
        .bind(row.imported_by.as_deref())
        .bind(row.imported_ms)
        .bind(row.imported_file.as_deref())
        .bind(row.imported_signer.as_deref())
        .bind(row.error_detail.as_deref())
}

static STEPS: Bulk = Bulk::new(
    "INSERT INTO step (tenant, run, step, node, item, kind, status, resume_status, attempt, \
     started_ms, ended_ms, provider, model, tokens_in, tokens_out, cost, error_code, \
     error_message, output, first_seq, error_detail)",
    21,
    "ON CONFLICT (tenant, run, step) DO UPDATE SET kind = excluded.kind, \
     status = excluded.status, resume_status = excluded.resume_status, \
     attempt = excluded.attempt, started_ms = excluded.started_ms, \
     ended_ms = excluded.ended_ms, provider = excluded.provider, model = excluded.model, \
     tokens_in = excluded.tokens_in, tokens_out = excluded.tokens_out, cost = excluded.cost, \
     error_code = excluded.error_code, error_message = excluded.error_message, \
     error_detail = excluded.error_detail, output = excluded.output",
);

fn bind_step<'q>(
    query: Bound<'q>,
    stream: &'q StreamKey,
    first_seq: i64,
    row: &'q StepRow,
) -> Bound<'q> {
    query
        .bind(stream.tenant.as_str())
        .bind(stream.id.to_string())
        .bind(&row.step)
        .bind(&row.node)
        .bind(row.item)
        .bind(&row.kind)
        .bind(&row.status)
        .bind(row.resume_status.as_deref())
        .bind(row.attempt)
        .bind(row.started_ms)
        .bind(row.ended_ms)
        .bind(row.provider.as_deref())
        .bind(row.model.as_deref())
        .bind(row.tokens_in)
        .bind(row.tokens_out)
        .bind(&row.cost)
        .bind(row.error_code.as_deref())
        .bind(row.error_message.as_deref())
        .bind(row.output.as_deref())
        .bind(first_seq)
        .bind(row.error_detail.as_deref())
}
