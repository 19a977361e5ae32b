//! Built-in tools. The kernel's tool engine checks every call and answers the pure tools that it
//! has; the others are here. The same arguments give the same answer, and nothing outside is
//! touched but by the tools of the memory.

mod args;
mod bounds;
mod builtin;
mod check;
mod date;
mod hash;
mod json;
mod list;
mod math;
mod permit;
mod split;
mod text;

pub use builtin::{call, catalog, is_pure, perform};
pub(crate) use builtin::{check, check_size};
pub use permit::permit;
