//! The contract of a log: the same laws on every provider, and what only files can suffer.

mod embedded;
mod laws;
mod support;
