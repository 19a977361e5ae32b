//! The pure rules of Convergio: what a command decides and what an event means.
//!
//! No IO, no clock, no randomness (see `clippy.toml`): everything ambient arrives as data. Each
//! noun is a [`decider::Decider`]: `run` (an execution), `graph` (a manifest and its versions),
//! `agent` (a named definition), `request` (an idempotency key), `token` (who may come in).

pub mod agent;
pub mod chat;
pub mod decider;
pub mod event;
pub mod expr;
pub mod failure;
pub mod graph;
pub mod id;
pub mod json;
pub mod json_piece;
pub mod memory;
pub mod metering;
pub mod money;
pub mod once;
pub mod payload;
pub mod request;
pub mod run;
pub mod stream;
pub mod time;
pub mod token;
mod written;
