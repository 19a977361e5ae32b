//! Control of a run from outside: retries, signals, decisions about steps, checkpoints and forks.

use serde::{Deserialize, Serialize};
use uuid::Uuid;

use super::command::Reason;
use super::rejection::Rejection;
use super::state::{Budget, Phase, RunState, StepStatus};
use crate::decider::{Context, Fingerprint};
use crate::event::{Event, lifecycle};
use crate::graph::manifest::{Graph, OnError};
use crate::id::{GraphId, GraphVersion, RunId, SignalName, StepId};
use crate::payload::PayloadSlot;
use crate::stream::Seq;
use crate::time::Timestamp;

/// Maximum number of external events that a run receives.
pub const SIGNALS_LIMIT: usize = 10_000;

/// Decision about a failed or lost step.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Resolution {
    /// Attempt the step again.
    Retry,
    /// Treat the step as completed.
    Completed,
    /// Let the step fail for good.
    Failed,
    /// Continue the run without the step.
    Skip,
}

/// Command content: delivers an external event.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Signal {
    /// Id chosen by the sender; a second event with the same id has no effect.
    pub id: Uuid,
    /// Name of the event, by which steps wait for it.
    pub signal: SignalName,
    /// Content of the event, as JSON.
    pub payload: PayloadSlot,
}

/// Command content: decides what becomes of a step.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Resolve {
    /// Step to decide about.
    pub step: StepId,
    /// Decision about the step.
    pub resolution: Resolution,
    /// Output of the step, if the decision is that it completed.
    pub output: Option<PayloadSlot>,
    /// Reason of the person, if one was given.
    pub reason: Option<Reason>,
}

/// Command content: creates a run that inherits another run's history.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ForkRun {
    /// Run whose history is inherited.
    pub parent: RunId,
    /// Last inherited event; always the end of a commit.
    pub seq: Seq,
    /// Hash of that commit's record, as hexadecimal digits.
    pub hash: String,
    /// Fingerprint of the parent's state after that event.
    pub fold: Fingerprint,
    /// Graph that the fork executes.
    pub graph: GraphId,
    /// Graph version from here on.
    pub version: GraphVersion,
    /// Changed inputs; `None` keeps the parent's.
    pub input: Option<PayloadSlot>,
    /// Budget of the fork itself.
    pub budget: Budget,
    /// Paths of the changes, as `model` or `nodes.summary.prompt`.
    pub changes: Vec<String>,
    /// BLAKE3 of the request, by which a retry of the request is recognised.
    pub request_hash: String,
    /// True if the parent was imported from a file.
    pub of_import: bool,
}

/// Decides a retry. A failed run continues from its failed steps, and children that its failure
/// cancelled continue with it. If neither exists, the retry is accepted only if `budget.wall` was
/// used up, which then restarts.
pub(super) fn retry(
    state: &RunState,
    steps: Vec<StepId>,
    now: Timestamp,
) -> Result<Vec<Event>, Rejection> {
    match state.phase {
        Phase::New => return Err(Rejection::NotFound),
        Phase::Failed => {}
        phase => return Err(Rejection::NotFailed(phase)),
    }
    check_failed(state, &steps)?;
    let mut reopened = state.reopening(steps, now);
    if reopened.steps.is_empty() && !state.has_ended_children() {
        // Without anything to attempt again, the run would fail at once; a used-up time limit can
        // be restarted.
        if !has_used_up_wall(state, now) {
            return Err(Rejection::NothingToRetry);
        }
        reopened.restarts_wall = true;
    }
    let mut events = vec![Event::RunReopened(reopened)];
    events.extend(state.reopened_children(state.budget));
    Ok(events)
}

/// Checks that every step to be retried has failed.
pub(super) fn check_failed(state: &RunState, steps: &[StepId]) -> Result<(), Rejection> {
    let has_failed = |step: &&StepId| {
        state.steps.get(step).is_some_and(|known| known.status == StepStatus::Failed)
    };
    match steps.iter().find(|step| !has_failed(step)) {
        Some(step) => Err(Rejection::HasNotFailed(step.clone())),
        None => Ok(()),
    }
}

/// True if the run failed because its active time was used up, and its calendar deadline has not
/// passed.
fn has_used_up_wall(state: &RunState, now: Timestamp) -> bool {
    let is_late = state.calendar_deadline().is_some_and(|deadline| deadline <= now);
    let is_over = state.wall_left(now) == Some(crate::time::Span(0));
    state.failed_step.is_none() && is_over && !is_late
}

/// Returns the failed steps that end the run by its graph, which excludes those whose failure the
/// graph tolerates.
pub fn fatal_steps(state: &RunState, graph: &Graph) -> Vec<StepId> {
    let is_fatal = |id: &StepId| {
        let node = graph.node(&id.node);
        node.is_some_and(|node| matches!(node.on_error, OnError::Fail | OnError::Ask))
    };
    let failed = state.steps.iter().filter(|(_, step)| step.status == StepStatus::Failed);
    failed.map(|(id, _)| id.clone()).filter(is_fatal).collect()
}

/// Checks that a signal can have an effect: a node of the run's graph waits for its name. `names`
/// are the names that the graph waits for. A repeated signal is accepted.
///
/// # Errors
/// The run has ended, or no node would ever consume the signal.
pub fn check_signal(
    state: &RunState,
    signal: &Signal,
    names: &[SignalName],
) -> Result<(), Rejection> {
    if state.is_imported {
        return Err(Rejection::Imported);
    }
    if state.signals_seen.contains(&signal.id) {
        return Ok(());
    }
    going(state)?;
    if names.contains(&signal.signal) {
        return Ok(());
    }
    Err(Rejection::UnknownSignal { signal: signal.signal.clone(), names: names.to_vec() })
}

/// Decides the receipt of an external event; a repeated one has no effect.
pub(super) fn signal(state: &RunState, signal: Signal, next: Seq) -> Result<Vec<Event>, Rejection> {
    if state.signals_seen.contains(&signal.id) {
        return Ok(Vec::new());
    }
    going(state)?;
    // Ids are kept for the run's whole life, so their number must be bounded.
    if state.signals_seen.len() >= SIGNALS_LIMIT {
        return Err(Rejection::TooManySignals);
    }
    let payload = signal.payload.at(next);
    let received = lifecycle::SignalReceived { id: signal.id, signal: signal.signal, payload };
    Ok(vec![Event::SignalReceived(received)])
}

/// Decides a person's resolution of a step; the same resolution again has no effect.
pub(super) fn resolve(
    state: &RunState,
    command: Resolve,
    context: &Context,
    next: Seq,
) -> Result<Vec<Event>, Rejection> {
    let Resolve { step, resolution, output, reason } = command;
    let known = state.steps.get(&step).ok_or_else(|| Rejection::NotUndecided(step.clone()))?;
    let StepStatus::Undecided { unknown, decision } = &known.status else {
        return Err(Rejection::NotUndecided(step));
    };
    if let Some((before, _)) = decision {
        let same = *before == resolution;
        return if same { Ok(Vec::new()) } else { Err(Rejection::DecidedBefore(step, *before)) };
    }
    going(state)?;
    // A lost attempt may have had effects, so the step cannot be skipped as if it had none; a
    // failed one has no output to complete with.
    let allowed = match (unknown, resolution) {
        (true, Resolution::Skip) | (false, Resolution::Completed) => false,
        _ => output.is_none() || resolution == Resolution::Completed,
    };
    if !allowed {
        return Err(Rejection::NoSuchDecision { step, resolution, unknown: *unknown });
    }
    let output = output.map(|output| output.at(next));
    let (attempt, by) = (known.attempt, context.actor.clone());
    let (reason, reason_at) = Reason::written(reason, next);
    Ok(vec![Event::StepResolved(lifecycle::StepResolved {
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
pub(super) fn mark(
    state: &RunState,
    label: Option<Reason>,
    next: Seq,
) -> Result<Vec<Event>, Rejection> {
    let (label, label_at) = Reason::written(label, next);
    match state.phase {
        Phase::New => Err(Rejection::NotFound),
        _ => Ok(vec![Event::CheckpointSaved(lifecycle::CheckpointSaved { label, label_at })]),
    }
}

/// Decides the creation of a fork; the same request has no effect.
pub(super) fn fork(state: &RunState, command: ForkRun, next: Seq) -> Result<Vec<Event>, Rejection> {
    if state.phase != Phase::New {
        let same = state.request_hash == command.request_hash;
        return if same { Ok(Vec::new()) } else { Err(Rejection::IdempotencyMismatch) };
    }
    Ok(vec![Event::RunForked(lifecycle::Forked {
        parent: command.parent,
        seq: command.seq,
        hash: command.hash,
        fold: command.fold,
        graph: command.graph,
        version: command.version,
        input: command.input.map(|input| input.at(next)),
        budget: command.budget,
        changes: command.changes,
        request_hash: command.request_hash,
        of_import: command.of_import,
    })])
}

/// Checks that a fork can begin with this state. A run that failed without a failed step, for
/// example by its output or budget, can be forked at its end: all finished steps stay finished.
///
/// # Errors
/// The run had ended at that event.
pub fn check_fork_point(state: &RunState) -> Result<(), Rejection> {
    if state.phase == Phase::Failed && !state.is_failed_by_step() {
        return Ok(());
    }
    going(state).map_err(|rejection| match rejection {
        Rejection::Ended(phase) => Rejection::NotForkable(phase, state.seq),
        other => other,
    })
}

/// Checks that the run is running.
fn going(state: &RunState) -> Result<(), Rejection> {
    match state.phase {
        Phase::New => Err(Rejection::NotFound),
        Phase::Running => Ok(()),
        ended => Err(Rejection::Ended(ended)),
    }
}

impl RunState {
    /// Ends a pause and adds its length to the total.
    pub(super) fn go_on(&mut self, now: Timestamp) {
        if let Some(since) = self.stopped.take() {
            self.stood.0 = self.stood.0.saturating_add(now.since(since).0);
        }
        self.paused = false;
    }

    /// True if the failure of a step ended the run.
    pub fn is_failed_by_step(&self) -> bool {
        let step = self.failed_step.as_ref().and_then(|step| self.steps.get(step));
        step.is_some_and(|step| step.status == StepStatus::Failed)
    }

    /// Folds `run.signal.awaited.v1`; a queued event is consumed at once.
    pub(super) fn await_signal(&mut self, event: &lifecycle::SignalAwaited) {
        let received = self.signals.get_mut(&event.signal).and_then(|kept| kept.pop_front());
        // An empty queue is removed, so that equal states have equal fingerprints.
        if self.signals.get(&event.signal).is_some_and(|kept| kept.is_empty()) {
            self.signals.remove(&event.signal);
        }
        let (signal, expires) = (event.signal.clone(), event.expires);
        self.set(&event.step, StepStatus::Awaiting { signal, expires, received });
    }

    /// Folds `run.signal.received.v1`; without a waiting step the event is queued.
    pub(super) fn receive(&mut self, event: &lifecycle::SignalReceived) {
        self.signals_seen.insert(event.id);
        let payload = self.own(event.payload);
        let waits = |status: &StepStatus| {
            matches!(status, StepStatus::Awaiting { signal, received: None, .. }
                if *signal == event.signal)
        };
        // Steps are sorted by id, so every replay finds the same one.
        let waiting = self.steps.iter().find(|(_, step)| waits(&step.status));
        let Some(id) = waiting.map(|(id, _)| id.clone()) else {
            return self.signals.entry(event.signal.clone()).or_default().push_back(payload);
        };
        self.change(&id, |step| {
            if let StepStatus::Awaiting { received, .. } = &mut step.status {
                *received = Some(payload);
            }
        });
    }

    pub(super) fn resolve(&mut self, event: &lifecycle::StepResolved) {
        let output = event.output.map(|output| self.own(output));
        self.change(&event.step, |step| {
            if let StepStatus::Undecided { decision, .. } = &mut step.status {
                *decision = Some((event.resolution, output));
            }
        });
    }
}
