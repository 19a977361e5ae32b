//! Rows of the audit trail as queries return them. Field names are column names.

use serde::Serialize;

/// One entry of the audit trail.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, sqlx::FromRow)]
#[expect(missing_docs, reason = "the columns are documented in the migration")]
pub struct AuditRow {
    pub pos: i64,
    pub idx: i64,
    pub event: String,
    pub stream: String,
    pub seq: i64,
    pub at_ms: i64,
    pub actor: String,
    #[sqlx(rename = "type")]
    #[serde(rename = "type")]
    pub kind: String,
    pub summary: String,
    pub hash: String,
}
