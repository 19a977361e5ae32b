//! Built-in tools. The same arguments give the same answer, and only the memory tools have effects.
//!
//! - `builtin`: the registry; finds a tool, checks its arguments and calls it.
//! - `arguments`, `argument_validator`, `bounds`: a function with its declared arguments, their
//!   check, and size limits.
//! - `permission`: whether an agent may call a tool.
//! - `text`, `split`, `list`, `json`, `math`, `date`, `hash`: the tools that are not in the kernel.
//!
//! The kernel's tool engine checks the arguments of every call that its schema subset covers, and
//! answers the pure tools that it has. No tool reads a clock, a file or the network.

mod argument_validator;
mod arguments;
mod bounds;
mod builtin;
mod date;
mod hash;
mod json;
mod list;
mod math;
mod permission;
mod split;
mod text;

pub use builtin::{builtin_catalog, call_pure_tool, call_tool, is_pure};
pub(crate) use builtin::{check_arguments_size, check_call};
pub use permission::check_permission;
