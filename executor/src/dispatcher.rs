//! The dispatcher: decides which runs are in memory. It follows the log and the wake index, and
//! starts an actor for each run that has work. A run that waits for a time or an event occupies no
//! memory here.

use std::collections::{BTreeSet, HashMap, VecDeque};
use std::sync::Arc;
use std::time::Duration;

use convergio_domain::decider::Wake;
use convergio_domain::event::Event;
use convergio_domain::failure::UnsealedFailure;
use convergio_domain::run::{AdvanceRun, Run, RunCommand, RunOutcome};
use convergio_domain::stream::{StreamKey, StreamKind};
use convergio_domain::time::Timestamp;
use convergio_eventstore::{EventLog, Hash, LogError, Position, Record, SLOT_COUNT, SlotSet};
use futures_util::StreamExt;
use futures_util::stream::{self, BoxStream};
use tokio::sync::{Notify, watch};
use tokio::task::{AbortHandle, JoinError, JoinSet};

use crate::alarm::sleep_until;
use crate::effect::settle_family;
use crate::error::ActorError;
use crate::failures::seal_failure;
use crate::run::RunActor;
use crate::services::SharedServices;

/// Maximum runs that wait for an actor, by stream; beyond it the wake index is read again instead.
const PENDING_RUNS_LIMIT: usize = 10_000;
/// Delay before a run is tried again whose actor gave up.
const RETRY_DELAY: Duration = Duration::from_secs(5);

/// Delay before the log is followed again after it could not be read.
const FOLLOW_RETRY_DELAY: Duration = Duration::from_secs(1);

/// An actor at work on a run.
struct ActiveActor {
    signal: Arc<Notify>,
    /// Hash of the record from which the actor was started, if one was at hand.
    start_record_hash: Option<Hash>,
    /// True once that record has been read from the committed tail; until then its commit may still
    /// fail.
    is_start_durable: bool,
    /// True if another writer appended while the actor worked: the actor may have looked before
    /// that record.
    is_signalled: bool,
    task: AbortHandle,
}

/// The stream of an actor that ended, and when its run needs an actor again.
type ActorExit = (StreamKey, Result<Wake, ActorError>);

pub(crate) struct Dispatcher {
    shared: Arc<SharedServices>,
    active: HashMap<StreamKey, ActiveActor>,
    pending: VecDeque<StreamKey>,
    pending_streams: BTreeSet<StreamKey>,
    actors: JoinSet<ActorExit>,
    /// Earliest time at which the wake index is known to hold work for this process.
    next_wake_at: Option<Timestamp>,
}

impl Dispatcher {
    pub(crate) fn new(shared: Arc<SharedServices>) -> Self {
        Self {
            shared,
            active: HashMap::new(),
            pending: VecDeque::new(),
            pending_streams: BTreeSet::new(),
            actors: JoinSet::new(),
            next_wake_at: None,
        }
    }

    /// Runs until the drain token is cancelled, then waits for the actors to end.
    pub(crate) async fn run(mut self) -> Result<(), LogError> {
        let log = self.shared.repository.event_log();
        // Records are offered here before their commit is durable, so that planning and fsync
        // overlap.
        let mut uncommitted_records = log.tail_pending();
        // Only the end of the log is needed: the wake index names the runs that have work from
        // before it.
        let mut position = log.read_all(Position::START, 0).await?.tail;
        let mut tail = log.tail_all(position);
        let mut slot_set = self.shared.config.slot_set.clone();
        self.wake_due_runs().await?;
        loop {
            let shared = Arc::clone(&self.shared);
            let alarm = sleep_until(self.next_wake_at, shared.repository.clock());
            tokio::select! {
                // A run's own record must be handled before its actor's exit: otherwise the run
                // would be loaded once more for it.
                biased;
                () = self.shared.drain_token.cancelled() => break,
                Some(record) = uncommitted_records.next() => self.handle_uncommitted_record(record),
                record = tail.next() => match record {
                    Some(Ok(record)) => {
                        position = record.position;
                        self.handle_committed_record(record);
                    }
                    Some(Err(LogError::Unavailable(reason))) => {
                        self.report_failure("the log cannot be followed", &reason);
                        tail = follow_after_delay(&log, position);
                        // The wake-up then reads the index, which tells whether the log is readable
                        // again.
                        self.schedule_wake_in(FOLLOW_RETRY_DELAY);
                    }
                    Some(Err(error)) => return Err(error),
                    None => break,
                },
                Some(finished) = self.actors.join_next() => match finished {
                    Ok(finished) => self.handle_actor_exit(finished),
                    Err(error) => self.handle_actor_panic(&error),
                },
                () = alarm => self.wake_due_runs().await?,
                () = wait_for_slot_change(&mut slot_set) => self.apply_slot_set().await?,
            }
        }
        self.drain_actors().await;
        Ok(())
    }

    fn slot_set(&self) -> SlotSet {
        *self.shared.config.slot_set.borrow()
    }

    /// Adopts a changed slot set. Actors of runs that this process lost are aborted at once, since
    /// another process resumes them; runs that it gained may have been left in the middle, so the
    /// wake index is read.
    async fn apply_slot_set(&mut self) -> Result<(), LogError> {
        let slot_set = self.slot_set();
        self.active.retain(|stream, active| {
            let is_ours = slot_set.covers_stream(stream);
            if !is_ours {
                active.task.abort();
            }
            is_ours
        });
        self.wake_due_runs().await
    }

    /// Starts an actor for a new run whose first record may not be durable yet: it can plan the
    /// first steps meanwhile. Without capacity the record is ignored, since the committed tail
    /// delivers it again.
    fn handle_uncommitted_record(&mut self, record: Arc<Record>) {
        let has_capacity = self.active.len() < self.shared.config.active_runs;
        let is_new = !self.active.contains_key(&record.stream);
        if has_capacity
            && is_new
            && self.needs_actor(&record)
            && self.slot_set().covers_stream(&record.stream)
        {
            self.spawn_actor(record.stream.clone(), Some(record));
        }
    }

    /// Wakes a run for a committed record, unless its actor was started from that very record.
    fn handle_committed_record(&mut self, record: Arc<Record>) {
        let active = self.active.get_mut(&record.stream);
        let started_by_record =
            active.filter(|active| active.start_record_hash == Some(record.hash));
        if let Some(active) = started_by_record {
            active.is_start_durable = true;
        } else if self.needs_actor(&record) {
            self.wake_run(record.stream.clone(), Some(record));
        }
    }

    /// Returns whether a record may give a run work: it is of a run, and another writer's.
    fn needs_actor(&self, record: &Record) -> bool {
        // Events that a parent or child run caused are written by this executor too, yet for
        // another actor.
        let is_foreign = record.body.actor != self.shared.actor
            || record.body.events.iter().any(Event::is_from_another_run);
        record.stream.kind == StreamKind::Run && is_foreign
    }

    /// Ensures that an actor works on the run. `last_record` saves reading the log if it is at
    /// hand.
    fn wake_run(&mut self, stream: StreamKey, last_record: Option<Arc<Record>>) {
        if !self.slot_set().covers_stream(&stream) {
            return;
        }
        if let Some(active) = self.active.get_mut(&stream) {
            active.is_signalled = true;
            active.signal.notify_one();
        } else if self.active.len() < self.shared.config.active_runs {
            self.spawn_actor(stream, last_record);
        } else if self.pending.len() < PENDING_RUNS_LIMIT {
            if self.pending_streams.insert(stream.clone()) {
                self.pending.push_back(stream);
            }
        } else {
            // Not worth remembering more: the wake index has the run, and is read again soon.
            self.schedule_wake_in(RETRY_DELAY);
        }
    }

    fn spawn_actor(&mut self, stream: StreamKey, last_record: Option<Arc<Record>>) {
        let signal = Arc::new(Notify::new());
        let start_record_hash = last_record.as_ref().map(|record| record.hash);
        let work =
            run_actor(Arc::clone(&self.shared), stream.clone(), last_record, Arc::clone(&signal));
        let task = self.actors.spawn(work);
        let (is_start_durable, is_signalled) = (false, false);
        let active =
            ActiveActor { signal, start_record_hash, is_start_durable, is_signalled, task };
        self.active.insert(stream, active);
    }

    fn handle_actor_exit(&mut self, (stream, result): ActorExit) {
        let removed_actor = self.active.remove(&stream);
        // An actor started from a record that was not durable failed; now that it is, another may
        // succeed.
        let is_late =
            result.is_err() && removed_actor.as_ref().is_some_and(|ended| ended.is_start_durable);
        let is_signalled = is_late || removed_actor.is_some_and(|ended| ended.is_signalled);
        match result {
            Ok(Wake::At(due)) => self.schedule_wake_at(due),
            // The run waits for child runs, or could not notify its parent.
            Ok(Wake::Now) => self.schedule_wake_in(RETRY_DELAY),
            // Nothing is due: the run is over or waits for an event, the executor stops, or the run
            // was imported and is never executed.
            Ok(_) | Err(ActorError::Stopping | ActorError::Imported) => {}
            Err(error) => {
                tracing::error!(%stream, %error, "the run is left alone for a while");
                self.schedule_wake_in(RETRY_DELAY);
            }
        }
        if is_signalled {
            self.wake_run(stream, None);
        }
        // Runs that waited for capacity, oldest first.
        while self.active.len() < self.shared.config.active_runs {
            let Some(next) = self.pending.pop_front() else { break };
            self.pending_streams.remove(&next);
            self.wake_run(next, None);
        }
    }

    /// Drops an actor that panicked. Its run is loaded again after the retry delay.
    fn handle_actor_panic(&mut self, error: &JoinError) {
        let panicked_actor = self.active.iter().find(|(_, active)| active.task.id() == error.id());
        let Some(stream) = panicked_actor.map(|(stream, _)| stream.clone()) else { return };
        tracing::error!(%stream, %error, "the run's actor ended; it is left alone for a while");
        self.active.remove(&stream);
        self.schedule_wake_in(RETRY_DELAY);
    }

    fn schedule_wake_in(&mut self, delay: Duration) {
        self.schedule_wake_at(self.shared.repository.clock().now().add_span(to_span(delay)));
    }

    fn schedule_wake_at(&mut self, due: Timestamp) {
        self.next_wake_at = Some(self.next_wake_at.map_or(due, |known| known.min(due)));
    }

    /// Starts actors for every run that the wake index names. An unavailable index is read again
    /// later.
    async fn wake_due_runs(&mut self) -> Result<(), LogError> {
        match self.wake_indexed_runs().await {
            Err(LogError::Unavailable(reason)) => {
                self.report_failure("the wake index cannot be read", &reason);
                let now = self.shared.repository.clock().now();
                // Times that have passed are found again by the next read; sleeping for one would
                // retry at once.
                self.next_wake_at = self.next_wake_at.filter(|due| *due > now);
                self.schedule_wake_in(RETRY_DELAY);
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
    async fn wake_indexed_runs(&mut self) -> Result<(), LogError> {
        let log = self.shared.repository.event_log();
        let now = self.shared.repository.clock().now();
        // The index is shared by all processes and names their runs too: read enough to find ours
        // among them.
        // Processes are taken to have equally many slots, so this is about their number.
        let processes = SLOT_COUNT / self.slot_set().slot_count().max(1);
        let limit = (self.active.len() + PENDING_RUNS_LIMIT) * processes as usize;
        let due_streams = log.due_streams(now, limit).await?;
        self.next_wake_at = log.next_due_time(now).await?;
        for stream in due_streams {
            if stream.kind == StreamKind::Run && !self.active.contains_key(&stream) {
                self.wake_run(stream, None);
            }
        }
        Ok(())
    }

    /// Starts no further actors. Those at work get the grace; then their effects are abandoned.
    async fn drain_actors(&mut self) {
        for active in self.active.values() {
            // Wakes actors that wait, so that they notice the cancelled drain token.
            active.signal.notify_one();
        }
        let grace = tokio::time::sleep(self.shared.config.shutdown_grace);
        tokio::pin!(grace);
        loop {
            tokio::select! {
                finished = self.actors.join_next() => if finished.is_none() { return },
                () = &mut grace, if !self.shared.abandon_token.is_cancelled() => {
                    self.shared.abandon_token.cancel();
                }
            }
        }
    }
}

/// Follows the log from a position after the retry delay.
fn follow_after_delay(
    log: &Arc<dyn EventLog>,
    position: Position,
) -> BoxStream<'static, Result<Arc<Record>, LogError>> {
    let log = Arc::clone(log);
    let wait = stream::once(tokio::time::sleep(FOLLOW_RETRY_DELAY));
    wait.flat_map(move |()| log.tail_all(position)).boxed()
}

/// Waits until the slot set changes; forever if its sender is gone.
async fn wait_for_slot_change(slot_set: &mut watch::Receiver<SlotSet>) {
    if slot_set.changed().await.is_err() {
        std::future::pending::<()>().await;
    }
}

fn to_span(duration: Duration) -> convergio_domain::time::Span {
    convergio_domain::time::Span(u64::try_from(duration.as_millis()).unwrap_or(u64::MAX))
}

/// Runs one actor from load to exit. A failure that no retry can cure ends the run with that
/// reason.
async fn run_actor(
    shared: Arc<SharedServices>,
    stream: StreamKey,
    last_record: Option<Arc<Record>>,
    signal: Arc<Notify>,
) -> ActorExit {
    // Boxed: the task's future is moved several times before it starts and when it has ended, and
    // without boxes each move would copy the state of all its parts.
    let loaded =
        Box::pin(RunActor::load(Arc::clone(&shared), &stream, last_record.as_deref())).await;
    let result = match loaded {
        Ok(actor) => Box::pin(actor.run(&signal)).await,
        Err(error) => Err(error),
    };
    let worked = match result {
        Err(error) => match error.fatal_failure() {
            Some(failure) => Box::pin(fail_run(&shared, &stream, failure)).await,
            None => Err(error),
        },
        ok => ok,
    };
    (stream, worked)
}

/// Ends a run that no actor can work on, and settles its parent and children.
async fn fail_run(
    shared: &SharedServices,
    stream: &StreamKey,
    error: UnsealedFailure,
) -> Result<Wake, ActorError> {
    let (error, payloads) = seal_failure(error);
    let advance = AdvanceRun {
        end: Some(RunOutcome::Failed { step: None, error }),
        ..AdvanceRun::new(shared.config.id)
    };
    // Conflicts are retried by `execute`: whatever others wrote, the run must end.
    let context = shared.command_context();
    let command = |_: &_, _| (RunCommand::Advance(advance.clone()), payloads.clone());
    let mut failed_run = shared.repository.execute::<Run>(stream, &context, command).await?;
    settle_family(shared, &mut failed_run).await?;
    Ok(failed_run.state.next_wake())
}
