//! Rows of the directory of agents as queries return them. Field names are column names.

use serde::Serialize;

/// An agent of the directory, with the version now in force.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, sqlx::FromRow)]
#[expect(missing_docs, reason = "the columns are documented in the migration")]
pub struct AgentRow {
    pub agent: String,
    pub name: String,
    pub status: String,
    pub graph: String,
    pub version: String,
    pub definition: String,
    pub runs: i64,
    pub last_run: Option<String>,
    pub created_ms: i64,
    pub updated_ms: i64,
    pub pos: i64,
}
