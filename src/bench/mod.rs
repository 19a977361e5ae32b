//! Benches of the whole path, each beside the physical limit of the same device in the same run.

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
