//! HTTP, WebSocket and SSE in front of the log.
//!
//! A request becomes a command that the repository decides and appends; an answer is a read model
//! or the log itself. No rule lives here, and no step is executed here.

mod answers;
mod app;
mod auth;
mod bodies;
mod contents;
mod convert;
mod evaluate;
mod http;
mod idempotency;
mod listen;
mod parameters;
mod problem;

pub use app::{Gateway, openapi, router, serve, serve_within};
pub use auth::{Token, Tokens};
pub use http::front::{ModelDirectory, ModelEntry};
pub use http::replay::{ReplayError, Replayer};
pub use listen::Limits;
