//! The directory of agents.

use convergio_domain::event::Event;
use convergio_domain::event::agent::Defined;
use sqlx::AnyConnection;

use super::{Applied, storable};

pub(super) async fn apply(to: &mut AnyConnection, a: &Applied<'_>) -> sqlx::Result<()> {
    match a.event {
        Event::AgentCreated(defined) | Event::AgentUpdated(defined) => define(to, a, defined).await,
        Event::AgentTerminated(_) => {
            let sql = "UPDATE agent_directory SET status = 'terminated', updated_ms = $1 \
                WHERE tenant = $2 AND agent = $3";
            let row = sqlx::query(sql).bind(a.at().0).bind(a.tenant()).bind(a.id());
            row.execute(to).await.map(drop)
        }
        _ => Ok(()),
    }
}

async fn define(to: &mut AnyConnection, a: &Applied<'_>, defined: &Defined) -> sqlx::Result<()> {
    // The conflict clause covers an update and an agent that is defined again after its end.
    let sql = "INSERT INTO agent_directory (tenant, agent, name, status, graph, version, \
        definition, runs, created_ms, updated_ms, pos) \
        VALUES ($1, $2, $3, 'active', $4, $5, $6, 0, $7, $7, $8) \
        ON CONFLICT (tenant, agent) DO UPDATE SET status = 'active', version = excluded.version, \
        definition = excluded.definition, updated_ms = excluded.updated_ms, pos = excluded.pos";
    sqlx::query(sql)
        .bind(a.tenant())
        .bind(a.id())
        .bind(storable(&defined.name))
        .bind(defined.graph.to_string())
        .bind(defined.version.as_str())
        .bind(defined.definition.to_string())
        .bind(a.at().0)
        .bind(a.pos())
        .execute(to)
        .await?;
    Ok(())
}

/// Counts a run of an agent. The event is in the run's own stream, not in the agent's.
pub(super) async fn ran(to: &mut AnyConnection, a: &Applied<'_>) -> sqlx::Result<()> {
    let Event::AgentSpawned(spawned) = a.event else { return Ok(()) };
    let sql = "UPDATE agent_directory SET runs = runs + 1, last_run = $1 \
        WHERE tenant = $2 AND agent = $3";
    let row = sqlx::query(sql).bind(a.id()).bind(a.tenant()).bind(spawned.agent.to_string());
    row.execute(to).await.map(drop)
}
