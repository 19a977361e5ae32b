//! Dialects: how each interface of a provider writes a request and how its answer is read. Pure
//! functions over JSON, without IO.
//!
//! - `openai`: chat completions, of OpenAI, Azure, llama.cpp, MLX and many others
//! - `responses`: OpenAI's responses
//! - `anthropic`: Anthropic's messages
//! - `gemini`: Google's `generateContent`
//! - `interactions`: Google's interactions
//! - `ollama`: Ollama's native chat
//! - `round_trips`: property tests that an answer sent back is unchanged
//!
//! - `wire_format`: the interface of them all; `json_fields`: fields that several write and read
//!
//! The transport (`http`) asks [`dialect_for`] for a provider's dialect. Requests arrive here after
//! the request adapter: what a dialect is given, it can write. Answers go piece by piece into an
//! [`AnswerBuilder`](super::answer::AnswerBuilder). Dialects do not call one another, except for
//! embeddings and schemas of the same maker.

mod anthropic;
mod gemini;
mod interactions;
mod json_fields;
mod ollama;
mod openai;
mod responses;
#[cfg(test)]
mod round_trips;
mod wire_format;

use super::config::{ProviderApi, ProviderConfig};
pub(super) use wire_format::{Dialect, ReadError};

/// Returns the dialect of a provider.
pub(super) fn dialect_for(config: &ProviderConfig) -> Box<dyn Dialect> {
    match &config.api {
        ProviderApi::OpenAiChat => {
            Box::new(openai::ChatCompletionsDialect::new(config.platform, None))
        }
        ProviderApi::AzureClassic { api_version } => Box::new(openai::ChatCompletionsDialect::new(
            config.platform,
            Some(api_version.clone()),
        )),
        ProviderApi::OpenAiResponses => Box::new(responses::ResponsesDialect),
        ProviderApi::Anthropic { version } => Box::new(anthropic::MessagesDialect::new(version)),
        ProviderApi::Gemini => Box::new(gemini::GenerateContentDialect),
        ProviderApi::GeminiInteractions => Box::new(interactions::InteractionsDialect),
        ProviderApi::Ollama => Box::new(ollama::OllamaDialect),
    }
}
