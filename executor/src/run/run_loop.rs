//! The loop of an actor: it plans and commits while there is work with capacity, waits for a
//! result, an event or a time, and leaves when nothing of its run is in flight.

use std::time::Duration;

use convergio_domain::decider::Wake;
use convergio_domain::failure::UnsealedFailure;
use convergio_domain::run::{AdvanceRun, Run, RunCommand, RunOutcome};
use convergio_domain::time::Timestamp;
use convergio_eventstore::{CommitError, WriteTurn};
use convergio_kernel_c::RunResult;
use tokio::sync::Notify;

use super::actor::RunActor;
use crate::alarm::sleep_until;
use crate::effect::settle_family;
use crate::error::ActorError;
use crate::failures::seal_failure;
use crate::plan::CommitLimits;

/// Delay before an actor that could not go on tries again. It keeps its results meanwhile.
const RETRY_DELAY: Duration = Duration::from_secs(1);
/// Iterations without a commit or a wait that are taken for a defect.
const IDLE_ITERATIONS_LIMIT: u32 = 1_000;

/// Outcome of one iteration of the loop.
enum LoopOutcome {
    /// A commit was written; the loop goes on.
    Committed,
    /// The actor waited; the loop goes on.
    Waited,
    /// Nothing of the run is in flight here; the actor leaves until the given wake-up.
    Leave(Wake),
}

impl RunActor {
    /// Runs until nothing more can be done now. `signal` announces events of other writers.
    pub(crate) async fn run(mut self, signal: &Notify) -> Result<Wake, ActorError> {
        let mut idle_iterations = 0;
        loop {
            // Even a loop that never waits must let other tasks run.
            tokio::task::coop::consume_budget().await;
            let seq = self.run.state.seq;
            // Between two iterations nothing refers to the cached values.
            if self.caches.outputs.release_if_contended() {
                self.caches.map_lists.clear();
            }
            let error = match self.run_iteration(signal).await {
                Ok(LoopOutcome::Leave(wake)) => return Ok(wake),
                Ok(LoopOutcome::Waited) => {
                    idle_iterations = 0;
                    continue;
                }
                Ok(LoopOutcome::Committed) => {
                    idle_iterations =
                        if self.run.state.seq == seq { idle_iterations + 1 } else { 0 };
                    debug_assert!(
                        idle_iterations < IDLE_ITERATIONS_LIMIT,
                        "the run's actor does not wait"
                    );
                    continue;
                }
                Err(error) => error,
            };
            // The actor may have started from a record whose commit failed; then there is nothing
            // to recover.
            let is_begun = self.run.head.is_some();
            match error.fatal_failure() {
                // Boxed, as everything rare: otherwise each run would move the space for it.
                Some(failure) => Box::pin(self.fail_run(failure)).await?,
                None if error.is_transient() && is_begun => {
                    Box::pin(self.recover_from_log(&error)).await?;
                }
                None => return Err(error),
            }
        }
    }

    /// Collects, plans and commits once, or waits if there is nothing to commit.
    async fn run_iteration(&mut self, signal: &Notify) -> Result<LoopOutcome, ActorError> {
        // An ended run only settles costs and relatives; nothing of it may start.
        if self.run.state.phase.is_ended() {
            self.settle_costs().await?;
            settle_family(&self.shared, &mut self.run).await?;
            return Ok(LoopOutcome::Leave(self.run.state.next_wake()));
        }
        self.collect_results();
        self.collect_external_inputs().await?;
        self.promote_due_steps();
        if self.has_work() {
            let Some(write_turn) = self.acquire_write_turn().await? else {
                return Ok(LoopOutcome::Waited);
            };
            let plan = match self.build_plan().await {
                Err(ActorError::Evaluation(job)) => {
                    // Other writers may take their turn meanwhile.
                    drop(write_turn);
                    Box::pin(self.wait_for_evaluation(*job, signal)).await?;
                    return Ok(LoopOutcome::Waited);
                }
                plan => plan?,
            };
            // An empty plan is not written: the log takes no commit without events.
            if !plan.is_empty() {
                self.commit_plan(plan, Some(write_turn)).await?;
                return Ok(LoopOutcome::Committed);
            }
            // The results in the plan have no consequence.
            self.inbox.results.drain(..plan.result_count);
        }
        if self.inbox.in_flight.is_empty() {
            return Ok(LoopOutcome::Leave(self.run.state.next_wake()));
        }
        self.wait_for_wake(signal).await?;
        Ok(LoopOutcome::Waited)
    }

    /// Acquires the write turn of the stream, and adopts what others wrote before it. A plan made
    /// without the turn would be out of date for as long as others wait as well. Returns `None` if
    /// no work is left then.
    async fn acquire_write_turn(&mut self) -> Result<Option<WriteTurn>, ActorError> {
        let repository = &self.shared.repository;
        let write_turn = repository.take_turn(&self.run.stream).await;
        if !repository.is_behind(&self.run) {
            return Ok(Some(write_turn));
        }
        // Waiting for the turn took time: what was folded before may be stale.
        repository.refresh(&mut self.run).await?;
        self.reload_after_conflict().await?;
        if self.run.state.phase.is_ended() {
            return Ok(None);
        }
        self.collect_results();
        self.collect_external_inputs().await?;
        self.promote_due_steps();
        Ok(self.has_work().then_some(write_turn))
    }

    /// Moves steps whose start time has come to those that may start now.
    fn promote_due_steps(&mut self) {
        for step in self.schedule.ready_steps.take_due(self.shared.current_time()) {
            self.schedule.track_scheduled_step(&self.graph, step, None);
        }
    }

    /// Returns whether the next commit would hold anything that also has capacity.
    fn has_work(&self) -> bool {
        !self.inbox.results.is_empty()
            || self.is_past_deadline(self.shared.current_time())
            || self.schedule.scheduler.run_result() != RunResult::Running
            || (self.can_start_steps() && self.has_startable_work())
    }

    /// Returns whether the run's deadline has passed.
    pub(super) fn is_past_deadline(&self, now: Timestamp) -> bool {
        self.run.state.earliest_deadline().is_some_and(|deadline| deadline <= now)
    }

    /// Returns whether steps may start: the run is not paused, and the limit of steps is not
    /// reached.
    pub(super) fn can_start_steps(&self) -> bool {
        !self.shared.drain_token.is_cancelled()
            && !self.run.state.paused
            && self.inbox.in_flight.len() < self.shared.config.steps_per_run
    }

    /// Returns whether a ready step or a queued call has capacity.
    fn has_startable_work(&self) -> bool {
        let places = self.free_capacity();
        !self.schedule.unrecorded_ready.is_empty()
            || self.schedule.ready_steps.has_startable(&places)
            || (!self.schedule.queued_calls.is_empty() && places.child_runs > 0)
    }

    /// Waits for a result, an event of another writer, a time, or the end of the grace.
    async fn wait_for_wake(&mut self, signal: &Notify) -> Result<(), ActorError> {
        // The earliest of the deadline, the next retry, and the ends of sleeps and waits.
        let wake_times =
            [self.run.state.earliest_deadline(), self.schedule.ready_steps.next_due_at()];
        let wake_at =
            wake_times.into_iter().flatten().chain(self.schedule.wake_times(&self.run.state)).min();
        let alarm = sleep_until(wake_at, self.shared.repository.clock());
        let abandon_token = self.shared.abandon_token.clone();
        let contended = self.caches.outputs.wait_for_contention();
        tokio::select! {
            // The next iteration drops the large values.
            () = contended => {}
            Some(done) = self.inbox.effects.join_next() => self.handle_finished_effect(done),
            () = signal.notified() => {
                if self.shared.repository.refresh(&mut self.run).await? {
                    self.sync_with_state().await?;
                    self.ensure_due_children().await?;
                }
            }
            () = alarm => {}
            () = abandon_token.cancelled() => self.abandon_effects().await,
        }
        Ok(())
    }

    /// Reloads the run from the log and keeps the results that are not in it yet: answers that were
    /// paid for must survive an outage of the log.
    async fn recover_from_log(&mut self, error: &ActorError) -> Result<(), ActorError> {
        tracing::warn!(stream = %self.run.stream, %error, "the run waits for its log");
        loop {
            tokio::select! {
                () = tokio::time::sleep(RETRY_DELAY) => {}
                () = self.shared.abandon_token.cancelled() => return Err(ActorError::Stopping),
            }
            match self.reload_run().await {
                Ok(()) => break,
                Err(error) if error.is_transient() && self.run.head.is_some() => {}
                Err(error) => return Err(error),
            }
        }
        Ok(())
    }

    async fn reload_run(&mut self) -> Result<(), ActorError> {
        self.run = self.shared.repository.load::<Run>(&self.run.stream).await?;
        self.check_has_head()?;
        self.sync_with_state().await
    }

    /// Ends the run with a failure that no retry can cure. Pending results are committed first, one
    /// a commit, so that their costs are recorded.
    async fn fail_run(&mut self, error: UnsealedFailure) -> Result<(), ActorError> {
        // A state that cannot be rebuilt cannot be planned on: then only the end is written.
        let is_readable = self.rebuild_derived().is_ok();
        while is_readable && !self.inbox.results.is_empty() && !self.run.state.phase.is_ended() {
            let write_turn = match self.acquire_write_turn().await {
                Ok(Some(write_turn)) => write_turn,
                Ok(None) => continue,
                Err(_) => break,
            };
            // One result a commit: a result that the log rejects must not take the others with it.
            self.schedule.commit_limits = CommitLimits::for_single_entry(true);
            let Ok(plan) = self.build_plan().await else { break };
            if plan.is_empty() {
                self.inbox.results.drain(..plan.result_count.max(1));
            } else if self.commit_plan(plan, Some(write_turn)).await.is_err() {
                break;
            }
        }
        let (error, payloads) = seal_failure(error);
        let advance = AdvanceRun {
            end: Some(RunOutcome::Failed { step: None, error }),
            ..AdvanceRun::new(self.shared.config.id)
        };
        while !self.run.state.phase.is_ended() {
            let (context, repository) = (self.shared.command_context(), &self.shared.repository);
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
