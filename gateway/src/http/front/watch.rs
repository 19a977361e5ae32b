//! Who waits for which run: one follower of the log tells them all.

use std::collections::HashMap;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use convergio_domain::stream::StreamKey;
use convergio_eventstore::{EventLog, LogError, Position, Record};
use futures_util::StreamExt;
use tokio::sync::{OnceCell, mpsc, watch};

use crate::app::stopped;

/// Wait before the log is followed anew when it cannot be read.
const AGAIN: Duration = Duration::from_millis(500);

type Waiting = HashMap<StreamKey, Vec<mpsc::UnboundedSender<Arc<Record>>>>;

/// The records of single runs as they are appended.
pub(super) struct Watch {
    log: Arc<dyn EventLog>,
    stop: watch::Receiver<bool>,
    waiting: Arc<Mutex<Waiting>>,
    started: OnceCell<()>,
}

/// Hears of one run. A run has a few records: their number is their bound.
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

    /// Hears of a run from now on. The first caller starts the follower.
    pub(super) async fn records(&self, stream: &StreamKey) -> Result<Records, LogError> {
        self.started.get_or_try_init(|| self.start()).await?;
        let (sender, records) = mpsc::unbounded_channel();
        lock(&self.waiting).entry(stream.clone()).or_default().push(sender);
        let (stream, waiting) = (stream.clone(), Arc::clone(&self.waiting));
        Ok(Records { records, stream, waiting })
    }

    async fn start(&self) -> Result<(), LogError> {
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
                        tail = log.tail(position);
                    }
                    None => break,
                }
            }
            // Nobody will be told anything any more.
            lock(&waiting).clear();
        });
        Ok(())
    }
}

fn tell(waiting: &Mutex<Waiting>, record: &Arc<Record>) {
    for listener in lock(waiting).get(&record.stream).into_iter().flatten() {
        // Who has gone takes itself off the list.
        let _heard = listener.send(Arc::clone(record));
    }
}

impl Records {
    /// The next record; `None` when nobody follows the log any more.
    pub(super) async fn next(&mut self) -> Option<Arc<Record>> {
        self.records.recv().await
    }
}

impl Drop for Records {
    fn drop(&mut self) {
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
