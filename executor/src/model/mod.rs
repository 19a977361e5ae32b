//! Model providers behind one interface.

mod catalog;
mod chat;
mod config;
mod detect;
mod error;
mod openai;
mod sse;
mod usage;

pub use catalog::{Choice, ModelCatalog, Need};
pub use chat::{ChatAnswer, ChatRequest, Provider, Sink};
pub use config::{ModelInfo, ProviderConfig, Secret};
pub use detect::{Detected, ServerKind, detect};
pub use error::ModelError;
pub use openai::{OpenAi, client as http_client};
