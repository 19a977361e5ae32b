//! HTTP, WebSocket and SSE front end of the log.
//!
//! A request becomes a use case of `convergio-application`; an answer is a read model or the log
//! itself. No business rule lives here, and no step is executed here: the executor is
//! another crate, and this one must not depend on it.
//!
//! A request passes, from the outside in:
//! - `listen`, `tls`, `unauthenticated_connections`: the connection and its time limits.
//! - `request_layers`: host check (`allowed_hosts`), request id, authentication (`auth`, fed by
//!   `token_feed`), memory for the body (`body_memory`), and the wait for the runtime that
//!   works (`work_runtime`).
//! - `parameters`: undeclared query parameters and bodies are rejected.
//! - `idempotent_answers`: a request under a known idempotency key gets its recorded answer.
//! - `http`: the handlers, a file for each noun; `http::compat` serves the APIs of OpenAI and
//!   Anthropic.
//! - `problem`, `error_body`, `response_headers`: errors and headers on the way out.
//!
//! `router` stands on top and joins routes and layers; on the ground are `state` (what handlers
//! share) and `ports` (what the composition root provides). `convert` maps rows to wire types;
//! `content_budget` bounds an answer's memory.

mod allowed_hosts;
mod auth;
mod body_memory;
mod content_budget;
mod convert;
mod error_body;
mod http;
mod idempotent_answers;
mod listen;
mod parameters;
mod ports;
mod problem;
mod request_layers;
mod response_headers;
mod router;
mod state;
mod tls;
mod token_feed;
mod unauthenticated_connections;
mod work_runtime;

pub use allowed_hosts::AllowedHosts;
pub use auth::{TokenRegistration, TokenRegistry};
pub use convergio_application::{ReplayError, Replayer};
pub use http::compat::CompatSettings;
pub use listen::ConnectionLimits;
pub use ports::{ModelDirectory, ModelEntry};
pub use router::{ServeOptions, openapi_document, serve_gateway};
pub use state::Gateway;
pub use tls::{Tls, TlsError};
pub use token_feed::follow_tokens;
