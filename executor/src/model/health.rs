//! Whether a provider can be counted on just now: what failed lately is left alone for a while.

use std::sync::{Mutex, PoisonError};
use std::time::{Duration, Instant};

use async_trait::async_trait;
use bytes::Bytes;
use tokio_util::sync::CancellationToken;

use super::chat::{ChatAnswer, ChatRequest, Provider, Sink};
use super::config::{ModelInfo, ProviderConfig};
use super::error::ModelError;
use super::openai::OpenAi;

/// How long a provider is left alone that does not say how long.
const PAUSE: Duration = Duration::from_secs(10);

/// A provider whose calls are watched.
pub(super) struct Watched {
    provider: OpenAi,
    /// Until when it is left alone.
    until: Mutex<Option<Instant>>,
}

impl Watched {
    pub(super) fn new(provider: OpenAi) -> Self {
        Self { provider, until: Mutex::new(None) }
    }

    /// Whether it answered when it was last asked, or that was long ago.
    pub(super) fn is_healthy(&self) -> bool {
        let until = *self.until.lock().unwrap_or_else(PoisonError::into_inner);
        until.is_none_or(|until| until <= Instant::now())
    }

    /// Errors that are the request's own say nothing about the provider.
    fn watch<T>(&self, result: &Result<T, ModelError>) {
        let pause = match result {
            Ok(_) => None,
            Err(error) if is_own(error.code) => Some(error.retry_after.unwrap_or(PAUSE).max(PAUSE)),
            Err(_) => return,
        };
        let until = pause.and_then(|pause| Instant::now().checked_add(pause));
        *self.until.lock().unwrap_or_else(PoisonError::into_inner) = until;
    }
}

fn is_own(code: &str) -> bool {
    code.starts_with("byok.")
        || ["provider.unavailable", "provider.timeout", "provider.rate_limited"].contains(&code)
}

#[async_trait]
impl Provider for Watched {
    fn info(&self) -> &ProviderConfig {
        self.provider.info()
    }

    fn body(&self, request: &ChatRequest) -> Bytes {
        self.provider.body(request)
    }

    async fn chat(
        &self,
        body: &Bytes,
        timeout: Duration,
        sink: Sink<'_>,
        cancel: &CancellationToken,
    ) -> Result<ChatAnswer, ModelError> {
        let result = self.provider.chat(body, timeout, sink, cancel).await;
        if !cancel.is_cancelled() {
            self.watch(&result);
        }
        result
    }

    async fn models(&self) -> Result<Vec<ModelInfo>, ModelError> {
        let result = self.provider.models().await;
        // A list that can be had is no sign that the model answers: it lifts no pause.
        if result.is_err() {
            self.watch(&result);
        }
        result
    }
}
