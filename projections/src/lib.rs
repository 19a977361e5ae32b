//! Read models: SQL tables folded from the event log, disposable and rebuildable at any time.
//!
//! The projector tails the log and applies each batch of records in one transaction together with
//! its log position, so that a crash never leaves rows and position apart. Map:
//!
//! - `projector` tails the log and drives `batch_writer`, which owns the transaction.
//! - `apply` holds what each event changes; `row_cache` within it delays writes to the end of a
//!   batch.
//! - `query` reads the tables, `rows` defines their rows, `store` opens the database.
//! - `rebuild` folds the whole log into a fresh copy; `recompute` folds one run for comparison.
//! - `memory` is the full-text and vector index of subjects' memories, in memory only.
//!
//! No code here appends to the log, and no table holds anything that events do not say.

mod apply;
mod batch_writer;
mod error;
mod memory;
mod projector;
mod query;
mod rebuild;
mod recompute;
mod rows;
mod store;

pub use error::ProjectionError;
pub use memory::{ITEMS_LIMIT, MemoryError, MemoryIndexes};
pub use projector::Projections;
pub use query::{Queries, RunFamily, RunFilter, TableRow};
pub use rebuild::rebuild_read_models;
pub use recompute::recompute_run_rows;
pub use rows::{
    AgentRow, ApprovalRow, AuditRow, BalanceRow, GraphRow, LedgerRow, RowPage, RunRow, StepRow,
    UsageRow,
};
pub use store::ReadModelStore;
