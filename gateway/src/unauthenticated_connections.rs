//! Connections of unauthenticated callers. They are few and short-lived; when there are too many,
//! the oldest one of the address with the most is evicted. Strangers that open sockets and send
//! nothing can thus not keep out a caller who authenticates at once.

use std::collections::{HashMap, VecDeque};
use std::net::IpAddr;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use tokio::sync::SetOnce;
use tokio_util::sync::CancellationToken;

/// Maximum numbers of unauthenticated connections.
#[derive(Debug, Clone, Copy)]
pub(crate) struct UnauthenticatedLimits {
    /// Of all addresses together.
    pub(crate) total: usize,
    /// Of any single address.
    pub(crate) per_address: usize,
}

/// Admits unauthenticated connections and evicts the surplus.
pub(crate) struct UnauthenticatedConnections {
    limits: UnauthenticatedLimits,
    queue: Mutex<UnauthenticatedQueue>,
}

/// Open connections in order of their ids, which is their age.
#[derive(Default)]
struct UnauthenticatedQueue {
    next_id: u64,
    oldest_first: VecDeque<UnauthenticatedEntry>,
}

/// A queued connection; cancelling the token evicts it.
struct UnauthenticatedEntry {
    id: u64,
    address: IpAddr,
    eviction: CancellationToken,
}

/// A connection's place in the queue; it leaves the queue on authentication or on drop.
pub(crate) struct ConnectionAdmission {
    connections: Arc<UnauthenticatedConnections>,
    id: u64,
    eviction: CancellationToken,
    authentication: SetOnce<()>,
    /// Set when the connection is where its requests are worked on.
    move_to_work: SetOnce<()>,
}

impl UnauthenticatedConnections {
    pub(crate) fn new(limits: UnauthenticatedLimits) -> Arc<Self> {
        Arc::new(Self { limits, queue: Mutex::default() })
    }

    /// Adds a new connection, evicting others if there are too many.
    pub(crate) fn admit_connection(self: &Arc<Self>, address: IpAddr) -> Arc<ConnectionAdmission> {
        // An IPv4 address mapped into IPv6 must count as the same address.
        let address = address.to_canonical();
        let eviction = CancellationToken::new();
        let mut queue = self.lock_queue();
        queue.make_room(self.limits, address);
        let id = queue.next_id;
        queue.next_id += 1;
        queue.oldest_first.push_back(UnauthenticatedEntry {
            id,
            address,
            eviction: eviction.clone(),
        });
        drop(queue);
        Arc::new(ConnectionAdmission {
            connections: Arc::clone(self),
            id,
            eviction,
            authentication: SetOnce::new(),
            move_to_work: SetOnce::new(),
        })
    }

    fn remove_connection(&self, id: u64) {
        let mut queue = self.lock_queue();
        // The queue is sorted by id: ids only grow, and entries are appended.
        if let Ok(index) = queue.oldest_first.binary_search_by_key(&id, |entry| entry.id) {
            queue.oldest_first.remove(index);
        }
    }

    fn lock_queue(&self) -> MutexGuard<'_, UnauthenticatedQueue> {
        self.queue.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl UnauthenticatedQueue {
    fn make_room(&mut self, limits: UnauthenticatedLimits, address: IpAddr) {
        let count = self.oldest_first.iter().filter(|entry| entry.address == address).count();
        // The address's own limit comes first: its oldest connection pays, not another address's.
        if count >= limits.per_address {
            self.evict_oldest_of(address);
        } else if self.oldest_first.len() >= limits.total
            && let Some(busiest) = self.busiest_address()
        {
            self.evict_oldest_of(busiest);
        }
    }

    /// Returns the address with the most connections; on a tie, the one with the oldest.
    fn busiest_address(&self) -> Option<IpAddr> {
        let mut counts = HashMap::<IpAddr, usize>::new();
        for entry in &self.oldest_first {
            *counts.entry(entry.address).or_default() += 1;
        }
        let most = counts.values().copied().max()?;
        self.oldest_first.iter().map(|entry| entry.address).find(|at| counts.get(at) == Some(&most))
    }

    fn evict_oldest_of(&mut self, address: IpAddr) {
        let index = self.oldest_first.iter().position(|entry| entry.address == address);
        if let Some(entry) = index.and_then(|at| self.oldest_first.remove(at)) {
            entry.eviction.cancel();
        }
    }
}

impl ConnectionAdmission {
    /// Removes the connection from the queue: its caller is authenticated. Idempotent.
    pub(crate) fn mark_authenticated(&self) {
        if !self.is_authenticated() && self.authentication.set(()).is_ok() {
            self.connections.remove_connection(self.id);
        }
    }

    pub(crate) fn is_authenticated(&self) -> bool {
        self.authentication.initialized()
    }

    pub(crate) async fn wait_for_authentication(&self) {
        self.authentication.wait().await;
    }

    /// Records that the connection is now served where its requests are worked on. Idempotent.
    pub(crate) fn mark_moved_to_work(&self) {
        // An error means that it was recorded before.
        let _repeated = self.move_to_work.set(());
    }

    pub(crate) fn is_moved_to_work(&self) -> bool {
        self.move_to_work.initialized()
    }

    /// Waits until the connection is served where its requests are worked on.
    pub(crate) async fn wait_for_move_to_work(&self) {
        self.move_to_work.wait().await;
    }

    /// Waits until the connection is evicted; never resolves once its caller is authenticated.
    pub(crate) async fn wait_for_eviction(&self) {
        self.eviction.cancelled().await;
        // Eviction and authentication may race: the eviction is then too late.
        if self.is_authenticated() {
            std::future::pending::<()>().await;
        }
    }
}

impl Drop for ConnectionAdmission {
    fn drop(&mut self) {
        self.mark_authenticated();
    }
}

#[cfg(test)]
mod tests {
    use std::net::{IpAddr, Ipv4Addr};
    use std::sync::Arc;

    use futures_util::FutureExt;

    use super::{ConnectionAdmission, UnauthenticatedConnections, UnauthenticatedLimits};

    fn address(last: u8) -> IpAddr {
        Ipv4Addr::new(10, 0, 0, last).into()
    }

    fn is_evicted(admission: &ConnectionAdmission) -> bool {
        admission.wait_for_eviction().now_or_never().is_some()
    }

    fn connections(total: usize, per_address: usize) -> Arc<UnauthenticatedConnections> {
        UnauthenticatedConnections::new(UnauthenticatedLimits { total, per_address })
    }

    #[test]
    fn the_oldest_of_an_address_makes_room() {
        let all = connections(10, 2);
        let (first, second) = (all.admit_connection(address(1)), all.admit_connection(address(1)));
        let other = all.admit_connection(address(2));
        let third = all.admit_connection(address(1));
        assert!(is_evicted(&first));
        assert!(![&second, &third, &other].into_iter().any(|admission| is_evicted(admission)));
    }

    #[test]
    fn the_address_with_the_most_makes_room_for_others() {
        let all = connections(3, 3);
        let one = all.admit_connection(address(1));
        let (two, three) = (all.admit_connection(address(2)), all.admit_connection(address(2)));
        let four = all.admit_connection(address(3));
        assert!(is_evicted(&two));
        assert!(![&one, &three, &four].into_iter().any(|admission| is_evicted(admission)));
    }

    #[test]
    fn who_signed_in_or_left_counts_no_more() {
        let all = connections(2, 2);
        let known = all.admit_connection(address(1));
        known.mark_authenticated();
        drop(all.admit_connection(address(1)));
        let (one, two) = (all.admit_connection(address(1)), all.admit_connection(address(1)));
        assert!(![&known, &one, &two].into_iter().any(|admission| is_evicted(admission)));
        let _three = all.admit_connection(address(1));
        assert!(is_evicted(&one) && !is_evicted(&known));
    }
}
