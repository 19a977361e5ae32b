//! The repository: load, decide, append, evolve. Nothing else appends.

use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use convergio_domain::decider::{Context, Decider, Recorded, Wake};
use convergio_domain::stream::{Seq, StreamKey};
use uuid::Uuid;

use crate::checkpoint::{Checkpoints, FIRST as FIRST_CHECKPOINT};
use crate::clock::Clock;
use crate::commit::{Commit, Payload};
use crate::error::{AppendError, LogError};
use crate::log::EventLog;
use crate::record::{Head, Record};
use crate::reuse::Recent;

/// Records read at once while loading.
const PAGE: usize = 256;
/// Tries of [`Repository::execute`] against rivals.
const TRIES: u32 = 16;

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
}

impl<D: Decider> Loaded<D> {
    /// A stream that has no event, as far as its maker knows.
    pub fn new(stream: StreamKey) -> Self {
        let (head, last_first) = (None, Seq(0));
        let (state, due) = (D::State::default(), FIRST_CHECKPOINT);
        Self { stream, state, head, last_first, due, origin: None }
    }
}

/// Why a command led to no commit.
#[derive(Debug, thiserror::Error)]
pub enum CommitError<R: std::error::Error + 'static> {
    /// The rules refuse the command.
    #[error(transparent)]
    Rejected(R),
    /// Others appended first. The loaded state is up to date now; decide again.
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
    pub(crate) checkpoints: Option<Arc<dyn Checkpoints>>,
}

impl Repository {
    /// A repository over a log.
    pub fn new(log: Arc<dyn EventLog>, clock: Arc<dyn Clock>) -> Self {
        Self { log, clock, recent: Arc::default(), checkpoints: None }
    }

    /// The same with states kept beside the log, so that long streams need not be folded anew.
    #[must_use]
    pub fn with_checkpoints(self, checkpoints: Arc<dyn Checkpoints>) -> Self {
        Self { checkpoints: Some(checkpoints), ..self }
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

    /// Decides a command on a loaded state and appends what follows; gives the number of new
    /// events. The state is in line with the log afterwards, whatever happened.
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

    async fn decide<D: Decider>(
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
                (loaded.head, loaded.last_first) = (Some(head), next);
                self.keep_if_far(loaded);
                Ok(count)
            }
            Err(error) => {
                // The state ran ahead of the log: fold it anew.
                *loaded = self.load(&loaded.stream).await?;
                Err(match error {
                    AppendError::Conflict { .. } => CommitError::Conflict,
                    other => CommitError::Append(other),
                })
            }
        }
    }

    /// Loads, decides and appends, again and again while others are faster.
    ///
    /// # Errors
    /// See [`CommitError`]; `Conflict` after many tries.
    pub async fn execute<D: Decider>(
        &self,
        stream: &StreamKey,
        context: &Context,
        command: impl FnMut(&D::State, Seq) -> (D::Command, Vec<Payload>),
    ) -> Result<Loaded<D>, CommitError<D::Rejection>> {
        let loaded = self.load::<D>(stream).await?;
        self.execute_on(loaded, context, command).await
    }

    /// The same for a command that begins a stream with the history of another one, which is at
    /// hand as it was at that event and is not read again.
    ///
    /// # Errors
    /// See [`CommitError`]; `Conflict` after many tries.
    pub async fn execute_from<D: Decider>(
        &self,
        origin: Loaded<D>,
        stream: &StreamKey,
        context: &Context,
        command: impl FnMut(&D::State, Seq) -> (D::Command, Vec<Payload>),
    ) -> Result<Loaded<D>, CommitError<D::Rejection>> {
        let mut loaded = self.load::<D>(stream).await?;
        loaded.origin = loaded.head.is_none().then(|| Box::new(origin));
        self.execute_on(loaded, context, command).await
    }

    async fn execute_on<D: Decider>(
        &self,
        mut loaded: Loaded<D>,
        context: &Context,
        mut command: impl FnMut(&D::State, Seq) -> (D::Command, Vec<Payload>),
    ) -> Result<Loaded<D>, CommitError<D::Rejection>> {
        for tries in 1..=TRIES {
            let next = loaded.head.map_or(Seq(0), |head| head.seq).plus(1);
            let (command, payloads) = command(&loaded.state, next);
            match self.commit(&mut loaded, command, payloads, context).await {
                Err(CommitError::Conflict) => tokio::time::sleep(back_off(tries)).await,
                Err(error) => return Err(error),
                Ok(_) => return Ok(loaded),
            }
        }
        Err(CommitError::Conflict)
    }
}

/// A short wait with jitter, so that rivals do not meet again.
fn back_off(tries: u32) -> Duration {
    let mut random = [0_u8; 1];
    // Without randomness the wait is the same for all, and the next try may lose again.
    let _filled = getrandom::fill(&mut random);
    Duration::from_micros(u64::from(tries) * (100 + 4 * u64::from(random[0])))
}
