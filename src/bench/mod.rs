//! Benches of the whole path, each beside the physical limit of the same device in the same run.

mod raw;
pub(crate) mod steps;
