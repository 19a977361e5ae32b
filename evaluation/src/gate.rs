//! Limits concurrency, with turns among the tenants that wait: one tenant's queue delays another by
//! at most one job a turn.

use std::collections::VecDeque;
use std::sync::{Arc, Mutex, PoisonError};

use convergio_domain::id::TenantId;
use tokio::sync::oneshot;

/// A semaphore whose waiters are served tenant by tenant.
pub(crate) struct Gate {
    state: Mutex<State>,
    /// Most waiters of one tenant.
    waiting_limit: usize,
}

struct State {
    free: usize,
    /// Tenants that wait, with their waiters; the front one is served next.
    tenants: VecDeque<(TenantId, VecDeque<oneshot::Sender<Place>>)>,
}

/// Right to run one job; dropping it passes it to the next waiter.
pub(crate) struct Place(Arc<Gate>);

impl Drop for Place {
    fn drop(&mut self) {
        self.0.hand_on();
    }
}

impl Gate {
    pub(crate) fn new(places: usize, waiting_limit: usize) -> Arc<Self> {
        let state = State { free: places, tenants: VecDeque::new() };
        Arc::new(Self { state: Mutex::new(state), waiting_limit })
    }

    /// Waits for a permit; `None` if the tenant has too many waiters already.
    pub(crate) async fn enter(self: &Arc<Self>, tenant: &TenantId) -> Option<Place> {
        let turn = {
            let mut state = self.state.lock().unwrap_or_else(PoisonError::into_inner);
            if state.free > 0 {
                state.free -= 1;
                return Some(Place(Arc::clone(self)));
            }
            let (sender, turn) = oneshot::channel();
            match state.tenants.iter_mut().find(|(waiting, _)| waiting == tenant) {
                Some((_, queue)) if queue.len() >= self.waiting_limit => return None,
                Some((_, queue)) => queue.push_back(sender),
                None => state.tenants.push_back((tenant.clone(), [sender].into())),
            }
            turn
        };
        turn.await.ok()
    }

    /// Passes a permit to the next waiter. If that one has gone, the permit comes back in the
    /// failed send and its drop passes it on again.
    fn hand_on(self: &Arc<Self>) {
        let next = {
            let mut state = self.state.lock().unwrap_or_else(PoisonError::into_inner);
            // The lock is released before the send: a failed send drops the permit, which locks
            // again.
            let next = state.next();
            if next.is_none() {
                state.free += 1;
            }
            next
        };
        if let Some(next) = next {
            drop(next.send(Place(Arc::clone(self))));
        }
    }
}

impl State {
    fn next(&mut self) -> Option<oneshot::Sender<Place>> {
        let (tenant, mut queue) = self.tenants.pop_front()?;
        let next = queue.pop_front();
        if !queue.is_empty() {
            self.tenants.push_back((tenant, queue));
        }
        next
    }
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use convergio_domain::id::TenantId;
    use tokio::sync::mpsc;
    use tokio::task::yield_now;

    use super::Gate;

    fn tenant(name: &str) -> TenantId {
        name.parse().expect("a tenant")
    }

    #[tokio::test]
    async fn tenants_take_turns_however_many_wait() {
        let gate = Gate::new(1, 10);
        let first = gate.enter(&tenant("a")).await.expect("a place");
        let (entered, mut order) = mpsc::unbounded_channel();
        for name in ["a", "a", "a", "b", "c"] {
            let (gate, entered) = (Arc::clone(&gate), entered.clone());
            tokio::spawn(async move {
                let place = gate.enter(&tenant(name)).await.expect("a place");
                entered.send(name).expect("heard");
                drop(place);
            });
            yield_now().await;
        }
        drop(first);
        let mut seen = Vec::new();
        for _ in 0..5 {
            seen.push(order.recv().await.expect("all enter"));
        }
        assert_eq!(seen, ["a", "b", "c", "a", "a"]);
        assert!(gate.enter(&tenant("d")).await.is_some(), "the place is free again");
    }

    #[tokio::test]
    async fn too_many_of_a_tenant_are_refused_and_who_leaves_loses_nothing() {
        let gate = Gate::new(1, 1);
        let place = gate.enter(&tenant("a")).await;
        let waiting = {
            let gate = Arc::clone(&gate);
            tokio::spawn(async move { gate.enter(&tenant("a")).await.is_some() })
        };
        yield_now().await;
        assert!(gate.enter(&tenant("a")).await.is_none(), "one waits already");
        waiting.abort();
        assert!(waiting.await.is_err());
        drop(place);
        assert!(gate.enter(&tenant("a")).await.is_some(), "the place was handed on");
    }
}
