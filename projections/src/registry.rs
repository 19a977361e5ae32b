//! The registry of read models: one line a noun. Tables, dumps, the rows of a run, a rebuild and
//! the projector all follow from it.

use convergio_domain::stream::Seq;
use convergio_eventstore::Record;
use sqlx::AnyConnection;

use crate::agent::AgentReadModel;
use crate::approval::ApprovalReadModel;
use crate::audit::AuditReadModel;
use crate::billing::BillingReadModel;
use crate::graph::GraphReadModel;
use crate::read_model::{AppliedEvent, ReadModel, ReadModelTable};
use crate::run::RunReadModel;

/// Makes the set of all read models, and the list of their tables.
macro_rules! register_read_models {
    ($($noun:ident: $model:ty,)+) => {
        /// All read models, with what they keep in memory. That is valid as long as no other
        /// process writes to the tables, which the compare-and-set of the position proves at each
        /// batch.
        #[derive(Default)]
        pub(crate) struct ReadModelSet {
            $($noun: $model,)+
        }

        /// Name and tables of each read model, in the order of a dump.
        pub(crate) const READ_MODELS: &[(&str, &[ReadModelTable])] =
            &[$((<$model>::NAME, <$model>::TABLES),)+];

        impl ReadModelSet {
            async fn apply_event(
                &mut self,
                connection: &mut AnyConnection,
                applied: &AppliedEvent<'_>,
            ) -> sqlx::Result<()> {
                $(self.$noun.apply_event(connection, applied).await?;)+
                Ok(())
            }

            /// Writes every pending change of a batch, at its end.
            pub(crate) async fn flush_rows(
                &mut self,
                connection: &mut AnyConnection,
            ) -> sqlx::Result<()> {
                // No table refers to another, so that the order is free.
                $(self.$noun.flush_rows(connection).await?;)+
                Ok(())
            }
        }
    };
}

register_read_models! {
    graph: GraphReadModel,
    run: RunReadModel,
    billing: BillingReadModel,
    audit: AuditReadModel,
    approval: ApprovalReadModel,
    agent: AgentReadModel,
}

impl ReadModelSet {
    /// Applies all events of a record within the caller's transaction. Changes to cached rows stay
    /// in memory until the caller flushes them.
    pub(crate) async fn apply_record(
        &mut self,
        connection: &mut AnyConnection,
        record: &Record,
    ) -> sqlx::Result<()> {
        let numbers = record.first_seq().0..;
        for (index, (seq, event)) in numbers.zip(&record.body.events).enumerate() {
            let applied = AppliedEvent { record, event, index, seq: Seq(seq) };
            self.apply_event(connection, &applied).await?;
        }
        Ok(())
    }
}

/// Every table of every read model, in the order of a dump.
pub(crate) fn all_tables() -> impl Iterator<Item = &'static ReadModelTable> {
    READ_MODELS.iter().flat_map(|(_, tables)| *tables)
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;

    use super::READ_MODELS;
    use crate::batch_writer::POSITION_TABLE;
    use crate::read_model::RunColumn;
    use crate::store::StoreCopy;

    /// Tables of a new database but those of its migrations, each with its columns joined by `,`.
    async fn schema_tables() -> Vec<(String, String)> {
        let folder = tempfile::tempdir().expect("a folder");
        let file = folder.path().join("read.db");
        let mut connection =
            StoreCopy::in_use(file.as_path().into()).open().await.expect("makes tables");
        let sql = "SELECT name, (SELECT group_concat(c.name) FROM pragma_table_info(t.name) c) \
            FROM sqlite_master t WHERE type = 'table' AND name NOT LIKE '\\_%' ESCAPE '\\'";
        sqlx::query_as(sql).fetch_all(&mut connection).await.expect("rows")
    }

    #[tokio::test]
    async fn every_table_is_that_of_one_read_model() {
        let schema: BTreeSet<_> = schema_tables().await.into_iter().map(|(name, _)| name).collect();
        let mut registered = BTreeSet::from([POSITION_TABLE.to_owned()]);
        for (noun, tables) in READ_MODELS {
            for table in *tables {
                assert!(registered.insert(table.name.to_owned()), "{noun}: {}", table.name);
            }
        }
        assert_eq!(registered, schema, "a table that nobody dumps would not be compared");
    }

    #[tokio::test]
    async fn every_table_with_rows_of_a_run_says_so() {
        let schema = schema_tables().await;
        for table in READ_MODELS.iter().flat_map(|(_, tables)| *tables) {
            let columns = schema.iter().find(|(name, _)| name == table.name);
            let columns: Vec<_> = columns.expect("it is there").1.split(',').collect();
            let expected = match (columns.contains(&"run"), columns.contains(&"stream")) {
                (true, _) => RunColumn::Id,
                (false, true) => RunColumn::StreamName,
                (false, false) => RunColumn::Absent,
            };
            assert_eq!(table.runs, expected, "{}", table.name);
        }
    }
}
