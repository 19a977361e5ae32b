//! Model providers behind one interface.

mod answer;
pub(crate) mod ask;
mod audio;
mod catalog;
mod chat;
mod config;
mod detect;
mod dialect;
mod endpoint;
mod environment;
mod error;
mod file;
mod health;
mod http;
mod library;
mod listing;
mod policy;
mod refusal;
mod route;
mod scrub;
mod sse;
mod usage;
pub(crate) mod verdict;

pub use audio::{Recording, Speech, SpeechRequest, Transcript};
pub use catalog::{ModelCatalog, Offer};
pub use chat::{Call, ChatAnswer, Embeddings, Provider, Sink};
pub use config::{Api, KeyHeader, ModelInfo, ProviderConfig, Secret, Timeouts};
pub use detect::{Detected, ServerKind, detect};
pub use endpoint::{client as http_client, download_client, install_tls};
pub use error::ModelError;
pub use http::HttpProvider;
pub use library::{Library, Progress};
pub use policy::PrivacyPolicy;
pub use route::{Choice, Need};
