//! The directory of agents.

mod apply;
mod query;
pub(crate) mod rows;

use convergio_domain::event::Event;
use convergio_domain::run::event::RunEvent;
use sqlx::AnyConnection;

use crate::read_model::{AppliedEvent, ReadModel, ReadModelTable, RunColumn};

/// The read model of agents. It keeps nothing in memory.
#[derive(Default)]
pub(crate) struct AgentReadModel;

impl ReadModel for AgentReadModel {
    const NAME: &'static str = "agent";
    const TABLES: &'static [ReadModelTable] =
        &[ReadModelTable { name: "agent_directory", runs: RunColumn::Absent }];

    async fn apply_event(
        &mut self,
        connection: &mut AnyConnection,
        applied: &AppliedEvent<'_>,
    ) -> sqlx::Result<()> {
        match applied.event {
            Event::Agent(event) => apply::apply_definition(connection, applied, event).await,
            Event::Run(RunEvent::AgentSpawned(spawned)) => {
                apply::count_agent_run(connection, applied, spawned).await
            }
            _ => Ok(()),
        }
    }
}
