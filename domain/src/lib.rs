//! Pure rules of Convergio: commands, events and the states that events fold to.
//!
//! Each noun has a [`decider::Decider`]: `decide` turns a command into events, `evolve` folds an
//! event into the state. The event store commits the events; executor, gateway and projections read
//! them.
//!
//! - [`run`]: one execution of a graph. [`graph`]: manifests and their versions. [`agent`]: named
//!   definitions. [`memory`]: remembered texts. [`request`]: idempotency keys. [`token`]: access
//!   tokens.
//! - [`event`]: the closed enum of all events, by noun, their wire form and their upcasters. Each
//!   noun declares, folds and sums up its own.
//! - [`decider`], [`stream`], [`payload`], [`failure`], [`id`], [`time`]: vocabulary of all nouns.
//! - `fingerprint`, `token_hash`: hashes that events carry, at home in [`decider`] and [`token`].
//! - [`billing`], [`policy`]: rules about money and limits that nouns and executors share.
//! - [`chat`], [`expr`], [`money`], [`json`]: values that the rules compute with.
//!
//! Nothing here does IO, reads a clock or draws random numbers (`clippy.toml` bans them): time,
//! caller and sequence numbers arrive as arguments. The crate depends on no other crate of the
//! workspace.

pub mod agent;
pub mod billing;
pub mod chat;
pub mod decider;
pub mod event;
pub mod expr;
pub mod failure;
mod fingerprint;
pub mod graph;
pub mod id;
pub mod idempotency;
pub mod json;
pub mod json_merge;
pub mod memory;
pub mod money;
pub mod payload;
pub mod policy;
pub mod request;
pub mod run;
mod serde_text;
pub mod stream;
pub mod time;
pub mod token;
mod token_hash;
