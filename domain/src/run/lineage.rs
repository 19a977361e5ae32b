//! Forks: runs whose history begins with a prefix of another run's.
//!
//! A payload reference in a state counts events over the whole history: the ancestors' events
//! first, then the run's own. A reference in an event counts the events of its own stream.

use serde::{Deserialize, Serialize};

use super::clock::Clock;
use super::family::PauseCauses;
use super::state::{ApprovalState, Phase, RunState, Spent, Step, StepStatus};
use crate::event::lifecycle::Forked;
use crate::failure::{Detail, Failure};
use crate::id::{ApprovalId, RunId, StepId};
use crate::once::AppliedRequests;
use crate::payload::PayloadRef;
use crate::stream::{Seq, StreamKey};
use crate::time::{Span, Timestamp};

/// A run from which a fork inherits history.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct Ancestor {
    /// Id of the ancestor.
    pub run: RunId,
    /// Number of events of the whole history in this ancestor and those before it.
    pub upto: Seq,
}

/// Converts a reference of the run's own stream into one over the whole history.
pub fn own(lineage: &[Ancestor], reference: PayloadRef) -> PayloadRef {
    let before = lineage.last().map_or(0, |ancestor| ancestor.upto.0);
    PayloadRef { seq: reference.seq.plus(before), ..reference }
}

/// Returns the stream that holds a payload of a state, and its reference there. `own_stream` is the
/// stream of the run itself.
pub fn locate(
    lineage: &[Ancestor],
    own: &StreamKey,
    reference: PayloadRef,
) -> (StreamKey, PayloadRef) {
    let mut before = Seq(0);
    for ancestor in lineage {
        // Ancestors are sorted, the oldest first: the first that reaches the event holds it.
        if reference.seq <= ancestor.upto {
            let stream = StreamKey::run(own.tenant.clone(), ancestor.run);
            return (stream, since(reference, before));
        }
        before = ancestor.upto;
    }
    (own.clone(), since(reference, before))
}

impl RunState {
    /// Converts a reference of the run's own stream into one over the whole history.
    pub(super) fn own(&self, reference: PayloadRef) -> PayloadRef {
        own(&self.lineage, reference)
    }

    /// Converts the detail of a failure of the run's own stream likewise.
    pub(super) fn own_failure(&self, failure: &Failure) -> Failure {
        failure.clone().map_detail(|detail| Some(self.own(detail)))
    }

    /// Prepares a failure of the state for another event. A detail that is in an ancestor's stream
    /// is dropped: an event refers to payloads of its own stream only.
    pub fn failure_again<T>(&self, failure: &Failure) -> Failure<Detail<T>> {
        let before = self.lineage.last().map_or(Seq(0), |ancestor| ancestor.upto);
        let is_own = |detail: &PayloadRef| detail.seq > before;
        let place = |detail| Some(detail).filter(is_own).map(|d| Detail::Known(since(d, before)));
        failure.clone().map_detail(place)
    }

    /// Folds `run.forked.v1`: turns the parent's state into the fork's, with nothing spent and
    /// nothing in flight.
    pub(super) fn fork(&mut self, forked: &Forked, at: Timestamp) {
        let before = self.lineage.last().map_or(Seq(0), |ancestor| ancestor.upto);
        let upto = before.plus(forked.seq.0);
        self.lineage.push(Ancestor { run: forked.parent, upto });
        self.phase = Phase::Running;
        self.created = at;
        self.graph = Some((forked.graph, forked.version.clone()));
        self.input = forked.input.map(|input| self.own(input)).or(self.input);
        self.request_hash.clone_from(&forked.request_hash);
        self.budget = forked.budget;
        (self.output, self.error, self.paused) = (None, None, false);
        (self.stopped, self.stood) = (None, Span(0));
        (self.pause, self.failed_step, self.reopenings) = (PauseCauses::default(), None, 0);
        self.clock = Clock { last_event: at, idle_ms: 0 };
        self.is_imported = false;
        self.begin_again(forked.of_import);
        self.leave_children();
        self.inherit_turns(forked, at);
        // The parent has paid for its own work; the fork's budget counts only what the fork does.
        self.spent = Spent::default();
        // An event names payloads of its own stream only.
        self.tables.clear();
        self.requests = AppliedRequests::default();
    }

    /// Resets steps that the parent has in flight: the fork performs them itself. Open approvals
    /// are requested anew under their own ids; those of an imported parent also if they were
    /// answered without effect so far.
    fn begin_again(&mut self, of_import: bool) {
        let open = |id: &ApprovalId| {
            let asked = self.approvals.get(id);
            of_import || asked.is_some_and(|asked| asked.state == ApprovalState::Open)
        };
        let is_under_way = |status: &StepStatus| match status {
            StepStatus::Started { .. } | StepStatus::Unknown => true,
            StepStatus::Asking { approval } => open(approval),
            _ => false,
        };
        for id in self.steps_that(|step| is_under_way(&step.status)) {
            self.release(&id);
            self.change(&id, |step| {
                step.status = StepStatus::Scheduled { due: None };
                step.lost_call = None;
            });
        }
        let mut lapsed = Vec::new();
        // The summands of removed parts leave the fingerprint with them.
        self.approvals.retain(|_, asked| {
            let is_open = asked.state == ApprovalState::Open;
            if is_open {
                lapsed.push(asked.print);
            }
            !is_open
        });
        for print in lapsed {
            self.prints = self.prints.wrapping_sub(print);
        }
    }
}

impl RunState {
    /// Forgets child runs: they belong to the parent.
    fn leave_children(&mut self) {
        let has_own = |step: &Step| step.child.is_some() || !step.awaits.is_empty();
        for id in self.steps_that(has_own) {
            self.change(&id, |step| {
                step.child = None;
                step.awaits.clear();
            });
        }
        for (_, child) in std::mem::take(&mut self.children) {
            self.prints = self.prints.wrapping_sub(child.print);
        }
        self.accounts.clear();
        (self.origin, self.agent, self.told) = (None, None, false);
        self.is_cancel_inherited = false;
    }

    /// Keeps the turns of agents if only the model was changed; otherwise agents begin anew.
    fn inherit_turns(&mut self, forked: &Forked, now: Timestamp) {
        let is_same = forked.changes.iter().all(|change| is_of_model(change));
        for id in self.steps_that(|step| step.turns.is_some()) {
            self.change(&id, |step| {
                let turns = step.turns.take().filter(|_| is_same && !step.is_ended());
                step.turns = turns.and_then(|turns| turns.of_fork(now)).map(Box::new);
            });
        }
    }

    /// Returns the ids of the steps for which the predicate holds.
    fn steps_that(&self, is: impl Fn(&Step) -> bool) -> Vec<StepId> {
        self.steps.iter().filter(|(_, step)| is(step)).map(|(id, _)| id.clone()).collect()
    }
}

/// True if a change concerns the model and not the prompt: `model` or `nodes.NAME.model`.
fn is_of_model(change: &str) -> bool {
    change == "model" || (change.starts_with("nodes.") && change.ends_with(".model"))
}

/// Subtracts the events before an ancestor or the run's own stream from a reference.
fn since(reference: PayloadRef, before: Seq) -> PayloadRef {
    PayloadRef { seq: Seq(reference.seq.0 - before.0), ..reference }
}
