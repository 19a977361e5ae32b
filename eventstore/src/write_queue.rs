//! A queue of writers per stream. The writers of this process write to a stream one after the
//! other, in order of arrival, and each takes over the state that the previous one has folded.
//!
//! The queue provides speed and fairness. Correctness rests on the expected head of each commit, as
//! it does between processes.

use std::any::Any;
use std::collections::HashMap;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use convergio_domain::decider::Decider;
use convergio_domain::stream::StreamKey;
use tokio::sync::{Mutex as FairMutex, OwnedMutexGuard};

use crate::heads::HeadCache;
use crate::repository::LoadedStream;

/// A `LoadedStream<D>` of the stream; kept only while a writer waits for it.
type FoldedState = Option<Box<dyn Any + Send + Sync>>;

/// Queue of one stream.
struct StreamQueue {
    /// Number of writers that wait or write. At 0 the queue is removed.
    writers: usize,
    /// Lock that serves its waiters in order of arrival.
    turn: Arc<FairMutex<FoldedState>>,
}

/// Queues of all streams that are being written to, and the heads of those that this process has
/// written to lately.
#[derive(Default)]
pub(crate) struct WriteQueues {
    queues: Mutex<HashMap<StreamKey, StreamQueue>>,
    pub(crate) head_cache: HeadCache,
}

/// The right to write to a stream while this process's other writers wait. Dropping it ends the
/// turn. A holder must not wait for a second turn of the same stream: that deadlocks.
pub struct WriteTurn {
    // Declaration order is drop order: the lock is released before the place in the queue is.
    folded: OwnedMutexGuard<FoldedState>,
    place: QueuePlace,
}

/// A place in a stream's queue; dropping it leaves the queue.
struct QueuePlace {
    queues: Arc<WriteQueues>,
    stream: StreamKey,
}

impl WriteQueues {
    /// Waits until all writers that came before have written.
    pub(crate) async fn take_turn(self: &Arc<Self>, stream: &StreamKey) -> WriteTurn {
        let turn = self.join_queue(stream);
        let place = QueuePlace { queues: Arc::clone(self), stream: stream.clone() };
        WriteTurn { folded: turn.lock_owned().await, place }
    }

    fn join_queue(&self, stream: &StreamKey) -> Arc<FairMutex<FoldedState>> {
        let mut queues = self.lock_queues();
        let new = || StreamQueue { writers: 0, turn: Arc::default() };
        let queue = queues.entry(stream.clone()).or_insert_with(new);
        queue.writers += 1;
        Arc::clone(&queue.turn)
    }

    fn lock_queues(&self) -> MutexGuard<'_, HashMap<StreamKey, StreamQueue>> {
        self.queues.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl WriteTurn {
    /// Returns the stream that may be written to.
    pub fn stream(&self) -> &StreamKey {
        &self.place.stream
    }

    /// Returns whether another writer waits for the turn.
    pub(crate) fn has_waiters(&self) -> bool {
        let queues = self.place.queues.lock_queues();
        queues.get(&self.place.stream).is_some_and(|queue| queue.writers > 1)
    }

    /// Takes the state that the previous writer left. Other processes may have appended since.
    pub(crate) fn take_state<D: Decider>(&mut self) -> Option<LoadedStream<D>> {
        let folded = self.folded.take()?;
        folded.downcast().ok().map(|loaded| *loaded)
    }

    /// Leaves a state that equals the log's to the next writer.
    pub(crate) fn leave_state<D: Decider>(&mut self, loaded: LoadedStream<D>) {
        *self.folded = Some(Box::new(loaded));
    }
}

impl Drop for QueuePlace {
    fn drop(&mut self) {
        let mut queues = self.queues.lock_queues();
        let Some(queue) = queues.get_mut(&self.stream) else { return };
        // A cancelled waiter leaves here too, so the count never leaks.
        queue.writers -= 1;
        if queue.writers == 0 {
            queues.remove(&self.stream);
        }
    }
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use convergio_domain::request::RequestNoun;
    use convergio_domain::stream::StreamKey;
    use futures_util::FutureExt;
    use uuid::Uuid;

    use super::WriteQueues;
    use crate::repository::LoadedStream;

    fn stream(number: u128) -> StreamKey {
        StreamKey::for_request("acme".parse().expect("a name"), Uuid::from_u128(number))
    }

    #[tokio::test]
    async fn turns_go_in_the_order_of_arrival_and_hand_the_state_on() {
        let (queues, one, two) = (Arc::new(WriteQueues::default()), stream(1), stream(2));
        let mut first = queues.take_turn(&one).await;
        assert!(!first.has_waiters());
        let mut waiting: Vec<_> = (0..3).map(|_| Box::pin(queues.take_turn(&one))).collect();
        assert!(waiting.iter_mut().all(|turn| turn.now_or_never().is_none()));
        assert!(queues.take_turn(&two).now_or_never().is_some(), "another stream");
        first.leave_state::<RequestNoun>(LoadedStream::new(one.clone()));
        drop(first);
        // One that gave up is passed over.
        drop(waiting.remove(0));
        assert!((&mut waiting[1]).now_or_never().is_none(), "not before the one in front");
        let mut second = (&mut waiting[0]).now_or_never().expect("it is its turn");
        assert!(second.has_waiters());
        assert!(second.take_state::<RequestNoun>().is_some());
        assert!(second.take_state::<RequestNoun>().is_none());
    }

    #[tokio::test]
    async fn a_queue_without_writers_is_gone() {
        let (queues, stream) = (Arc::new(WriteQueues::default()), stream(1));
        let turn = queues.take_turn(&stream).await;
        let mut waiting = Box::pin(queues.take_turn(&stream));
        assert!((&mut waiting).now_or_never().is_none());
        drop((turn, waiting));
        assert!(queues.lock_queues().is_empty());
    }
}
