//! What events change in the directory of agents.

use convergio_domain::agent::event::{AgentDefined, AgentEvent};
use convergio_domain::run::event::AgentSpawned;
use sqlx::AnyConnection;

use crate::read_model::{AppliedEvent, replace_nul};

pub(super) async fn apply_definition(
    connection: &mut AnyConnection,
    applied: &AppliedEvent<'_>,
    event: &AgentEvent,
) -> sqlx::Result<()> {
    match event {
        AgentEvent::AgentCreated(defined) | AgentEvent::AgentUpdated(defined) => {
            upsert_agent(connection, applied, defined).await
        }
        AgentEvent::AgentTerminated(_) => {
            let sql = "UPDATE agent_directory SET status = 'terminated', updated_ms = $1 \
                WHERE tenant = $2 AND agent = $3";
            let row = sqlx::query(sql)
                .bind(applied.recorded_at().0)
                .bind(applied.tenant_id())
                .bind(applied.stream_id());
            row.execute(connection).await.map(drop)
        }
    }
}

async fn upsert_agent(
    connection: &mut AnyConnection,
    applied: &AppliedEvent<'_>,
    defined: &AgentDefined,
) -> sqlx::Result<()> {
    // The conflict clause covers an update and an agent that is defined again after its end.
    let sql = "INSERT INTO agent_directory (tenant, agent, name, status, graph, version, \
        definition, runs, created_ms, updated_ms, pos) \
        VALUES ($1, $2, $3, 'active', $4, $5, $6, 0, $7, $7, $8) \
        ON CONFLICT (tenant, agent) DO UPDATE SET status = 'active', version = excluded.version, \
        definition = excluded.definition, updated_ms = excluded.updated_ms, pos = excluded.pos";
    sqlx::query(sql)
        .bind(applied.tenant_id())
        .bind(applied.stream_id())
        .bind(replace_nul(&defined.name))
        .bind(defined.graph.to_string())
        .bind(defined.version.as_str())
        .bind(defined.definition.to_string())
        .bind(applied.recorded_at().0)
        .bind(applied.log_position())
        .execute(connection)
        .await?;
    Ok(())
}

/// Counts a run of an agent. The event is in the run's own stream, not in the agent's.
pub(super) async fn count_agent_run(
    connection: &mut AnyConnection,
    applied: &AppliedEvent<'_>,
    spawned: &AgentSpawned,
) -> sqlx::Result<()> {
    let sql = "UPDATE agent_directory SET runs = runs + 1, last_run = $1 \
        WHERE tenant = $2 AND agent = $3";
    let row = sqlx::query(sql)
        .bind(applied.stream_id())
        .bind(applied.tenant_id())
        .bind(spawned.agent.to_string());
    row.execute(connection).await.map(drop)
}
