//! Rows of runs under way: changed in memory as often as events say, written once a batch.

use std::collections::{BTreeMap, HashMap};

use convergio_domain::id::StepId;
use convergio_domain::money::Money;
use convergio_domain::run::event::UsageRecorded;
use convergio_domain::stream::StreamKey;
use sqlx::AnyConnection;

use super::rows::{RunRow, StepRow};
use crate::bulk_insert::{BoundQuery, BulkInsert};
use crate::read_model::{ApplyBatch, CACHED_ROWS_LIMIT};

/// A batch as the rows of runs and steps see it.
pub(super) type RunBatch<'a> = ApplyBatch<'a, RunRowCache>;

/// Rows known to equal the database's, plus changes that are still to be written.
#[derive(Default)]
pub(super) struct RunRowCache {
    cached_runs: HashMap<StreamKey, CachedRun>,
}

/// A run's row and the rows of those of its steps that events touched.
#[derive(Default)]
pub(super) struct CachedRun {
    pub(super) row: Option<RunRow>,
    pub(super) is_changed: bool,
    pub(super) steps: BTreeMap<String, CachedStep>,
    /// True if the run was created while it was cached: the database has no row of it that is not
    /// here, so that no look-up is needed.
    pub(super) is_complete: bool,
}

/// A step's row; `None` until an event gives it a status.
pub(super) struct CachedStep {
    pub(super) row: Option<StepRow>,
    /// Sequence number of the step's first event. Written only on insert: an existing row keeps its
    /// own.
    pub(super) first_seq: i64,
    pub(super) is_changed: bool,
}

impl RunRowCache {
    /// The cached run; loaded from the database on first use.
    pub(super) async fn load_run(
        &mut self,
        connection: &mut AnyConnection,
        stream: &StreamKey,
    ) -> sqlx::Result<&mut CachedRun> {
        // A run without a row is cached as well: the look-up is not repeated.
        if !self.cached_runs.contains_key(stream) {
            let sql = "SELECT * FROM run_status WHERE tenant = $1 AND run = $2";
            let row = sqlx::query_as(sql).bind(stream.tenant.as_str()).bind(stream.id.to_string());
            let row = row.fetch_optional(connection).await?;
            self.cached_runs.insert(stream.clone(), CachedRun { row, ..CachedRun::default() });
        }
        Ok(self.cached_runs.entry(stream.clone()).or_default())
    }

    /// Caches a run that begins, which the database does not have yet.
    pub(super) fn insert_new_run(&mut self, stream: &StreamKey, row: RunRow) {
        let run = CachedRun {
            row: Some(row),
            is_changed: true,
            is_complete: true,
            ..CachedRun::default()
        };
        self.cached_runs.insert(stream.clone(), run);
    }

    /// Writes every pending change, then evicts rows that are no longer needed.
    pub(super) async fn write_rows(&mut self, connection: &mut AnyConnection) -> sqlx::Result<()> {
        // Many rows in a statement.
        self.write_runs(connection).await?;
        self.write_steps(connection).await?;
        self.evict_rows();
        Ok(())
    }

    async fn write_runs(&mut self, connection: &mut AnyConnection) -> sqlx::Result<()> {
        let changed = self.cached_runs.iter_mut().filter_map(|(stream, run)| {
            let is_changed = std::mem::take(&mut run.is_changed);
            run.row.as_ref().filter(|_| is_changed).map(|row| (stream, row))
        });
        let rows: Vec<_> = changed.collect();
        RUN_UPSERT
            .write(connection, &rows, |query, (stream, row)| bind_run(query, stream, row))
            .await
    }

    async fn write_steps(&mut self, connection: &mut AnyConnection) -> sqlx::Result<()> {
        let changed = self.cached_runs.iter_mut().flat_map(|(stream, run)| {
            run.steps.values_mut().filter_map(move |step| {
                let is_changed = std::mem::take(&mut step.is_changed);
                let row = step.row.as_ref().filter(|_| is_changed)?;
                Some((stream, step.first_seq, row))
            })
        });
        let rows: Vec<_> = changed.collect();
        STEP_UPSERT
            .write(connection, &rows, |query, row| bind_step(query, row.0, row.1, row.2))
            .await
    }

    /// Keeps the runs that have not ended. Over the limit everything is dropped: rows are loaded
    /// again on demand.
    fn evict_rows(&mut self) {
        // Ended runs hardly change again, and waiting ones would fill the cache in time.
        self.cached_runs
            .retain(|_, run| run.row.as_ref().is_some_and(|row| row.ended_ms.is_none()));
        if self.cached_runs.values().map(|run| 1 + run.steps.len()).sum::<usize>()
            > CACHED_ROWS_LIMIT
        {
            self.cached_runs.clear();
        }
    }
}

impl CachedStep {
    pub(super) fn is_map(&self) -> bool {
        self.row.as_ref().is_some_and(|row| row.kind == "map")
    }
}

impl CachedRun {
    /// Changes the run's row, if it has one.
    pub(super) fn change_row(&mut self, change: impl FnOnce(&mut RunRow)) {
        if let Some(row) = &mut self.row {
            change(row);
            self.is_changed = true;
        }
    }

    /// Changes a step's row; no effect if it has none.
    pub(super) async fn change_step(
        &mut self,
        connection: &mut AnyConnection,
        (stream, step): (&StreamKey, &StepId),
        change: impl FnOnce(&mut StepRow),
    ) -> sqlx::Result<()> {
        let cached_step = self.load_step(connection, stream, step).await?;
        if let Some(row) = &mut cached_step.row {
            change(row);
            cached_step.is_changed = true;
        }
        Ok(())
    }

    /// Loads every step that has not reached its own end. Cached rows are newer and stay.
    pub(super) async fn load_unfinished_steps(
        &mut self,
        connection: &mut AnyConnection,
        stream: &StreamKey,
    ) -> sqlx::Result<()> {
        // Nothing can be missing of a run that was created here.
        if self.is_complete {
            return Ok(());
        }
        let sql = "SELECT * FROM step WHERE tenant = $1 AND run = $2 \
            AND status NOT IN ('completed', 'failed', 'skipped')";
        let rows = sqlx::query_as(sql).bind(stream.tenant.as_str()).bind(stream.id.to_string());
        let rows: Vec<StepRow> = rows.fetch_all(connection).await?;
        for row in rows {
            let unchanged_step =
                |row| CachedStep { row: Some(row), first_seq: 0, is_changed: false };
            self.steps.entry(row.step.clone()).or_insert_with(|| unchanged_step(row));
        }
        Ok(())
    }

    /// The cached step; loaded from the database on first use. Its row is `None` if it has none.
    pub(super) async fn load_step(
        &mut self,
        connection: &mut AnyConnection,
        stream: &StreamKey,
        step: &StepId,
    ) -> sqlx::Result<&mut CachedStep> {
        let name = step.to_string();
        if !self.is_complete && !self.steps.contains_key(&name) {
            let sql = "SELECT * FROM step WHERE tenant = $1 AND run = $2 AND step = $3";
            let row = sqlx::query_as(sql).bind(stream.tenant.as_str()).bind(stream.id.to_string());
            let row = row.bind(&name).fetch_optional(connection).await?;
            self.steps.insert(name.clone(), CachedStep { row, first_seq: 0, is_changed: false });
        }
        let new_step = || CachedStep { row: None, first_seq: 0, is_changed: false };
        Ok(self.steps.entry(name).or_insert_with(new_step))
    }
}

/// Adds the charge of a usage record to a cost column, in units of 1e-15 as text.
pub(super) fn add_cost(before: &str, usage: &UsageRecorded) -> String {
    let before: i128 = before.parse().unwrap_or(0);
    let amount = usage.charge.as_ref().map_or(Money::ZERO, |charge| charge.amount);
    (before + amount.as_scaled()).to_string()
}

static RUN_UPSERT: BulkInsert = BulkInsert::new(
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

fn bind_run<'q>(query: BoundQuery<'q>, stream: &'q StreamKey, row: &'q RunRow) -> BoundQuery<'q> {
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

static STEP_UPSERT: BulkInsert = BulkInsert::new(
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
    query: BoundQuery<'q>,
    stream: &'q StreamKey,
    first_seq: i64,
    row: &'q StepRow,
) -> BoundQuery<'q> {
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
