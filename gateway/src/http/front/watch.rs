//! Delivers the records of single runs to their callers, by one follower of the log for all.

use std::collections::HashMap;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use convergio_domain::stream::StreamKey;
use convergio_eventstore::{EventLog, LogError, Position, Record};
use futures_util::StreamExt;
use tokio::sync::{OnceCell, mpsc, watch};

use crate::app::stopped;

/// Delay before the log is followed again after an error.
const AGAIN: Duration = Duration::from_millis(500);

/// Senders by the stream that they listen to.
type Waiting = HashMap<StreamKey, Vec<mpsc::UnboundedSender<Arc<Record>>>>;

/// Watches single runs; starts its follower on first use.
pub(super) struct Watch {
    log: Arc<dyn EventLog>,
    stop: watch::Receiver<bool>,
    waiting: Arc<Mutex<Waiting>>,
    started: OnceCell<()>,
}

/// The records of one run as they are appended. Unbounded, because a run of a call has only a few.
pub(super) struct Records {
    records: mpsc::UnboundedReceiver<Arc<Record>>,
    stream: StreamKey,
    waiting: Arc<Mutex<Waiting>>,
}

fn lock(waiting: &Mutex<Waiting>) -> MutexGuard<'_, Waiting> {
    waiting.lock().unwrap_or_else(PoisonError::into_inner)
}

impl Watch {
    pub(super) fn new(log: Arc<dyn EventLog>, stop: watch::Receiver<bool>) -> Self {
        Self { log, stop, waiting: Arc::default(), started: OnceCell::new() }
    }

    /// Watches a run from now on. The first caller starts the follower, and waits until it follows.
    pub(super) async fn records(&self, stream: &StreamKey) -> Result<Records, LogError> {
        // Before the listener is added: the follower's tail must not begin after it.
        self.started.get_or_try_init(|| self.start()).await?;
        let (sender, records) = mpsc::unbounded_channel();
        lock(&self.waiting).entry(stream.clone()).or_default().push(sender);
        let (stream, waiting) = (stream.clone(), Arc::clone(&self.waiting));
        Ok(Records { records, stream, waiting })
    }

    async fn start(&self) -> Result<(), LogError> {
        // The position is beyond any log: the page is empty, and tells the tail.
        let end = self.log.read_all(Position(u64::MAX >> 1), 1).await?.tail;
        let mut tail = self.log.tail(end);
        let (log, waiting, mut stop) =
            (Arc::clone(&self.log), Arc::clone(&self.waiting), self.stop.clone());
        tokio::spawn(async move {
            let mut position = end;
            loop {
                let record = tokio::select! {
                    record = tail.next() => record,
                    () = stopped(&mut stop) => break,
                };
                match record {
                    Some(Ok(record)) => {
                        position = record.position;
                        tell(&waiting, &record);
                    }
                    Some(Err(error)) => {
                        tracing::warn!(%error, "the front doors cannot follow the log");
                        tokio::time::sleep(AGAIN).await;
                        // Continues after the last delivered record: listeners miss nothing.
                        tail = log.tail(position);
                    }
                    None => break,
                }
            }
            // Drops the senders, so that every listener sees the end.
            lock(&waiting).clear();
        });
        Ok(())
    }
}

fn tell(waiting: &Mutex<Waiting>, record: &Arc<Record>) {
    for listener in lock(waiting).get(&record.stream).into_iter().flatten() {
        // A listener removes itself when it is dropped.
        let _heard = listener.send(Arc::clone(record));
    }
}

impl Records {
    /// Returns the next record; `None` once the follower has stopped.
    pub(super) async fn next(&mut self) -> Option<Arc<Record>> {
        self.records.recv().await
    }
}

impl Drop for Records {
    fn drop(&mut self) {
        // Closed first, so that the removal below recognises its own sender.
        self.records.close();
        let mut waiting = lock(&self.waiting);
        if let Some(others) = waiting.get_mut(&self.stream) {
            others.retain(|other| !other.is_closed());
            if others.is_empty() {
                waiting.remove(&self.stream);
            }
        }
    }
}
