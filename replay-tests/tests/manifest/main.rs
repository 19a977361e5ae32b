//! The manifest's contracts beside its parser: the JSON Schema, and the guide's table of limits.

mod codes;
mod limits;
mod schema;
