//! The compatible APIs ("front doors"): the interfaces of OpenAI and Anthropic in front of the log.
//! Their SDKs work after a change of the base URL; each call is a run of a one-node graph, with its
//! usage and its charge.
//!
//! The way of a call: `endpoints` routes it, `serve` reads the body and drives the call, a
//! `CompatDialect` (`chat`, `messages`, `responses`) translates between its wire format and
//! `ChatRequest`/`ChatReply`, and `compat_run` creates the run and follows it to its end.
//!
//! - `field_table`: declared fields of a dialect's requests; what is not declared is rejected.
//! - `conversation`, `request_parts`, `provider_urls`, `carrier`: parsing that dialects share.
//!   `carrier` transports what only another dialect understands.
//! - `reply_progress`, `run_watch`: events of a reply, from live notes and from the log.
//! - `refusal`, `error_format`: errors in each dialect's format.
//! - `stored_runs`, `stored_answers`: earlier calls, read from the log.
//! - `media`, `multipart`, `token_counting`: embeddings, speech, transcription; token estimates.
//! - `compat_graph`, `settings`: the graph that calls run; the operator's settings.
//! - `dialect`, `compat_state`: what a dialect is; the state that handlers share.
//!
//! What is below takes nothing from this file, which only joins the routes with their state.
//! No dialect knows another one, and none touches the log: `compat_run` and `stored_runs` do.

mod carrier;
mod chat;
mod compat_graph;
mod compat_run;
mod compat_state;
mod conversation;
mod dialect;
mod endpoints;
mod error_format;
mod field_table;
mod media;
mod messages;
mod multipart;
mod provider_urls;
mod refusal;
mod reply_progress;
mod request_parts;
mod responses;
mod run_watch;
mod serve;
mod settings;
mod stored_answers;
mod stored_runs;
#[cfg(test)]
mod tests;
mod token_counting;

use std::sync::Arc;

use axum::Router;

use crate::state::Gateway;
use compat_graph::CompatGraph;
use compat_state::CompatState;
pub(crate) use error_format::ErrorFormat;
pub(crate) use refusal::DialectBodyMarker;
use run_watch::RunWatch;
pub use settings::CompatSettings;

/// Returns the routes that require a token. The OpenAPI document leaves them out: they are
/// specified by OpenAI and Anthropic.
pub(crate) fn compat_routes(gateway: Arc<Gateway>) -> Router<Arc<Gateway>> {
    let watch = Arc::new(RunWatch::new(gateway.repository.event_log(), gateway.stop.clone()));
    endpoints::token_routes(CompatState {
        gateway,
        run_watch: watch,
        graph: Arc::new(CompatGraph::new()),
    })
}

/// Returns the routes that need no token, by which SDKs and tools probe for the API.
pub(crate) fn probe_routes() -> Router<Arc<Gateway>> {
    endpoints::probe_routes()
}
