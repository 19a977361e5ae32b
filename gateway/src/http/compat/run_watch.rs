//! Delivers the records of single runs to their callers, by one follower of the log for all.

use std::collections::HashMap;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use convergio_domain::stream::StreamKey;
use convergio_eventstore::{EventLog, LogError, Position, Record};
use futures_util::StreamExt;
use tokio::sync::{OnceCell, mpsc, watch};

use crate::state::wait_for_stop;

/// Delay before the log is followed again after an error.
const RETRY_DELAY: Duration = Duration::from_millis(500);

/// Senders by the stream that they listen to.
type RunListeners = HashMap<StreamKey, Vec<mpsc::UnboundedSender<Arc<Record>>>>;

/// Watches single runs; starts its follower on first use.
pub(super) struct RunWatch {
    log: Arc<dyn EventLog>,
    stop: watch::Receiver<bool>,
    listeners: Arc<Mutex<RunListeners>>,
    follower_started: OnceCell<()>,
}

/// The records of one run as they are appended. Unbounded, because a run of a call has only a few.
pub(super) struct RunRecords {
    records: mpsc::UnboundedReceiver<Arc<Record>>,
    stream: StreamKey,
    listeners: Arc<Mutex<RunListeners>>,
}

fn lock_listeners(waiting: &Mutex<RunListeners>) -> MutexGuard<'_, RunListeners> {
    waiting.lock().unwrap_or_else(PoisonError::into_inner)
}

impl RunWatch {
    pub(super) fn new(log: Arc<dyn EventLog>, stop: watch::Receiver<bool>) -> Self {
        Self { log, stop, listeners: Arc::default(), follower_started: OnceCell::new() }
    }

    /// Watches a run from now on. The first caller starts the follower, and waits until it follows.
    pub(super) async fn watch_run(&self, stream: &StreamKey) -> Result<RunRecords, LogError> {
        // Before the listener is added: the follower's tail must not begin after it.
        self.follower_started.get_or_try_init(|| self.start_follower()).await?;
        let (sender, records) = mpsc::unbounded_channel();
        lock_listeners(&self.listeners).entry(stream.clone()).or_default().push(sender);
        let (stream, waiting) = (stream.clone(), Arc::clone(&self.listeners));
        Ok(RunRecords { records, stream, listeners: waiting })
    }

    async fn start_follower(&self) -> Result<(), LogError> {
        // The position is beyond any log: the page is empty, and tells the tail.
        let end = self.log.read_all(Position(u64::MAX >> 1), 1).await?.tail;
        let mut tail = self.log.tail_all(end);
        let (log, waiting, mut stop) =
            (Arc::clone(&self.log), Arc::clone(&self.listeners), self.stop.clone());
        tokio::spawn(async move {
            let mut position = end;
            loop {
                let record = tokio::select! {
                    record = tail.next() => record,
                    () = wait_for_stop(&mut stop) => break,
                };
                match record {
                    Some(Ok(record)) => {
                        position = record.position;
                        notify_listeners(&waiting, &record);
                    }
                    Some(Err(error)) => {
                        tracing::warn!(%error, "the front doors cannot follow the log");
                        tokio::time::sleep(RETRY_DELAY).await;
                        // Continues after the last delivered record: listeners miss nothing.
                        tail = log.tail_all(position);
                    }
                    None => break,
                }
            }
            // Drops the senders, so that every listener sees the end.
            lock_listeners(&waiting).clear();
        });
        Ok(())
    }
}

fn notify_listeners(waiting: &Mutex<RunListeners>, record: &Arc<Record>) {
    for listener in lock_listeners(waiting).get(&record.stream).into_iter().flatten() {
        // A listener removes itself when it is dropped.
        let _heard = listener.send(Arc::clone(record));
    }
}

impl RunRecords {
    /// Returns the next record; `None` once the follower has stopped.
    pub(super) async fn next(&mut self) -> Option<Arc<Record>> {
        self.records.recv().await
    }
}

impl Drop for RunRecords {
    fn drop(&mut self) {
        // Closed first, so that the removal below recognises its own sender.
        self.records.close();
        let mut waiting = lock_listeners(&self.listeners);
        if let Some(senders) = waiting.get_mut(&self.stream) {
            senders.retain(|sender| !sender.is_closed());
            if senders.is_empty() {
                waiting.remove(&self.stream);
            }
        }
    }
}
