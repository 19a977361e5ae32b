//! Following the log: one JetStream consumer per process feeds all tails and the wake index.

use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use async_nats::jetstream::consumer::{AckPolicy, DeliverPolicy, pull};
use async_nats::jetstream::message::StreamMessage;
use convergio_domain::stream::StreamKey;
use convergio_domain::time::Timestamp;
use futures_util::StreamExt;
use tokio::sync::{broadcast, watch};

use super::api::NoAnswerError;
use super::log_core::{Backoff, LogCore, RETRY_TIMEOUT};
use super::wake_index::WakeTable;
use super::wire;
use crate::error::LogError;
use crate::record::{Position, Record};
use crate::stream_tail::{StreamFeed, StreamFeeds};
use crate::tail::BACKLOG;

/// Messages per pull request.
const PULL_MESSAGES: usize = 500;
/// Lifetime of a pull request, and the interval of the broker's heartbeats during it.
const PULL_EXPIRY: Duration = Duration::from_secs(10);
const HEARTBEAT: Duration = Duration::from_secs(2);
/// Idle time after which the broker deletes the consumer.
const CONSUMER_IDLE_TIMEOUT: Duration = Duration::from_secs(30);
/// Number of records between two snapshots of the wake index.
const SAVE_INTERVAL_RECORDS: u64 = 10_000;

/// State of following, shared with the tails.
pub(super) struct LogFollower {
    live: Mutex<Option<broadcast::Sender<Arc<Record>>>>,
    feeds: Arc<StreamFeeds>,
    applied: watch::Sender<Position>,
    index: Mutex<WakeTable>,
    failure: Mutex<Option<LogError>>,
}

/// Reason why the consumer's stream stopped.
enum FollowStop {
    /// The consumer or the connection was lost, or a message came out of order: follow again.
    Retry(String),
    /// The log is corrupt or closed: following has ended.
    Ended(LogError),
}

impl From<LogError> for FollowStop {
    fn from(error: LogError) -> Self {
        match error {
            LogError::Unavailable(reason) => Self::Retry(reason),
            other => Self::Ended(other),
        }
    }
}

impl LogFollower {
    /// Starts the task that follows the log.
    pub(super) fn start(inner: Arc<LogCore>) -> Arc<Self> {
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
                error = task.follow_until_ended(&inner) => error,
                _ = closed.wait_for(|closed| *closed) => LogError::Closed,
            };
            task.end_following(error);
        });
        follower
    }

    /// Subscribes to all records from now on; `None` if following has ended.
    pub(super) fn subscribe(&self) -> Option<broadcast::Receiver<Arc<Record>>> {
        self.lock_live().as_ref().map(broadcast::Sender::subscribe)
    }

    /// Subscribes to the records of one stream from now on; `None` if following has ended.
    pub(super) fn subscribe_stream(&self, stream: &StreamKey) -> Option<StreamFeed> {
        // The lock is held while subscribing: `end_following` closes feeds under the same lock, so
        // none stays open.
        let live = self.lock_live();
        live.as_ref().map(|_| self.feeds.subscribe_stream(stream))
    }

    /// Returns the reason why following has ended.
    pub(super) fn failure(&self) -> Option<LogError> {
        self.failure.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }

    /// Returns the position of the last record that was passed on.
    pub(super) fn applied_position(&self) -> Position {
        *self.applied.borrow()
    }

    /// Waits until the records up to a position were passed on, as long as following makes
    /// progress.
    pub(super) async fn wait_until_applied(&self, position: Position) -> Result<(), LogError> {
        let mut applied = self.applied.subscribe();
        while *applied.borrow_and_update() < position {
            if let Some(failure) = self.failure() {
                return Err(failure);
            }
            if tokio::time::timeout(RETRY_TIMEOUT, applied.changed()).await.is_err() {
                return Err(LogError::Unavailable("the wake index does not get on".into()));
            }
        }
        Ok(())
    }

    pub(super) fn due_streams(&self, now: Timestamp, limit: usize) -> Vec<StreamKey> {
        self.lock_index().due_streams(now, limit)
    }

    pub(super) fn next_due_time(&self, now: Timestamp) -> Option<Timestamp> {
        self.lock_index().next_due_time(now)
    }

    fn lock_index(&self) -> std::sync::MutexGuard<'_, WakeTable> {
        self.index.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn lock_live(&self) -> std::sync::MutexGuard<'_, Option<broadcast::Sender<Arc<Record>>>> {
        self.live.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn end_following(&self, error: LogError) {
        *self.failure.lock().unwrap_or_else(PoisonError::into_inner) = Some(error);
        let mut live = self.lock_live();
        live.take();
        self.feeds.close_all();
        drop(live);
        // Wakes the waiters of `wait_until_applied`, which then find the failure.
        self.applied.send_modify(|_| {});
    }

    /// Follows until the log is corrupt or closed, reconnecting in between.
    async fn follow_until_ended(&self, inner: &Arc<LogCore>) -> LogError {
        let mut waits = Backoff::default();
        let mut saved = loop {
            match inner.tail_position().await {
                Ok(tail) => break self.load_snapshot(inner, tail).await,
                Err(LogError::Unavailable(_)) => tokio::time::sleep(waits.next_delay()).await,
                Err(error) => return error,
            }
        };
        loop {
            let before = self.applied_position();
            match self.follow_once(inner, &mut saved).await {
                FollowStop::Ended(error) => return error,
                FollowStop::Retry(reason) => {
                    tracing::debug!(reason, "the log is followed anew");
                    // Progress resets the backoff; a consumer that fails at once is retried ever
                    // more slowly.
                    if self.applied_position() > before {
                        waits = Backoff::default();
                    }
                    tokio::time::sleep(waits.next_delay()).await;
                }
            }
        }
    }

    /// Loads the newest snapshot of the wake index; returns its position.
    async fn load_snapshot(&self, inner: &LogCore, tail: Position) -> Position {
        let snapshot = inner.load_wake_snapshot(tail).await;
        let (position, index) = snapshot.unwrap_or_default();
        *self.lock_index() = index;
        self.applied.send_replace(position);
        position
    }

    async fn follow_once(&self, inner: &Arc<LogCore>, saved: &mut Position) -> FollowStop {
        match self.follow_consumer(inner, saved).await {
            Ok(()) => FollowStop::Retry("the consumer ended".into()),
            Err(stopped) => stopped,
        }
    }

    async fn follow_consumer(
        &self,
        inner: &Arc<LogCore>,
        saved: &mut Position,
    ) -> Result<(), FollowStop> {
        let again = |error: &dyn std::fmt::Display| FollowStop::Retry(error.to_string());
        // The consumer's state is disposable, so it needs no replicas, no disk and no
        // acknowledgements: a new one starts after the last applied record.
        let config = pull::Config {
            deliver_policy: DeliverPolicy::ByStartSequence {
                start_sequence: self.applied_position().0 + 1,
            },
            ack_policy: AckPolicy::None,
            filter_subject: inner.names.all_records(),
            inactive_threshold: CONSUMER_IDLE_TIMEOUT,
            memory_storage: true,
            num_replicas: 1,
            ..pull::Config::default()
        };
        let context = &inner.api.context;
        let consumer = context.create_consumer_on_stream(config, inner.names.log.as_str()).await;
        let consumer = consumer.map_err(|error| again(&error))?;
        let pulls = consumer.stream().max_messages_per_batch(PULL_MESSAGES).expires(PULL_EXPIRY);
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
            self.apply_message(inner, &message).await?;
            self.save_wake_index(inner, saved);
        }
        Ok(())
    }

    /// Applies a message in order: to the caches, the wake index, and the tails.
    async fn apply_message(
        &self,
        inner: &LogCore,
        message: &StreamMessage,
    ) -> Result<(), FollowStop> {
        let next = self.applied_position().0 + 1;
        if message.sequence < next {
            return Ok(());
        }
        if message.sequence > next {
            // Distinguishes a message that was missed in transit from one that the log has lost:
            // the latter is an error.
            inner.message_from_leader(Position(next)).await?;
            return Err(FollowStop::Retry("a message was missed".into()));
        }
        let (record, wake) = wire::decode_message(&inner.names, message)?;
        inner.heads.remember_head(&record.stream, record.stream_head());
        inner.ack_marker.observe_position(record.position);
        self.lock_index().apply(record.stream.clone(), wake);
        let position = record.position;
        if let Some(live) = &*self.lock_live() {
            let record = Arc::new(record);
            self.feeds.publish_record(&record);
            // An error means that there are no followers.
            let _followers = live.send(record);
        }
        // Last: whoever waits for this position finds the record in index and feeds.
        self.applied.send_replace(position);
        Ok(())
    }

    /// Saves the wake index in the background, at intervals.
    fn save_wake_index(&self, inner: &Arc<LogCore>, saved: &mut Position) {
        let position = self.applied_position();
        if position.0 < saved.0 + SAVE_INTERVAL_RECORDS {
            return;
        }
        *saved = position;
        let (inner, index) = (Arc::clone(inner), self.lock_index().clone());
        tokio::spawn(async move {
            if let Err(NoAnswerError(reason)) = inner.save_wakes(position, &index).await {
                tracing::debug!(reason, "the wake index is not saved this time");
            }
        });
    }
}
