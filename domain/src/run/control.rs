//! Control of a run from outside: retries, signals, decisions about steps, checkpoints and forks.

use super::command::{CommandReason, ForkRun, ResolveStep, SIGNALS_LIMIT, SendSignal};
use super::event::{
    CheckpointSaved, RunEvent, RunForked, SignalAwaited, SignalReceived, StepResolved,
};
use super::rejection::RunRejection;
use super::state::{RunPhase, RunState};
use super::step::StepStatus;
use super::values::Resolution;
use crate::decider::DecisionContext;
use crate::id::{SignalName, StepId};
use crate::stream::Seq;
use crate::time::Timestamp;

/// Decides a retry. A failed run continues from its failed steps, and children that its failure
/// cancelled continue with it. If neither exists, the retry is accepted only if `budget.wall` was
/// used up, which then restarts.
pub(super) fn decide_retry(
    state: &RunState,
    steps: Vec<StepId>,
    now: Timestamp,
) -> Result<Vec<RunEvent>, RunRejection> {
    match state.phase {
        RunPhase::New => return Err(RunRejection::NotFound),
        RunPhase::Failed => {}
        phase => return Err(RunRejection::NotFailed(phase)),
    }
    check_steps_failed(state, &steps)?;
    let mut reopened = state.reopening_event(steps, now);
    if reopened.steps.is_empty() && !state.has_cancelled_children() {
        // Without anything to attempt again, the run would fail at once; a used-up time limit can
        // be restarted.
        if !has_exhausted_wall_time(state, now) {
            return Err(RunRejection::NothingToRetry);
        }
        reopened.restarts_wall = true;
    }
    let mut events = vec![RunEvent::RunReopened(reopened)];
    events.extend(state.child_reopening_events(state.budget));
    Ok(events)
}

/// Checks that every step to be retried has failed.
pub(super) fn check_steps_failed(state: &RunState, steps: &[StepId]) -> Result<(), RunRejection> {
    let has_failed = |step: &&StepId| {
        state.steps.get(step).is_some_and(|known| known.status == StepStatus::Failed)
    };
    match steps.iter().find(|step| !has_failed(step)) {
        Some(step) => Err(RunRejection::HasNotFailed(step.clone())),
        None => Ok(()),
    }
}

/// True if the run failed because its active time was used up, and its calendar deadline has not
/// passed.
fn has_exhausted_wall_time(state: &RunState, now: Timestamp) -> bool {
    let is_late = state.calendar_deadline().is_some_and(|deadline| deadline <= now);
    let is_over = state.remaining_wall_time(now) == Some(crate::time::Span(0));
    state.failed_step.is_none() && is_over && !is_late
}

/// Checks that a signal can have an effect: a node of the run's graph waits for its name. `names`
/// are the names that the graph waits for. A repeated signal is accepted.
///
/// # Errors
/// The run has ended, or no node would ever consume the signal.
pub fn check_signal(
    state: &RunState,
    signal: &SendSignal,
    names: &[SignalName],
) -> Result<(), RunRejection> {
    if state.is_imported {
        return Err(RunRejection::Imported);
    }
    if state.signals_seen.contains(&signal.id) {
        return Ok(());
    }
    check_running(state)?;
    if names.contains(&signal.name) {
        return Ok(());
    }
    Err(RunRejection::UnknownSignal { signal: signal.name.clone(), names: names.to_vec() })
}

/// Decides the receipt of an external event; a repeated one has no effect.
pub(super) fn decide_signal(
    state: &RunState,
    signal: SendSignal,
    next: Seq,
) -> Result<Vec<RunEvent>, RunRejection> {
    if state.signals_seen.contains(&signal.id) {
        return Ok(Vec::new());
    }
    check_running(state)?;
    // Ids are kept for the run's whole life, so their number must be bounded.
    if state.signals_seen.len() >= SIGNALS_LIMIT {
        return Err(RunRejection::TooManySignals);
    }
    let payload = signal.payload.to_payload_ref(next);
    let received = SignalReceived { id: signal.id, signal: signal.name, payload };
    Ok(vec![RunEvent::SignalReceived(received)])
}

/// Decides a person's resolution of a step; the same resolution again has no effect.
pub(super) fn decide_resolve(
    state: &RunState,
    command: ResolveStep,
    context: &DecisionContext,
    next: Seq,
) -> Result<Vec<RunEvent>, RunRejection> {
    let ResolveStep { step, resolution, output, reason } = command;
    let step_state =
        state.steps.get(&step).ok_or_else(|| RunRejection::NotUndecided(step.clone()))?;
    let StepStatus::Undecided { unknown, decision } = &step_state.status else {
        return Err(RunRejection::NotUndecided(step));
    };
    if let Some((before, _)) = decision {
        let is_same_decision = *before == resolution;
        return if is_same_decision {
            Ok(Vec::new())
        } else {
            Err(RunRejection::DecidedBefore(step, *before))
        };
    }
    check_running(state)?;
    // A lost attempt may have had effects, so the step cannot be skipped as if it had none; a
    // failed one has no output to complete with.
    let is_allowed = match (unknown, resolution) {
        (true, Resolution::Skip) | (false, Resolution::Completed) => false,
        _ => output.is_none() || resolution == Resolution::Completed,
    };
    if !is_allowed {
        return Err(RunRejection::NoSuchDecision { step, resolution, unknown: *unknown });
    }
    let output = output.map(|output| output.to_payload_ref(next));
    let (attempt, by) = (step_state.attempt, context.actor.clone());
    let (reason, reason_at) = CommandReason::event_fields(reason, next);
    Ok(vec![RunEvent::StepResolved(StepResolved {
        step,
        attempt,
        resolution,
        output,
        by,
        reason,
        reason_at,
    })])
}

/// Decides a checkpoint, whether the run is running or has ended.
pub(super) fn decide_mark(
    state: &RunState,
    label: Option<CommandReason>,
    next: Seq,
) -> Result<Vec<RunEvent>, RunRejection> {
    let (label, label_at) = CommandReason::event_fields(label, next);
    match state.phase {
        RunPhase::New => Err(RunRejection::NotFound),
        _ => Ok(vec![RunEvent::CheckpointSaved(CheckpointSaved { label, label_at })]),
    }
}

/// Decides the creation of a fork; the same request has no effect.
pub(super) fn decide_fork(
    state: &RunState,
    command: ForkRun,
    next: Seq,
) -> Result<Vec<RunEvent>, RunRejection> {
    if state.phase != RunPhase::New {
        let is_same_request = state.request_hash == command.request_hash;
        return if is_same_request {
            Ok(Vec::new())
        } else {
            Err(RunRejection::IdempotencyMismatch)
        };
    }
    Ok(vec![RunEvent::RunForked(RunForked {
        parent: command.parent,
        seq: command.seq,
        hash: command.hash,
        fold: command.fingerprint,
        graph: command.graph,
        version: command.version,
        input: command.input.map(|input| input.to_payload_ref(next)),
        budget: command.budget,
        changes: command.changes,
        request_hash: command.request_hash,
        of_import: command.is_parent_imported,
    })])
}

/// Checks that a fork can begin with this state. A run that failed without a failed step, for
/// example by its output or budget, can be forked at its end: all finished steps stay finished.
///
/// # Errors
/// The run had ended at that event.
pub fn check_fork_point(state: &RunState) -> Result<(), RunRejection> {
    if state.phase == RunPhase::Failed && !state.is_failed_by_step() {
        return Ok(());
    }
    check_running(state).map_err(|rejection| match rejection {
        RunRejection::Ended(phase) => RunRejection::NotForkable(phase, state.seq),
        other => other,
    })
}

/// Checks that the run is running.
fn check_running(state: &RunState) -> Result<(), RunRejection> {
    match state.phase {
        RunPhase::New => Err(RunRejection::NotFound),
        RunPhase::Running => Ok(()),
        ended => Err(RunRejection::Ended(ended)),
    }
}

impl RunState {
    /// Ends a pause and adds its length to the total.
    pub(super) fn end_pause(&mut self, now: Timestamp) {
        if let Some(since) = self.stopped.take() {
            self.stood.0 = self.stood.0.saturating_add(now.span_since(since).0);
        }
        self.paused = false;
    }

    /// True if the failure of a step ended the run.
    pub fn is_failed_by_step(&self) -> bool {
        let step = self.failed_step.as_ref().and_then(|step| self.steps.get(step));
        step.is_some_and(|step| step.status == StepStatus::Failed)
    }

    /// Folds `run.signal.awaited.v1`; a queued event is consumed at once.
    pub(super) fn apply_signal_awaited(&mut self, event: &SignalAwaited) {
        let received = self.signals.get_mut(&event.signal).and_then(|kept| kept.pop_front());
        // An empty queue is removed, so that equal states have equal fingerprints.
        if self.signals.get(&event.signal).is_some_and(|kept| kept.is_empty()) {
            self.signals.remove(&event.signal);
        }
        let (signal, expires) = (event.signal.clone(), event.expires);
        self.set_step_status(&event.step, StepStatus::Awaiting { signal, expires, received });
    }

    /// Folds `run.signal.received.v1`; without a waiting step the event is queued.
    pub(super) fn apply_signal_received(&mut self, event: &SignalReceived) {
        self.signals_seen.insert(event.id);
        let payload = self.history_reference(event.payload);
        let waits = |status: &StepStatus| {
            matches!(status, StepStatus::Awaiting { signal, received: None, .. }
                if *signal == event.signal)
        };
        // Steps are sorted by id, so every replay finds the same one.
        let waiting = self.steps.iter().find(|(_, step)| waits(&step.status));
        let Some(id) = waiting.map(|(id, _)| id.clone()) else {
            return self.signals.entry(event.signal.clone()).or_default().push_back(payload);
        };
        self.update_step(&id, |step| {
            if let StepStatus::Awaiting { received, .. } = &mut step.status {
                *received = Some(payload);
            }
        });
    }

    pub(super) fn apply_step_resolved(&mut self, event: &StepResolved) {
        let output = event.output.map(|output| self.history_reference(output));
        self.update_step(&event.step, |step| {
            if let StepStatus::Undecided { decision, .. } = &mut step.status {
                *decision = Some((event.resolution, output));
            }
        });
    }
}
