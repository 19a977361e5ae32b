//! The built-in tools: what each does, what they refuse, and the laws that hold for all.

mod answers;
mod laws;
mod refusals;
mod splitting;
