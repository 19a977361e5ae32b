//! Models on this machine: files that were fetched, and a server for one of them.
//!
//! - `store`: model files of a data folder, verified by digest.
//! - `managed_model`: the small model that is set up by one command, and the server's process.
//! - `child_environment`: the variables that child processes are given.
//!
//! What a found model server may be sent is decided elsewhere: nothing here speaks to one, except
//! to see whether the server that it started is ready.

#![warn(clippy::print_stdout, clippy::print_stderr)]

mod child_environment;
pub mod managed_model;
mod store;

pub use store::{FetchProgress, ModelSource, ModelStore, ProgressCallback, StoredModel};
