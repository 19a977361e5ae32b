//! Built-in tools. Each declares its effect: all are pure but those of the memory, which are
//! idempotent.
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

pub use builtin::{builtin_catalog, call_pure_tool, call_tool, find_tool_effect};
pub(crate) use builtin::{check_arguments_size, check_call, tool_call_origin};
pub use permission::check_permission;
