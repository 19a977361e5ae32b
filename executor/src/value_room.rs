//! Bounds the large JSON values in memory: parsed, a value takes many times the bytes of its text.
//!
//! A run that parses a large value needs one of the process's few permits. It may keep the permit
//! and the values while no other run waits for one. Waiting is announced to the holders, which drop
//! both as soon as they are idle. No run that holds a permit waits for a second one, so there is no
//! deadlock.

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

use convergio_domain::json::memory_of;
use tokio::runtime::{Handle, RuntimeFlavor};
use tokio::sync::{Notify, OwnedSemaphorePermit, Semaphore};

/// Maximum runs that hold large values in memory at once.
const PLACES: usize = 2;
/// Estimated bytes in memory from which a parsed value counts as large.
const LARGE_BYTES: usize = 16 << 20;

/// Maximum bytes of text that are parsed on an async worker thread; more would delay other tasks.
const APART_BYTES: usize = 1 << 20;

/// The permits of a process, and the runs that wait for one.
#[derive(Debug)]
pub(crate) struct ValueRoom {
    places: Arc<Semaphore>,
    waiting: AtomicUsize,
    is_wanted: Notify,
}

/// A permit to hold large values in memory; dropping it frees the place.
#[derive(Debug)]
pub(crate) struct ValuePlace {
    _permit: OwnedSemaphorePermit,
}

impl Default for ValueRoom {
    fn default() -> Self {
        let places = Arc::new(Semaphore::new(PLACES));
        Self { places, waiting: AtomicUsize::new(0), is_wanted: Notify::new() }
    }
}

/// Counts one waiting run until it is dropped.
struct Waiting<'a>(&'a AtomicUsize);

impl Drop for Waiting<'_> {
    fn drop(&mut self) {
        self.0.fetch_sub(1, Ordering::SeqCst);
    }
}

impl ValueRoom {
    /// Waits for a permit. `None` only if the semaphore were closed, which never happens.
    pub(crate) async fn take_place(&self) -> Option<ValuePlace> {
        if let Ok(permit) = Arc::clone(&self.places).try_acquire_owned() {
            return Some(ValuePlace { _permit: permit });
        }
        // Counted before holders are notified: a holder that wakes must see the count.
        self.waiting.fetch_add(1, Ordering::SeqCst);
        let _waiting = Waiting(&self.waiting);
        self.is_wanted.notify_waiters();
        let permit = Arc::clone(&self.places).acquire_owned().await.ok()?;
        Some(ValuePlace { _permit: permit })
    }

    /// Returns whether a run waits for a permit.
    pub(crate) fn is_wanted(&self) -> bool {
        self.waiting.load(Ordering::SeqCst) > 0
    }

    /// Waits until a run waits for a permit.
    pub(crate) async fn wanted(&self) {
        loop {
            let wanted = self.is_wanted.notified();
            tokio::pin!(wanted);
            // Registered before the count is read, so that a waiter in between is not missed.
            wanted.as_mut().enable();
            if self.is_wanted() {
                return;
            }
            wanted.await;
        }
    }
}

/// Runs blocking work over `bytes` bytes. Beyond [`INLINE_WORK_BYTES`] the other tasks of this
/// worker thread move to another one first.
pub(crate) fn work_apart<T>(bytes: usize, work: impl FnOnce() -> T) -> T {
    let runtime = Handle::try_current().map(|runtime| runtime.runtime_flavor());
    let has_others = runtime.is_ok_and(|flavor| flavor == RuntimeFlavor::MultiThread);
    // `block_in_place` panics on a current-thread runtime.
    if bytes > APART_BYTES && has_others { tokio::task::block_in_place(work) } else { work() }
}

/// Returns whether a JSON text becomes large once it is parsed.
pub(crate) fn is_large(text: &[u8]) -> bool {
    // Cheap check first: `memory_upper_bound` counts at most 640 bytes, those of an object, per
    // byte of text.
    text.len() > LARGE_BYTES / 640 && memory_of(text) > LARGE_BYTES
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use super::{ValueRoom, is_large};

    #[tokio::test]
    async fn who_has_a_place_hears_of_who_wants_one() {
        let room = Arc::new(ValueRoom::default());
        let (first, _second) = (room.take_place().await, room.take_place().await);
        assert!(!room.is_wanted());
        let third = {
            let room = Arc::clone(&room);
            tokio::spawn(async move { room.take_place().await.is_some() })
        };
        room.wanted().await;
        assert!(room.is_wanted());
        drop(first);
        assert!(third.await.expect("it ends"));
        assert!(!room.is_wanted());
    }

    #[test]
    fn many_values_are_large_and_one_text_is_not() {
        assert!(is_large(format!("[{}]", "1,".repeat(1 << 20)).as_bytes()));
        assert!(!is_large("x".repeat(8 << 20).as_bytes()));
    }
}
