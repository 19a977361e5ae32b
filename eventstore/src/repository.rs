//! The repository: load, decide, append, evolve. It alone has a [`LogWriter`] at hand and makes
//! commits for it.

use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use convergio_domain::decider::{Decider, DecisionContext, RecordedEvent, Wake};
use convergio_domain::event::Event;
use convergio_domain::idempotency::{HasAppliedRequests, IdempotentNoun};
use convergio_domain::stream::{Seq, StreamKey};
use uuid::Uuid;

use crate::checkpoint::{CheckpointStore, FIRST_CHECKPOINT_SEQ as FIRST_CHECKPOINT};
use crate::clock::WallClock;
use crate::commit::{Commit, Payload};
use crate::dedup::DeltaSourceCache;
use crate::error::{AppendError, LogError};
use crate::log::{EventLog, LogWriter};
use crate::record::{Record, StreamHead};
use crate::write_queue::{WriteQueues, WriteTurn};

/// Records per read while loading.
const PAGE_RECORDS: usize = 256;
/// Default time that a command waits for its turn to write.
const WRITE_TIMEOUT: Duration = Duration::from_secs(30);
/// Number of commits that keep a copy of the state after another process appended first. Losing a
/// race again then costs reading the new records, not the whole stream.
const COMMITS_FROM_COPY: u8 = 32;

/// A stream folded up to its head, as far as it was loaded.
pub struct LoadedStream<D: Decider> {
    /// Stream that was loaded.
    pub stream: StreamKey,
    /// State folded from the stream's events.
    pub state: D::State,
    /// Head of the stream; `None` while it has no event.
    pub head: Option<StreamHead>,
    /// Sequence number of the first event of the last commit.
    pub(crate) last_commit_first_seq: Seq,
    /// Sequence number from which on the next checkpoint is due.
    pub(crate) next_checkpoint: Seq,
    /// Parent stream at the inherited event, for a first event that inherits its history; saves
    /// reading it.
    pub(crate) origin: Option<Box<LoadedStream<D>>>,
    /// Commits left that keep a copy of the state, because another process writes to this stream
    /// too.
    pub(crate) commits_from_copy: u8,
}

impl<D: Decider> Clone for LoadedStream<D> {
    fn clone(&self) -> Self {
        let (stream, state, origin) =
            (self.stream.clone(), self.state.clone(), self.origin.clone());
        Self { stream, state, origin, ..*self }
    }
}

impl<D: Decider> LoadedStream<D> {
    /// Creates the state of a stream that has no event, as far as the caller knows.
    pub fn new(stream: StreamKey) -> Self {
        let (head, last_first) = (None, Seq(0));
        let (state, due) = (D::State::default(), FIRST_CHECKPOINT);
        Self {
            stream,
            state,
            head,
            last_commit_first_seq: last_first,
            next_checkpoint: due,
            origin: None,
            commits_from_copy: 0,
        }
    }
}

impl<D: Decider> LoadedStream<IdempotentNoun<D>>
where
    D::State: HasAppliedRequests,
{
    /// Converts into the stream of the noun itself, without its requests' deduplication.
    pub fn into_noun(self) -> LoadedStream<D> {
        let Self {
            stream,
            state,
            head,
            last_commit_first_seq: last_first,
            next_checkpoint: due,
            commits_from_copy,
            origin: _,
        } = self;
        LoadedStream {
            stream,
            state,
            head,
            last_commit_first_seq: last_first,
            next_checkpoint: due,
            commits_from_copy,
            origin: None,
        }
    }
}

/// Error of executing a command; no commit was made.
#[derive(Debug, thiserror::Error)]
pub enum CommitError<R: std::error::Error + 'static> {
    /// The domain's rules refuse the command.
    #[error(transparent)]
    Rejected(R),
    /// Another writer appended first. The loaded state is up to date now: decide again. From
    /// [`Repository::execute`]: the turn to write did not come in time, and nothing was done.
    #[error("others have appended to the stream")]
    Conflict,
    /// The log did not accept the commit.
    #[error(transparent)]
    Append(AppendError),
    /// Reading the log failed.
    #[error(transparent)]
    Log(#[from] LogError),
}

/// The single writer of the system: folds streams, decides commands and appends their events. Cheap
/// to clone; all clones share caches and queues.
#[derive(Clone)]
pub struct Repository {
    log: Arc<dyn LogWriter>,
    clock: Arc<dyn WallClock>,
    delta_sources: Arc<DeltaSourceCache>,
    pub(crate) write_queues: Arc<WriteQueues>,
    /// Time that a command waits for its turn, and then keeps deciding again while other processes
    /// append first.
    pub(crate) write_timeout: Duration,
    pub(crate) checkpoints: Option<Arc<dyn CheckpointStore>>,
}

impl Repository {
    /// Creates a repository over a log.
    pub fn new(log: Arc<dyn LogWriter>, clock: Arc<dyn WallClock>) -> Self {
        Self {
            log,
            clock,
            delta_sources: Arc::default(),
            write_queues: Arc::default(),
            write_timeout: WRITE_TIMEOUT,
            checkpoints: None,
        }
    }

    /// Adds a store of checkpoints, so that long streams need not be folded from their first event.
    #[must_use]
    pub fn with_checkpoints(self, checkpoints: Arc<dyn CheckpointStore>) -> Self {
        Self { checkpoints: Some(checkpoints), ..self }
    }

    /// Replaces the default of 30 s after which a command that did not get its turn to write fails.
    #[must_use]
    pub fn with_write_timeout(self, write_patience: Duration) -> Self {
        Self { write_timeout: write_patience, ..self }
    }

    /// Returns the log for reading. Only the repository can append to it.
    pub fn event_log(&self) -> Arc<dyn EventLog> {
        Arc::clone(&self.log) as _
    }

    /// Returns the log for an import, whose records exist already and are not decided again.
    pub(crate) fn log_writer(&self) -> &dyn LogWriter {
        &*self.log
    }

    /// Checks whether the log accepts commits now.
    ///
    /// # Errors
    /// The reason why it does not.
    pub async fn check_writable(&self) -> Result<(), AppendError> {
        self.log.check_writable().await
    }

    /// Returns the clock that events are timed by.
    pub fn clock(&self) -> &dyn WallClock {
        &*self.clock
    }

    /// Reads a payload's plaintext; `None` if it was erased.
    ///
    /// # Errors
    /// The log cannot be read, or the payload is not what the chain commits to.
    pub async fn read_payload(
        &self,
        stream: &StreamKey,
        reference: convergio_domain::payload::PayloadRef,
    ) -> Result<Option<Bytes>, LogError> {
        self.log.read_payload(stream, reference).await
    }

    /// Erases a payload for ever; true if it existed. Later payloads are not stored as deltas of
    /// it; earlier ones that were are erased with it.
    ///
    /// # Errors
    /// The log fails; a part may be gone, and the call may be repeated.
    pub async fn erase_payload(
        &self,
        stream: &StreamKey,
        reference: convergio_domain::payload::PayloadRef,
    ) -> Result<bool, AppendError> {
        // Before the erasure: a commit prepared in between must not refer to the erased bytes.
        self.delta_sources.forget_stream(stream);
        self.log.erase_payload(stream, reference).await
    }

    /// Loads a stream: from its last checkpoint if it has one, else from its first event.
    ///
    /// # Errors
    /// The log cannot be read.
    pub async fn load<D: Decider>(&self, stream: &StreamKey) -> Result<LoadedStream<D>, LogError> {
        let mut loaded = self.load_checkpoint_or_new(stream, None).await?;
        self.refresh(&mut loaded).await?;
        Ok(loaded)
    }

    /// Loads a stream of which a record is at hand. Nothing is read if that is the first record;
    /// the state then ends with it.
    ///
    /// # Errors
    /// The log cannot be read.
    pub async fn load_from<D: Decider>(
        &self,
        record: &Record,
    ) -> Result<LoadedStream<D>, LogError> {
        if record.first_seq() != Seq(1) {
            return self.load(&record.stream).await;
        }
        let mut loaded = LoadedStream::new(record.stream.clone());
        self.fold_record(&mut loaded, record).await?;
        Ok(loaded)
    }

    /// Folds the records that were appended since; returns whether there were any.
    ///
    /// # Errors
    /// The log cannot be read.
    pub async fn refresh<D: Decider>(
        &self,
        loaded: &mut LoadedStream<D>,
    ) -> Result<bool, LogError> {
        let mut changed = false;
        loop {
            let after = loaded.head.map_or(Seq(0), |head| head.seq);
            let records = self.log.read_stream(&loaded.stream, after, PAGE_RECORDS).await?;
            changed |= !records.is_empty();
            for record in &records {
                self.fold_record(loaded, record).await?;
            }
            self.checkpoint_if_due(loaded);
            if records.len() < PAGE_RECORDS {
                return Ok(changed);
            }
        }
    }

    /// Folds a record of the stream, and before its first event the history that it inherits.
    pub(crate) async fn fold_record<D: Decider>(
        &self,
        loaded: &mut LoadedStream<D>,
        record: &Record,
    ) -> Result<(), LogError> {
        if let (None, Some(first)) = (loaded.head, record.body.events.first()) {
            self.inherit_history(loaded, first).await?;
        }
        for recorded in record.recorded_events() {
            D::fold_event(&mut loaded.state, recorded);
        }
        (loaded.head, loaded.last_commit_first_seq) =
            (Some(record.stream_head()), record.first_seq());
        Ok(())
    }

    /// Waits until all earlier writers of this process have written to a stream. A caller that
    /// decides on a state which it loaded before should take its turn first, check whether the
    /// state [is behind](Self::is_behind), and then decide; otherwise it loses the race for as long
    /// as others wait. Only the first commit of a stream may overtake a turn.
    pub async fn take_turn(&self, stream: &StreamKey) -> WriteTurn {
        self.write_queues.take_turn(stream).await
    }

    /// Returns whether this process has appended to the stream since it was loaded. Commits of
    /// other processes are not looked for.
    pub fn is_behind<D: Decider>(&self, loaded: &LoadedStream<D>) -> bool {
        let reached = loaded.head.map_or(Seq(0), |head| head.seq);
        self.write_queues
            .head_cache
            .newest_head(&loaded.stream)
            .is_some_and(|head| head.seq > reached)
    }

    /// Decides a command on a loaded state and appends the events once its turn has come; returns
    /// the number of new events. Afterwards the state equals the log's, whatever the result is.
    ///
    /// # Errors
    /// See [`CommitError`].
    pub async fn commit<D: Decider>(
        &self,
        loaded: &mut LoadedStream<D>,
        command: D::Command,
        payloads: Vec<Payload>,
        context: &DecisionContext,
    ) -> Result<usize, CommitError<D::Rejection>> {
        let turn = self.take_turn(&loaded.stream).await;
        self.commit_in_turn(&turn, loaded, command, payloads, context).await
    }

    /// Commits like [`Repository::commit`] for a caller that holds the turn of the stream.
    ///
    /// # Errors
    /// See [`CommitError`].
    pub async fn commit_in_turn<D: Decider>(
        &self,
        turn: &WriteTurn,
        loaded: &mut LoadedStream<D>,
        command: D::Command,
        payloads: Vec<Payload>,
        context: &DecisionContext,
    ) -> Result<usize, CommitError<D::Rejection>> {
        debug_assert_eq!(turn.stream(), &loaded.stream);
        // The state was loaded before the turn came: decide again on the new one.
        if self.is_behind(loaded) {
            self.refresh(loaded).await?;
            return Err(CommitError::Conflict);
        }
        self.decide_and_append(loaded, command, payloads, context, false).await
    }

    /// Commits the first record of a stream that an executor of this process continues at once: the
    /// log may delay it slightly, so that it shares a sync with the next commit.
    ///
    /// # Errors
    /// See [`CommitError`].
    pub async fn commit_first<D: Decider>(
        &self,
        stream: StreamKey,
        command: D::Command,
        payloads: Vec<Payload>,
        context: &DecisionContext,
    ) -> Result<LoadedStream<D>, CommitError<D::Rejection>> {
        let mut new = LoadedStream::new(stream);
        self.decide_and_append(&mut new, command, payloads, context, true).await?;
        Ok(new)
    }

    pub(crate) async fn decide_and_append<D: Decider>(
        &self,
        loaded: &mut LoadedStream<D>,
        command: D::Command,
        payloads: Vec<Payload>,
        context: &DecisionContext,
        is_continued: bool,
    ) -> Result<usize, CommitError<D::Rejection>> {
        let next = loaded.head.map_or(Seq(0), |head| head.seq).offset_by(1);
        let events = D::decide(&loaded.state, command, context, next);
        let events = events.map_err(CommitError::Rejected)?.into_iter();
        let events: Vec<Event> = events.map(Into::into).collect();
        let Some(first) = events.first() else { return Ok(0) };
        // The state is evolved before the append: its fingerprint is part of the record.
        let copy = loaded.copy_for_commit();
        if loaded.head.is_none() {
            self.inherit_history(loaded, first).await?;
        }
        for (seq, event) in (next.0..).zip(&events) {
            let recorded = RecordedEvent { seq: Seq(seq), time: context.now, event };
            D::fold_event(&mut loaded.state, recorded);
        }
        let count = events.len();
        let (log, key) = (&*self.log, &loaded.stream);
        let mut planned =
            self.delta_sources.plan_deltas(log, key, loaded.head, next, &payloads).await;
        let fold = D::refresh_fingerprint(&mut loaded.state);
        let wake = D::next_wake(&loaded.state);
        let commit = Commit {
            stream: loaded.stream.clone(),
            id: Uuid::now_v7(),
            expected: loaded.head,
            time: context.now,
            actor: context.actor.clone(),
            events,
            fingerprint: fold,
            payloads,
            deltas: std::mem::take(&mut planned.deltas),
            wake,
            is_continued,
        };
        match self.log.append(commit).await {
            Ok(head) => {
                match wake {
                    // A finished stream gets no more prompts, so its payloads only take room.
                    Wake::Done => self.delta_sources.forget_stream(&loaded.stream),
                    _ => self.delta_sources.apply_plan(&loaded.stream, planned),
                }
                self.write_queues.head_cache.remember_head(&loaded.stream, head);
                (loaded.head, loaded.last_commit_first_seq) = (Some(head), next);
                self.checkpoint_if_due(loaded);
                Ok(count)
            }
            Err(error) => {
                self.rewind_to_log(loaded, copy).await?;
                Err(match error {
                    AppendError::Conflict { .. } => {
                        // Another process writes here: from now on a lost race must not cost a full
                        // reload.
                        loaded.commits_from_copy = COMMITS_FROM_COPY;
                        CommitError::Conflict
                    }
                    other => CommitError::Append(other),
                })
            }
        }
    }

    /// Resets a state that was evolved ahead of the log to what the log holds.
    async fn rewind_to_log<D: Decider>(
        &self,
        loaded: &mut LoadedStream<D>,
        copy: Option<LoadedStream<D>>,
    ) -> Result<(), LogError> {
        let stream = loaded.stream.clone();
        match copy {
            Some(copy) => {
                *loaded = copy;
                self.refresh(loaded).await.map(drop)
            }
            None => {
                *loaded = self.load(&stream).await?;
                Ok(())
            }
        }
    }
}

impl<D: Decider> LoadedStream<D> {
    /// Copies the state before a commit, while commits of other processes must be expected.
    fn copy_for_commit(&mut self) -> Option<Self> {
        self.commits_from_copy = self.commits_from_copy.checked_sub(1)?;
        Some(self.clone())
    }
}
