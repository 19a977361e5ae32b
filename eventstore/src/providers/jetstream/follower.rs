//! Following the log: one consumer a process, from which tails and the wake index are fed.

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

/// Messages asked for at once.
const PULL: usize = 500;
/// A pull's life; and the sign of life while it waits.
const PULL_LIFE: Duration = Duration::from_secs(10);
const HEARTBEAT: Duration = Duration::from_secs(2);
/// The broker forgets a consumer that nobody asks for this long.
const FORGET: Duration = Duration::from_secs(30);
/// Records after which the wake index is saved.
const SAVE_EVERY: u64 = 10_000;

/// What following has come to.
pub(super) struct Follower {
    live: Mutex<Option<broadcast::Sender<Arc<Record>>>>,
    feeds: Arc<Feeds>,
    applied: watch::Sender<Position>,
    index: Mutex<WakeIndex>,
    failure: Mutex<Option<LogError>>,
}

/// Why following stopped for now.
enum Stopped {
    /// The consumer or the connection went away, or a message came out of order.
    Again(String),
    /// The log is corrupt, or closed.
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
    /// Begins to follow.
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

    /// What arrives from now on; `None` if following has ended.
    pub(super) fn subscribe(&self) -> Option<broadcast::Receiver<Arc<Record>>> {
        self.live().as_ref().map(broadcast::Sender::subscribe)
    }

    /// What arrives from now on in one stream; `None` if following has ended.
    pub(super) fn subscribe_to(&self, stream: &StreamKey) -> Option<Feed> {
        // Under the lock under which following ends, so that no feed is left open.
        let live = self.live();
        live.as_ref().map(|_| self.feeds.subscribe(stream))
    }

    /// Why following has ended.
    pub(super) fn failure(&self) -> Option<LogError> {
        self.failure.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }

    /// The last record that was passed on.
    pub(super) fn applied(&self) -> Position {
        *self.applied.borrow()
    }

    /// Waits until everything up to a position has been passed on; not longer than it goes on.
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
        // Whoever waits looks again and finds the failure.
        self.applied.send_modify(|_| {});
    }

    /// Follows until the log is corrupt.
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
                    if self.applied() > before {
                        waits = Waits::default();
                    }
                    tokio::time::sleep(waits.next()).await;
                }
            }
        }
    }

    /// Takes the newest snapshot; gives its position.
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

    /// Passes a message on, in order.
    async fn take(&self, inner: &Inner, message: &StreamMessage) -> Result<(), Stopped> {
        let next = self.applied().0 + 1;
        if message.sequence < next {
            return Ok(());
        }
        if message.sequence > next {
            // Is it us who missed it, or is it gone?
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
            // Nobody following is fine.
            let _followers = live.send(record);
        }
        self.applied.send_replace(position);
        Ok(())
    }

    /// Saves the wake index now and then, beside the following.
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
