//! Rows of approvals as queries return them. Field names are column names.

use serde::Serialize;

/// An approval: a question of a run that a person answers.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, sqlx::FromRow)]
#[expect(missing_docs, reason = "the columns are documented in the migration")]
pub struct ApprovalRow {
    pub approval: String,
    pub run: String,
    pub step: String,
    pub role: String,
    pub content: String,
    pub content_hash: String,
    pub state: String,
    pub asked_ms: i64,
    pub expires_ms: Option<i64>,
    pub answered_by: Option<String>,
    pub answered_ms: Option<i64>,
    pub reason: Option<String>,
    pub reason_at: Option<String>,
    pub pos: i64,
}
