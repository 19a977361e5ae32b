//! Runs and their steps: a run's row counts its steps, so both are one read model.
//!
//! `apply` changes a run's row, `step` the rows of its steps; `status` moves both, and `row_cache`
//! holds them between the batches.

mod apply;
pub(crate) mod query;
mod row_cache;
pub(crate) mod rows;
mod status;
mod step;

use convergio_domain::event::Event;
use convergio_domain::stream::StreamKind;
use sqlx::AnyConnection;

use crate::read_model::{AppliedEvent, ReadModel, ReadModelTable, RunColumn};
use row_cache::{RunBatch, RunRowCache};

/// The read model of runs and steps, with the rows of those under way.
#[derive(Default)]
pub(crate) struct RunReadModel {
    row_cache: RunRowCache,
}

impl ReadModel for RunReadModel {
    const NAME: &'static str = "run";
    const TABLES: &'static [ReadModelTable] = &[
        ReadModelTable { name: "run_status", runs: RunColumn::Id },
        ReadModelTable { name: "step", runs: RunColumn::Id },
    ];

    async fn apply_event(
        &mut self,
        connection: &mut AnyConnection,
        applied: &AppliedEvent<'_>,
    ) -> sqlx::Result<()> {
        if applied.record.stream.kind != StreamKind::Run {
            return Ok(());
        }
        let mut batch = RunBatch { transaction: connection, row_cache: &mut self.row_cache };
        if let Event::Run(event) = applied.event {
            apply::apply_to_run(&mut batch, applied, event).await?;
            step::apply_to_steps(&mut batch, applied, event).await?;
        }
        if applied.seq == applied.record.last_seq() {
            apply::update_last_event(&mut batch, applied).await?;
        }
        Ok(())
    }

    async fn flush_rows(&mut self, connection: &mut AnyConnection) -> sqlx::Result<()> {
        self.row_cache.write_rows(connection).await
    }
}
