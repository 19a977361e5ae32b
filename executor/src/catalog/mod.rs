//! The catalogue of models: whom to ask.
//!
//! From the top (who calls whom):
//! - `model_choice`: picks a model for a call; asks `model_catalog` for offers and `router` for
//!   their order
//! - `router`: the kernel's router over recorded candidate facts, before a call and in a replay
//! - `model_catalog`: every configured provider with its models, prices, limits and health;
//!   `alias` and `privacy_policy` are the operator's names for deployments and how far prompts may
//!   travel
//! - `guarded_provider`: a provider behind its circuit breaker (`health`) and its queue
//!   (`call_gate`, over `call_queue` and `concurrency`)
//!
//! Which providers there are:
//! - `environment`, `provider_file`: configured ones, by variables and by file
//! - `detect`, `socket_owner`, `ollama_library`: servers on this machine and their models
//!
//! How a provider is spoken to is in `provider`, which knows nothing of this folder. Nothing here
//! reads the log or decides what a run does next.

mod alias;
mod call_gate;
mod call_queue;
mod concurrency;
mod detect;
mod environment;
mod guarded_provider;
mod health;
mod model_catalog;
mod model_choice;
mod ollama_library;
mod privacy_policy;
mod provider_file;
pub(crate) mod router;
mod socket_owner;

pub use alias::{AliasTarget, ModelAliases};
pub use detect::{Consent, DetectedServer, ServerKind, detect_servers, detect_started_server};
pub use model_catalog::{ModelCatalog, ModelOffer};
pub use model_choice::{ModelChoice, ModelRequirements};
pub use ollama_library::{OllamaLibrary, PullProgress};
pub use privacy_policy::PrivacyPolicy;
pub use provider_file::ProviderFile;
pub use socket_owner::listening_uids;
