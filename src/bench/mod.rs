//! Benches of the whole path, each beside the physical limit of the same device in the same run.
//!
//! - `steps`, `waiting`, `wide` and `resume` measure the executor on an embedded log or a cluster.
//! - `log` and `growth` measure logs; `replay` measures replay, `gateway` the front door.
//! - `raw` and `cluster` measure what device and cluster do without this program; `platform` is the
//!   set-up that benches share.
//!
//! Rows are printed as text or JSON lines; nothing outside this folder depends on it but `cli`.

mod cluster;
pub(crate) mod gateway;
mod growth;
pub(crate) mod log;
mod platform;
mod raw;
pub(crate) mod replay;
pub(crate) mod resume;
pub(crate) mod steps;
pub(crate) mod waiting;
pub(crate) mod wide;
