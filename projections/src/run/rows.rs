//! Rows of runs and steps as queries return them. Field names are column names.

use serde::Serialize;

/// The state of a run: status, counts of steps, usage and error.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, sqlx::FromRow)]
#[expect(missing_docs, reason = "the columns are documented in the migration")]
pub struct RunRow {
    pub run: String,
    pub graph: String,
    pub version: String,
    #[sqlx(default)]
    pub name: Option<String>,
    pub status: String,
    pub actor: String,
    pub created_ms: i64,
    pub updated_ms: i64,
    pub ended_ms: Option<i64>,
    pub steps_done: i64,
    pub steps_abandoned: i64,
    pub steps_total: i64,
    pub tokens_in: i64,
    pub tokens_out: i64,
    pub cost: String,
    pub unpriced: i64,
    pub error_code: Option<String>,
    pub error_message: Option<String>,
    pub error_detail: Option<String>,
    pub error_step: Option<String>,
    pub input: String,
    pub output: Option<String>,
    pub seq: i64,
    pub created_pos: i64,
    pub forked_from: Option<String>,
    pub forked_seq: Option<i64>,
    pub parent: Option<String>,
    pub parent_step: Option<String>,
    pub imported_by: Option<String>,
    pub imported_ms: Option<i64>,
    pub imported_file: Option<String>,
    pub imported_signer: Option<String>,
}

/// The state of one step of a run.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, sqlx::FromRow)]
#[expect(missing_docs, reason = "the columns are documented in the migration")]
pub struct StepRow {
    pub step: String,
    pub node: String,
    pub item: i64,
    pub kind: String,
    pub status: String,
    pub resume_status: Option<String>,
    pub attempt: i64,
    pub started_ms: Option<i64>,
    pub ended_ms: Option<i64>,
    pub provider: Option<String>,
    pub model: Option<String>,
    pub tokens_in: i64,
    pub tokens_out: i64,
    pub cost: String,
    pub error_code: Option<String>,
    pub error_message: Option<String>,
    pub error_detail: Option<String>,
    pub output: Option<String>,
}
