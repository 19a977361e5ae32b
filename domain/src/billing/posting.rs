//! Double entry: each priced usage line debits a cost account and credits the provider.

use super::usage::Meter;
use crate::money::{Currency, Money};
use crate::run::event::UsageRecorded;

/// Ledger entry of one usage line.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct LedgerPosting {
    /// Cost account that is debited.
    pub debit: String,
    /// Payable account that is credited.
    pub credit: String,
    /// Currency of both accounts' balances.
    pub currency: Currency,
    /// Exact cost of the line.
    pub amount: Money,
}

impl LedgerPosting {
    /// Changes of the two balances, which cancel each other out.
    pub fn balance_changes(&self) -> [(&str, i128); 2] {
        let amount = self.amount.as_scaled();
        [(&self.debit, amount), (&self.credit, -amount)]
    }
}

/// Returns the entry of one meter of a usage record; `None` if it has no price. The model is the
/// cost account and the provider the creditor, so that balances answer both questions.
pub fn post_usage(usage: &UsageRecorded, meter: Meter) -> Option<LedgerPosting> {
    let charge = usage.charge.as_ref()?;
    Some(LedgerPosting {
        debit: format!("cost:{}", usage.model),
        credit: format!("payable:{}", usage.provider),
        currency: charge.currency,
        amount: *charge.lines.get(&meter)?,
    })
}
