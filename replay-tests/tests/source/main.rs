//! The form of the source: its order, its names, its imports, and numbers that may only get better.

mod architecture;
mod banned_names;
mod checkout;
mod declarations;
mod environment;
mod imports;
mod module_graph;
mod named_paths;
mod naming;
mod ratchet;
mod tidy;
mod tokens;
