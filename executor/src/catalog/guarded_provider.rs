//! A provider behind its circuit breaker and its concurrency limit: calls queue for a permit, fail
//! fast while the provider is known to fail, and are sent again after an overload refusal.

use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use async_trait::async_trait;
use tokio::sync::SemaphorePermit;
use tokio::time::{Instant, sleep_until};
use tokio_util::sync::CancellationToken;

use super::call_gate::{CallGate, CallPermit};
use super::concurrency::LoadPressure;
use super::health::{PAUSE_WAIT_LIMIT, ProviderHealth, is_provider_fault};
use crate::provider::{
    CallAdmission, ChatAnswer, HttpProvider, ModelError, ModelInfo, PieceSink, Provider,
    ProviderCall, ProviderConfig, RequestWriter, ServiceCall,
};

/// A provider with one key, its circuit breaker and its queue of calls.
pub(super) struct GuardedProvider {
    provider: HttpProvider,
    health: Mutex<ProviderHealth>,
    gate: CallGate,
}

/// The limits under which a call waits for a permit and after a refusal.
#[derive(Clone, Copy)]
struct CallWait<'a> {
    admission: CallAdmission<'a>,
    /// The call's own timeout. A refused call is sent again for as long, counted from its first
    /// wait.
    timeout: Duration,
    cancel: &'a CancellationToken,
}

impl GuardedProvider {
    pub(super) fn new(provider: HttpProvider) -> Self {
        let config = provider.provider_config();
        let gate = CallGate::new(&config.name, config.max_parallel);
        Self { provider, health: Mutex::default(), gate }
    }

    fn lock_health(&self) -> MutexGuard<'_, ProviderHealth> {
        self.health.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Returns whether calls should go here rather than to other providers.
    pub(super) fn is_healthy(&self) -> bool {
        self.lock_health().is_preferred()
    }

    /// Returns whether prompts sent here stay on machines of the user or the operator.
    pub(super) fn is_private(&self) -> bool {
        self.provider.is_private()
    }

    /// Sends a call as soon as it holds a permit. While the provider refuses it for overload, and
    /// the call's admission allows it, the call queues again until its timeout.
    async fn send_in_turn<T, S, F>(&self, wait: CallWait<'_>, send: S) -> Result<T, ModelError>
    where
        S: Fn() -> F,
        F: Future<Output = Result<T, ModelError>>,
    {
        let deadline = Instant::now().checked_add(wait.timeout);
        let mut refusal = wait.admission.refusal.cloned();
        loop {
            let next_permit = self.wait_for_permit(wait, refusal.is_some());
            // The deadline counts only after a refusal: a first wait is bounded by the caller's
            // cancellation, because a long queue is no failure of the provider.
            let place = match (&refusal, deadline) {
                (Some(refusal), Some(deadline)) => tokio::select! {
                    biased;
                    place = next_permit => place?,
                    () = sleep_until(deadline) => {
                        return Err(wait_exhausted_error(refusal, wait.timeout));
                    }
                },
                _ => next_permit.await?,
            };
            match self.send_once(wait, place, &send).await {
                // From here on the deadline bounds the wait.
                Err(error) if error.is_load_refusal && wait.admission.waits_out_refusals => {
                    refusal = Some(error);
                }
                result => return result,
            }
        }
    }

    /// Waits for a permit. The wait has no time limit of its own: callers cancel it when the answer
    /// is not wanted any more.
    ///
    /// # Errors
    /// The breaker is open, the wait was cancelled, or all waiting calls were failed.
    async fn wait_for_permit(
        &self,
        wait: CallWait<'_>,
        was_refused: bool,
    ) -> Result<CallPermit, ModelError> {
        let CallWait { admission, timeout, cancel } = wait;
        let name = self.provider.name();
        self.lock_health().check_available(name, timeout)?;
        let place = tokio::select! {
            biased;
            () = cancel.cancelled() => return Err(self.cancellation_error()),
            place = self.gate.acquire_permit(admission.run, was_refused) => place?,
        };
        // Checked again: the provider may have failed while this call was in the queue.
        self.lock_health().admit_call(name, timeout)?;
        Ok(place)
    }

    /// Sends a call once and records its outcome in the breaker and the concurrency limit.
    async fn send_once<T, F>(
        &self,
        wait: CallWait<'_>,
        place: CallPermit,
        send: impl Fn() -> F,
    ) -> Result<T, ModelError>
    where
        F: Future<Output = Result<T, ModelError>>,
    {
        // Taken last and held only while the call is in flight: waiting calls of one provider must
        // not use up the process's permits.
        let permit = self.acquire_process_permit(wait).await?;
        let result = send().await;
        drop(permit);
        // A call that was cancelled here says nothing about the provider.
        if wait.cancel.is_cancelled() {
            return result;
        }
        match result {
            Ok(answer) => {
                self.lock_health().note_success();
                place.report_accepted();
                Ok(answer)
            }
            Err(error) => Err(self.learn_from_error(place, error)),
        }
    }

    /// Takes one of the permits that bound the calls of the whole process, if there is such a
    /// bound.
    async fn acquire_process_permit<'a>(
        &self,
        wait: CallWait<'a>,
    ) -> Result<Option<SemaphorePermit<'a>>, ModelError> {
        let Some(semaphore) = wait.admission.process_permits else { return Ok(None) };
        tokio::select! {
            biased;
            () = wait.cancel.cancelled() => Err(self.cancellation_error()),
            // The semaphore is never closed, so an error cannot occur.
            permit = semaphore.acquire() => Ok(permit.ok()),
        }
    }

    /// Records what an error says about the provider. Returns the error, marked if the same call
    /// may be sent again.
    fn learn_from_error(&self, place: CallPermit, error: ModelError) -> ModelError {
        let is_refusal = is_load_refusal(&error);
        self.lock_health().note_failure(&error, u32::from(!is_refusal));
        let error = match is_refusal {
            true => self.learn_from_refusal(place, error),
            false if is_provider_fault(error.code) => {
                drop(place);
                error
            }
            // The provider accepted the call and rejected its content: that is proof of capacity.
            false => {
                place.report_accepted();
                error
            }
        };
        // Calls that wait would each find the breaker open: they fail together, now.
        let check = self.lock_health().check_available(self.provider.name(), Duration::MAX);
        if let Err(breaker_error) = check {
            self.gate.fail_waiters(&breaker_error);
        }
        error
    }

    /// Records an overload refusal: lowers the concurrency limit, and decides whether the call may
    /// queue again.
    fn learn_from_refusal(&self, place: CallPermit, error: ModelError) -> ModelError {
        let hint = error.retry_after;
        let pressure = place.report_refusal(hint.filter(|hint| *hint <= PAUSE_WAIT_LIMIT));
        let is_load_refusal = match (pressure, hint) {
            (LoadPressure::Stalled, _) => false,
            (_, None) => true,
            // A single call that is told when to return comes back as another try of the step, not
            // from this queue.
            (LoadPressure::Closed, Some(_)) => false,
            (LoadPressure::Crowded, Some(hint)) => hint <= PAUSE_WAIT_LIMIT,
        };
        let error = ModelError { is_load_refusal, ..error };
        if pressure != LoadPressure::Stalled {
            return error;
        }
        let message =
            format!("{}; it has not taken a single call for half a minute", error.message);
        let error = ModelError { message, ..error };
        self.gate.fail_waiters(&error);
        error
    }

    fn cancellation_error(&self) -> ModelError {
        ModelError::provider_unavailable(format!(
            "the call to {} was cancelled",
            self.provider.name()
        ))
    }
}

/// Returns whether the provider rejected a call for overload before doing any work on it.
fn is_load_refusal(error: &ModelError) -> bool {
    error.code == "provider.rate_limited" && error.retryable && error.partial_usage.is_none()
}

/// The error of a refused call whose timeout passed in the queue.
fn wait_exhausted_error(refusal: &ModelError, waited: Duration) -> ModelError {
    let message = format!("{}; the call waited {waited:?} for a place", refusal.message);
    ModelError { message, is_load_refusal: false, ..refusal.clone() }
}

#[async_trait]
impl Provider for GuardedProvider {
    fn provider_config(&self) -> &ProviderConfig {
        self.provider.provider_config()
    }

    fn request_writer(&self) -> &dyn RequestWriter {
        self.provider.request_writer()
    }

    async fn complete_chat(
        &self,
        call: ProviderCall<'_>,
        sink: PieceSink<'_>,
        cancel: &CancellationToken,
    ) -> Result<ChatAnswer, ModelError> {
        let wait = CallWait { admission: call.admission, timeout: call.timeout, cancel };
        self.send_in_turn(wait, || self.provider.complete_chat(call, sink, cancel)).await
    }

    async fn call_service(
        &self,
        service: ServiceCall,
        call: ProviderCall<'_>,
        cancel: &CancellationToken,
    ) -> Result<ChatAnswer, ModelError> {
        let wait = CallWait { admission: call.admission, timeout: call.timeout, cancel };
        self.send_in_turn(wait, || self.provider.call_service(service, call, cancel)).await
    }

    async fn list_models(&self) -> Result<Vec<ModelInfo>, ModelError> {
        let result = self.provider.list_models().await;
        // A list that is served is no proof that the model answers, so it ends no pause. A list
        // that is not served counts as no failed call: the server may be starting.
        if let Err(error) = &result {
            self.lock_health().note_failure(error, 0);
        }
        result
    }

    async fn validate_key(&self) -> Result<(), ModelError> {
        self.provider.validate_key().await
    }
}
