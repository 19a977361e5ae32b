//! Rows of graph versions as queries return them. Field names are column names.

use serde::Serialize;

/// One registered version of a graph.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, sqlx::FromRow)]
#[expect(missing_docs, reason = "the columns are documented in the migration")]
pub struct GraphRow {
    pub graph: String,
    pub version: String,
    pub name: String,
    pub nodes: i64,
    pub manifest: String,
    pub registered_ms: i64,
    pub pos: i64,
}
