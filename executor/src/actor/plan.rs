//! The next commit in preparation: outcomes, the scheduler's answers to them, and the steps that
//! start next.

use std::collections::{BTreeMap, VecDeque};
use std::sync::Arc;

use bytes::Bytes;
use convergio_domain::failure::{Detail, FailureReport, UnsealedFailure};
use convergio_domain::graph::manifest::Node;
use convergio_domain::id::{NodeId, StepId};
use convergio_domain::money::Money;
use convergio_domain::payload::{PayloadSlot, Purpose};
use convergio_domain::run::{
    Advance, CallReport, Intent, Outcome, RunState, Spent, Start, StepResult, next_try,
    next_try_after_crash,
};
use convergio_domain::time::Timestamp;
use convergio_eventstore::{Limits, Payload};
use convergio_kernel_c::{Delta, NodeStatus, Outcome as Verdict, RunResult, Scheduler};
use serde_json::Value;

use super::Actor;
use super::asking::Moving;
use super::commit_room::CommitRoom;
use super::effect::{Done, DoneResult, Launch, Work};
use super::places::FreePlaces;
use super::planning::too_large;
use super::tables::Print;
use crate::failures::detail_bytes;
use crate::graphs::CompiledGraph;
use crate::outputs::Extra;

/// A commit in preparation, with the effects that follow once it is durable.
pub(super) struct Plan {
    pub(super) advance: Advance,
    pub(super) payloads: Vec<Payload>,
    /// The scheduler as it stands after the commit.
    pub(super) scheduler: Scheduler,
    /// Effects to launch after the commit.
    pub(super) launches: Vec<Launch>,
    /// Values that the commit stores, to be cached.
    pub(super) values: Vec<(PayloadSlot, Arc<Value>)>,
    /// Candidate tables that the commit stores, for reference by later calls.
    pub(super) tables: Vec<(Print, PayloadSlot)>,
    /// Number of the actor's results that are in the plan.
    pub(super) taken: usize,
    /// Updates of steps that go on in turns.
    pub(super) moving: BTreeMap<StepId, Moving>,
    /// Budget used and held after this commit.
    pub(super) spent: Spent,
    pub(super) now: Timestamp,
    pub(super) extra: Extra,
    /// Steps that the kernel made ready and the log has not scheduled yet.
    pub(super) fresh: VecDeque<StepId>,
    pub(super) result: RunResult,
    pub(super) failed: Option<(StepId, FailureReport)>,
    pub(super) room: CommitRoom,
    /// Capacity left besides what the commit takes.
    pub(super) places: FreePlaces,
    /// True if the run's deadline has passed: the commit ends the run.
    is_late: bool,
    /// True if an attempt with an unknown outcome may be followed by another one.
    pub(super) may_repeat: bool,
}

/// A point in the preparation to roll back to.
pub(super) struct Draft {
    payloads: usize,
    values: usize,
    tables: usize,
    spent: Spent,
    room: CommitRoom,
}

impl Plan {
    pub(super) fn new(actor: &Actor) -> Self {
        let now = actor.shared.now();
        let advance = Advance::empty(actor.shared.config.id);
        Self {
            advance,
            payloads: Vec::new(),
            // A copy: if the commit fails, the actor's scheduler must be as before.
            scheduler: actor.scheduler.clone(),
            launches: Vec::new(),
            values: Vec::new(),
            tables: Vec::new(),
            taken: 0,
            moving: BTreeMap::new(),
            spent: actor.run.state.spent,
            now,
            extra: Extra::default(),
            fresh: actor.unrecorded.iter().cloned().collect(),
            result: actor.scheduler.result(),
            failed: None,
            room: CommitRoom::new(actor.limits),
            places: actor.free_places(),
            is_late: actor.is_late(now),
            may_repeat: true,
        }
    }

    /// Returns whether nothing would be written.
    pub(super) fn is_empty(&self) -> bool {
        // Destructured without `..`, so that a new field cannot be forgotten here.
        let Advance { executor: _, moves, outcomes, instant, ready, starts, end } = &self.advance;
        moves.is_empty()
            && (outcomes.is_empty() && instant.is_empty())
            && (ready.is_empty() && starts.is_empty())
            && end.is_none()
            && !self.is_late
    }

    /// Returns whether a result must wait for the next commit; a turn may bring many payloads.
    pub(super) fn has_no_room(&self, done: &Done) -> bool {
        let is_turn = done.at.is_some() || matches!(done.result, DoneResult::Answered(_));
        self.room.has_no_room_for(is_turn)
    }

    /// Marks the current point of the preparation.
    pub(super) fn draft(&self) -> Draft {
        Draft {
            payloads: self.payloads.len(),
            values: self.values.len(),
            tables: self.tables.len(),
            spent: self.spent,
            room: self.room,
        }
    }

    /// Returns the bytes of the largest payload added since the savepoint.
    pub(super) fn largest_payload_since(&self, draft: &Draft) -> usize {
        let added = &self.payloads[draft.payloads..];
        added.iter().map(|payload| payload.bytes.len()).max().unwrap_or(0)
    }

    /// Removes the payloads and budget holds added since the savepoint.
    pub(super) fn discard_since(&mut self, draft: Draft) {
        // Outcomes and starts are added after the check of sizes, so they need no rollback.
        self.payloads.truncate(draft.payloads);
        self.values.truncate(draft.values);
        self.tables.truncate(draft.tables);
        (self.spent, self.room) = (draft.spent, draft.room);
    }

    /// Adds a step that starts.
    pub(super) fn add_start(&mut self, start: Start) {
        self.room.add_start();
        self.advance.starts.push(start);
    }

    /// Adds an effect to launch after the commit, and takes its capacity.
    pub(super) fn add_launch(&mut self, launch: Launch) {
        let places = &mut self.places;
        places.steps = places.steps.saturating_sub(1);
        match launch.work {
            Work::Model(_) => places.model_calls = places.model_calls.saturating_sub(1),
            Work::Child(_) => places.child_runs = places.child_runs.saturating_sub(1),
            Work::Tool { .. } => {}
        }
        self.launches.push(launch);
    }

    /// Stores bytes with the commit and returns their slot.
    pub(super) fn store(
        &mut self,
        bytes: Vec<u8>,
        media_type: impl Into<String>,
        why: Purpose,
    ) -> PayloadSlot {
        self.room.add_payload(bytes.len());
        self.payloads.push(Payload {
            bytes: Bytes::from(bytes),
            media_type: media_type.into(),
            purpose: why,
            subject: None,
        });
        // The commit's size limits keep the number of payloads far below `u16::MAX`.
        PayloadSlot(u16::try_from(self.payloads.len() - 1).unwrap_or(u16::MAX))
    }

    /// Stores the detail of a failure with the commit.
    pub(super) fn seal_failure(&mut self, failure: UnsealedFailure) -> FailureReport {
        failure.map_detail(|detail| {
            Some(match detail {
                Detail::Known(reference) => Detail::Known(reference),
                Detail::New(text) => {
                    let (bytes, why) = (detail_bytes(&text), Purpose::FailureDetail);
                    Detail::New(self.store(bytes, "application/json", why))
                }
            })
        })
    }

    /// Holds tokens and money against the budget.
    pub(super) fn hold(&mut self, tokens: u64, cost: Money) {
        self.spent.reserved_tokens = self.spent.reserved_tokens.saturating_add(tokens);
        self.spent.reserved_cost += cost;
    }

    /// Holds the maximum cost of an intent.
    pub(super) fn hold_intent(&mut self, intent: &Intent) {
        if let Intent::CallModel { reserved_tokens, reserved_cost, .. } = intent {
            self.hold(*reserved_tokens, reserved_cost.unwrap_or_default());
        }
    }

    /// Stores a JSON value with the commit, to be cached once it is durable.
    pub(super) fn store_value(&mut self, value: &Arc<Value>, why: Purpose) -> PayloadSlot {
        // Serialising a JSON value cannot fail: its keys are strings.
        let bytes = serde_json::to_vec(&**value).unwrap_or_default();
        let slot = self.store(bytes, "application/json", why);
        self.values.push((slot, Arc::clone(value)));
        slot
    }

    /// Adopts a delta of the scheduler; returns the nodes that will never run.
    pub(super) fn absorb(&mut self, graph: &CompiledGraph, delta: &Delta) -> Vec<NodeId> {
        self.result = delta.result;
        self.fresh.extend(delta.ready.iter().map(|ready| graph.step(ready.node, ready.item)));
        let skipped = delta.skipped.iter().map(|number| graph.node(*number).id.clone());
        let skipped: Vec<NodeId> = skipped.collect();
        for node in &skipped {
            self.extra.note(StepId::node(node.clone()), "skipped", None);
        }
        skipped
    }

    /// Adds a result of an effect, a wait or a person.
    pub(super) fn take(&mut self, graph: &CompiledGraph, state: &RunState, done: &Done) {
        let attempt = done.attempt;
        self.conclude(graph, state, done, attempt, false);
    }

    /// Concludes an attempt: adds the outcome of the step, and that of its map after the last item.
    pub(super) fn conclude(
        &mut self,
        graph: &CompiledGraph,
        state: &RunState,
        done: &Done,
        attempt: u32,
        is_instant: bool,
    ) {
        let Some(node) = graph.find_node(&done.step.node) else { return };
        let failures = state.steps.get(&done.step).map_or(0, |step| step.failures);
        let mut result = self.result_of(node, done, failures, attempt);
        let (skipped, map) = match (verdict(&result), self.answer_to_question(graph, done)) {
            // A decided step is answered to the kernel, which waits for it, instead of being
            // completed again.
            (_, Some(answer)) => (self.answer(graph, state, done, answer, &mut result), None),
            (Some(verdict), None) => self.tell(graph, state, &done.step, verdict, &result),
            (None, None) => (Vec::new(), None),
        };
        let result = self.failed_or_asking(graph, &done.step, result);
        let step = done.step.clone();
        let outcome = Outcome { step, attempt, result, call: done.call.clone(), skipped };
        if is_instant {
            self.room.add_instant(&outcome.skipped);
            self.advance.instant.push(outcome);
        } else {
            self.room.add_outcome(&outcome.skipped);
            self.advance.outcomes.push(outcome);
        }
        // The map follows its last item, so that a reader sees all items before it.
        if let Some(outcome) = map {
            self.room.add_outcome(&outcome.skipped);
            self.advance.outcomes.push(outcome);
        }
    }

    /// Translates a result to what the domain records, and stores its payloads.
    fn result_of(&mut self, node: &Node, done: &Done, failures: u32, attempt: u32) -> StepResult {
        match &done.result {
            DoneResult::Completed(value) => {
                let draft = self.draft();
                let output = value.as_ref().map(|value| self.store_value(value, Purpose::Output));
                // Too large for the log: the step fails instead of the whole commit.
                let bytes = self.largest_payload_since(&draft);
                if bytes > Limits::PAYLOAD_BYTES {
                    self.discard_since(draft);
                    self.extra.note(done.step.clone(), "failed", None);
                    let error = self.seal_failure(too_large(&done.step, bytes));
                    return StepResult::Failed { error, retry_at: None };
                }
                self.extra.note(done.step.clone(), "completed", value.clone());
                StepResult::Completed { output, case: None }
            }
            DoneResult::Chosen(case) => {
                self.extra.note(done.step.clone(), "completed", None);
                StepResult::Completed { output: None, case: Some(*case) }
            }
            DoneResult::Failed(error) => {
                let jitter = jitter();
                let is_handed_on = done.call.as_ref().is_some_and(|call| call.fallback.is_some());
                // A fallback goes to another model, so there is no reason to wait.
                let retry_at = match is_handed_on {
                    true => Some(self.now),
                    false => next_try(&node.retry, failures + 1, error, self.now, jitter)
                        .map(|due| done.keep_to_hint(due, self.now)),
                };
                if retry_at.is_none() {
                    self.extra.note(done.step.clone(), "failed", None);
                }
                StepResult::Failed { error: self.seal_failure(error.clone()), retry_at }
            }
            DoneResult::Decided(resolution, value) => self.decided(done, *resolution, value),
            DoneResult::Interrupted if !self.may_repeat => StepResult::UnknownAsking,
            DoneResult::Opened(yielded) => {
                let value = yielded.as_ref().map(|(_, value)| Arc::clone(value));
                self.extra.note(done.step.clone(), "completed", value);
                StepResult::Yielded { output: yielded.as_ref().map(|(reference, _)| *reference) }
            }
            DoneResult::Yielded(output) => {
                self.extra.note(done.step.clone(), "completed", None);
                StepResult::Yielded { output: *output }
            }
            DoneResult::Interrupted
            | DoneResult::Answered(_)
            | DoneResult::TurnOver
            | DoneResult::Created => {
                StepResult::Unknown { retry_at: next_try_after_crash(attempt, self.now) }
            }
        }
    }

    /// Reports an outcome to the scheduler and adopts its delta. Returns the skipped nodes and,
    /// after the last item of a map, the map's outcome.
    fn tell(
        &mut self,
        graph: &CompiledGraph,
        state: &RunState,
        step: &StepId,
        verdict: Verdict,
        result: &StepResult,
    ) -> (Vec<NodeId>, Option<Outcome>) {
        let Some(number) = graph.number(&step.node) else { return (Vec::new(), None) };
        let told = match step.item {
            Some(item) => self.scheduler.complete_item(number, item, verdict),
            None => self.scheduler.complete(number, verdict),
        };
        // The kernel rejects outcomes of items whose map has failed already: they are only
        // recorded.
        let Ok(delta) = told else { return (Vec::new(), None) };
        let skipped = self.absorb(graph, &delta);
        if step.item.is_none() {
            return (skipped, None);
        }
        match self.scheduler.status(number) {
            Ok(NodeStatus::Done) => {
                let done = StepResult::Completed { output: None, case: None };
                (Vec::new(), self.map_outcome(state, step, done, skipped))
            }
            Ok(NodeStatus::Failed) => {
                (Vec::new(), self.map_outcome(state, step, result.clone(), skipped))
            }
            _ => (skipped, None),
        }
    }

    /// Builds the outcome of a map whose last item concluded.
    fn map_outcome(
        &mut self,
        state: &RunState,
        item: &StepId,
        result: StepResult,
        skipped: Vec<NodeId>,
    ) -> Option<Outcome> {
        let step = StepId::node(item.node.clone());
        let attempt = state.steps.get(&step)?.attempt;
        let status = if verdict(&result) == Some(Verdict::Failed) { "failed" } else { "completed" };
        self.extra.note(step.clone(), status, None);
        Some(Outcome { step, attempt, result, call: None::<CallReport>, skipped })
    }

    /// Returns the outcomes that the folded state does not have yet.
    pub(super) fn extra(&self) -> &Extra {
        &self.extra
    }

    /// Returns whether the kernel regards the run as over.
    pub(super) fn is_over(&self) -> bool {
        self.result != RunResult::Running
    }
}

/// Translates a result to the scheduler's outcome; `None` while another attempt follows.
fn verdict(result: &StepResult) -> Option<Verdict> {
    match result {
        StepResult::Completed { case, .. } => Some(Verdict::Done { choice: *case }),
        StepResult::Yielded { .. } => Some(Verdict::Done { choice: None }),
        StepResult::Failed { retry_at: None, .. } | StepResult::Unknown { retry_at: None } => {
            Some(Verdict::Failed)
        }
        _ => None,
    }
}

/// Draws the jitter of a retry, in thousandths. It is drawn once per failed attempt, and the log
/// keeps the resulting due time, so replay does not draw again.
fn jitter() -> u16 {
    let mut bytes = [0; 2];
    // Without randomness the back-off must do alone.
    let drawn = getrandom::fill(&mut bytes).is_ok();
    if drawn { u16::from_le_bytes(bytes) % 1001 } else { 0 }
}
