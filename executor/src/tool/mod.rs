//! Built-in pure tools: the same arguments give the same answer, and nothing outside is touched.

mod args;
mod bounds;
mod builtin;
mod csv;
mod date;
mod hash;
mod json;
mod list;
mod math;
mod split;
mod text;

pub use builtin::{call, catalog};
