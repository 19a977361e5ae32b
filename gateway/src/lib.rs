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
mod entrance;
mod evaluate;
mod hosts;
mod http;
mod idempotency;
mod listen;
mod parameters;
mod problem;
mod response_headers;
mod tls;
mod token_feed;
mod unauthenticated;
mod work_runtime;

pub use app::{Gateway, ServeOptions, openapi, serve};
pub use auth::{Token, Tokens};
pub use hosts::Hosts;
pub use http::front::{DoorSettings, ModelDirectory, ModelEntry};
pub use http::replay::{ReplayError, Replayer};
pub use listen::Limits;
pub use tls::{Tls, TlsError};
pub use token_feed::follow_tokens;
