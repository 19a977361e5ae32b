//! Following the log: one JetStream consumer per process feeds all tails and the wake index.

use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use async_nats::jetstream::consumer::{AckPolicy, DeliverPolicy, pull};
use async_nats::jetstream::message::StreamMessage;
use convergio_domain::stream::StreamKey;
use convergio_domain::time::Timestamp;
use futures_util::StreamExt;
use tokio::sync::{broadcast, watch};

use super::api::NoAnswer;
use super::inner::{Inner, PATIENCE, Waits};
use super::wakes::WakeIndex;
use super::wire;
use crate::error::LogError;
use crate::record::{Position, Record};
use crate::stream_tail::{Feed, Feeds};
use crate::tail::BACKLOG;

/// Messages per pull request.
const PULL: usize = 500;
/// Lifetime of a pull request, and the interval of the broker's heartbeats during it.
const PULL_LIFE: Duration = Duration::from_secs(10);
const HEARTBEAT: Duration = Duration::from_secs(2);
/// Idle time after which the broker deletes the consumer.
const FORGET: Duration = Duration::from_secs(30);
/// Number of records between two snapshots of the wake index.
const SAVE_EVERY: u64 = 10_000;

/// State of following, shared with the tails.
pub(super) struct Follower {
    live: Mutex<Option<broadcast::Sender<Arc<Record>>>>,
    feeds: Arc<Feeds>,
    applied: watch::Sender<Position>,
    index: Mutex<WakeIndex>,
    failure: Mutex<Option<LogError>>,
}

/// Reason why the consumer's stream stopped.
enum Stopped {
    /// The consumer or the connection was lost, or a message came out of order: follow again.
    Again(String),
    /// The log is corrupt or closed: following has ended.
    Ended(LogError),
}

impl From<LogError> for Stopped {
    fn from(error: LogError) -> Self {
        match error {
            LogError::Unavailable(reason) => Self::Again(reason),
            other => Self::Ended(other),
        }
    }
}

impl Follower {
    /// Starts the task that follows the log.
    pub(super) fn start(inner: Arc<Inner>) -> Arc<Self> {
        let follower = Arc::new(Self {
            live: Mutex::new(Some(broadcast::channel(BACKLOG).0)),
            feeds: Arc::default(),
            applied: watch::channel(Position::START).0,
            index: Mutex::default(),
            failure: Mutex::default(),
        });
        let task = Arc::clone(&follower);
        tokio::spawn(async move {
            let mut closed = inner.closed.subscribe();
            let error = tokio::select! {
                error = task.run(&inner) => error,
                _ = closed.wait_for(|closed| *closed) => LogError::Closed,
            };
            task.end(error);
        });
        follower
    }

    /// Subscribes to all records from now on; `None` if following has ended.
    pub(super) fn subscribe(&self) -> Option<broadcast::Receiver<Arc<Record>>> {
        self.live().as_ref().map(broadcast::Sender::subscribe)
    }

    /// Subscribes to the records of one stream from now on; `None` if following has ended.
    pub(super) fn subscribe_to(&self, stream: &StreamKey) -> Option<Feed> {
        // The lock is held while subscribing: `end_following` closes feeds under the same lock, so
        // none stays open.
        let live = self.live();
        live.as_ref().map(|_| self.feeds.subscribe(stream))
    }

    /// Returns the reason why following has ended.
    pub(super) fn failure(&self) -> Option<LogError> {
        self.failure.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }

    /// Returns the position of the last record that was passed on.
    pub(super) fn applied(&self) -> Position {
        *self.applied.borrow()
    }

    /// Waits until the records up to a position were passed on, as long as following makes
    /// progress.
    pub(super) async fn reached(&self, position: Position) -> Result<(), LogError> {
        let mut applied = self.applied.subscribe();
        while *applied.borrow_and_update() < position {
            if let Some(failure) = self.failure() {
                return Err(failure);
            }
            if tokio::time::timeout(PATIENCE, applied.changed()).await.is_err() {
                return Err(LogError::Unavailable("the wake index does not get on".into()));
            }
        }
        Ok(())
    }

    pub(super) fn due(&self, now: Timestamp, limit: usize) -> Vec<StreamKey> {
        self.index().due(now, limit)
    }

    pub(super) fn next_due(&self, now: Timestamp) -> Option<Timestamp> {
        self.index().next_due(now)
    }

    fn index(&self) -> std::sync::MutexGuard<'_, WakeIndex> {
        self.index.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn live(&self) -> std::sync::MutexGuard<'_, Option<broadcast::Sender<Arc<Record>>>> {
        self.live.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn end(&self, error: LogError) {
        *self.failure.lock().unwrap_or_else(PoisonError::into_inner) = Some(error);
        let mut live = self.live();
        live.take();
        self.feeds.end();
        drop(live);
        // Wakes the waiters of `wait_until_applied`, which then find the failure.
        self.applied.send_modify(|_| {});
    }

    /// Follows until the log is corrupt or closed, reconnecting in between.
    async fn run(&self, inner: &Arc<Inner>) -> LogError {
        let mut waits = Waits::default();
        let mut saved = loop {
            match inner.tail_position().await {
                Ok(tail) => break self.begin(inner, tail).await,
                Err(LogError::Unavailable(_)) => tokio::time::sleep(waits.next()).await,
                Err(error) => return error,
            }
        };
        loop {
            let before = self.applied();
            match self.follow(inner, &mut saved).await {
                Stopped::Ended(error) => return error,
                Stopped::Again(reason) => {
                    tracing::debug!(reason, "the log is followed anew");
                    // Progress resets the backoff; a consumer that fails at once is retried ever
                    // more slowly.
                    if self.applied() > before {
                        waits = Waits::default();
                    }
                    tokio::time::sleep(waits.next()).await;
                }
            }
        }
    }

    /// Loads the newest snapshot of the wake index; returns its position.
    async fn begin(&self, inner: &Inner, tail: Position) -> Position {
        let snapshot = inner.wake_snapshot(tail).await;
        let (position, index) = snapshot.unwrap_or_default();
        *self.index() = index;
        self.applied.send_replace(position);
        position
    }

    async fn follow(&self, inner: &Arc<Inner>, saved: &mut Position) -> Stopped {
        match self.follow_consumer(inner, saved).await {
            Ok(()) => Stopped::Again("the consumer ended".into()),
            Err(stopped) => stopped,
        }
    }

    async fn follow_consumer(
        &self,
        inner: &Arc<Inner>,
        saved: &mut Position,
    ) -> Result<(), Stopped> {
        let again = |error: &dyn std::fmt::Display| Stopped::Again(error.to_string());
        // The consumer's state is disposable, so it needs no replicas, no disk and no
        // acknowledgements: a new one starts after the last applied record.
        let config = pull::Config {
            deliver_policy: DeliverPolicy::ByStartSequence { start_sequence: self.applied().0 + 1 },
            ack_policy: AckPolicy::None,
            filter_subject: inner.names.all_records(),
            inactive_threshold: FORGET,
            memory_storage: true,
            num_replicas: 1,
            ..pull::Config::default()
        };
        let context = &inner.api.context;
        let consumer = context.create_consumer_on_stream(config, inner.names.log.as_str()).await;
        let consumer = consumer.map_err(|error| again(&error))?;
        let pulls = consumer.stream().max_messages_per_batch(PULL).expires(PULL_LIFE);
        let messages = pulls.heartbeat(HEARTBEAT).messages().await;
        let mut messages = messages.map_err(|error| again(&error))?;
        while let Some(message) = messages.next().await {
            let message = message.map_err(|error| again(&error))?;
            let info = message.info().map_err(|error| again(&error))?;
            let (sequence, time) = (info.stream_sequence, info.published);
            let message = StreamMessage {
                subject: message.subject.clone(),
                sequence,
                headers: message.headers.clone().unwrap_or_default(),
                payload: message.payload.clone(),
                time,
            };
            self.take(inner, &message).await?;
            self.save(inner, saved);
        }
        Ok(())
    }

    /// Applies a message in order: to the caches, the wake index, and the tails.
    async fn take(&self, inner: &Inner, message: &StreamMessage) -> Result<(), Stopped> {
        let next = self.applied().0 + 1;
        if message.sequence < next {
            return Ok(());
        }
        if message.sequence > next {
            // Distinguishes a message that was missed in transit from one that the log has lost:
            // the latter is an error.
            inner.leaders(Position(next)).await?;
            return Err(Stopped::Again("a message was missed".into()));
        }
        let (record, wake) = wire::read(&inner.names, message)?;
        inner.heads.saw(&record.stream, record.head());
        inner.witness.saw(record.position);
        self.index().apply(record.stream.clone(), wake);
        let position = record.position;
        if let Some(live) = &*self.live() {
            let record = Arc::new(record);
            self.feeds.tell(&record);
            // An error means that there are no followers.
            let _followers = live.send(record);
        }
        // Last: whoever waits for this position finds the record in index and feeds.
        self.applied.send_replace(position);
        Ok(())
    }

    /// Saves the wake index in the background, at intervals.
    fn save(&self, inner: &Arc<Inner>, saved: &mut Position) {
        let position = self.applied();
        if position.0 < saved.0 + SAVE_EVERY {
            return;
        }
        *saved = position;
        let (inner, index) = (Arc::clone(inner), self.index().clone());
        tokio::spawn(async move {
            if let Err(NoAnswer(reason)) = inner.save_wakes(position, &index).await {
                tracing::debug!(reason, "the wake index is not saved this time");
            }
        });
    }
}
