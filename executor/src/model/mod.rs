//! Model providers behind one interface.

mod answer;
mod catalog;
mod chat;
mod config;
mod detect;
mod endpoint;
mod error;
mod health;
mod listing;
mod openai;
mod route;
mod scrub;
mod sse;
mod usage;

pub use catalog::{ModelCatalog, Offer};
pub use chat::{ChatAnswer, ChatRequest, Provider, Sink};
pub use config::{ModelInfo, ProviderConfig, Secret, Timeouts};
pub use detect::{Detected, ServerKind, detect};
pub use endpoint::client as http_client;
pub use error::ModelError;
pub use openai::OpenAi;
pub use route::{Choice, Need};
