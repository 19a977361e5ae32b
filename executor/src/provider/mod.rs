//! Model providers: how to speak to any of them.
//!
//! From the top (who calls whom):
//! - `http`: the one HTTP transport, a [`Provider`]; `endpoint` its URLs and clients,
//!   `file_shortage` its wait for file descriptors, `sse` its stream framing, `listing` the models
//!   that a server has
//! - `dialect`: wire formats, written and read without IO; `request_adapter` leaves out what a wire
//!   format lacks, by `provider_traits`
//! - `answer` with `answer_parts`: an answer under construction; `json_size`, `usage`: its size and
//!   its token counts
//! - `refusal`, `scrub`: a provider's error, without secrets
//! - `usage_bound`: worst-case usage of a call, from which its budget hold is computed
//! - `multipart_form`: the form in which recordings are sent
//!
//! On the ground, for all of the above and for whoever calls: `model_provider` (the [`Provider`]
//! trait and the values that cross it), `service` (embeddings, transcription and speech as calls),
//! `config` (a provider's URL, interface, key and limits) and `error` (the API's codes).
//!
//! Nothing here chooses a provider or a model, waits for others, reads the log or decides what a
//! run does next: callers hand in a request and get an answer or a [`ModelError`]. Nothing here
//! takes anything from the `catalog`.

mod answer;
mod answer_parts;
pub(crate) mod config;
mod dialect;
pub(crate) mod endpoint;
pub(crate) mod error;
mod file_shortage;
mod http;
mod json_size;
pub(crate) mod listing;
mod model_provider;
mod multipart_form;
mod provider_traits;
#[cfg(test)]
mod rater_tests;
pub(crate) mod refusal;
mod request_adapter;
pub(crate) mod scrub;
mod service;
pub(crate) mod sse;
mod usage;
pub(crate) mod usage_bound;

pub use config::{KeyHeader, ModelInfo, ProviderApi, ProviderConfig, Secret, Timeouts};
pub use endpoint::{download_client, http_client, install_tls};
pub use error::ModelError;
pub use http::HttpProvider;
pub use model_provider::{
    AnswerPiece, CallAdmission, ChatAnswer, EncodedRequest, PieceSink, Provider, ProviderCall,
    RequestWriter,
};
pub use provider_traits::{LimitField, ProviderTraits};
pub use service::ServiceCall;
pub(crate) use usage::provider_cost;
