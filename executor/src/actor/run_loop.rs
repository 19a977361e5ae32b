//! The loop of an actor: it plans and commits while there is work with capacity, waits for a
//! result, an event or a time, and leaves when nothing of its run is in flight.

use std::time::Duration;

use convergio_domain::decider::Wake;
use convergio_domain::failure::UnsealedFailure;
use convergio_domain::run::{Advance, End, Run, RunCommand, StepStatus};
use convergio_domain::time::Timestamp;
use convergio_eventstore::{AppendError, CommitError, LogError, WriteTurn};
use convergio_kernel_c::RunResult;
use tokio::sync::Notify;

use super::commit_room::CommitLimits;
use super::{Actor, ActorError, farewell};
use crate::alarm::sleep_until;
use crate::failures::seal_failure;

/// Delay before an actor that could not go on tries again. It keeps its results meanwhile.
const RETRY_WAIT: Duration = Duration::from_secs(1);
/// Iterations without a commit or a wait that are taken for a defect.
const IDLE_TURNS_LIMIT: u32 = 1_000;

/// Outcome of one iteration of the loop.
enum Turn {
    /// A commit was written; the loop goes on.
    Written,
    /// The actor waited; the loop goes on.
    Waited,
    /// Nothing of the run is in flight here; the actor leaves until the given wake-up.
    Leave(Wake),
}

impl Actor {
    /// Runs until nothing more can be done now. `signal` announces events of other writers.
    pub(crate) async fn run(mut self, signal: &Notify) -> Result<Wake, ActorError> {
        let mut idle_turns = 0;
        loop {
            // Even a loop that never waits must let other tasks run.
            tokio::task::coop::consume_budget().await;
            let seq = self.run.state.seq;
            // Between two iterations nothing refers to the cached values.
            if self.outputs.make_room() {
                self.lists.clear();
            }
            let error = match self.turn(signal).await {
                Ok(Turn::Leave(wake)) => return Ok(wake),
                Ok(Turn::Waited) => {
                    idle_turns = 0;
                    continue;
                }
                Ok(Turn::Written) => {
                    idle_turns = if self.run.state.seq == seq { idle_turns + 1 } else { 0 };
                    debug_assert!(idle_turns < IDLE_TURNS_LIMIT, "the run's actor does not wait");
                    continue;
                }
                Err(error) => error,
            };
            // The actor may have started from a record whose commit failed; then there is nothing
            // to recover.
            let is_begun = self.run.head.is_some();
            match error.verdict() {
                // Boxed, as everything rare: otherwise each run would move the space for it.
                Some(failure) => Box::pin(self.fail_run(failure)).await?,
                None if error.is_passing() && is_begun => {
                    Box::pin(self.take_up_again(&error)).await?;
                }
                None => return Err(error),
            }
        }
    }

    /// Collects, plans and commits once, or waits if there is nothing to commit.
    async fn turn(&mut self, signal: &Notify) -> Result<Turn, ActorError> {
        // An ended run only settles costs and relatives; nothing of it may start.
        if self.run.state.phase.is_ended() {
            self.settle().await?;
            farewell(&self.shared, &mut self.run).await?;
            return Ok(Turn::Leave(self.run.state.wake()));
        }
        self.collect();
        self.collect_outside().await?;
        self.promote_due();
        if self.has_work() {
            let Some(write_turn) = self.take_write_turn().await? else {
                return Ok(Turn::Waited);
            };
            let plan = match self.plan().await {
                Err(ActorError::Evaluation(job)) => {
                    // Other writers may take their turn meanwhile.
                    drop(write_turn);
                    Box::pin(self.wait_for_evaluation(*job, signal)).await?;
                    return Ok(Turn::Waited);
                }
                plan => plan?,
            };
            // An empty plan is not written: the log takes no commit without events.
            if !plan.is_empty() {
                self.commit(plan, Some(write_turn)).await?;
                return Ok(Turn::Written);
            }
            // The results in the plan have no consequence.
            self.done.drain(..plan.taken);
        }
        if self.in_flight.is_empty() {
            return Ok(Turn::Leave(self.run.state.wake()));
        }
        self.wait(signal).await?;
        Ok(Turn::Waited)
    }

    /// Acquires the write turn of the stream, and adopts what others wrote before it. A plan made
    /// without the turn would be out of date for as long as others wait as well. Returns `None` if
    /// no work is left then.
    async fn take_write_turn(&mut self) -> Result<Option<WriteTurn>, ActorError> {
        let repository = &self.shared.repository;
        let write_turn = repository.take_turn(&self.run.stream).await;
        if !repository.is_behind(&self.run) {
            return Ok(Some(write_turn));
        }
        // Waiting for the turn took time: what was folded before may be stale.
        repository.refresh(&mut self.run).await?;
        self.overtaken().await?;
        if self.run.state.phase.is_ended() {
            return Ok(None);
        }
        self.collect();
        self.collect_outside().await?;
        self.promote_due();
        Ok(self.has_work().then_some(write_turn))
    }

    /// Moves steps whose start time has come to those that may start now.
    fn promote_due(&mut self) {
        for step in self.ready.take_due(self.shared.now()) {
            self.note_scheduled(step, None);
        }
    }

    /// Returns whether the next commit would hold anything that also has capacity.
    fn has_work(&self) -> bool {
        !self.done.is_empty()
            || self.is_late(self.shared.now())
            || self.scheduler.result() != RunResult::Running
            || (self.may_start() && self.can_start_one())
    }

    /// Returns whether the run's deadline has passed.
    pub(super) fn is_late(&self, now: Timestamp) -> bool {
        self.run.state.deadline().is_some_and(|deadline| deadline <= now)
    }

    /// Returns whether steps may start: the run is not paused, and the limit of steps is not
    /// reached.
    pub(super) fn may_start(&self) -> bool {
        !self.shared.stopping.is_cancelled()
            && !self.run.state.paused
            && self.in_flight.len() < self.shared.config.steps_per_run
    }

    /// Returns whether a ready step or a queued call has capacity.
    fn can_start_one(&self) -> bool {
        let places = self.free_places();
        !self.unrecorded.is_empty()
            || self.ready.has_startable(&places)
            || (!self.queued_calls.is_empty() && places.child_runs > 0)
    }

    /// Waits for a result, an event of another writer, a time, or the end of the grace.
    async fn wait(&mut self, signal: &Notify) -> Result<(), ActorError> {
        // The earliest of the deadline, the next retry, and the ends of sleeps and waits.
        let due = [self.run.state.deadline(), self.ready.next_due()];
        let due = due.into_iter().flatten().chain(self.wakes()).min();
        let alarm = sleep_until(due, self.shared.repository.clock());
        let stopped = self.shared.stopped.clone();
        let wanted = self.outputs.wanted();
        tokio::select! {
            // The next iteration drops the large values.
            () = wanted => {}
            Some(done) = self.effects.join_next() => self.landed(done),
            () = signal.notified() => {
                if self.shared.repository.refresh(&mut self.run).await? {
                    self.renew().await?;
                    self.look_after_children().await?;
                }
            }
            () = alarm => {}
            () = stopped.cancelled() => self.abandon().await,
        }
        Ok(())
    }

    /// Returns the times at which waiting steps end by themselves.
    fn wakes(&self) -> impl Iterator<Item = Timestamp> {
        let state = &self.run.state;
        self.waiting.iter().filter_map(|id| match &state.steps.get(id)?.status {
            StepStatus::Sleeping { due } => Some(*due),
            StepStatus::Asking { approval } => state.approvals.get(approval)?.expires,
            StepStatus::Awaiting { expires, .. } => *expires,
            _ => None,
        })
    }

    /// Reloads the run from the log and keeps the results that are not in it yet: answers that were
    /// paid for must survive an outage of the log.
    async fn take_up_again(&mut self, error: &ActorError) -> Result<(), ActorError> {
        tracing::warn!(stream = %self.run.stream, %error, "the run waits for its log");
        loop {
            tokio::select! {
                () = tokio::time::sleep(RETRY_WAIT) => {}
                () = self.shared.stopped.cancelled() => return Err(ActorError::Stopping),
            }
            match self.load_again().await {
                Ok(()) => break,
                Err(error) if error.is_passing() && self.run.head.is_some() => {}
                Err(error) => return Err(error),
            }
        }
        Ok(())
    }

    async fn load_again(&mut self) -> Result<(), ActorError> {
        self.run = self.shared.repository.load::<Run>(&self.run.stream).await?;
        self.check_begun()?;
        self.renew().await
    }

    /// Ends the run with a failure that no retry can cure. Pending results are committed first, one
    /// a commit, so that their costs are recorded.
    async fn fail_run(&mut self, error: UnsealedFailure) -> Result<(), ActorError> {
        // A state that cannot be rebuilt cannot be planned on: then only the end is written.
        let is_readable = self.rebuild().is_ok();
        while is_readable && !self.done.is_empty() && !self.run.state.phase.is_ended() {
            let write_turn = match self.take_write_turn().await {
                Ok(Some(write_turn)) => write_turn,
                Ok(None) => continue,
                Err(_) => break,
            };
            // One result a commit: a result that the log rejects must not take the others with it.
            self.limits = CommitLimits::narrowest(true);
            let Ok(plan) = self.plan().await else { break };
            if plan.is_empty() {
                self.done.drain(..plan.taken.max(1));
            } else if self.commit(plan, Some(write_turn)).await.is_err() {
                break;
            }
        }
        let (error, payloads) = seal_failure(error);
        let advance = Advance {
            end: Some(End::Failed { step: None, error }),
            ..Advance::empty(self.shared.config.id)
        };
        while !self.run.state.phase.is_ended() {
            let (context, repository) = (self.shared.context(), &self.shared.repository);
            let command = |_: &_, _| (RunCommand::Advance(advance.clone()), payloads.clone());
            match repository.execute_on(&mut self.run, &context, command).await {
                Ok(()) | Err(CommitError::Conflict) => {}
                // Another writer ended the run.
                Err(CommitError::Rejected(_)) if self.run.state.phase.is_ended() => {}
                Err(error) => return Err(error.into()),
            }
        }
        Ok(())
    }
}

impl ActorError {
    /// Returns whether the same operation may succeed later.
    fn is_passing(&self) -> bool {
        match self {
            Self::Log(error) => matches!(error, LogError::Unavailable(_)),
            Self::Append(error) => {
                matches!(error, AppendError::Unavailable(_) | AppendError::Busy | AppendError::Full)
            }
            Self::Conflict => true,
            _ => false,
        }
    }
}
