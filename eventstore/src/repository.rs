//! The repository: load, decide, append, evolve. Nothing else appends.

use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use convergio_domain::decider::{Context, Decider, Recorded, Wake};
use convergio_domain::once::{Once, RemembersRequests};
use convergio_domain::stream::{Seq, StreamKey};
use uuid::Uuid;

use crate::checkpoint::{Checkpoints, FIRST as FIRST_CHECKPOINT};
use crate::clock::Clock;
use crate::commit::{Commit, Payload};
use crate::error::{AppendError, LogError};
use crate::log::EventLog;
use crate::record::{Head, Record};
use crate::reuse::Recent;
use crate::write_queue::{WriteQueues, WriteTurn};

/// Records read at once while loading.
const PAGE: usize = 256;
/// How long a command waits for its turn to write, if nothing else is said.
const WRITE_PATIENCE: Duration = Duration::from_secs(30);
/// Commits that are made from a copy of the state after another process was faster: being overtaken
/// again then costs reading what is new, and not the whole stream.
const COMMITS_FROM_COPY: u8 = 32;

/// A stream as it stands, folded.
pub struct Loaded<D: Decider> {
    /// Which one.
    pub stream: StreamKey,
    /// The fold of its events.
    pub state: D::State,
    /// Its end; `None` while it has no event.
    pub head: Option<Head>,
    /// The first event of the last commit.
    pub(crate) last_first: Seq,
    /// The event from which on another checkpoint is due.
    pub(crate) due: Seq,
    /// Another stream as it was, for a first event that inherits it.
    pub(crate) origin: Option<Box<Loaded<D>>>,
    /// Commits left that keep a copy of the state, because another process writes here too.
    pub(crate) commits_from_copy: u8,
}

impl<D: Decider> Clone for Loaded<D> {
    fn clone(&self) -> Self {
        let (stream, state, origin) =
            (self.stream.clone(), self.state.clone(), self.origin.clone());
        Self { stream, state, origin, ..*self }
    }
}

impl<D: Decider> Loaded<D> {
    /// A stream that has no event, as far as its maker knows.
    pub fn new(stream: StreamKey) -> Self {
        let (head, last_first) = (None, Seq(0));
        let (state, due) = (D::State::default(), FIRST_CHECKPOINT);
        Self { stream, state, head, last_first, due, origin: None, commits_from_copy: 0 }
    }
}

impl<D: Decider> Loaded<Once<D>>
where
    D::State: RemembersRequests,
{
    /// The same stream, for commands of the noun itself.
    pub fn into_noun(self) -> Loaded<D> {
        let Self { stream, state, head, last_first, due, commits_from_copy, origin: _ } = self;
        Loaded { stream, state, head, last_first, due, commits_from_copy, origin: None }
    }
}

/// Why a command led to no commit.
#[derive(Debug, thiserror::Error)]
pub enum CommitError<R: std::error::Error + 'static> {
    /// The rules refuse the command.
    #[error(transparent)]
    Rejected(R),
    /// Others appended first: the loaded state is up to date now, decide again. After
    /// [`Repository::execute`]: the turn to write did not come in time, and nothing was done.
    #[error("others have appended to the stream")]
    Conflict,
    /// The log did not take the commit.
    #[error(transparent)]
    Append(AppendError),
    /// The log cannot be read.
    #[error(transparent)]
    Log(#[from] LogError),
}

/// The one writer of the system.
#[derive(Clone)]
pub struct Repository {
    log: Arc<dyn EventLog>,
    clock: Arc<dyn Clock>,
    recent: Arc<Recent>,
    pub(crate) queues: Arc<WriteQueues>,
    /// How long a command waits for its turn, and then for a commit that no other process
    /// forestalls.
    pub(crate) write_patience: Duration,
    pub(crate) checkpoints: Option<Arc<dyn Checkpoints>>,
}

impl Repository {
    /// A repository over a log.
    pub fn new(log: Arc<dyn EventLog>, clock: Arc<dyn Clock>) -> Self {
        Self {
            log,
            clock,
            recent: Arc::default(),
            queues: Arc::default(),
            write_patience: WRITE_PATIENCE,
            checkpoints: None,
        }
    }

    /// The same with states kept beside the log, so that long streams need not be folded anew.
    #[must_use]
    pub fn with_checkpoints(self, checkpoints: Arc<dyn Checkpoints>) -> Self {
        Self { checkpoints: Some(checkpoints), ..self }
    }

    /// The same with another time, in place of 30 s, after which a command that has not had its
    /// turn to write is given up.
    #[must_use]
    pub fn with_write_patience(self, write_patience: Duration) -> Self {
        Self { write_patience, ..self }
    }

    /// The log, to read from.
    pub fn log(&self) -> Arc<dyn EventLog> {
        Arc::clone(&self.log)
    }

    /// The clock.
    pub fn clock(&self) -> &dyn Clock {
        &*self.clock
    }

    /// The plaintext of a payload.
    ///
    /// # Errors
    /// The log cannot be read, or the payload is not what the chain commits to.
    pub async fn payload(
        &self,
        stream: &StreamKey,
        reference: convergio_domain::payload::PayloadRef,
    ) -> Result<Option<Bytes>, LogError> {
        self.log.payload(stream, reference).await
    }

    /// Erases a payload, for ever; true if there was one. What is written from now on is not built
    /// on it; what was is erased with it.
    ///
    /// # Errors
    /// The log does not take it; a part may be gone, and it can be erased again.
    pub async fn erase_payload(
        &self,
        stream: &StreamKey,
        reference: convergio_domain::payload::PayloadRef,
    ) -> Result<bool, AppendError> {
        self.recent.forget(stream);
        self.log.erase_payload(stream, reference).await
    }

    /// Folds a stream: from its last checkpoint if there is one, else from its first event.
    ///
    /// # Errors
    /// The log cannot be read.
    pub async fn load<D: Decider>(&self, stream: &StreamKey) -> Result<Loaded<D>, LogError> {
        let mut loaded = self.begin(stream, None).await?;
        self.refresh(&mut loaded).await?;
        Ok(loaded)
    }

    /// The stream as a record leaves it that is at hand; nothing is read if it is the first one.
    ///
    /// # Errors
    /// The log cannot be read.
    pub async fn load_from<D: Decider>(&self, record: &Record) -> Result<Loaded<D>, LogError> {
        if record.first_seq() != Seq(1) {
            return self.load(&record.stream).await;
        }
        let mut loaded = Loaded::new(record.stream.clone());
        self.fold(&mut loaded, record).await?;
        Ok(loaded)
    }

    /// Folds what has been appended since; tells whether there was anything.
    ///
    /// # Errors
    /// The log cannot be read.
    pub async fn refresh<D: Decider>(&self, loaded: &mut Loaded<D>) -> Result<bool, LogError> {
        let mut changed = false;
        loop {
            let after = loaded.head.map_or(Seq(0), |head| head.seq);
            let records = self.log.read_stream(&loaded.stream, after, PAGE).await?;
            changed |= !records.is_empty();
            for record in &records {
                self.fold(loaded, record).await?;
            }
            self.keep_if_far(loaded);
            if records.len() < PAGE {
                return Ok(changed);
            }
        }
    }

    /// Folds a record of the stream, with what its first event inherits.
    pub(crate) async fn fold<D: Decider>(
        &self,
        loaded: &mut Loaded<D>,
        record: &Record,
    ) -> Result<(), LogError> {
        if let (None, Some(first)) = (loaded.head, record.body.events.first()) {
            self.inherit(loaded, first).await?;
        }
        for recorded in record.events() {
            D::evolve(&mut loaded.state, recorded);
        }
        (loaded.head, loaded.last_first) = (Some(record.head()), record.first_seq());
        Ok(())
    }

    /// Waits until all who came before in this process have written to a stream. Who decides on
    /// what it folded before should take its turn first, see whether it
    /// [is behind](Self::is_behind), and then decide: otherwise it is overtaken for as long as
    /// others wait. Only the first commit of a stream may overtake a turn that was taken.
    pub async fn take_turn(&self, stream: &StreamKey) -> WriteTurn {
        self.queues.take_turn(stream).await
    }

    /// Whether this process has appended to the stream since it was loaded. What other processes
    /// append is not looked for.
    pub fn is_behind<D: Decider>(&self, loaded: &Loaded<D>) -> bool {
        let reached = loaded.head.map_or(Seq(0), |head| head.seq);
        self.queues.heads.newest(&loaded.stream).is_some_and(|head| head.seq > reached)
    }

    /// Decides a command on a loaded state and appends what follows, when its turn has come; gives
    /// the number of new events. The state is in line with the log afterwards, whatever happened.
    ///
    /// # Errors
    /// See [`CommitError`].
    pub async fn commit<D: Decider>(
        &self,
        loaded: &mut Loaded<D>,
        command: D::Command,
        payloads: Vec<Payload>,
        context: &Context,
    ) -> Result<usize, CommitError<D::Rejection>> {
        let turn = self.take_turn(&loaded.stream).await;
        self.commit_in_turn(&turn, loaded, command, payloads, context).await
    }

    /// The same for who has taken the turn to write to the stream.
    ///
    /// # Errors
    /// See [`CommitError`].
    pub async fn commit_in_turn<D: Decider>(
        &self,
        turn: &WriteTurn,
        loaded: &mut Loaded<D>,
        command: D::Command,
        payloads: Vec<Payload>,
        context: &Context,
    ) -> Result<usize, CommitError<D::Rejection>> {
        debug_assert_eq!(turn.stream(), &loaded.stream);
        if self.is_behind(loaded) {
            self.refresh(loaded).await?;
            return Err(CommitError::Conflict);
        }
        self.decide(loaded, command, payloads, context, false).await
    }

    /// The same for the first commit of a stream that an executor in this process goes on from at
    /// once: whoever waits for it waits for what comes of it, so that both may share a sync.
    ///
    /// # Errors
    /// See [`CommitError`].
    pub async fn commit_first<D: Decider>(
        &self,
        stream: StreamKey,
        command: D::Command,
        payloads: Vec<Payload>,
        context: &Context,
    ) -> Result<Loaded<D>, CommitError<D::Rejection>> {
        let mut new = Loaded::new(stream);
        self.decide(&mut new, command, payloads, context, true).await?;
        Ok(new)
    }

    pub(crate) async fn decide<D: Decider>(
        &self,
        loaded: &mut Loaded<D>,
        command: D::Command,
        payloads: Vec<Payload>,
        context: &Context,
        is_continued: bool,
    ) -> Result<usize, CommitError<D::Rejection>> {
        let next = loaded.head.map_or(Seq(0), |head| head.seq).plus(1);
        let events = D::decide(&loaded.state, command, context, next);
        let events = events.map_err(CommitError::Rejected)?;
        let Some(first) = events.first() else { return Ok(0) };
        let copy = loaded.copy_for_commit();
        if loaded.head.is_none() {
            self.inherit(loaded, first).await?;
        }
        for (seq, event) in (next.0..).zip(&events) {
            let recorded = Recorded { seq: Seq(seq), time: context.now, event };
            D::evolve(&mut loaded.state, recorded);
        }
        let count = events.len();
        let (log, key) = (&*self.log, &loaded.stream);
        let mut planned = self.recent.plan(log, key, loaded.head, next, &payloads).await;
        let fold = D::fingerprint(&mut loaded.state);
        let wake = D::wake(&loaded.state);
        let commit = Commit {
            stream: loaded.stream.clone(),
            id: Uuid::now_v7(),
            expected: loaded.head,
            time: context.now,
            actor: context.actor.clone(),
            events,
            fold,
            payloads,
            reuse: std::mem::take(&mut planned.reuse),
            wake,
            is_continued,
        };
        match self.log.append(commit).await {
            Ok(head) => {
                match wake {
                    Wake::Done => self.recent.forget(&loaded.stream),
                    _ => self.recent.written(&loaded.stream, planned),
                }
                self.queues.heads.saw(&loaded.stream, head);
                (loaded.head, loaded.last_first) = (Some(head), next);
                self.keep_if_far(loaded);
                Ok(count)
            }
            Err(error) => {
                self.take_back(loaded, copy).await?;
                Err(match error {
                    AppendError::Conflict { .. } => {
                        loaded.commits_from_copy = COMMITS_FROM_COPY;
                        CommitError::Conflict
                    }
                    other => CommitError::Append(other),
                })
            }
        }
    }

    /// Brings a state that ran ahead of the log in line with it.
    async fn take_back<D: Decider>(
        &self,
        loaded: &mut Loaded<D>,
        copy: Option<Loaded<D>>,
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

impl<D: Decider> Loaded<D> {
    /// A copy of the state as it is before a commit, while commits of others must be expected.
    fn copy_for_commit(&mut self) -> Option<Self> {
        self.commits_from_copy = self.commits_from_copy.checked_sub(1)?;
        Some(self.clone())
    }
}
