//! Usage, ledger and audit.

use serde::{Deserialize, Serialize};
use serde_json::Value;
use utoipa::ToSchema;

/// One line of usage.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct UsageLine {
    /// Identity of the line, unique for ever.
    pub usage_id: String,
    /// Id of the run.
    pub run_id: String,
    /// Name of the step, as `summarise` or `notes[3]`.
    pub step: String,
    /// Number of the try, from 1.
    pub attempt: u32,
    /// The class, as `in_fresh`.
    pub meter: String,
    /// Quantity in the unit of the meter.
    pub quantity: u64,
    /// Who ran the model.
    pub provider: String,
    /// Model that was called.
    pub model: String,
    /// False when the quantity is our estimate.
    pub confirmed: bool,
    /// The price book's version; absent when the model has no price.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub price: Option<String>,
    /// Currency by its ISO 4217 code.
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
    /// Id of the run.
    pub run_id: String,
    /// What it was spent on.
    pub debit: String,
    /// Whom it is owed to.
    pub credit: String,
    /// Currency by its ISO 4217 code.
    pub currency: String,
    /// The exact amount, a decimal.
    pub amount: String,
    /// Time of the event, RFC 3339.
    pub at: String,
}

/// The balance of an account.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct Balance {
    /// Name of the account.
    pub account: String,
    /// Currency by its ISO 4217 code.
    pub currency: String,
    /// The exact amount, a decimal.
    pub amount: String,
}

/// A page of the ledger, with the balances of all accounts.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct LedgerView {
    /// Entries of this page, in order.
    pub entries: Vec<LedgerEntry>,
    /// Pass it as `cursor` for the next page.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub next_cursor: Option<String>,
    /// All accounts; they sum to zero in each currency.
    pub balances: Vec<Balance>,
    /// Usage lines without a price: they are not in the balances.
    pub unpriced_lines: u64,
}

/// An event of the audit log.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, ToSchema)]
pub struct AuditEntry {
    /// Id of the event, a UUID.
    pub event_id: String,
    /// Stream that the event belongs to.
    pub stream: String,
    /// Sequence number in that stream.
    pub seq: u64,
    /// Time of the event, RFC 3339.
    pub at: String,
    /// Actor who caused the event.
    pub actor: String,
    /// Type of the event, as `run.model_call.intended.v1`.
    #[serde(rename = "type")]
    pub kind: String,
    /// The facts at a glance.
    pub summary: Value,
    /// The hash of its record in the chain.
    pub hash: String,
}
