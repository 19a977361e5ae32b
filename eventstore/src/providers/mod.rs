//! Providers: the implementations of [`LogWriter`](crate::LogWriter).
//!
//! - `embedded`: SQLite in a folder, one process, durable on this machine.
//! - `jetstream`: NATS JetStream, many processes, durable on a quorum.
//! - `memory`: for tests; durable for the process.
//!
//! They share `prepare`, `seal`, `dedup` and the followers of the crate, and do not know each
//! other. Decisions about commands do not belong here.

pub mod embedded;
pub mod jetstream;
pub(crate) mod memory;
