//! The queue of calls to one provider with one key: each call waits for a permit and returns it
//! when it ends.

use std::sync::{Arc, Mutex, MutexGuard, PoisonError, Weak};
use std::time::Duration;

use convergio_domain::id::RunId;
use tokio::sync::oneshot;
use tokio::time::Instant;

use super::call_queue::CallQueue;
use super::concurrency::{CallStart, ConcurrencyLimit, LoadPressure, LoadRefusal};
use crate::provider::ModelError;

/// A waiting call's end of the channel: receives a permit, or the error why there is none.
type Waiter = oneshot::Sender<Result<CallPermit, ModelError>>;

/// Permits for concurrent calls, as many as the provider was seen to accept. Clones share one
/// queue.
#[derive(Clone)]
pub(super) struct CallGate(Arc<Mutex<GateState>>);

/// The concurrency limit and the queue, behind one lock.
struct GateState {
    /// The provider's name, for log lines.
    name: String,
    limit: ConcurrencyLimit,
    queue: CallQueue<Waiter>,
}

/// A permit to have one call in flight. Dropping it frees the slot without saying anything about
/// the provider's capacity.
pub(super) struct CallPermit {
    gate: CallGate,
    /// Taken by the method that reports the outcome, so that dropping does not release twice.
    start: Option<CallStart>,
}

impl CallGate {
    /// Creates a gate that admits at most `maximum` calls at once.
    pub(super) fn new(name: &str, maximum: u32) -> Self {
        let (name, limit) = (name.to_owned(), ConcurrencyLimit::new(maximum));
        Self(Arc::new(Mutex::new(GateState { name, limit, queue: CallQueue::new() })))
    }

    /// Waits for a permit for a call of `run`; calls that were refused before go first. Dropping
    /// the future leaves the permit to the next call.
    ///
    /// # Errors
    /// Those given to [`CallGate::fail_waiters`].
    pub(super) async fn acquire_permit(
        &self,
        run: Option<RunId>,
        was_refused: bool,
    ) -> Result<CallPermit, ModelError> {
        let (waiter, permit) = oneshot::channel();
        {
            let mut state = self.lock_state();
            // The caller has no permit while it waits: a refused call gave its own back.
            match was_refused {
                true => state.queue.push_refused(waiter),
                false => state.queue.push(run, waiter),
            }
        }
        self.grant_permits();
        permit
            .await
            .unwrap_or_else(|_| Err(ModelError::provider_unavailable("the gate was taken down")))
    }

    /// Fails all waiting calls with `error`: what one call found out holds for the others.
    pub(super) fn fail_waiters(&self, error: &ModelError) {
        let waiters: Vec<Waiter> = {
            let mut state = self.lock_state();
            std::iter::from_fn(|| state.queue.pop()).collect()
        };
        for waiter in waiters {
            // A receiver that is gone needs no error.
            let _gone = waiter.send(Err(error.clone()));
        }
    }

    /// Sends the free permits to the calls whose turn it is.
    fn grant_permits(&self) {
        // The lock is released first: a permit that is dropped below takes it again.
        let admitted = self.lock_state().take_admitted(Instant::now());
        for (waiter, start) in admitted {
            let permit = CallPermit { gate: self.clone(), start: Some(start) };
            // A failed send drops the permit, which grants it to the next call.
            let _gone = waiter.send(Ok(permit));
        }
    }

    /// Grants permits again when the provider's pause is over. The task holds a weak reference, so
    /// that it does not keep a removed gate alive.
    fn grant_permits_at(&self, end: Instant) {
        let gate: Weak<Mutex<GateState>> = Arc::downgrade(&self.0);
        tokio::spawn(async move {
            tokio::time::sleep_until(end).await;
            if let Some(gate) = gate.upgrade() {
                Self(gate).grant_permits();
            }
        });
    }

    fn lock_state(&self) -> MutexGuard<'_, GateState> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl GateState {
    /// Returns the calls whose turn it is, each with its started slot.
    fn take_admitted(&mut self, now: Instant) -> Vec<(Waiter, CallStart)> {
        let mut admitted = Vec::new();
        while self.limit.has_capacity(now.into_std()) {
            let Some(waiter) = self.queue.pop() else { break };
            // Calls that stopped waiting are dropped here, before they use up a slot.
            if waiter.is_closed() {
                continue;
            }
            admitted.extend(self.limit.start_call(now.into_std()).map(|start| (waiter, start)));
        }
        admitted
    }

    /// Records an overload refusal, and logs a lowered limit.
    fn record_refusal(
        &mut self,
        start: CallStart,
        refusal: LoadRefusal,
        now: Instant,
    ) -> LoadPressure {
        let before = self.limit.current_limit();
        // Logged only when the limit falls, not for every refusal of a burst.
        let pressure = self.limit.record_refusal(start, refusal, now.into_std());
        if self.limit.current_limit() < before {
            let (provider, limit) = (&self.name, self.limit.current_limit());
            tracing::info!(provider, limit, "too many calls at once: fewer are sent");
        }
        pressure
    }
}

impl CallPermit {
    /// Reports that the provider accepted the call.
    pub(super) fn report_accepted(mut self) {
        if let Some(start) = self.start.take() {
            self.gate.lock_state().limit.record_accepted(start);
            self.gate.grant_permits();
        }
    }

    /// Reports that the provider refused the call for overload; `hint` is the pause that it asked
    /// for. Returns what the refusal says about the provider.
    pub(super) fn report_refusal(mut self, hint: Option<Duration>) -> LoadPressure {
        // Cannot happen: only `report_*` and dropping take the start, and each of them consumes the
        // permit.
        let Some(start) = self.start.take() else { return LoadPressure::Crowded };
        let (refusal, now) = (LoadRefusal { hint, jitter: random_jitter() }, Instant::now());
        let (pressure, pause_end) = {
            let mut state = self.gate.lock_state();
            (state.record_refusal(start, refusal, now), state.limit.pause_end())
        };
        match pause_end.map(Instant::from_std).filter(|end| *end > now) {
            Some(end) => self.gate.grant_permits_at(end),
            None => self.gate.grant_permits(),
        }
        pressure
    }
}

impl Drop for CallPermit {
    fn drop(&mut self) {
        if let Some(start) = self.start.take() {
            self.gate.lock_state().limit.release_slot(start);
            self.gate.grant_permits();
        }
    }
}

/// Returns a random number from 0 to 1000, which spreads the retries of several processes.
fn random_jitter() -> u16 {
    let mut bytes = [0; 2];
    // Without a random source the pause alone must do.
    let is_random = getrandom::fill(&mut bytes).is_ok();
    if is_random { u16::from_le_bytes(bytes) % 1001 } else { 0 }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use futures_util::FutureExt;

    use super::{CallGate, CallPermit};
    use crate::catalog::concurrency::LoadPressure;
    use crate::provider::ModelError;

    async fn entered(gate: &CallGate) -> CallPermit {
        gate.acquire_permit(None, false).await.expect("nobody fails it")
    }

    fn is_open(gate: &CallGate) -> bool {
        gate.acquire_permit(None, false).now_or_never().is_some()
    }

    #[tokio::test]
    async fn a_place_goes_from_call_to_call_in_the_order_they_came() {
        let gate = CallGate::new("p", 1);
        let first = entered(&gate).await;
        let mut second = Box::pin(gate.acquire_permit(None, false));
        assert!(second.as_mut().now_or_never().is_none());
        let mut third = Box::pin(gate.acquire_permit(None, false));
        assert!(third.as_mut().now_or_never().is_none());
        first.report_accepted();
        assert!(third.as_mut().now_or_never().is_none(), "the second was first");
        let second = second.await.expect("a place");
        drop(second);
        third.await.expect("a place");
    }

    #[tokio::test]
    async fn who_leaves_the_line_leaves_the_place_to_the_next() {
        let gate = CallGate::new("p", 1);
        let first = entered(&gate).await;
        let mut waits: Vec<_> =
            (0..1000).map(|_| Box::pin(gate.acquire_permit(None, false))).collect();
        for wait in &mut waits {
            assert!(wait.as_mut().now_or_never().is_none());
        }
        // One leaves after the place was handed to it and before it took it, others before.
        let mut last = waits.pop().expect("a thousand");
        let handed = waits.remove(0);
        let others = waits.split_off(1);
        drop(others);
        drop(first);
        drop(handed);
        drop(waits);
        let place = last.as_mut().now_or_never().expect("its turn").expect("a place");
        assert!(!is_open(&gate));
        drop(place);
        assert!(is_open(&gate));
    }

    #[tokio::test]
    async fn a_pause_ends_by_itself_and_refused_calls_come_first() {
        let gate = CallGate::new("p", 8);
        let place = entered(&gate).await;
        let (begun, hint) = (tokio::time::Instant::now(), Duration::from_millis(800));
        assert_eq!(place.report_refusal(Some(hint)), LoadPressure::Closed);
        let mut new = Box::pin(gate.acquire_permit(None, false));
        assert!(new.as_mut().now_or_never().is_none());
        let place = gate.acquire_permit(None, true).await.expect("a place");
        assert!(begun.elapsed() >= hint, "it came before its time");
        assert!(new.as_mut().now_or_never().is_none(), "one at a time, the refused one first");
        place.report_accepted();
        new.await.expect("a place");
    }

    #[tokio::test]
    async fn what_one_found_out_is_told_to_all_who_wait() {
        let gate = CallGate::new("p", 1);
        let place = entered(&gate).await;
        let mut waits: Vec<_> =
            (0..3).map(|_| Box::pin(gate.acquire_permit(None, false))).collect();
        for wait in &mut waits {
            assert!(wait.as_mut().now_or_never().is_none());
        }
        gate.fail_waiters(&ModelError::provider_unavailable("it is over"));
        for wait in waits {
            assert_eq!(wait.await.err().map(|error| error.message), Some("it is over".into()));
        }
        drop(place);
        assert!(is_open(&gate));
    }
}
