//! Rows of the read models as queries return them. Field names are column names.

use serde::Serialize;

/// One page of rows with the cursor of the next.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct RowPage<T> {
    /// Rows of this page, in the query's order.
    pub items: Vec<T>,
    /// Opaque cursor; `None` on the last page.
    pub next_cursor: Option<String>,
}

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

/// One metered quantity. A line without a price has no amount: it is unpriced, not free.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, sqlx::FromRow)]
#[expect(missing_docs, reason = "the columns are documented in the migration")]
pub struct UsageRow {
    pub usage_id: String,
    pub run: String,
    pub step: String,
    pub attempt: i64,
    pub meter: String,
    pub quantity: i64,
    pub provider: String,
    pub model: String,
    pub confirmed: i64,
    pub price: Option<String>,
    pub currency: Option<String>,
    pub amount: Option<String>,
    pub at_ms: i64,
    pub event: String,
    pub pos: i64,
}

/// One entry of the ledger: the amount moves from `credit` to `debit`.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, sqlx::FromRow)]
#[expect(missing_docs, reason = "the columns are documented in the migration")]
pub struct LedgerRow {
    pub entry: String,
    pub run: String,
    pub debit: String,
    pub credit: String,
    pub currency: String,
    pub amount: String,
    pub at_ms: i64,
    pub pos: i64,
}

/// Balance of one ledger account in one currency.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, sqlx::FromRow)]
#[expect(missing_docs, reason = "the columns are documented in the migration")]
pub struct BalanceRow {
    pub account: String,
    pub currency: String,
    pub amount: String,
}

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
