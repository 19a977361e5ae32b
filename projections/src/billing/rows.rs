//! Rows of usage and ledger as queries return them. Field names are column names.

use serde::Serialize;

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
