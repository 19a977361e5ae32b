//! What people and programs decide about a run from outside: retries, signals, decisions about
//! steps, marks, forks.

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

/// Outside events that a run takes in at most.
pub const SIGNALS_LIMIT: usize = 10_000;

/// What becomes of a step that somebody decides about.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Resolution {
    /// Another try.
    Retry,
    /// It counts as done.
    Completed,
    /// It has failed for good.
    Failed,
    /// The run goes on without it.
    Skip,
}

/// An outside event on its way to a run.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Signal {
    /// Its identity: the same one again changes nothing.
    pub id: Uuid,
    /// Its name.
    pub signal: SignalName,
    /// What it carries, as JSON.
    pub payload: PayloadSlot,
}

/// A decision about a step.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Resolve {
    /// The step.
    pub step: StepId,
    /// What becomes of it.
    pub resolution: Resolution,
    /// What it yielded, when it is taken for completed.
    pub output: Option<PayloadSlot>,
    /// Why.
    pub reason: Option<Reason>,
}

/// Begins a run as a part of another one's history.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ForkRun {
    /// The run that it begins as.
    pub parent: RunId,
    /// The last event of it that counts, the end of a commit.
    pub seq: Seq,
    /// The hash of that commit's record.
    pub hash: String,
    /// The fingerprint of the state there.
    pub fold: Fingerprint,
    /// The graph.
    pub graph: GraphId,
    /// The version from here on.
    pub version: GraphVersion,
    /// Other inputs.
    pub input: Option<PayloadSlot>,
    /// What the fork may spend.
    pub budget: Budget,
    /// What was changed, in short.
    pub changes: Vec<String>,
    /// BLAKE3 of the request.
    pub request_hash: String,
    /// Whether the parent was imported.
    pub of_import: bool,
}

/// A failed run goes on from its failed steps, and what the failure ended goes on with it.
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
        if !has_used_up_wall(state, now) {
            return Err(Rejection::NothingToRetry);
        }
        reopened.restarts_wall = true;
    }
    let mut events = vec![Event::RunReopened(reopened)];
    events.extend(state.reopened_children(state.budget));
    Ok(events)
}

/// Every step that is to be retried must have failed.
pub(super) fn check_failed(state: &RunState, steps: &[StepId]) -> Result<(), Rejection> {
    let has_failed = |step: &&StepId| {
        state.steps.get(step).is_some_and(|known| known.status == StepStatus::Failed)
    };
    match steps.iter().find(|step| !has_failed(step)) {
        Some(step) => Err(Rejection::HasNotFailed(step.clone())),
        None => Ok(()),
    }
}

/// Whether the run failed because its working time was over, and its calendar time is not.
fn has_used_up_wall(state: &RunState, now: Timestamp) -> bool {
    let is_late = state.calendar_deadline().is_some_and(|deadline| deadline <= now);
    let is_over = state.wall_left(now) == Some(crate::time::Span(0));
    state.failed_step.is_none() && is_over && !is_late
}

/// The failed steps of a run that end it by its graph: those that the graph does without are not
/// among them.
pub fn fatal_steps(state: &RunState, graph: &Graph) -> Vec<StepId> {
    let is_fatal = |id: &StepId| {
        let node = graph.node(&id.node);
        node.is_some_and(|node| matches!(node.on_error, OnError::Fail | OnError::Ask))
    };
    let failed = state.steps.iter().filter(|(_, step)| step.status == StepStatus::Failed);
    failed.map(|(id, _)| id.clone()).filter(is_fatal).collect()
}

/// Whether a signal that is sent can be of use: some node of the run's graph waits for its name.
/// `names` are those that the graph waits for. One that was taken in before is taken again.
///
/// # Errors
/// The run has ended, or would keep the signal for ever.
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

pub(super) fn signal(state: &RunState, signal: Signal, next: Seq) -> Result<Vec<Event>, Rejection> {
    if state.signals_seen.contains(&signal.id) {
        return Ok(Vec::new());
    }
    going(state)?;
    if state.signals_seen.len() >= SIGNALS_LIMIT {
        return Err(Rejection::TooManySignals);
    }
    let payload = signal.payload.at(next);
    let received = lifecycle::SignalReceived { id: signal.id, signal: signal.signal, payload };
    Ok(vec![Event::SignalReceived(received)])
}

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

/// Marks a point of the run, whether it goes on or not.
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

/// The same request again changes nothing.
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

/// Whether a fork can begin with this state. A run that failed without a failed step, as by its
/// output or its budget, can be forked at its end: all that was done stands.
///
/// # Errors
/// The run had ended there.
pub fn check_fork_point(state: &RunState) -> Result<(), Rejection> {
    if state.phase == Phase::Failed && !state.is_failed_by_step() {
        return Ok(());
    }
    going(state).map_err(|rejection| match rejection {
        Rejection::Ended(phase) => Rejection::NotForkable(phase, state.seq),
        other => other,
    })
}

fn going(state: &RunState) -> Result<(), Rejection> {
    match state.phase {
        Phase::New => Err(Rejection::NotFound),
        Phase::Running => Ok(()),
        ended => Err(Rejection::Ended(ended)),
    }
}

impl RunState {
    /// The run stood still until now.
    pub(super) fn go_on(&mut self, now: Timestamp) {
        if let Some(since) = self.stopped.take() {
            self.stood.0 = self.stood.0.saturating_add(now.since(since).0);
        }
        self.paused = false;
    }

    /// Whether a step that failed ended the run.
    pub fn is_failed_by_step(&self) -> bool {
        let step = self.failed_step.as_ref().and_then(|step| self.steps.get(step));
        step.is_some_and(|step| step.status == StepStatus::Failed)
    }

    pub(super) fn await_signal(&mut self, event: &lifecycle::SignalAwaited) {
        let received = self.signals.get_mut(&event.signal).and_then(|kept| kept.pop_front());
        if self.signals.get(&event.signal).is_some_and(|kept| kept.is_empty()) {
            self.signals.remove(&event.signal);
        }
        let (signal, expires) = (event.signal.clone(), event.expires);
        self.set(&event.step, StepStatus::Awaiting { signal, expires, received });
    }

    pub(super) fn receive(&mut self, event: &lifecycle::SignalReceived) {
        self.signals_seen.insert(event.id);
        let payload = self.own(event.payload);
        let waits = |status: &StepStatus| {
            matches!(status, StepStatus::Awaiting { signal, received: None, .. }
                if *signal == event.signal)
        };
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
