//! Billing: what calls use and cost, what of a budget they may take, and how it is booked.
//!
//! In the order of a call's life:
//! - `allot`: a budget is divided among those who may spend of it.
//! - `reserve`: the most that a call can use and cost, held before it is sent.
//! - `usage`: disjoint classes of usage, and the identity of a usage line. `price`: the price book,
//!   and the charge for a call that was made.
//! - `estimate`: usage of a call whose outcome is lost.
//! - `posting`: accounts of a ledger, double entry.
//!
//! Pure functions of values; who calls them holds the budget and records the events.

mod allot;
mod estimate;
mod posting;
mod price;
mod reserve;
mod usage;

pub use allot::{allot_child_budget, allot_share, extend_budget};
pub use estimate::lost_call_estimate;
pub use posting::{LedgerPosting, post_usage};
pub(crate) use price::snapshot_base;
pub use price::{
    BaseModel, Charge, OperatorPrices, Price, PriceBook, PriceError, PriceQuery, PriceTier,
    ServicePrice,
};
pub use reserve::{CallBound, CallReserve};
pub use usage::{Meter, Usage, usage_id};
