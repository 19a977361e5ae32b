//! Versions of graphs.

mod apply;
mod query;
pub(crate) mod rows;

use convergio_domain::event::Event;
use sqlx::AnyConnection;

use crate::read_model::{AppliedEvent, ReadModel, ReadModelTable, RunColumn};

/// The read model of graph versions. It keeps nothing in memory.
#[derive(Default)]
pub(crate) struct GraphReadModel;

impl ReadModel for GraphReadModel {
    const NAME: &'static str = "graph";
    const TABLES: &'static [ReadModelTable] =
        &[ReadModelTable { name: "graph_version", runs: RunColumn::Absent }];

    async fn apply_event(
        &mut self,
        connection: &mut AnyConnection,
        applied: &AppliedEvent<'_>,
    ) -> sqlx::Result<()> {
        match applied.event {
            Event::Graph(event) => apply::insert_graph_version(connection, applied, event).await,
            _ => Ok(()),
        }
    }
}
