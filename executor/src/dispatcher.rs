//! Which runs are in memory: the dispatcher follows the log and the wake index, and gives each run
//! that has work an actor. Runs that wait cost nothing here.

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

/// Runs that wait for a place in memory, by name; more than these are found again in the log.
const PENDING_LIMIT: usize = 10_000;
/// Wait before a run is tried again whose actor gave up.
const AGAIN: Duration = Duration::from_secs(5);

/// Wait before the log is followed again that could not be.
const FOLLOW_AGAIN: Duration = Duration::from_secs(1);

/// An actor at work.
struct Active {
    signal: Arc<Notify>,
    /// The hash of the record that it was begun with.
    begun_with: Option<Hash>,
    /// Whether that record has become durable since.
    is_confirmed: bool,
    /// Whether somebody appended while it worked; it may have looked before.
    signalled: bool,
    task: AbortHandle,
}

/// What an actor came to.
type Finished = (StreamKey, Result<Wake, ActorError>);

pub(crate) struct Dispatcher {
    shared: Arc<Shared>,
    active: HashMap<StreamKey, Active>,
    pending: VecDeque<StreamKey>,
    queued: BTreeSet<StreamKey>,
    actors: JoinSet<Finished>,
    /// When the wake index has something for us, as far as known.
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

    /// Works until the executor is asked to stop, then lets the actors end.
    pub(crate) async fn run(mut self) -> Result<(), LogError> {
        let log = self.shared.repository.log();
        let mut early = log.early();
        let mut position = log.read_all(Position::START, 0).await?.tail;
        let mut tail = log.tail(position);
        let mut share = self.shared.config.share.clone();
        self.wake_due().await?;
        loop {
            let shared = Arc::clone(&self.shared);
            let alarm = sleep_until(self.next_due, shared.repository.clock());
            tokio::select! {
                // A run's record is heard before its actor's end: it would be taken up again.
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
                        // Reading the wake index then tells whether the log can be read again.
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

    /// Runs that are not ours any more are left at once: another process goes on with them. Runs
    /// that are ours now may have been left in the middle.
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

    /// A new run, before it is durable: an actor may plan its first steps meanwhile. Without a
    /// place for it, it comes again.
    fn arrived(&mut self, record: Arc<Record>) {
        let has_place = self.active.len() < self.shared.config.active_runs;
        let is_new = !self.active.contains_key(&record.stream);
        if has_place && is_new && self.is_work(&record) && self.share().covers(&record.stream) {
            self.spawn(record.stream.clone(), Some(record));
        }
    }

    /// An event that we did not write ourselves may mean work.
    fn appended(&mut self, record: Arc<Record>) {
        let active = self.active.get_mut(&record.stream);
        let known = active.filter(|active| active.begun_with == Some(record.hash));
        if let Some(active) = known {
            active.is_confirmed = true;
        } else if self.is_work(&record) {
            self.wake(record.stream.clone(), Some(record));
        }
    }

    fn is_work(&self, record: &Record) -> bool {
        let is_foreign = record.body.actor != self.shared.actor
            || record.body.events.iter().any(Event::is_from_another_run);
        record.stream.kind == StreamKind::Run && is_foreign
    }

    /// Sees to it that a run is worked on. `last` is its last record, if that is at hand.
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
            // Too many to remember: the wake index has it, and is asked again soon.
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
        // One that was begun too early can go on now.
        let is_late = result.is_err() && ended.as_ref().is_some_and(|ended| ended.is_confirmed);
        let signalled = is_late || ended.is_some_and(|ended| ended.signalled);
        match result {
            Ok(Wake::At(due)) => self.due_by(due),
            // It waits for runs within it, or could not tell the one that it belongs to.
            Ok(Wake::Now) => self.due_in(AGAIN),
            Ok(_) | Err(ActorError::Stopping | ActorError::Imported) => {}
            Err(error) => {
                tracing::error!(%stream, %error, "the run is left alone for a while");
                self.due_in(AGAIN);
            }
        }
        if signalled {
            self.wake(stream, None);
        }
        while self.active.len() < self.shared.config.active_runs {
            let Some(next) = self.pending.pop_front() else { break };
            self.queued.remove(&next);
            self.wake(next, None);
        }
    }

    /// An actor that panicked leaves its run to the next one.
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

    /// Gives an actor to every run that the wake index names; later, if it cannot be read now.
    async fn wake_due(&mut self) -> Result<(), LogError> {
        match self.wake_named().await {
            Err(LogError::Unavailable(reason)) => {
                self.report_failure("the wake index cannot be read", &reason);
                let now = self.shared.repository.clock().now();
                // What was due before is found again then: asking at once would only fail again.
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

    fn report_failure(&self, what: &str, reason: &str) {
        tracing::warn!(reason, "{what}");
        self.shared.config.health.report_failure(&format!("{what}: {reason}"));
    }

    async fn wake_named(&mut self) -> Result<(), LogError> {
        let log = self.shared.repository.log();
        let now = self.shared.repository.clock().now();
        // The index names the runs of all: ours must be among them.
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

    /// No new work; what is under way gets the grace, then is abandoned.
    async fn drain(&mut self) {
        for active in self.active.values() {
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

/// Follows the log again from a position, after a wait.
fn follow_later(
    log: &Arc<dyn EventLog>,
    position: Position,
) -> BoxStream<'static, Result<Arc<Record>, LogError>> {
    let log = Arc::clone(log);
    let wait = stream::once(tokio::time::sleep(FOLLOW_AGAIN));
    wait.flat_map(move |()| log.tail(position)).boxed()
}

/// Waits until the share is another; for ever if nobody can change it.
async fn changed(share: &mut watch::Receiver<Share>) {
    if share.changed().await.is_err() {
        std::future::pending::<()>().await;
    }
}

fn span(duration: Duration) -> convergio_domain::time::Span {
    convergio_domain::time::Span(u64::try_from(duration.as_millis()).unwrap_or(u64::MAX))
}

/// The life of one actor. What can never be done ends the run with its reason.
async fn work(
    shared: Arc<Shared>,
    stream: StreamKey,
    last: Option<Arc<Record>>,
    signal: Arc<Notify>,
) -> Finished {
    // Boxed, like what follows: the task's future is moved several times before it begins and when
    // it has ended, with all the room that its parts have in it.
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
    let context = shared.context();
    let command = |_: &_, _| (RunCommand::Advance(advance.clone()), payloads.clone());
    let mut failed = shared.repository.execute::<Run>(stream, &context, command).await?;
    farewell(shared, &mut failed).await?;
    Ok(failed.state.wake())
}
