//! Room for large values: as values they take many times what they are as bytes.
//!
//! A run that opens a large value needs a place, of which a process has few. It may keep the place,
//! and the values, as long as nobody else wants one: whoever waits is heard by those that only wait
//! for something else, and they let go. Nobody with a place waits for another one.

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

use convergio_domain::json::memory_of;
use tokio::runtime::{Handle, RuntimeFlavor};
use tokio::sync::{Notify, OwnedSemaphorePermit, Semaphore};

/// Runs that may have large values in memory at once.
const PLACES: usize = 2;
/// Memory from which on a value is large.
const LARGE_BYTES: usize = 16 << 20;

/// Bytes that are gone over where they are; more would keep others waiting.
const APART_BYTES: usize = 1 << 20;

/// The places of a process.
#[derive(Debug)]
pub(crate) struct ValueRoom {
    places: Arc<Semaphore>,
    waiting: AtomicUsize,
    is_wanted: Notify,
}

/// A place among the runs that have large values in memory.
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

/// Somebody waits, until this is dropped.
struct Waiting<'a>(&'a AtomicUsize);

impl Drop for Waiting<'_> {
    fn drop(&mut self) {
        self.0.fetch_sub(1, Ordering::SeqCst);
    }
}

impl ValueRoom {
    /// Waits for a place; nothing if the room has been closed, which it never is.
    pub(crate) async fn take_place(&self) -> Option<ValuePlace> {
        if let Ok(permit) = Arc::clone(&self.places).try_acquire_owned() {
            return Some(ValuePlace { _permit: permit });
        }
        self.waiting.fetch_add(1, Ordering::SeqCst);
        let _waiting = Waiting(&self.waiting);
        self.is_wanted.notify_waiters();
        let permit = Arc::clone(&self.places).acquire_owned().await.ok()?;
        Some(ValuePlace { _permit: permit })
    }

    /// Whether somebody waits for a place.
    pub(crate) fn is_wanted(&self) -> bool {
        self.waiting.load(Ordering::SeqCst) > 0
    }

    /// Waits until somebody waits for a place.
    pub(crate) async fn wanted(&self) {
        loop {
            let wanted = self.is_wanted.notified();
            tokio::pin!(wanted);
            wanted.as_mut().enable();
            if self.is_wanted() {
                return;
            }
            wanted.await;
        }
    }
}

/// Does what goes over so many bytes; where they are many, the thread's other work goes on
/// elsewhere meanwhile.
pub(crate) fn work_apart<T>(bytes: usize, work: impl FnOnce() -> T) -> T {
    let runtime = Handle::try_current().map(|runtime| runtime.runtime_flavor());
    let has_others = runtime.is_ok_and(|flavor| flavor == RuntimeFlavor::MultiThread);
    if bytes > APART_BYTES && has_others { tokio::task::block_in_place(work) } else { work() }
}

/// Whether a JSON text is large as a value.
pub(crate) fn is_large(text: &[u8]) -> bool {
    // No byte takes more than a map does.
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
