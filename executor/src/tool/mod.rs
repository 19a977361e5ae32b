//! Built-in tools. The kernel's tool engine checks every call and answers the pure tools that it
//! has; the others are here. The same arguments give the same answer, and nothing outside is
//! touched.

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

pub(crate) use builtin::check;
pub use builtin::{call, catalog};
pub use permit::permit;
