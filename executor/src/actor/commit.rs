//! Writing a plan to the log, and only then acting on it.

use std::sync::Arc;
use std::time::Duration;

use convergio_domain::id::StepId;
use convergio_domain::platform_text;
use convergio_domain::run::{
    Advance, Intent, Outcome, RunCommand, RunState, StepResult, StepStatus,
};
use convergio_domain::stream::Seq;
use convergio_domain::time::Timestamp;
use convergio_eventstore::{AppendError, CommitError, Payload, WriteTurn};

use super::commit_room::CommitLimits;
use super::effect::{DoneResult, Launch, Work, failure, perform};
use super::plan::Plan;
use super::{Actor, ActorError, Flight, no_run};

/// Delays between attempts to write while the log is unavailable; the last one repeats.
const LOG_RETRY: [Duration; 5] = [
    Duration::from_millis(50),
    Duration::from_millis(200),
    Duration::from_millis(500),
    Duration::from_secs(1),
    Duration::from_secs(2),
];

/// Result of writing a plan.
enum Written {
    Done,
    /// Another writer was first; the state is up to date, the plan is not.
    Overtaken,
    /// The commit exceeds the log's limits.
    TooLarge(AppendError),
}

impl Actor {
    /// Writes a plan, then launches its effects. Without a write turn acquired before the plan was
    /// made, it acquires one for each attempt.
    pub(super) async fn commit(
        &mut self,
        plan: Plan,
        turn: Option<WriteTurn>,
    ) -> Result<(), ActorError> {
        let first = self.run.state.seq.plus(1);
        let Plan { advance, payloads, scheduler, launches, values, tables, taken, .. } = plan;
        match self.write(&advance, &payloads, turn).await? {
            Written::Overtaken => self.overtaken().await,
            Written::TooLarge(error) => self.narrow(&advance, taken, error),
            Written::Done => {
                // The order below matters: results leave the actor only once the log has them.
                self.done.drain(..taken);
                self.forget_used_evaluations();
                self.scheduler = scheduler;
                self.limits = CommitLimits::WHOLE;
                self.failed = plan.failed.map(|(step, error)| (step, error.at(first)));
                self.unrecorded = plan.fresh;
                for (slot, value) in values {
                    let bytes = payloads.get(usize::from(slot.0)).map_or(0, |p| p.bytes.len());
                    self.outputs.keep(slot.at(first), value, bytes);
                }
                if let Some(known) = &mut self.tables {
                    known.extend(tables.into_iter().map(|(print, slot)| (print, slot.at(first))));
                }
                self.note_steps(&advance);
                self.launch(launches, first);
                Ok(())
            }
        }
    }

    /// Writes until the log accepts the plan, another writer is first, or the executor stops.
    /// Results survive a full disk.
    async fn write(
        &mut self,
        advance: &Advance,
        payloads: &[Payload],
        mut turn: Option<WriteTurn>,
    ) -> Result<Written, ActorError> {
        let mut tries = LOG_RETRY.iter().chain(std::iter::repeat(&LOG_RETRY[4]));
        let head = self.run.head;
        loop {
            let context = self.shared.context();
            let command = RunCommand::Advance(advance.clone());
            let repository = &self.shared.repository;
            let current_turn = match turn.take() {
                Some(turn) => turn,
                None => repository.take_turn(&self.run.stream).await,
            };
            let (run, payloads) = (&mut self.run, payloads.to_vec());
            let written =
                repository.commit_in_turn(&current_turn, run, command, payloads, &context).await;
            // Released before the delay below: other writers must not wait because the log is
            // unavailable.
            drop(current_turn);
            let error = match written {
                Ok(0) => return Err(ActorError::EmptyPlan),
                Ok(_) => return Ok(Written::Done),
                Err(CommitError::Append(error @ AppendError::TooLarge { .. })) => {
                    return Ok(Written::TooLarge(error));
                }
                Err(CommitError::Conflict) => return Ok(Written::Overtaken),
                Err(CommitError::Rejected(rejection)) => {
                    // Expected only after the end of the run, which accepts nothing but costs that
                    // are still held.
                    debug_assert!(self.run.state.phase.is_ended(), "refused: {rejection}");
                    return Err(rejection.into());
                }
                Err(CommitError::Append(error)) => error,
                Err(CommitError::Log(error)) => return Err(error.into()),
            };
            if !is_passing(&error) {
                return Err(ActorError::Append(error));
            }
            self.check_begun()?;
            if self.run.head != head {
                // Another writer was first: the plan may contradict its events.
                return Ok(Written::Overtaken);
            }
            tracing::warn!(stream = %self.run.stream, %error, "the log is not writable");
            let wait = tries.next().copied().unwrap_or(LOG_RETRY[4]);
            tokio::select! {
                () = tokio::time::sleep(wait) => {}
                () = self.shared.stopped.cancelled() => return Err(ActorError::Stopping),
            }
        }
    }

    /// Narrows the next commit to a single outcome or start after the log refused one as too large.
    /// If it was that narrow already, its step fails; what the step used is still recorded.
    fn narrow(
        &mut self,
        advance: &Advance,
        taken: usize,
        error: AppendError,
    ) -> Result<(), ActorError> {
        self.check_begun()?;
        let is_narrowest = self.limits != CommitLimits::WHOLE;
        self.limits = CommitLimits::narrowest(!self.done.is_empty());
        self.rebuild()?;
        if !is_narrowest {
            return Ok(());
        }
        // If the plan had results, the first of them is to blame, else its start.
        let started = advance.starts.first().map(|start| start.step.clone());
        match (self.done.first_mut().filter(|_| taken > 0), started) {
            (Some(done), _) if !matches!(done.result, DoneResult::Failed(_)) => {
                let message =
                    platform_text!("step {}: the log does not take what it yielded", done.step);
                let error = failure("request.too_large", message).with_cause(error);
                done.result = DoneResult::Failed(error);
            }
            (None, Some(step)) => {
                let message = platform_text!(
                    "step {}: the log does not take what it would send or show",
                    step
                );
                let error = failure("request.too_large", message).with_cause(error);
                self.oversized.insert(step, error);
            }
            _ => return Err(ActorError::Append(error)),
        }
        Ok(())
    }

    /// Returns an error if the run has no record: the one that it was loaded from failed to become
    /// durable.
    pub(super) fn check_begun(&self) -> Result<(), ActorError> {
        if self.run.head.is_none() { Err(no_run(&self.run.stream)) } else { Ok(()) }
    }

    /// Reloads derived state after another writer changed the run.
    pub(super) async fn overtaken(&mut self) -> Result<(), ActorError> {
        self.check_begun()?;
        self.renew().await
    }

    /// Tracks the steps of a written commit: scheduled, waiting, and due for another attempt.
    fn note_steps(&mut self, advance: &Advance) {
        for step in &advance.ready {
            self.note_scheduled(step.clone(), None);
        }
        for moved in &advance.moves {
            self.note_queued_calls(&moved.step);
        }
        for start in &advance.starts {
            // Waits have no effect in flight, so they are tracked by step.
            let waits = |intent: &Intent| {
                matches!(intent, Intent::Sleep { .. } | Intent::Ask { .. } | Intent::Await { .. })
            };
            if waits(&start.intent) {
                self.waiting.insert(start.step.clone());
            }
        }
        for outcome in advance.outcomes.iter().chain(&advance.instant) {
            if let Some(due) = self.retry_at(outcome) {
                self.ready.insert_later(due, outcome.step.clone());
            }
            self.note_queued_calls(&outcome.step);
            if outcome.step.item.is_none() {
                self.lists.remove(&outcome.step.node);
            }
            if matches!(outcome.result, StepResult::FailedAsking { .. } | StepResult::UnknownAsking)
            {
                self.waiting.insert(outcome.step.clone());
            }
        }
    }

    /// Returns the start of the next attempt that an outcome schedules.
    fn retry_at(&self, outcome: &Outcome) -> Option<Timestamp> {
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

    /// Launches the effects whose intents are durable now.
    fn launch(&mut self, launches: Vec<Launch>, first: Seq) {
        debug_assert!(self.run.state.seq >= first || launches.is_empty());
        // If the budget ran out, the commit ended the run in place of the turn.
        if self.run.state.phase.is_ended() {
            return;
        }
        for launch in launches {
            let Some(step) = self.run.state.steps.get(&launch.step) else { continue };
            // If the budget ran out, the commit has no start event for the step.
            let StepStatus::Started { at, .. } = step.status else { continue };
            // The token is a child of the executor's, so the end of the grace cancels all effects.
            let cancel = self.shared.stopped.child_token();
            let is_agent = step.call.is_some() || step.turns.is_some();
            let flight = Flight { is_agent, cancel: cancel.clone() };
            self.in_flight.insert((launch.step.clone(), launch.at), flight);
            let (shared, stream) = (Arc::clone(&self.shared), self.run.stream.clone());
            let child = match &launch.work {
                Work::Child(run) => self.new_child(*run),
                _ => None,
            };
            self.effects.spawn(perform(shared, stream, launch, child, at, cancel));
        }
    }

    /// Stops everything in flight of a run that has ended, and records the costs.
    pub(super) async fn settle(&mut self) -> Result<(), ActorError> {
        self.abandon().await;
        self.collect();
        self.done.retain(|done| done.call.is_some());
        while !self.done.is_empty() {
            let plan = self.settlement();
            match self.commit(plan, None).await {
                Ok(()) => {}
                // Nothing was in flight, so there is nothing to settle.
                Err(ActorError::Rejected(_)) => return Ok(()),
                Err(error) => return Err(error),
            }
        }
        Ok(())
    }

    /// Cancels all effects and collects their results.
    pub(super) async fn abandon(&mut self) {
        for flight in self.in_flight.values() {
            flight.cancel.cancel();
        }
        while let Some(landed) = self.effects.join_next().await {
            self.landed(landed);
        }
    }
}

/// Returns whether the log may accept the same commit later.
fn is_passing(error: &AppendError) -> bool {
    matches!(error, AppendError::Busy | AppendError::Unavailable(_) | AppendError::Full)
}

/// Returns whether an attempt is still in progress. Another writer may have ended it and scheduled
/// the next.
pub(super) fn is_current(state: &RunState, step: &StepId, attempt: u32) -> bool {
    let known = state.steps.get(step);
    known.is_some_and(|known| known.attempt == attempt && known.is_under_way())
}
