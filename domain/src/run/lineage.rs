//! Forks: runs whose history begins with a prefix of another run's.
//!
//! A payload reference in a state counts events over the whole history: the ancestors' events
//! first, then the run's own. A reference in an event counts the events of its own stream.

use super::event::RunForked;
pub use super::state::Ancestor;
use super::state::{ApprovalState, BudgetUsage, PauseCauses, RunClock, RunPhase, RunState};
use super::step::{RunStep, StepStatus};
use crate::failure::{Failure, FailureDetail};
use crate::id::{ApprovalId, StepId};
use crate::idempotency::AppliedRequests;
use crate::payload::PayloadRef;
use crate::stream::{Seq, StreamKey};
use crate::time::{Span, Timestamp};

/// Converts a reference of the run's own stream into one over the whole history.
pub fn history_reference(lineage: &[Ancestor], reference: PayloadRef) -> PayloadRef {
    let before = lineage.last().map_or(0, |ancestor| ancestor.upto.0);
    PayloadRef { seq: reference.seq.offset_by(before), ..reference }
}

/// Returns the stream that holds a payload of a state, and its reference there. `own_stream` is the
/// stream of the run itself.
pub fn locate_payload(
    lineage: &[Ancestor],
    own_stream: &StreamKey,
    reference: PayloadRef,
) -> (StreamKey, PayloadRef) {
    let mut before = Seq(0);
    for ancestor in lineage {
        // Ancestors are sorted, the oldest first: the first that reaches the event holds it.
        if reference.seq <= ancestor.upto {
            let stream = StreamKey::for_run(own_stream.tenant.clone(), ancestor.run);
            return (stream, relative_reference(reference, before));
        }
        before = ancestor.upto;
    }
    (own_stream.clone(), relative_reference(reference, before))
}

impl RunState {
    /// Converts a reference of the run's own stream into one over the whole history.
    pub(super) fn history_reference(&self, reference: PayloadRef) -> PayloadRef {
        history_reference(&self.lineage, reference)
    }

    /// Converts the detail of a failure of the run's own stream likewise.
    pub(super) fn history_failure(&self, failure: &Failure) -> Failure {
        failure.clone().map_detail(|detail| Some(self.history_reference(detail)))
    }

    /// Prepares a failure of the state for another event. A detail that is in an ancestor's stream
    /// is dropped: an event refers to payloads of its own stream only.
    pub fn repeated_failure<T>(&self, failure: &Failure) -> Failure<FailureDetail<T>> {
        let before = self.lineage.last().map_or(Seq(0), |ancestor| ancestor.upto);
        let is_own = |detail: &PayloadRef| detail.seq > before;
        let place = |detail| {
            Some(detail).filter(is_own).map(|d| FailureDetail::Known(relative_reference(d, before)))
        };
        failure.clone().map_detail(place)
    }

    /// Folds `run.forked.v1`: turns the parent's state into the fork's, with nothing spent and
    /// nothing in flight.
    pub(super) fn apply_forked(&mut self, forked: &RunForked, at: Timestamp) {
        let before = self.lineage.last().map_or(Seq(0), |ancestor| ancestor.upto);
        let upto = before.offset_by(forked.seq.0);
        self.lineage.push(Ancestor { run: forked.parent, upto });
        self.phase = RunPhase::Running;
        self.created = at;
        self.graph = Some((forked.graph, forked.version.clone()));
        self.input = forked.input.map(|input| self.history_reference(input)).or(self.input);
        self.request_hash.clone_from(&forked.request_hash);
        self.budget = forked.budget;
        (self.output, self.error, self.paused) = (None, None, false);
        (self.stopped, self.stood) = (None, Span(0));
        (self.pause, self.failed_step, self.reopenings) = (PauseCauses::default(), None, 0);
        self.clock = RunClock { last_event: at, idle_ms: 0 };
        self.is_imported = false;
        self.restart_open_work(forked.of_import);
        self.detach_children();
        self.inherit_turns(forked, at);
        // The parent has paid for its own work; the fork's budget counts only what the fork does.
        self.spent = BudgetUsage::default();
        // An event names payloads of its own stream only.
        self.tables.clear();
        self.requests = AppliedRequests::default();
    }

    /// Resets steps that the parent has in flight: the fork performs them itself. Open approvals
    /// are requested anew under their own ids; those of an imported parent also if they were
    /// answered without effect so far.
    fn restart_open_work(&mut self, of_import: bool) {
        let must_ask_again = |id: &ApprovalId| {
            let asked = self.approvals.get(id);
            of_import || asked.is_some_and(|asked| asked.state == ApprovalState::Open)
        };
        let is_under_way = |status: &StepStatus| match status {
            StepStatus::Started { .. } | StepStatus::Unknown => true,
            StepStatus::Asking { approval } => must_ask_again(approval),
            _ => false,
        };
        for id in self.step_ids_where(|step| is_under_way(&step.status)) {
            self.release_call(&id);
            self.update_step(&id, |step| {
                step.status = StepStatus::Scheduled { due: None };
                step.lost_call = None;
            });
        }
        let mut dropped_fingerprints = Vec::new();
        // The summands of removed parts leave the fingerprint with them.
        self.approvals.retain(|_, asked| {
            let is_open = asked.state == ApprovalState::Open;
            if is_open {
                dropped_fingerprints.push(asked.fingerprint);
            }
            !is_open
        });
        for print in dropped_fingerprints {
            self.fingerprint_sum = self.fingerprint_sum.wrapping_sub(print);
        }
    }
}

impl RunState {
    /// Forgets child runs: they belong to the parent.
    fn detach_children(&mut self) {
        let has_own = |step: &RunStep| step.child.is_some() || !step.awaits.is_empty();
        for id in self.step_ids_where(has_own) {
            self.update_step(&id, |step| {
                step.child = None;
                step.awaits.clear();
            });
        }
        for (_, child) in std::mem::take(&mut self.children) {
            self.fingerprint_sum = self.fingerprint_sum.wrapping_sub(child.fingerprint);
        }
        self.accounts.clear();
        (self.origin, self.agent, self.told) = (None, None, false);
        self.is_cancel_inherited = false;
    }

    /// Keeps the turns of agents if only the model was changed; otherwise agents begin anew.
    fn inherit_turns(&mut self, forked: &RunForked, now: Timestamp) {
        let is_same_question = forked.changes.iter().all(|change| is_model_change(change));
        for id in self.step_ids_where(|step| step.turns.is_some()) {
            self.update_step(&id, |step| {
                let turns = step.turns.take().filter(|_| is_same_question && !step.is_ended());
                step.turns = turns.and_then(|turns| turns.into_fork(now)).map(Box::new);
            });
        }
    }

    /// Returns the ids of the steps for which the predicate holds.
    fn step_ids_where(&self, predicate: impl Fn(&RunStep) -> bool) -> Vec<StepId> {
        self.steps.iter().filter(|(_, step)| predicate(step)).map(|(id, _)| id.clone()).collect()
    }
}

/// True if a change concerns the model and not the prompt: `model` or `nodes.NAME.model`.
fn is_model_change(change: &str) -> bool {
    change == "model" || (change.starts_with("nodes.") && change.ends_with(".model"))
}

/// Subtracts the events before an ancestor or the run's own stream from a reference.
fn relative_reference(reference: PayloadRef, before: Seq) -> PayloadRef {
    PayloadRef { seq: Seq(reference.seq.0 - before.0), ..reference }
}
