//! The door to one provider with one key: calls wait at it for a place, and give it on.

use std::sync::{Arc, Mutex, MutexGuard, PoisonError, Weak};
use std::time::Duration;

use convergio_domain::id::RunId;
use tokio::sync::oneshot;
use tokio::time::Instant;

use super::call_queue::CallQueue;
use super::concurrency::{CallStart, ConcurrencyLimit, LoadRefusal, Pressure};
use super::error::ModelError;

/// A waiting call's end of the line: a place, or why there is none.
type Waiter = oneshot::Sender<Result<CallPlace, ModelError>>;

/// Places for calls, as many as the provider was seen to take.
#[derive(Clone)]
pub(super) struct CallGate(Arc<Mutex<GateState>>);

struct GateState {
    /// The provider's name, for the log.
    name: String,
    limit: ConcurrencyLimit,
    queue: CallQueue<Waiter>,
}

/// A place that a call has. Dropped, it is given on.
pub(super) struct CallPlace {
    gate: CallGate,
    start: Option<CallStart>,
}

impl CallGate {
    /// A gate that lets at most `maximum` calls in at once.
    pub(super) fn new(name: &str, maximum: u32) -> Self {
        let (name, limit) = (name.to_owned(), ConcurrencyLimit::new(maximum));
        Self(Arc::new(Mutex::new(GateState { name, limit, queue: CallQueue::new() })))
    }

    /// Waits for a place for a call of a run, or for one that was refused and is sent again. A wait
    /// that is dropped leaves its place to the next.
    ///
    /// # Errors
    /// Those of [`CallGate::fail_all`].
    pub(super) async fn enter(
        &self,
        run: Option<RunId>,
        was_refused: bool,
    ) -> Result<CallPlace, ModelError> {
        let (waiter, place) = oneshot::channel();
        {
            let mut state = self.state();
            match was_refused {
                true => state.queue.push_refused(waiter),
                false => state.queue.push(run, waiter),
            }
        }
        self.hand_out();
        place.await.unwrap_or_else(|_| Err(ModelError::unavailable("the gate was taken down")))
    }

    /// Fails all calls that wait: what one of them found out holds for the others.
    pub(super) fn fail_all(&self, error: &ModelError) {
        let waiters: Vec<Waiter> = {
            let mut state = self.state();
            std::iter::from_fn(|| state.queue.pop()).collect()
        };
        for waiter in waiters {
            // Who does not wait any more need not be told.
            let _gone = waiter.send(Err(error.clone()));
        }
    }

    /// Gives what places there are to those who wait.
    fn hand_out(&self) {
        // The lock is released first: a place that is dropped takes it again.
        let next = self.state().take_next(Instant::now());
        for (waiter, start) in next {
            let place = CallPlace { gate: self.clone(), start: Some(start) };
            // A place that nobody takes is dropped, and so given on.
            let _gone = waiter.send(Ok(place));
        }
    }

    /// Opens again when the pause is over.
    fn hand_out_at(&self, end: Instant) {
        let gate: Weak<Mutex<GateState>> = Arc::downgrade(&self.0);
        tokio::spawn(async move {
            tokio::time::sleep_until(end).await;
            if let Some(gate) = gate.upgrade() {
                Self(gate).hand_out();
            }
        });
    }

    fn state(&self) -> MutexGuard<'_, GateState> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl GateState {
    /// The calls whose turn it is, and their places.
    fn take_next(&mut self, now: Instant) -> Vec<(Waiter, CallStart)> {
        let mut next = Vec::new();
        while self.limit.has_place(now.into_std()) {
            let Some(waiter) = self.queue.pop() else { break };
            if waiter.is_closed() {
                continue;
            }
            next.extend(self.limit.start(now.into_std()).map(|start| (waiter, start)));
        }
        next
    }

    fn refuse(&mut self, start: CallStart, refusal: LoadRefusal, now: Instant) -> Pressure {
        let before = self.limit.limit();
        let pressure = self.limit.refuse(start, refusal, now.into_std());
        if self.limit.limit() < before {
            let (provider, limit) = (&self.name, self.limit.limit());
            tracing::info!(provider, limit, "too many calls at once: fewer are sent");
        }
        pressure
    }
}

impl CallPlace {
    /// The provider let the call in.
    pub(super) fn pass(mut self) {
        if let Some(start) = self.start.take() {
            self.gate.state().limit.pass(start);
            self.gate.hand_out();
        }
    }

    /// The provider refused the call because it has too many; `hint` is how long it asks to be left
    /// alone.
    pub(super) fn refuse(mut self, hint: Option<Duration>) -> Pressure {
        let Some(start) = self.start.take() else { return Pressure::Crowded };
        let (refusal, now) = (LoadRefusal { hint, jitter: jitter() }, Instant::now());
        let (pressure, pause_end) = {
            let mut state = self.gate.state();
            (state.refuse(start, refusal, now), state.limit.pause_end())
        };
        match pause_end.map(Instant::from_std).filter(|end| *end > now) {
            Some(end) => self.gate.hand_out_at(end),
            None => self.gate.hand_out(),
        }
        pressure
    }
}

impl Drop for CallPlace {
    fn drop(&mut self) {
        if let Some(start) = self.start.take() {
            self.gate.state().limit.release(start);
            self.gate.hand_out();
        }
    }
}

/// From 0 to 1000, so that callers do not meet.
fn jitter() -> u16 {
    let mut bytes = [0; 2];
    // Without randomness there is no jitter, and the pause alone must do.
    let is_random = getrandom::fill(&mut bytes).is_ok();
    if is_random { u16::from_le_bytes(bytes) % 1001 } else { 0 }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use futures_util::FutureExt;

    use super::{CallGate, CallPlace};
    use crate::model::ModelError;
    use crate::model::concurrency::Pressure;

    async fn entered(gate: &CallGate) -> CallPlace {
        gate.enter(None, false).await.expect("nobody fails it")
    }

    fn is_open(gate: &CallGate) -> bool {
        gate.enter(None, false).now_or_never().is_some()
    }

    #[tokio::test]
    async fn a_place_goes_from_call_to_call_in_the_order_they_came() {
        let gate = CallGate::new("p", 1);
        let first = entered(&gate).await;
        let mut second = Box::pin(gate.enter(None, false));
        assert!(second.as_mut().now_or_never().is_none());
        let mut third = Box::pin(gate.enter(None, false));
        assert!(third.as_mut().now_or_never().is_none());
        first.pass();
        assert!(third.as_mut().now_or_never().is_none(), "the second was first");
        let second = second.await.expect("a place");
        drop(second);
        third.await.expect("a place");
    }

    #[tokio::test]
    async fn who_leaves_the_line_leaves_the_place_to_the_next() {
        let gate = CallGate::new("p", 1);
        let first = entered(&gate).await;
        let mut waits: Vec<_> = (0..1000).map(|_| Box::pin(gate.enter(None, false))).collect();
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
        assert_eq!(place.refuse(Some(hint)), Pressure::Closed);
        let mut new = Box::pin(gate.enter(None, false));
        assert!(new.as_mut().now_or_never().is_none());
        let place = gate.enter(None, true).await.expect("a place");
        assert!(begun.elapsed() >= hint, "it came before its time");
        assert!(new.as_mut().now_or_never().is_none(), "one at a time, the refused one first");
        place.pass();
        new.await.expect("a place");
    }

    #[tokio::test]
    async fn what_one_found_out_is_told_to_all_who_wait() {
        let gate = CallGate::new("p", 1);
        let place = entered(&gate).await;
        let mut waits: Vec<_> = (0..3).map(|_| Box::pin(gate.enter(None, false))).collect();
        for wait in &mut waits {
            assert!(wait.as_mut().now_or_never().is_none());
        }
        gate.fail_all(&ModelError::unavailable("it is over"));
        for wait in waits {
            assert_eq!(wait.await.err().map(|error| error.message), Some("it is over".into()));
        }
        drop(place);
        assert!(is_open(&gate));
    }
}
