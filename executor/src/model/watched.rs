//! A provider whose calls are watched: they wait for their turn, are left out while it is known to
//! fail, and are sent again when it had too many at once.

use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use async_trait::async_trait;
use convergio_domain::chat::ChatRequest;
use tokio::sync::SemaphorePermit;
use tokio::time::{Instant, sleep_until};
use tokio_util::sync::CancellationToken;

use super::call_gate::{CallGate, CallPlace};
use super::chat::{Admission, Call, ChatAnswer, Provider, Sink, WrittenRequest};
use super::concurrency::Pressure;
use super::config::{ModelInfo, ProviderConfig};
use super::error::ModelError;
use super::health::{Health, PATIENCE, is_own};
use super::http::HttpProvider;
use super::service::ServiceCall;

/// A provider with one key, and what is known of it.
pub(super) struct Watched {
    provider: HttpProvider,
    health: Mutex<Health>,
    gate: CallGate,
}

/// How a call waits: for its turn, and after a refusal.
#[derive(Clone, Copy)]
struct Wait<'a> {
    admission: Admission<'a>,
    timeout: Duration,
    cancel: &'a CancellationToken,
}

impl Watched {
    pub(super) fn new(provider: HttpProvider) -> Self {
        let config = provider.info();
        let gate = CallGate::new(&config.name, config.max_parallel);
        Self { provider, health: Mutex::default(), gate }
    }

    fn health(&self) -> MutexGuard<'_, Health> {
        self.health.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Whether a call is in good hands with it.
    pub(super) fn is_healthy(&self) -> bool {
        self.health().is_good()
    }

    /// Whether what it is sent stays on machines of the person or the operator.
    pub(super) fn is_private(&self) -> bool {
        self.provider.is_private()
    }

    /// Sends a call when it is its turn, and again while it is refused because the provider has too
    /// many at once, if it is one that waits for that.
    async fn send_in_turn<T, S, F>(&self, wait: Wait<'_>, send: S) -> Result<T, ModelError>
    where
        S: Fn() -> F,
        F: Future<Output = Result<T, ModelError>>,
    {
        let deadline = Instant::now().checked_add(wait.timeout);
        let mut refusal = wait.admission.refusal.cloned();
        loop {
            let waiting = self.wait_for_place(wait, refusal.is_some());
            let place = match (&refusal, deadline) {
                (Some(refusal), Some(deadline)) => tokio::select! {
                    biased;
                    place = waiting => place?,
                    () = sleep_until(deadline) => {
                        return Err(out_of_patience(refusal, wait.timeout));
                    }
                },
                _ => waiting.await?,
            };
            match self.send(wait, place, &send).await {
                Err(error) if error.is_load_refusal && wait.admission.waits_out_refusals => {
                    refusal = Some(error);
                }
                result => return result,
            }
        }
    }

    /// Waits for a place with the provider. It has no limit but the caller's: whoever waits here is
    /// cancelled when nobody wants the answer any more.
    async fn wait_for_place(
        &self,
        wait: Wait<'_>,
        was_refused: bool,
    ) -> Result<CallPlace, ModelError> {
        let Wait { admission, timeout, cancel } = wait;
        let name = self.provider.name();
        self.health().check(name, timeout)?;
        let place = tokio::select! {
            biased;
            () = cancel.cancelled() => return Err(self.cancelled()),
            place = self.gate.enter(admission.run, was_refused) => place?,
        };
        self.health().admit(name, timeout)?;
        Ok(place)
    }

    /// Sends a call once, and learns from what comes of it.
    async fn send<T, F>(
        &self,
        wait: Wait<'_>,
        place: CallPlace,
        send: impl Fn() -> F,
    ) -> Result<T, ModelError>
    where
        F: Future<Output = Result<T, ModelError>>,
    {
        let permit = self.process_permit(wait).await?;
        let result = send().await;
        drop(permit);
        // What was broken off by us says nothing about the provider.
        if wait.cancel.is_cancelled() {
            return result;
        }
        match result {
            Ok(answer) => {
                self.health().note_success();
                place.pass();
                Ok(answer)
            }
            Err(error) => Err(self.learn(place, error)),
        }
    }

    async fn process_permit<'a>(
        &self,
        wait: Wait<'a>,
    ) -> Result<Option<SemaphorePermit<'a>>, ModelError> {
        let Some(places) = wait.admission.process_places else { return Ok(None) };
        tokio::select! {
            biased;
            () = wait.cancel.cancelled() => Err(self.cancelled()),
            // It is never closed.
            permit = places.acquire() => Ok(permit.ok()),
        }
    }

    /// Takes in what an error says of the provider; gives the error, with whether the same call may
    /// be sent again.
    fn learn(&self, place: CallPlace, error: ModelError) -> ModelError {
        let is_refusal = is_load_refusal(&error);
        self.health().note_failure(&error, u32::from(!is_refusal));
        let error = match is_refusal {
            true => self.learn_refusal(place, error),
            false if is_own(error.code) => {
                drop(place);
                error
            }
            // It was let in, and refused for what it says.
            false => {
                place.pass();
                error
            }
        };
        // Who waits need not find out one by one that nobody is let in.
        let check = self.health().check(self.provider.name(), Duration::MAX);
        if let Err(told) = check {
            self.gate.fail_all(&told);
        }
        error
    }

    fn learn_refusal(&self, place: CallPlace, error: ModelError) -> ModelError {
        let hint = error.retry_after;
        let pressure = place.refuse(hint.filter(|hint| *hint <= PATIENCE));
        let is_load_refusal = match (pressure, hint) {
            (Pressure::Stalled, _) => false,
            (_, None) => true,
            // Who has a single call and is told when to come again comes again as another try.
            (Pressure::Closed, Some(_)) => false,
            (Pressure::Crowded, Some(hint)) => hint <= PATIENCE,
        };
        let error = ModelError { is_load_refusal, ..error };
        if pressure != Pressure::Stalled {
            return error;
        }
        let message =
            format!("{}; it has not taken a single call for half a minute", error.message);
        let error = ModelError { message, ..error };
        self.gate.fail_all(&error);
        error
    }

    fn cancelled(&self) -> ModelError {
        ModelError::unavailable(format!("the call to {} was cancelled", self.provider.name()))
    }
}

/// Whether the provider did nothing because it has too many calls: nothing was used.
fn is_load_refusal(error: &ModelError) -> bool {
    error.code == "provider.rate_limited" && error.retryable && error.partial_usage.is_none()
}

/// A call that was refused has waited for as long as it may.
fn out_of_patience(refusal: &ModelError, waited: Duration) -> ModelError {
    let message = format!("{}; the call waited {waited:?} for a place", refusal.message);
    ModelError { message, is_load_refusal: false, ..refusal.clone() }
}

#[async_trait]
impl Provider for Watched {
    fn info(&self) -> &ProviderConfig {
        self.provider.info()
    }

    fn write(&self, request: ChatRequest) -> Result<WrittenRequest, ModelError> {
        self.provider.write(request)
    }

    async fn chat(
        &self,
        call: Call<'_>,
        sink: Sink<'_>,
        cancel: &CancellationToken,
    ) -> Result<ChatAnswer, ModelError> {
        let wait = Wait { admission: call.admission, timeout: call.timeout, cancel };
        self.send_in_turn(wait, || self.provider.chat(call, sink, cancel)).await
    }

    async fn serve(
        &self,
        service: ServiceCall,
        call: Call<'_>,
        cancel: &CancellationToken,
    ) -> Result<ChatAnswer, ModelError> {
        let wait = Wait { admission: call.admission, timeout: call.timeout, cancel };
        self.send_in_turn(wait, || self.provider.serve(service, call, cancel)).await
    }

    async fn models(&self) -> Result<Vec<ModelInfo>, ModelError> {
        let result = self.provider.models().await;
        // A list that can be had is no sign that the model answers: it lifts no pause. One that
        // cannot be had is no call that failed: the server may be about to start.
        if let Err(error) = &result {
            self.health().note_failure(error, 0);
        }
        result
    }

    async fn validate_key(&self) -> Result<(), ModelError> {
        self.provider.validate_key().await
    }
}
