//! Bounds the large JSON values in memory: parsed, a value takes many times the bytes of its text.
//!
//! A run that parses a large value needs one of the process's few permits. It may keep the permit
//! and the values while no other run waits for one. Waiting is announced to the holders, which drop
//! both as soon as they are idle. No run that holds a permit waits for a second one, so there is no
//! deadlock.

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

use convergio_domain::json::memory_upper_bound;
use tokio::runtime::{Handle, RuntimeFlavor};
use tokio::sync::{Notify, OwnedSemaphorePermit, Semaphore};

/// Maximum runs that hold large values in memory at once.
const LARGE_VALUE_RUNS_LIMIT: usize = 2;
/// Estimated bytes in memory from which a parsed value counts as large.
const LARGE_VALUE_BYTES: usize = 16 << 20;

/// Maximum bytes of text that are parsed on an async worker thread; more would delay other tasks.
const INLINE_WORK_BYTES: usize = 1 << 20;

/// The permits of a process, and the runs that wait for one.
#[derive(Debug)]
pub(crate) struct LargeValueGate {
    permits: Arc<Semaphore>,
    waiter_count: AtomicUsize,
    waiter_arrived: Notify,
}

/// A permit to hold large values in memory; dropping it frees the place.
#[derive(Debug)]
pub(crate) struct LargeValuePermit {
    _permit: OwnedSemaphorePermit,
}

impl Default for LargeValueGate {
    fn default() -> Self {
        let places = Arc::new(Semaphore::new(LARGE_VALUE_RUNS_LIMIT));
        Self { permits: places, waiter_count: AtomicUsize::new(0), waiter_arrived: Notify::new() }
    }
}

/// Counts one waiting run until it is dropped.
struct WaiterGuard<'a>(&'a AtomicUsize);

impl Drop for WaiterGuard<'_> {
    fn drop(&mut self) {
        self.0.fetch_sub(1, Ordering::SeqCst);
    }
}

impl LargeValueGate {
    /// Waits for a permit. `None` only if the semaphore were closed, which never happens.
    pub(crate) async fn acquire_permit(&self) -> Option<LargeValuePermit> {
        if let Ok(permit) = Arc::clone(&self.permits).try_acquire_owned() {
            return Some(LargeValuePermit { _permit: permit });
        }
        // Counted before holders are notified: a holder that wakes must see the count.
        self.waiter_count.fetch_add(1, Ordering::SeqCst);
        let _waiter = WaiterGuard(&self.waiter_count);
        self.waiter_arrived.notify_waiters();
        let permit = Arc::clone(&self.permits).acquire_owned().await.ok()?;
        Some(LargeValuePermit { _permit: permit })
    }

    /// Returns whether a run waits for a permit.
    pub(crate) fn has_waiters(&self) -> bool {
        self.waiter_count.load(Ordering::SeqCst) > 0
    }

    /// Waits until a run waits for a permit.
    pub(crate) async fn wait_for_waiters(&self) {
        loop {
            let notified = self.waiter_arrived.notified();
            tokio::pin!(notified);
            // Registered before the count is read, so that a waiter in between is not missed.
            notified.as_mut().enable();
            if self.has_waiters() {
                return;
            }
            notified.await;
        }
    }
}

/// Runs blocking work over `bytes` bytes. Beyond [`INLINE_WORK_BYTES`] the other tasks of this
/// worker thread move to another one first.
pub(crate) fn run_off_async_threads<T>(bytes: usize, work: impl FnOnce() -> T) -> T {
    let runtime = Handle::try_current().map(|runtime| runtime.runtime_flavor());
    let is_multi_threaded = runtime.is_ok_and(|flavor| flavor == RuntimeFlavor::MultiThread);
    // `block_in_place` panics on a current-thread runtime.
    if bytes > INLINE_WORK_BYTES && is_multi_threaded {
        tokio::task::block_in_place(work)
    } else {
        work()
    }
}

/// Returns whether a JSON text becomes large once it is parsed.
pub(crate) fn is_large(text: &[u8]) -> bool {
    // Cheap check first: `memory_upper_bound` counts at most 640 bytes, those of an object, per
    // byte of text.
    text.len() > LARGE_VALUE_BYTES / 640 && memory_upper_bound(text) > LARGE_VALUE_BYTES
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use super::{LargeValueGate, is_large};

    #[tokio::test]
    async fn who_has_a_place_hears_of_who_wants_one() {
        let room = Arc::new(LargeValueGate::default());
        let (first, _second) = (room.acquire_permit().await, room.acquire_permit().await);
        assert!(!room.has_waiters());
        let third = {
            let room = Arc::clone(&room);
            tokio::spawn(async move { room.acquire_permit().await.is_some() })
        };
        room.wait_for_waiters().await;
        assert!(room.has_waiters());
        drop(first);
        assert!(third.await.expect("it ends"));
        assert!(!room.has_waiters());
    }

    #[test]
    fn many_values_are_large_and_one_text_is_not() {
        assert!(is_large(format!("[{}]", "1,".repeat(1 << 20)).as_bytes()));
        assert!(!is_large("x".repeat(8 << 20).as_bytes()));
    }
}
