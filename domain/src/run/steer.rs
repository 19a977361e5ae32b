//! What people and programs decide about a run from outside: pause, resume, retry, signals,
//! decisions about steps, marks, forks.

use serde::{Deserialize, Serialize};
use uuid::Uuid;

use super::rejection::Rejection;
use super::state::{Budget, Phase, RunState, StepStatus};
use crate::decider::{Context, Fingerprint};
use crate::event::{Event, lifecycle};
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
    pub reason: Option<String>,
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
}

pub(super) fn pause(state: &RunState, reason: Option<String>) -> Result<Vec<Event>, Rejection> {
    going(state)?;
    let paused = Event::RunPaused(lifecycle::Paused { reason });
    Ok(if state.paused { Vec::new() } else { vec![paused] })
}

pub(super) fn resume(state: &RunState) -> Result<Vec<Event>, Rejection> {
    match state.phase {
        Phase::New => Err(Rejection::NotFound),
        Phase::Running if state.paused => Ok(vec![Event::RunResumed(lifecycle::Resumed {})]),
        Phase::Running => Ok(Vec::new()),
        ended => Err(Rejection::NotResumable(ended)),
    }
}

/// A failed run goes on from its failed steps.
pub(super) fn retry(state: &RunState, steps: Vec<StepId>) -> Result<Vec<Event>, Rejection> {
    match state.phase {
        Phase::New => return Err(Rejection::NotFound),
        Phase::Failed => {}
        phase => return Err(Rejection::NotFailed(phase)),
    }
    if steps.is_empty() {
        return Err(Rejection::NothingToRetry);
    }
    for step in &steps {
        let has_failed = |known: &super::Step| known.status == StepStatus::Failed;
        if !state.steps.get(step).is_some_and(has_failed) {
            return Err(Rejection::HasNotFailed(step.clone()));
        }
    }
    Ok(vec![Event::RunReopened(lifecycle::Reopened { steps })])
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
    let resolved = lifecycle::StepResolved { step, attempt, resolution, output, by, reason };
    Ok(vec![Event::StepResolved(resolved)])
}

/// Marks a point of the run, whether it goes on or not.
pub(super) fn mark(state: &RunState, label: Option<String>) -> Result<Vec<Event>, Rejection> {
    match state.phase {
        Phase::New => Err(Rejection::NotFound),
        _ => Ok(vec![Event::CheckpointSaved(lifecycle::CheckpointSaved { label })]),
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
    })])
}

/// Whether a fork can begin with this state.
///
/// # Errors
/// The run had ended there.
pub fn check_fork_point(state: &RunState) -> Result<(), Rejection> {
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

    pub(super) fn reopen(&mut self, event: &lifecycle::Reopened, now: Timestamp) {
        self.go_on(now);
        (self.phase, self.error) = (Phase::Running, None);
        for id in &event.steps {
            self.change(id, |step| {
                step.failures = 0;
                step.status = match step.map {
                    Some(_) => StepStatus::Expanded,
                    None => StepStatus::Scheduled { due: None },
                };
            });
        }
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
