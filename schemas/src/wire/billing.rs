//! Usage, ledger and audit.

use serde::{Deserialize, Serialize};
use serde_json::Value;
use utoipa::ToSchema;

/// One line of usage.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct UsageLine {
    /// Unique for ever.
    pub usage_id: String,
    /// The run.
    pub run_id: String,
    /// The step.
    pub step: String,
    /// The try.
    pub attempt: u32,
    /// The class, as `in_fresh`.
    pub meter: String,
    /// How many.
    pub quantity: u64,
    /// Who ran the model.
    pub provider: String,
    /// The model.
    pub model: String,
    /// False when the quantity is our estimate.
    pub confirmed: bool,
    /// The price book's version; absent when the model has no price.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub price: Option<String>,
    /// The currency.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub currency: Option<String>,
    /// The exact amount, a decimal.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub amount: Option<String>,
    /// When it was used, RFC 3339.
    pub at: String,
    /// The event that says so.
    pub event_id: String,
}

/// One entry: the amount moves from `credit` to `debit`.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct LedgerEntry {
    /// The usage line that it books.
    pub id: String,
    /// The run.
    pub run_id: String,
    /// What it was spent on.
    pub debit: String,
    /// Whom it is owed to.
    pub credit: String,
    /// The currency.
    pub currency: String,
    /// The exact amount, a decimal.
    pub amount: String,
    /// When, RFC 3339.
    pub at: String,
}

/// The balance of an account.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct Balance {
    /// The account.
    pub account: String,
    /// The currency.
    pub currency: String,
    /// The exact amount, a decimal.
    pub amount: String,
}

/// A page of the ledger, with the balances of all accounts.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct LedgerView {
    /// The entries.
    pub entries: Vec<LedgerEntry>,
    /// Pass it as `cursor` for the next page.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub next_cursor: Option<String>,
    /// All accounts; they sum to zero in each currency.
    pub balances: Vec<Balance>,
    /// Usage lines without a price: they are not in the balances.
    pub unpriced_lines: u64,
}

/// One auditable event.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, ToSchema)]
pub struct AuditEntry {
    /// The event.
    pub event_id: String,
    /// Its stream.
    pub stream: String,
    /// Its number there.
    pub seq: u64,
    /// When, RFC 3339.
    pub at: String,
    /// Who.
    pub actor: String,
    /// What, as `run.model_call.intended.v1`.
    #[serde(rename = "type")]
    pub kind: String,
    /// The facts at a glance.
    pub summary: Value,
    /// The hash of its record in the chain.
    pub hash: String,
}
