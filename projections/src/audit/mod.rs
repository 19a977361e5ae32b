//! The audit trail.

mod apply;
mod query;
pub(crate) mod rows;

use convergio_domain::event::Event;
use convergio_domain::run::event::RunEvent;
use sqlx::AnyConnection;

use crate::read_model::{AppliedEvent, ReadModel, ReadModelTable, RunColumn};

/// The read model of the audit trail, with its rows of the batch.
#[derive(Default)]
pub(crate) struct AuditReadModel {
    rows: Vec<apply::AuditRowInsert>,
}

impl ReadModel for AuditReadModel {
    const NAME: &'static str = "audit";
    const TABLES: &'static [ReadModelTable] =
        &[ReadModelTable { name: "audit", runs: RunColumn::StreamName }];

    async fn apply_event(
        &mut self,
        connection: &mut AnyConnection,
        applied: &AppliedEvent<'_>,
    ) -> sqlx::Result<()> {
        apply::add_audit_row(&mut self.rows, applied);
        if let Event::Run(RunEvent::RunImported(_)) = applied.event {
            // The deletion works on the table, so pending rows are written first.
            self.flush_rows(&mut *connection).await?;
            apply::delete_imported_rows(connection, applied).await?;
        }
        Ok(())
    }

    async fn flush_rows(&mut self, connection: &mut AnyConnection) -> sqlx::Result<()> {
        apply::write_rows(connection, &std::mem::take(&mut self.rows)).await
    }
}
