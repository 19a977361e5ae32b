//! Usage lines, the ledger and its balances.

mod apply;
mod query;
mod row_cache;
pub(crate) mod rows;

use convergio_domain::event::Event;
use convergio_domain::run::event::RunEvent;
use sqlx::AnyConnection;

use crate::read_model::{AppliedEvent, ReadModel, ReadModelTable, RunColumn};
use row_cache::{BillingBatch, BillingRowCache};

/// The read model of usage and ledger, with the balances and the usage of runs under way.
#[derive(Default)]
pub(crate) struct BillingReadModel {
    row_cache: BillingRowCache,
}

impl ReadModel for BillingReadModel {
    const NAME: &'static str = "billing";
    const TABLES: &'static [ReadModelTable] = &[
        ReadModelTable { name: "usage_line", runs: RunColumn::Id },
        ReadModelTable { name: "usage_conflict", runs: RunColumn::Absent },
        ReadModelTable { name: "ledger_entry", runs: RunColumn::Id },
        ReadModelTable { name: "ledger_balance", runs: RunColumn::Absent },
    ];

    async fn apply_event(
        &mut self,
        connection: &mut AnyConnection,
        applied: &AppliedEvent<'_>,
    ) -> sqlx::Result<()> {
        let (stream, cache) = (&applied.record.stream, &mut self.row_cache);
        let Event::Run(event) = applied.event else { return Ok(()) };
        match event {
            RunEvent::RunCreated(_) | RunEvent::RunForked(_) => cache.insert_new_run(stream),
            RunEvent::RunCompleted(_) | RunEvent::RunFailed(_) | RunEvent::RunCancelled(_) => {
                cache.note_end(stream, true);
            }
            RunEvent::RunReopened(_) => cache.note_end(stream, false),
            RunEvent::UsageRecorded(usage) => {
                let mut batch = BillingBatch { transaction: connection, row_cache: cache };
                apply::record_usage(&mut batch, applied, usage).await?;
            }
            RunEvent::RunImported(_) => {
                let mut batch = BillingBatch { transaction: connection, row_cache: cache };
                apply::reverse_billing(&mut batch, applied).await?;
            }
            _ => {}
        }
        Ok(())
    }

    async fn flush_rows(&mut self, connection: &mut AnyConnection) -> sqlx::Result<()> {
        self.row_cache.write_rows(connection).await
    }
}
