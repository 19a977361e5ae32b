//! The life of an actor: it plans and commits while there is work that has its place, waits for
//! whatever wakes it, and leaves when nothing of its run is under way.

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

/// Wait before an actor that could not go on tries again. It keeps its outcomes meanwhile.
const RETRY_WAIT: Duration = Duration::from_secs(1);
/// Turns of the loop without a commit or a wait, after which something is wrong.
const IDLE_TURNS_LIMIT: u32 = 1_000;

/// What an actor comes to in one turn of its loop.
enum Turn {
    /// It wrote, and goes on.
    Written,
    /// It waited, and goes on.
    Waited,
    /// Nothing of the run is under way here.
    Leave(Wake),
}

impl Actor {
    /// Works until nothing more can be done now. `signal` tells of events that others appended.
    pub(crate) async fn run(mut self, signal: &Notify) -> Result<Wake, ActorError> {
        let mut idle_turns = 0;
        loop {
            // Even a loop that never waits lets others work.
            tokio::task::coop::consume_budget().await;
            let seq = self.run.state.seq;
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
            // What the run was taken up from may never have become durable: nothing was done then.
            let is_begun = self.run.head.is_some();
            match error.verdict() {
                // Boxed, as all that is rare: each run begins by moving the room for it.
                Some(failure) => Box::pin(self.fail_run(failure)).await?,
                None if error.is_passing() && is_begun => {
                    Box::pin(self.take_up_again(&error)).await?;
                }
                None => return Err(error),
            }
        }
    }

    async fn turn(&mut self, signal: &Notify) -> Result<Turn, ActorError> {
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
                    // Others may write meanwhile.
                    drop(write_turn);
                    Box::pin(self.wait_for_evaluation(*job, signal)).await?;
                    return Ok(Turn::Waited);
                }
                plan => plan?,
            };
            if !plan.is_empty() {
                self.commit(plan, Some(write_turn)).await?;
                return Ok(Turn::Written);
            }
            // What it took in has no consequence.
            self.done.drain(..plan.taken);
        }
        if self.in_flight.is_empty() {
            return Ok(Turn::Leave(self.run.state.wake()));
        }
        self.wait(signal).await?;
        Ok(Turn::Waited)
    }

    /// Waits for the turn to write, and takes in what others have written meanwhile: a plan that is
    /// made before its turn is out of date for as long as others wait too. Nothing when no work is
    /// left then.
    async fn take_write_turn(&mut self) -> Result<Option<WriteTurn>, ActorError> {
        let repository = &self.shared.repository;
        let write_turn = repository.take_turn(&self.run.stream).await;
        if !repository.is_behind(&self.run) {
            return Ok(Some(write_turn));
        }
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

    /// Steps whose time has come may start.
    fn promote_due(&mut self) {
        for step in self.ready.take_due(self.shared.now()) {
            self.note_scheduled(step, None);
        }
    }

    /// Whether the next commit would hold something: whatever counts here has its place.
    fn has_work(&self) -> bool {
        !self.done.is_empty()
            || self.is_late(self.shared.now())
            || self.scheduler.result() != RunResult::Running
            || (self.may_start() && self.can_start_one())
    }

    /// Whether the run's time is over.
    pub(super) fn is_late(&self, now: Timestamp) -> bool {
        self.run.state.deadline().is_some_and(|deadline| deadline <= now)
    }

    /// Whether steps may start at all.
    pub(super) fn may_start(&self) -> bool {
        !self.shared.stopping.is_cancelled()
            && !self.run.state.paused
            && self.in_flight.len() < self.shared.config.steps_per_run
    }

    fn can_start_one(&self) -> bool {
        let places = self.free_places();
        !self.unrecorded.is_empty()
            || self.ready.has_startable(&places)
            || (!self.queued_calls.is_empty() && places.child_runs > 0)
    }

    /// Waits for an outcome, for an event of others, for a time, or for the end of the grace.
    async fn wait(&mut self, signal: &Notify) -> Result<(), ActorError> {
        let due = [self.run.state.deadline(), self.ready.next_due()];
        let due = due.into_iter().flatten().chain(self.wakes()).min();
        let alarm = sleep_until(due, self.shared.repository.clock());
        let stopped = self.shared.stopped.clone();
        let wanted = self.outputs.wanted();
        tokio::select! {
            // Large values are let go before the next turn.
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

    /// When steps that wait by themselves come to an end.
    fn wakes(&self) -> impl Iterator<Item = Timestamp> {
        let state = &self.run.state;
        self.waiting.iter().filter_map(|id| match &state.steps.get(id)?.status {
            StepStatus::Sleeping { due } => Some(*due),
            StepStatus::Asking { approval } => state.approvals.get(approval)?.expires,
            StepStatus::Awaiting { expires, .. } => *expires,
            _ => None,
        })
    }

    /// Takes the run up from the log again, with the outcomes that are not in it yet: what was paid
    /// is not thrown away because the log cannot be read for a while.
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

    /// Ends the run by what trying again cannot help. What was paid stands first, each outcome by
    /// itself.
    async fn fail_run(&mut self, error: UnsealedFailure) -> Result<(), ActorError> {
        let is_readable = self.rebuild().is_ok();
        while is_readable && !self.done.is_empty() && !self.run.state.phase.is_ended() {
            let write_turn = match self.take_write_turn().await {
                Ok(Some(write_turn)) => write_turn,
                Ok(None) => continue,
                Err(_) => break,
            };
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
                // Others ended it.
                Err(CommitError::Rejected(_)) if self.run.state.phase.is_ended() => {}
                Err(error) => return Err(error.into()),
            }
        }
        Ok(())
    }
}

impl ActorError {
    /// Whether the same may go well later.
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
