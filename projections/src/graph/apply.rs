//! The registration of a graph version.

use convergio_domain::graph::event::GraphEvent;
use sqlx::AnyConnection;

use crate::read_model::AppliedEvent;

pub(super) async fn insert_graph_version(
    connection: &mut AnyConnection,
    applied: &AppliedEvent<'_>,
    GraphEvent::GraphRegistered(graph): &GraphEvent,
) -> sqlx::Result<()> {
    // The same version may be registered again; only its position moves, and with it the order of
    // lists.
    let sql = "INSERT INTO graph_version (tenant, graph, version, name, nodes, manifest, \
        registered_ms, pos, derived) VALUES ($1, $2, $3, $4, $5, $6, $7, $8, $9) \
        ON CONFLICT (tenant, graph, version) DO UPDATE SET pos = excluded.pos";
    sqlx::query(sql)
        .bind(applied.tenant_id())
        .bind(applied.stream_id())
        .bind(graph.version.as_str())
        .bind(&graph.name)
        .bind(i64::from(graph.nodes))
        .bind(graph.manifest.to_string())
        .bind(applied.recorded_at().0)
        .bind(applied.log_position())
        .bind(i64::from(graph.is_derived))
        .execute(connection)
        .await?;
    Ok(())
}
