//! Whether a provider can be counted on just now: what failed lately is left alone for a while, and
//! what asked to be left alone is. One key, one breaker.

use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use async_trait::async_trait;
use bytes::Bytes;
use convergio_domain::chat::ChatRequest;
use tokio_util::sync::CancellationToken;

use super::audio::{Recording, Speech, SpeechRequest, Transcript};
use super::chat::{Call, ChatAnswer, Embeddings, Provider, Sink};
use super::config::{ModelInfo, ProviderConfig};
use super::error::{ModelError, is_money};
use super::http::HttpProvider;

/// How long a provider is left alone that does not say how long.
const PAUSE: Duration = Duration::from_secs(10);
/// Failures in a row after which others are asked in its place, if there are any.
const SHUNNED: u32 = 2;
/// A pause that is waited for though others would do.
const SHORT: Duration = Duration::from_secs(2);
/// Failures in a row after which it is not even tried.
const FAILURES: u32 = 5;
/// Longest time that a call waits for the end of a pause that the provider asked for.
const PATIENCE: Duration = Duration::from_secs(10);
/// How long a key is parked whose account has no money left.
const PARKED: Duration = Duration::from_secs(3600);
/// How long a key is left alone that was refused: its owner may have changed its rights.
const REFUSED: Duration = Duration::from_secs(60);

/// A provider whose calls are watched.
pub(super) struct Watched {
    provider: HttpProvider,
    health: Mutex<Health>,
}

/// What is known from the calls so far.
#[derive(Debug, Default)]
struct Health {
    /// Until when it is left alone.
    until: Option<Instant>,
    why: Why,
    failures: u32,
}

/// Why a provider is left alone.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
enum Why {
    /// It failed: others are better, but it may be tried.
    #[default]
    Failing,
    /// It has too many calls and does not say for how long: it may be tried, but others first.
    Crowded,
    /// It asked to wait.
    Rate,
    /// Its account has no money left.
    Money,
    /// It refused the key.
    Key,
}

impl Health {
    /// How much longer it is left alone.
    fn left(&self) -> Option<Duration> {
        let left = self.until?.saturating_duration_since(Instant::now());
        (!left.is_zero()).then_some(left)
    }
}

impl Watched {
    pub(super) fn new(provider: HttpProvider) -> Self {
        Self { provider, health: Mutex::default() }
    }

    fn health(&self) -> MutexGuard<'_, Health> {
        self.health.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Whether a call is in good hands with it. One failure may be an accident: the same one is
    /// asked again. After the second, and when it asks to be left alone for long, others are asked.
    pub(super) fn is_healthy(&self) -> bool {
        let health = self.health();
        let Some(left) = health.left() else { return true };
        match health.why {
            Why::Failing => health.failures < SHUNNED,
            Why::Rate => left <= SHORT,
            Why::Crowded | Why::Money | Why::Key => false,
        }
    }

    /// Whether what it is sent stays on machines of the person or the operator.
    pub(super) fn is_private(&self) -> bool {
        self.provider.is_private()
    }

    fn watch<T>(&self, result: &Result<T, ModelError>) {
        match result {
            Ok(_) => *self.health() = Health::default(),
            Err(error) => self.fail(error, 1),
        }
    }

    /// Errors that are the request's own say nothing about the provider.
    fn fail(&self, error: &ModelError, failures: u32) {
        if !is_own(error.code) {
            return;
        }
        let mut health = self.health();
        let (why, pause) = match error.retry_after {
            _ if error.code.starts_with("byok.") => (Why::Key, REFUSED),
            _ if is_money(error) => (Why::Money, PARKED),
            Some(pause) => (Why::Rate, pause),
            None if error.code == "provider.rate_limited" => (Why::Crowded, PAUSE),
            None => (Why::Failing, PAUSE),
        };
        *health = Health {
            until: Instant::now().checked_add(pause),
            why,
            failures: health.failures.saturating_add(failures),
        };
    }

    /// Whether a call may be made now, or after a wait. A provider that failed again and again is
    /// tried by one call at a time.
    fn admit(&self, timeout: Duration) -> Result<Duration, ModelError> {
        let mut health = self.health();
        let name = self.provider.name();
        let Some(left) = health.left() else {
            if health.failures >= FAILURES {
                health.until = Instant::now().checked_add(PAUSE);
            }
            return Ok(Duration::ZERO);
        };
        let seconds = left.as_secs() + 1;
        let (code, retryable, why) = match health.why {
            Why::Crowded => return Ok(Duration::ZERO),
            Why::Failing if health.failures < FAILURES => return Ok(Duration::ZERO),
            Why::Rate if left <= PATIENCE && left < timeout => return Ok(left),
            Why::Failing => ("provider.unavailable", true, "failed again and again"),
            Why::Rate => ("provider.rate_limited", true, "asked to be left alone"),
            Why::Money => ("provider.rate_limited", false, "said that its account may not spend"),
            Why::Key => ("byok.bad_key", false, "refused its key"),
        };
        let message = format!("{name} {why}: it is not asked for {seconds} s");
        let retry_after = Some(left).filter(|_| retryable);
        Err(ModelError { retry_after, ..ModelError::new(code, retryable, message) })
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

    fn left_out(&self, request: &ChatRequest) -> Vec<String> {
        self.provider.left_out(request)
    }

    async fn chat(
        &self,
        call: Call<'_>,
        sink: Sink<'_>,
        cancel: &CancellationToken,
    ) -> Result<ChatAnswer, ModelError> {
        let wait = self.admit(call.timeout)?;
        if !wait.is_zero() {
            tokio::select! {
                () = tokio::time::sleep(wait) => {}
                () = cancel.cancelled() => {}
            }
        }
        let call = Call { timeout: call.timeout.saturating_sub(wait), ..call };
        let result = self.provider.chat(call, sink, cancel).await;
        if !cancel.is_cancelled() {
            self.watch(&result);
        }
        result
    }

    async fn embed(&self, model: &str, texts: &[String]) -> Result<Embeddings, ModelError> {
        self.admit(Duration::ZERO)?;
        let result = self.provider.embed(model, texts).await;
        self.watch(&result);
        result
    }

    async fn transcribe(&self, model: &str, said: &Recording) -> Result<Transcript, ModelError> {
        self.admit(Duration::ZERO)?;
        let result = self.provider.transcribe(model, said).await;
        self.watch(&result);
        result
    }

    async fn speak(&self, model: &str, request: &SpeechRequest) -> Result<Speech, ModelError> {
        self.admit(Duration::ZERO)?;
        let result = self.provider.speak(model, request).await;
        self.watch(&result);
        result
    }

    async fn models(&self) -> Result<Vec<ModelInfo>, ModelError> {
        let result = self.provider.models().await;
        // A list that can be had is no sign that the model answers: it lifts no pause. One that
        // cannot be had is no call that failed: the server may be about to start.
        if let Err(error) = &result {
            self.fail(error, 0);
        }
        result
    }

    async fn validate_key(&self) -> Result<(), ModelError> {
        self.provider.validate_key().await
    }
}
