//! Where the log is kept.

pub mod embedded;
pub(crate) mod memory;
