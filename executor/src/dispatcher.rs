//! The dispatcher: decides which runs are in memory. It follows the log and the wake index, and
//! starts an actor for each run that has work. A run that waits for a time or an event occupies no
//! memory here.

use std::collections::{BTreeSet, HashMap, VecDeque};
use std::sync::Arc;
use std::time::Duration;

use convergio_domain::decider::Wake;
use convergio_domain::event::Event;
use convergio_domain::failure::UnsealedFailure;
use convergio_domain::run::{Advance, End, Run, RunCommand};
use convergio_domain::stream::{StreamKey, StreamKind};
use convergio_domain::time::Timestamp;
use convergio_eventstore::{EventLog, Hash, LogError, Position, Record, SLOTS, Share};
use futures_util::StreamExt;
use futures_util::stream::{self, BoxStream};
use tokio::sync::{Notify, watch};
use tokio::task::{AbortHandle, JoinError, JoinSet};

use crate::actor::{Actor, ActorError, Shared, farewell};
use crate::alarm::sleep_until;
use crate::failures::seal_failure;

/// Maximum runs that wait for an actor, by stream; beyond it the wake index is read again instead.
const PENDING_LIMIT: usize = 10_000;
/// Delay before a run is tried again whose actor gave up.
const AGAIN: Duration = Duration::from_secs(5);

/// Delay before the log is followed again after it could not be read.
const FOLLOW_AGAIN: Duration = Duration::from_secs(1);

/// An actor at work on a run.
struct Active {
    signal: Arc<Notify>,
    /// Hash of the record from which the actor was started, if one was at hand.
    begun_with: Option<Hash>,
    /// True once that record has been read from the committed tail; until then its commit may still
    /// fail.
    is_confirmed: bool,
    /// True if another writer appended while the actor worked: the actor may have looked before
    /// that record.
    signalled: bool,
    task: AbortHandle,
}

/// The stream of an actor that ended, and when its run needs an actor again.
type Finished = (StreamKey, Result<Wake, ActorError>);

pub(crate) struct Dispatcher {
    shared: Arc<Shared>,
    active: HashMap<StreamKey, Active>,
    pending: VecDeque<StreamKey>,
    queued: BTreeSet<StreamKey>,
    actors: JoinSet<Finished>,
    /// Earliest time at which the wake index is known to hold work for this process.
    next_due: Option<Timestamp>,
}

impl Dispatcher {
    pub(crate) fn new(shared: Arc<Shared>) -> Self {
        Self {
            shared,
            active: HashMap::new(),
            pending: VecDeque::new(),
            queued: BTreeSet::new(),
            actors: JoinSet::new(),
            next_due: None,
        }
    }

    /// Runs until the drain token is cancelled, then waits for the actors to end.
    pub(crate) async fn run(mut self) -> Result<(), LogError> {
        let log = self.shared.repository.log();
        // Records are offered here before their commit is durable, so that planning and fsync
        // overlap.
        let mut early = log.early();
        // Only the end of the log is needed: the wake index names the runs that have work from
        // before it.
        let mut position = log.read_all(Position::START, 0).await?.tail;
        let mut tail = log.tail(position);
        let mut share = self.shared.config.share.clone();
        self.wake_due().await?;
        loop {
            let shared = Arc::clone(&self.shared);
            let alarm = sleep_until(self.next_due, shared.repository.clock());
            tokio::select! {
                // A run's own record must be handled before its actor's exit: otherwise the run
                // would be loaded once more for it.
                biased;
                () = self.shared.stopping.cancelled() => break,
                Some(record) = early.next() => self.arrived(record),
                record = tail.next() => match record {
                    Some(Ok(record)) => {
                        position = record.position;
                        self.appended(record);
                    }
                    Some(Err(LogError::Unavailable(reason))) => {
                        self.report_failure("the log cannot be followed", &reason);
                        tail = follow_later(&log, position);
                        // The wake-up then reads the index, which tells whether the log is readable
                        // again.
                        self.due_in(FOLLOW_AGAIN);
                    }
                    Some(Err(error)) => return Err(error),
                    None => break,
                },
                Some(finished) = self.actors.join_next() => match finished {
                    Ok(finished) => self.finished(finished),
                    Err(error) => self.broken(&error),
                },
                () = alarm => self.wake_due().await?,
                () = changed(&mut share) => self.reshare().await?,
            }
        }
        self.drain().await;
        Ok(())
    }

    fn share(&self) -> Share {
        *self.shared.config.share.borrow()
    }

    /// Adopts a changed slot set. Actors of runs that this process lost are aborted at once, since
    /// another process resumes them; runs that it gained may have been left in the middle, so the
    /// wake index is read.
    async fn reshare(&mut self) -> Result<(), LogError> {
        let share = self.share();
        self.active.retain(|stream, active| {
            let is_ours = share.covers(stream);
            if !is_ours {
                active.task.abort();
            }
            is_ours
        });
        self.wake_due().await
    }

    /// Starts an actor for a new run whose first record may not be durable yet: it can plan the
    /// first steps meanwhile. Without capacity the record is ignored, since the committed tail
    /// delivers it again.
    fn arrived(&mut self, record: Arc<Record>) {
        let has_place = self.active.len() < self.shared.config.active_runs;
        let is_new = !self.active.contains_key(&record.stream);
        if has_place && is_new && self.is_work(&record) && self.share().covers(&record.stream) {
            self.spawn(record.stream.clone(), Some(record));
        }
    }

    /// Wakes a run for a committed record, unless its actor was started from that very record.
    fn appended(&mut self, record: Arc<Record>) {
        let active = self.active.get_mut(&record.stream);
        let known = active.filter(|active| active.begun_with == Some(record.hash));
        if let Some(active) = known {
            active.is_confirmed = true;
        } else if self.is_work(&record) {
            self.wake(record.stream.clone(), Some(record));
        }
    }

    /// Returns whether a record may give a run work: it is of a run, and another writer's.
    fn is_work(&self, record: &Record) -> bool {
        // Events that a parent or child run caused are written by this executor too, yet for
        // another actor.
        let is_foreign = record.body.actor != self.shared.actor
            || record.body.events.iter().any(Event::is_from_another_run);
        record.stream.kind == StreamKind::Run && is_foreign
    }

    /// Ensures that an actor works on the run. `last_record` saves reading the log if it is at
    /// hand.
    fn wake(&mut self, stream: StreamKey, last: Option<Arc<Record>>) {
        if !self.share().covers(&stream) {
            return;
        }
        if let Some(active) = self.active.get_mut(&stream) {
            active.signalled = true;
            active.signal.notify_one();
        } else if self.active.len() < self.shared.config.active_runs {
            self.spawn(stream, last);
        } else if self.pending.len() < PENDING_LIMIT {
            if self.queued.insert(stream.clone()) {
                self.pending.push_back(stream);
            }
        } else {
            // Not worth remembering more: the wake index has the run, and is read again soon.
            self.due_in(AGAIN);
        }
    }

    fn spawn(&mut self, stream: StreamKey, last: Option<Arc<Record>>) {
        let signal = Arc::new(Notify::new());
        let begun_with = last.as_ref().map(|record| record.hash);
        let work = work(Arc::clone(&self.shared), stream.clone(), last, Arc::clone(&signal));
        let task = self.actors.spawn(work);
        let (is_confirmed, signalled) = (false, false);
        let active = Active { signal, begun_with, is_confirmed, signalled, task };
        self.active.insert(stream, active);
    }

    fn finished(&mut self, (stream, result): Finished) {
        let ended = self.active.remove(&stream);
        // An actor started from a record that was not durable failed; now that it is, another may
        // succeed.
        let is_late = result.is_err() && ended.as_ref().is_some_and(|ended| ended.is_confirmed);
        let signalled = is_late || ended.is_some_and(|ended| ended.signalled);
        match result {
            Ok(Wake::At(due)) => self.due_by(due),
            // The run waits for child runs, or could not notify its parent.
            Ok(Wake::Now) => self.due_in(AGAIN),
            // Nothing is due: the run is over or waits for an event, the executor stops, or the run
            // was imported and is never executed.
            Ok(_) | Err(ActorError::Stopping | ActorError::Imported) => {}
            Err(error) => {
                tracing::error!(%stream, %error, "the run is left alone for a while");
                self.due_in(AGAIN);
            }
        }
        if signalled {
            self.wake(stream, None);
        }
        // Runs that waited for capacity, oldest first.
        while self.active.len() < self.shared.config.active_runs {
            let Some(next) = self.pending.pop_front() else { break };
            self.queued.remove(&next);
            self.wake(next, None);
        }
    }

    /// Drops an actor that panicked. Its run is loaded again after the retry delay.
    fn broken(&mut self, error: &JoinError) {
        let found = self.active.iter().find(|(_, active)| active.task.id() == error.id());
        let Some(stream) = found.map(|(stream, _)| stream.clone()) else { return };
        tracing::error!(%stream, %error, "the run's actor ended; it is left alone for a while");
        self.active.remove(&stream);
        self.due_in(AGAIN);
    }

    fn due_in(&mut self, wait: Duration) {
        self.due_by(self.shared.repository.clock().now().after(span(wait)));
    }

    fn due_by(&mut self, due: Timestamp) {
        self.next_due = Some(self.next_due.map_or(due, |known| known.min(due)));
    }

    /// Starts actors for every run that the wake index names. An unavailable index is read again
    /// later.
    async fn wake_due(&mut self) -> Result<(), LogError> {
        match self.wake_named().await {
            Err(LogError::Unavailable(reason)) => {
                self.report_failure("the wake index cannot be read", &reason);
                let now = self.shared.repository.clock().now();
                // Times that have passed are found again by the next read; sleeping for one would
                // retry at once.
                self.next_due = self.next_due.filter(|due| *due > now);
                self.due_in(AGAIN);
                Ok(())
            }
            Ok(()) => {
                self.shared.config.health.report_success();
                Ok(())
            }
            Err(error) => Err(error),
        }
    }

    /// Logs a failure and reports it to the health check.
    fn report_failure(&self, what: &str, reason: &str) {
        tracing::warn!(reason, "{what}");
        self.shared.config.health.report_failure(&format!("{what}: {reason}"));
    }

    /// Reads the due streams of the wake index and wakes the runs among them.
    async fn wake_named(&mut self) -> Result<(), LogError> {
        let log = self.shared.repository.log();
        let now = self.shared.repository.clock().now();
        // The index is shared by all processes and names their runs too: read enough to find ours
        // among them.
        // Processes are taken to have equally many slots, so this is about their number.
        let processes = SLOTS / self.share().count().max(1);
        let limit = (self.active.len() + PENDING_LIMIT) * processes as usize;
        let due = log.due(now, limit).await?;
        self.next_due = log.next_due(now).await?;
        for stream in due {
            if stream.kind == StreamKind::Run && !self.active.contains_key(&stream) {
                self.wake(stream, None);
            }
        }
        Ok(())
    }

    /// Starts no further actors. Those at work get the grace; then their effects are abandoned.
    async fn drain(&mut self) {
        for active in self.active.values() {
            // Wakes actors that wait, so that they notice the cancelled drain token.
            active.signal.notify_one();
        }
        let grace = tokio::time::sleep(self.shared.config.grace);
        tokio::pin!(grace);
        loop {
            tokio::select! {
                finished = self.actors.join_next() => if finished.is_none() { return },
                () = &mut grace, if !self.shared.stopped.is_cancelled() => {
                    self.shared.stopped.cancel();
                }
            }
        }
    }
}

/// Follows the log from a position after the retry delay.
fn follow_later(
    log: &Arc<dyn EventLog>,
    position: Position,
) -> BoxStream<'static, Result<Arc<Record>, LogError>> {
    let log = Arc::clone(log);
    let wait = stream::once(tokio::time::sleep(FOLLOW_AGAIN));
    wait.flat_map(move |()| log.tail(position)).boxed()
}

/// Waits until the slot set changes; forever if its sender is gone.
async fn changed(share: &mut watch::Receiver<Share>) {
    if share.changed().await.is_err() {
        std::future::pending::<()>().await;
    }
}

fn span(duration: Duration) -> convergio_domain::time::Span {
    convergio_domain::time::Span(u64::try_from(duration.as_millis()).unwrap_or(u64::MAX))
}

/// Runs one actor from load to exit. A failure that no retry can cure ends the run with that
/// reason.
async fn work(
    shared: Arc<Shared>,
    stream: StreamKey,
    last: Option<Arc<Record>>,
    signal: Arc<Notify>,
) -> Finished {
    // Boxed: the task's future is moved several times before it starts and when it has ended, and
    // without boxes each move would copy the state of all its parts.
    let loaded = Box::pin(Actor::load(Arc::clone(&shared), &stream, last.as_deref())).await;
    let worked = match loaded {
        Ok(actor) => Box::pin(actor.run(&signal)).await,
        Err(error) => Err(error),
    };
    let worked = match worked {
        Err(error) => match error.verdict() {
            Some(failure) => Box::pin(fail(&shared, &stream, failure)).await,
            None => Err(error),
        },
        ok => ok,
    };
    (stream, worked)
}

/// Ends a run that no actor can work on, and settles its parent and children.
async fn fail(
    shared: &Shared,
    stream: &StreamKey,
    error: UnsealedFailure,
) -> Result<Wake, ActorError> {
    let (error, payloads) = seal_failure(error);
    let advance = Advance {
        end: Some(End::Failed { step: None, error }),
        ..Advance::empty(shared.config.id)
    };
    // Conflicts are retried by `execute`: whatever others wrote, the run must end.
    let context = shared.context();
    let command = |_: &_, _| (RunCommand::Advance(advance.clone()), payloads.clone());
    let mut failed = shared.repository.execute::<Run>(stream, &context, command).await?;
    farewell(shared, &mut failed).await?;
    Ok(failed.state.wake())
}
