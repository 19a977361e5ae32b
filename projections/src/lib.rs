//! Read models: SQL tables folded from the event log, disposable and rebuildable at any time.
//!
//! The projector tails the log and applies each batch of records in one transaction together with
//! its log position, so that a crash never leaves rows and position apart. Map, from the outside
//! in:
//!
//! - `projector` tails the log and drives `batch_writer`, which owns the transaction. `rebuild`
//!   folds the whole log into a fresh copy; `recompute` folds one run for comparison.
//! - `registry` lists the read models, one line a noun. `dump` reads all their tables.
//! - One folder a noun: `graph`, `run` (with its steps), `billing`, `audit`, `approval`, `agent`.
//!   In each, `mod` has the model with its tables, `apply` what an event changes, `query` reads,
//!   and `rows` is what queries return. None knows another.
//! - `read_model` is the contract of a noun, `bulk_insert` writes many rows in one statement,
//!   `query` and `page` are what queries share, `store` opens the database.
//! - `memory` is the full-text and vector index of subjects' memories, in memory only.
//!
//! No code here appends to the log, and no table holds anything that events do not say.

mod agent;
mod approval;
mod audit;
mod batch_writer;
mod billing;
mod bulk_insert;
mod dump;
mod error;
mod graph;
mod memory;
mod page;
mod projector;
mod query;
mod read_model;
mod rebuild;
mod recompute;
mod registry;
mod run;
mod store;

pub use agent::rows::AgentRow;
pub use approval::rows::ApprovalRow;
pub use audit::rows::AuditRow;
pub use billing::rows::{BalanceRow, LedgerRow, UsageRow};
pub use dump::TableRow;
pub use error::ProjectionError;
pub use graph::rows::GraphRow;
pub use memory::{ITEMS_LIMIT, MemoryError, MemoryIndexes};
pub use page::RowPage;
pub use projector::Projections;
pub use query::Queries;
pub use rebuild::rebuild_read_models;
pub use recompute::recompute_run_rows;
pub use run::query::{RunFamily, RunFilter};
pub use run::rows::{RunRow, StepRow};
pub use store::ReadModelStore;
