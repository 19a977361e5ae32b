//! Where the log is kept.

pub mod embedded;
pub mod jetstream;
pub(crate) mod memory;
