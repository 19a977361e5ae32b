//! Making a plan durable, and only then acting on it.

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

/// Waits between tries to write when the log is not available.
const LOG_RETRY: [Duration; 5] = [
    Duration::from_millis(50),
    Duration::from_millis(200),
    Duration::from_millis(500),
    Duration::from_secs(1),
    Duration::from_secs(2),
];

/// How a commit went.
enum Written {
    Done,
    /// Others wrote first; the state is up to date, the plan is not.
    Overtaken,
    /// The log takes nothing so large.
    TooLarge(AppendError),
}

impl Actor {
    /// Writes a plan, then launches its effects. Without a turn that was taken before the plan was
    /// made, it waits for one.
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

    /// Writes until the log takes it, somebody was faster, or the executor stops. Outcomes are not
    /// thrown away because a disk is full for a while.
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
            // Nobody waits because the log cannot be written.
            drop(current_turn);
            let error = match written {
                Ok(0) => return Err(ActorError::EmptyPlan),
                Ok(_) => return Ok(Written::Done),
                Err(CommitError::Append(error @ AppendError::TooLarge { .. })) => {
                    return Ok(Written::TooLarge(error));
                }
                Err(CommitError::Conflict) => return Ok(Written::Overtaken),
                Err(CommitError::Rejected(rejection)) => {
                    // Only cost that is known already may come after the end.
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
                // Others wrote meanwhile: the plan may contradict what they said.
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

    /// The plan was too large for the log: the next one holds one outcome alone, or one start. If
    /// it was no more than that, its step fails; what it used stands.
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

    /// What the run was taken up from may never have become durable.
    pub(super) fn check_begun(&self) -> Result<(), ActorError> {
        if self.run.head.is_none() { Err(no_run(&self.run.stream)) } else { Ok(()) }
    }

    /// Others changed the run.
    pub(super) async fn overtaken(&mut self) -> Result<(), ActorError> {
        self.check_begun()?;
        self.renew().await
    }

    /// Brings the waiting steps in line with what was written.
    fn note_steps(&mut self, advance: &Advance) {
        for step in &advance.ready {
            self.note_scheduled(step.clone(), None);
        }
        for moved in &advance.moves {
            self.note_queued_calls(&moved.step);
        }
        for start in &advance.starts {
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

    fn retry_at(&self, outcome: &Outcome) -> Option<Timestamp> {
        match outcome.result {
            StepResult::Failed { retry_at, .. } | StepResult::Unknown { retry_at } => retry_at,
            StepResult::Retried => match self.run.state.steps.get(&outcome.step)?.status {
                StepStatus::Scheduled { due } => due,
                _ => None,
            },
            _ => None,
        }
    }

    /// Begins the effects whose intents are durable now.
    fn launch(&mut self, launches: Vec<Launch>, first: Seq) {
        debug_assert!(self.run.state.seq >= first || launches.is_empty());
        // A budget that ran out ends the run in place of a turn.
        if self.run.state.phase.is_ended() {
            return;
        }
        for launch in launches {
            let Some(step) = self.run.state.steps.get(&launch.step) else { continue };
            // A budget that ran out ends the run in place of the start.
            let StepStatus::Started { at, .. } = step.status else { continue };
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

    /// The run has ended: what is still under way is stopped, and its cost recorded.
    pub(super) async fn settle(&mut self) -> Result<(), ActorError> {
        self.abandon().await;
        self.collect();
        self.done.retain(|done| done.call.is_some());
        while !self.done.is_empty() {
            let plan = self.settlement();
            match self.commit(plan, None).await {
                Ok(()) => {}
                // Nothing of it was under way: there is nothing to settle.
                Err(ActorError::Rejected(_)) => return Ok(()),
                Err(error) => return Err(error),
            }
        }
        Ok(())
    }

    /// Stops all effects and takes in what came of them.
    pub(super) async fn abandon(&mut self) {
        for flight in self.in_flight.values() {
            flight.cancel.cancel();
        }
        while let Some(landed) = self.effects.join_next().await {
            self.landed(landed);
        }
    }
}

/// Whether the log may take the same commit later.
fn is_passing(error: &AppendError) -> bool {
    matches!(error, AppendError::Busy | AppendError::Unavailable(_) | AppendError::Full)
}

/// Whether this try of a step is under way. Others may have ended it, and planned the next one.
pub(super) fn is_current(state: &RunState, step: &StepId, attempt: u32) -> bool {
    let known = state.steps.get(step);
    known.is_some_and(|known| known.attempt == attempt && known.is_under_way())
}
