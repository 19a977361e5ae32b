//! The composition root: makes a server out of the roles that a process has.
//!
//! Map, from the top down:
//! - `server` starts the roles of a process in their order and ends them in the reverse one.
//! - `roles` has a file for each: `gateway`, `executor`, `projector`.
//! - `config` is one struct for each role, with options, defaults and environment variables; all of
//!   them stand in `docs/configuration.md`.
//! - `log_location`, `data_dir`, `owner_tokens`, `model_setup`, `model_servers` open what roles
//!   need; `recall_adapter` fills a port. `front_runtime` serves connections, `telemetry` reports.
//! - `trust` is what the user trusts: folders that were found, model servers of others.
//!
//! No rule of the domain may be here: this crate wires crates together.

#![warn(clippy::print_stdout, clippy::print_stderr)]

pub mod config;
pub mod data_dir;
mod front_runtime;
mod log_location;
pub mod model_servers;
mod model_setup;
mod owner_tokens;
mod recall_adapter;
mod roles;
mod server;
pub mod telemetry;
pub mod trust;

pub use front_runtime::{FrontRuntime, StopSignals};
pub use log_location::{ClusterLocation, LogLocation, OpenLog};
pub use roles::projector::open_read_models;
pub use server::InProcessServer;
