//! Read models: disposable SQL folds of the log.
//!
//! The projector follows the log and applies each page in one transaction together with its
//! position. Queries read; nothing here is ever written but what events say.

mod apply;
mod error;
mod memory;
mod page;
mod projector;
mod query;
mod rebuild;
mod recompute;
mod rows;
mod store;

pub use error::ProjectionError;
pub use memory::{ITEMS_LIMIT, Memories, MemoryError};
pub use projector::Projections;
pub use query::{Queries, RunFamily, RunFilter, TableRow};
pub use rebuild::rebuild;
pub use recompute::recompute;
pub use rows::{
    AgentRow, ApprovalRow, AuditRow, BalanceRow, GraphRow, LedgerRow, Listed, RunRow, StepRow,
    UsageRow,
};
pub use store::Store;
