//! Model providers behind one interface.
//!
//! Which model is asked (who calls whom, from the top):
//! - `agent_request`: an agent's manifest becomes a `ChatRequest` and [`ModelRequirements`]
//! - `usage_bound`: worst-case usage of a call, from which its budget hold is computed
//! - `alias`, `privacy_policy`: operator's names for deployments; how far prompts may travel
//! - `model_choice`: picks a model for a call; asks `catalog` for offers and `router` for their
//!   order
//! - `catalog`: every configured provider with its models, prices, limits and health
//! - `router`: the kernel's router over recorded candidate facts, before a call and in a replay
//!
//! How a provider is called:
//! - `provider`: the [`Provider`] trait and the values that cross it
//! - `guarded_provider`: a provider behind its circuit breaker (`health`) and its queue
//!   (`call_gate`, over `call_queue` and `concurrency`)
//! - `http`: the one HTTP transport; `endpoint` its URLs and clients, `file_shortage` its wait for
//!   file descriptors, `sse` its stream framing
//! - `dialect`: wire formats, written and read without IO; `request_adapter` leaves out what a wire
//!   format lacks, by `provider_traits`
//! - `answer` with `answer_parts`: an answer under construction; `json_size`, `usage`: its size and
//!   its token counts
//! - `service` with `multipart_form`: embeddings, transcription and speech
//! - `refusal`, `scrub`, `error`: a provider's error, without secrets, in the API's codes
//!
//! Which providers there are:
//! - `config`, `environment`, `provider_file`: configured ones, by code, by variables and by file
//! - `detect`, `socket_owner`, `listing`, `ollama_library`: servers on this machine and their
//!   models
//!
//! Nothing here reads the log or decides what a run does next: callers hand in a request and get an
//! answer or a [`ModelError`].

pub(crate) mod agent_request;
mod alias;
mod answer;
mod answer_parts;
mod call_gate;
mod call_queue;
mod catalog;
mod concurrency;
mod config;
mod detect;
mod dialect;
mod endpoint;
mod environment;
mod error;
mod file_shortage;
mod guarded_provider;
mod health;
mod http;
mod json_size;
mod listing;
mod model_choice;
mod multipart_form;
mod ollama_library;
mod privacy_policy;
mod provider;
mod provider_file;
mod provider_traits;
#[cfg(test)]
mod rater_tests;
mod refusal;
mod request_adapter;
pub(crate) mod router;
mod scrub;
mod service;
mod socket_owner;
mod sse;
mod usage;
pub(crate) mod usage_bound;

pub use alias::{AliasTarget, ModelAliases};
pub use catalog::{ModelCatalog, ModelOffer};
pub use config::{KeyHeader, ModelInfo, ProviderApi, ProviderConfig, Secret, Timeouts};
pub use detect::{Consent, DetectedServer, ServerKind, detect_servers, detect_started_server};
pub use endpoint::{download_client, http_client, install_tls};
pub use error::ModelError;
pub use http::HttpProvider;
pub use model_choice::{ModelChoice, ModelRequirements};
pub use ollama_library::{OllamaLibrary, PullProgress};
pub use privacy_policy::PrivacyPolicy;
pub use provider::{
    AnswerPiece, CallAdmission, ChatAnswer, EncodedRequest, PieceSink, Provider, ProviderCall,
};
pub use provider_file::ProviderFile;
pub use provider_traits::{LimitField, ProviderTraits};
pub use service::ServiceCall;
pub use socket_owner::listening_uids;
pub(crate) use usage::provider_cost;
