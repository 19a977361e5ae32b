//! Writing a plan to the log; only then its effects are launched.

use std::time::Duration;

use convergio_domain::platform_text;
use convergio_domain::run::{
    AdvanceRun, RunCommand, StepIntent, StepOutcome, StepResult, StepStatus,
};
use convergio_domain::time::Timestamp;
use convergio_eventstore::{AppendError, CommitError, Payload, WriteTurn};

use super::actor::RunActor;
use crate::error::{ActorError, missing_run_error};
use crate::plan::{CommitLimits, CommitPlan, EffectOutcome, new_failure};

/// Delays between attempts to write while the log is unavailable; the last one repeats.
const LOG_RETRY_DELAYS: [Duration; 5] = [
    Duration::from_millis(50),
    Duration::from_millis(200),
    Duration::from_millis(500),
    Duration::from_secs(1),
    Duration::from_secs(2),
];

/// Result of writing a plan.
enum CommitResult {
    Committed,
    /// Another writer was first; the state is up to date, the plan is not.
    Overtaken,
    /// The commit exceeds the log's limits.
    TooLarge(AppendError),
}

impl RunActor {
    /// Writes a plan, then launches its effects. Without a write turn acquired before the plan was
    /// made, it acquires one for each attempt.
    pub(super) async fn commit_plan(
        &mut self,
        plan: CommitPlan,
        turn: Option<WriteTurn>,
    ) -> Result<(), ActorError> {
        let first_seq = self.run.state.seq.offset_by(1);
        let CommitPlan {
            advance,
            payloads,
            scheduler,
            launches,
            values,
            candidate_tables: tables,
            result_count: taken,
            ..
        } = plan;
        match self.write_until_accepted(&advance, &payloads, turn).await? {
            CommitResult::Overtaken => self.reload_after_conflict().await,
            CommitResult::TooLarge(error) => self.narrow_limits(&advance, taken, error),
            CommitResult::Committed => {
                // The order below matters: results leave the actor only once the log has them.
                self.inbox.results.drain(..taken);
                self.caches.evaluations.forget_used();
                self.schedule.scheduler = scheduler;
                self.schedule.commit_limits = CommitLimits::WHOLE;
                self.schedule.deciding_failure = plan
                    .deciding_failure
                    .map(|(step, error)| (step, error.into_failure(first_seq)));
                self.schedule.unrecorded_ready = plan.unrecorded_ready;
                for (slot, value) in values {
                    let bytes = payloads.get(usize::from(slot.0)).map_or(0, |p| p.bytes.len());
                    self.caches.outputs.cache_own_value(
                        slot.to_payload_ref(first_seq),
                        value,
                        bytes,
                    );
                }
                if let Some(known_tables) = &mut self.caches.candidate_tables {
                    known_tables.extend(
                        tables
                            .into_iter()
                            .map(|(print, slot)| (print, slot.to_payload_ref(first_seq))),
                    );
                }
                self.track_written_steps(&advance);
                self.launch_effects(launches, first_seq);
                Ok(())
            }
        }
    }

    /// Writes until the log accepts the plan, another writer is first, or the executor stops.
    /// Results survive a full disk.
    async fn write_until_accepted(
        &mut self,
        advance: &AdvanceRun,
        payloads: &[Payload],
        mut turn: Option<WriteTurn>,
    ) -> Result<CommitResult, ActorError> {
        let mut delays = LOG_RETRY_DELAYS.iter().chain(std::iter::repeat(&LOG_RETRY_DELAYS[4]));
        let head = self.run.head;
        loop {
            let context = self.shared.command_context();
            let command = RunCommand::Advance(advance.clone());
            let repository = &self.shared.repository;
            let current_turn = match turn.take() {
                Some(turn) => turn,
                None => repository.take_turn(&self.run.stream).await,
            };
            let (run, payloads) = (&mut self.run, payloads.to_vec());
            let result =
                repository.commit_in_turn(&current_turn, run, command, payloads, &context).await;
            // Released before the delay below: other writers must not wait because the log is
            // unavailable.
            drop(current_turn);
            let error = match result {
                Ok(0) => return Err(ActorError::EmptyPlan),
                Ok(_) => return Ok(CommitResult::Committed),
                Err(CommitError::Append(error @ AppendError::TooLarge { .. })) => {
                    return Ok(CommitResult::TooLarge(error));
                }
                Err(CommitError::Conflict) => return Ok(CommitResult::Overtaken),
                Err(CommitError::Rejected(rejection)) => {
                    // Expected only after the end of the run, which accepts nothing but costs that
                    // are still held.
                    debug_assert!(self.run.state.phase.is_ended(), "refused: {rejection}");
                    return Err(rejection.into());
                }
                Err(CommitError::Append(error)) => error,
                Err(CommitError::Log(error)) => return Err(error.into()),
            };
            if !is_transient_error(&error) {
                return Err(ActorError::Append(error));
            }
            self.check_has_head()?;
            if self.run.head != head {
                // Another writer was first: the plan may contradict its events.
                return Ok(CommitResult::Overtaken);
            }
            tracing::warn!(stream = %self.run.stream, %error, "the log is not writable");
            let wait = delays.next().copied().unwrap_or(LOG_RETRY_DELAYS[4]);
            tokio::select! {
                () = tokio::time::sleep(wait) => {}
                () = self.shared.abandon_token.cancelled() => return Err(ActorError::Stopping),
            }
        }
    }

    /// Narrows the next commit to a single outcome or start after the log refused one as too large.
    /// If it was that narrow already, its step fails; what the step used is still recorded.
    fn narrow_limits(
        &mut self,
        advance: &AdvanceRun,
        result_count: usize,
        error: AppendError,
    ) -> Result<(), ActorError> {
        self.check_has_head()?;
        let was_narrowest = self.schedule.commit_limits != CommitLimits::WHOLE;
        self.schedule.commit_limits =
            CommitLimits::for_single_entry(!self.inbox.results.is_empty());
        self.rebuild_derived()?;
        if !was_narrowest {
            return Ok(());
        }
        // If the plan had results, the first of them is to blame, else its start.
        let started_step = advance.starts.first().map(|start| start.step.clone());
        match (self.inbox.results.first_mut().filter(|_| result_count > 0), started_step) {
            (Some(done), _) if !matches!(done.outcome, EffectOutcome::Failed(_)) => {
                let message =
                    platform_text!("step {}: the log does not take what it yielded", done.step);
                let error = new_failure("request.too_large", message).with_cause(error);
                done.outcome = EffectOutcome::Failed(error);
            }
            (None, Some(step)) => {
                let message = platform_text!(
                    "step {}: the log does not take what it would send or show",
                    step
                );
                let error = new_failure("request.too_large", message).with_cause(error);
                self.schedule.oversized_steps.insert(step, error);
            }
            _ => return Err(ActorError::Append(error)),
        }
        Ok(())
    }

    /// Returns an error if the run has no record: the one that it was loaded from failed to become
    /// durable.
    pub(super) fn check_has_head(&self) -> Result<(), ActorError> {
        if self.run.head.is_none() { Err(missing_run_error(&self.run.stream)) } else { Ok(()) }
    }

    /// Reloads derived state after another writer changed the run.
    pub(super) async fn reload_after_conflict(&mut self) -> Result<(), ActorError> {
        self.check_has_head()?;
        self.sync_with_state().await
    }

    /// Tracks the steps of a written commit: scheduled, waiting, and due for another attempt.
    fn track_written_steps(&mut self, advance: &AdvanceRun) {
        for step in &advance.ready_steps {
            self.schedule.track_scheduled_step(&self.graph, step.clone(), None);
        }
        for moved in &advance.turn_updates {
            self.schedule.track_queued_calls(&self.run.state, &moved.step);
        }
        for start in &advance.starts {
            // Waits have no effect in flight, so they are tracked by step.
            let waits = |intent: &StepIntent| {
                matches!(
                    intent,
                    StepIntent::Sleep { .. }
                        | StepIntent::RequestApproval { .. }
                        | StepIntent::AwaitSignal { .. }
                )
            };
            if waits(&start.intent) {
                self.schedule.waiting_steps.insert(start.step.clone());
            }
        }
        for outcome in advance.outcomes.iter().chain(&advance.instant_outcomes) {
            if let Some(due) = self.next_attempt_at(outcome) {
                self.schedule.ready_steps.insert_later(due, outcome.step.clone());
            }
            self.schedule.track_queued_calls(&self.run.state, &outcome.step);
            if outcome.step.item.is_none() {
                self.caches.map_lists.remove(&outcome.step.node);
            }
            if matches!(outcome.result, StepResult::FailedAsking { .. } | StepResult::UnknownAsking)
            {
                self.schedule.waiting_steps.insert(outcome.step.clone());
            }
        }
    }

    /// Returns the start of the next attempt that an outcome schedules.
    fn next_attempt_at(&self, outcome: &StepOutcome) -> Option<Timestamp> {
        match outcome.result {
            StepResult::Failed { retry_at, .. } | StepResult::Unknown { retry_at } => retry_at,
            // The domain chose the time of a retry that a person asked for; read it from the state.
            StepResult::Retried => match self.run.state.steps.get(&outcome.step)?.status {
                StepStatus::Scheduled { due } => due,
                _ => None,
            },
            _ => None,
        }
    }
}

/// Returns whether the log may accept the same commit later.
fn is_transient_error(error: &AppendError) -> bool {
    matches!(error, AppendError::Busy | AppendError::Unavailable(_) | AppendError::Full)
}
