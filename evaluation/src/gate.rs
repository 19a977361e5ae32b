//! Limits concurrency, with turns among the tenants that wait: one tenant's queue delays another by
//! at most one job a turn.

use std::collections::VecDeque;
use std::sync::{Arc, Mutex, PoisonError};

use convergio_domain::id::TenantId;
use tokio::sync::oneshot;

/// A semaphore whose waiters are served tenant by tenant.
pub(crate) struct TenantGate {
    state: Mutex<GateQueues>,
    /// Most waiters of one tenant.
    waiting_limit: usize,
}

struct GateQueues {
    free_permits: usize,
    /// Tenants that wait, with their waiters; the front one is served next.
    tenants: VecDeque<(TenantId, VecDeque<oneshot::Sender<GatePermit>>)>,
}

/// Right to run one job; dropping it passes it to the next waiter.
pub(crate) struct GatePermit(Arc<TenantGate>);

impl Drop for GatePermit {
    fn drop(&mut self) {
        self.0.pass_on_permit();
    }
}

impl TenantGate {
    pub(crate) fn new(places: usize, waiting_limit: usize) -> Arc<Self> {
        let state = GateQueues { free_permits: places, tenants: VecDeque::new() };
        Arc::new(Self { state: Mutex::new(state), waiting_limit })
    }

    /// Waits for a permit; `None` if the tenant has too many waiters already.
    pub(crate) async fn acquire_permit(self: &Arc<Self>, tenant: &TenantId) -> Option<GatePermit> {
        let turn = {
            let mut state = self.state.lock().unwrap_or_else(PoisonError::into_inner);
            if state.free_permits > 0 {
                state.free_permits -= 1;
                return Some(GatePermit(Arc::clone(self)));
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
    fn pass_on_permit(self: &Arc<Self>) {
        let next = {
            let mut state = self.state.lock().unwrap_or_else(PoisonError::into_inner);
            // The lock is released before the send: a failed send drops the permit, which locks
            // again.
            let next = state.next_waiter();
            if next.is_none() {
                state.free_permits += 1;
            }
            next
        };
        if let Some(next) = next {
            drop(next.send(GatePermit(Arc::clone(self))));
        }
    }
}

impl GateQueues {
    fn next_waiter(&mut self) -> Option<oneshot::Sender<GatePermit>> {
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

    use super::TenantGate;

    fn tenant(name: &str) -> TenantId {
        name.parse().expect("a tenant")
    }

    #[tokio::test]
    async fn tenants_take_turns_however_many_wait() {
        let gate = TenantGate::new(1, 10);
        let first = gate.acquire_permit(&tenant("a")).await.expect("a place");
        let (entered, mut order) = mpsc::unbounded_channel();
        for name in ["a", "a", "a", "b", "c"] {
            let (gate, entered) = (Arc::clone(&gate), entered.clone());
            tokio::spawn(async move {
                let place = gate.acquire_permit(&tenant(name)).await.expect("a place");
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
        assert!(gate.acquire_permit(&tenant("d")).await.is_some(), "the place is free again");
    }

    #[tokio::test]
    async fn too_many_of_a_tenant_are_refused_and_who_leaves_loses_nothing() {
        let gate = TenantGate::new(1, 1);
        let place = gate.acquire_permit(&tenant("a")).await;
        let waiting = {
            let gate = Arc::clone(&gate);
            tokio::spawn(async move { gate.acquire_permit(&tenant("a")).await.is_some() })
        };
        yield_now().await;
        assert!(gate.acquire_permit(&tenant("a")).await.is_none(), "one waits already");
        waiting.abort();
        assert!(waiting.await.is_err());
        drop(place);
        assert!(gate.acquire_permit(&tenant("a")).await.is_some(), "the place was handed on");
    }
}
