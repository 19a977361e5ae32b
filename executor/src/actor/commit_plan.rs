//! The next commit in preparation: outcomes, the scheduler's answers to them, and the steps that
//! start next.

use std::collections::{BTreeMap, VecDeque};
use std::sync::Arc;

use bytes::Bytes;
use convergio_domain::failure::{FailureDetail, FailureReport, UnsealedFailure};
use convergio_domain::graph::manifest::GraphNode;
use convergio_domain::id::{NodeId, StepId};
use convergio_domain::money::Money;
use convergio_domain::payload::{PayloadPurpose, PayloadSlot};
use convergio_domain::run::{
    AdvanceRun, BudgetUsage, CallReport, RunState, StepIntent, StepOutcome, StepResult, StepStart,
    next_attempt_after_crash, next_attempt_at,
};
use convergio_domain::time::Timestamp;
use convergio_eventstore::{LogLimits, Payload};
use convergio_kernel_c::{NodeOutcome as Verdict, NodeStatus, RunResult, ScheduleDelta, Scheduler};
use serde_json::Value;

use super::Actor;
use super::candidate_tables::TableDigest;
use super::capacity::FreeCapacity;
use super::commit_size::CommitSize;
use super::effect::{EffectLaunch, EffectOutcome, EffectResult, EffectWork};
use super::planning::oversized_step_failure;
use super::transcript::PendingTurn;
use crate::failures::detail_bytes;
use crate::graphs::CompiledGraph;
use crate::outputs::UncommittedOutcomes;

/// A commit in preparation, with the effects that follow once it is durable.
pub(super) struct CommitPlan {
    pub(super) advance: AdvanceRun,
    pub(super) payloads: Vec<Payload>,
    /// The scheduler as it stands after the commit.
    pub(super) scheduler: Scheduler,
    /// Effects to launch after the commit.
    pub(super) launches: Vec<EffectLaunch>,
    /// Values that the commit stores, to be cached.
    pub(super) values: Vec<(PayloadSlot, Arc<Value>)>,
    /// Candidate tables that the commit stores, for reference by later calls.
    pub(super) candidate_tables: Vec<(TableDigest, PayloadSlot)>,
    /// Number of the actor's results that are in the plan.
    pub(super) result_count: usize,
    /// Updates of steps that go on in turns.
    pub(super) pending_turns: BTreeMap<StepId, PendingTurn>,
    /// Budget used and held after this commit.
    pub(super) budget_usage: BudgetUsage,
    pub(super) now: Timestamp,
    pub(super) uncommitted: UncommittedOutcomes,
    /// Steps that the kernel made ready and the log has not scheduled yet.
    pub(super) unrecorded_ready: VecDeque<StepId>,
    pub(super) run_result: RunResult,
    pub(super) deciding_failure: Option<(StepId, FailureReport)>,
    pub(super) size: CommitSize,
    /// Capacity left besides what the commit takes.
    pub(super) capacity: FreeCapacity,
    /// True if the run's deadline has passed: the commit ends the run.
    is_past_deadline: bool,
    /// True if an attempt with an unknown outcome may be followed by another one.
    pub(super) can_retry_unknown: bool,
}

/// A point in the preparation to roll back to.
pub(super) struct PlanSavepoint {
    payload_count: usize,
    value_count: usize,
    table_count: usize,
    budget_usage: BudgetUsage,
    size: CommitSize,
}

impl CommitPlan {
    pub(super) fn new(actor: &Actor) -> Self {
        let now = actor.shared.current_time();
        let advance = AdvanceRun::new(actor.shared.config.id);
        Self {
            advance,
            payloads: Vec::new(),
            // A copy: if the commit fails, the actor's scheduler must be as before.
            scheduler: actor.scheduler.clone(),
            launches: Vec::new(),
            values: Vec::new(),
            candidate_tables: Vec::new(),
            result_count: 0,
            pending_turns: BTreeMap::new(),
            budget_usage: actor.run.state.spent,
            now,
            uncommitted: UncommittedOutcomes::default(),
            unrecorded_ready: actor.unrecorded_ready.iter().cloned().collect(),
            run_result: actor.scheduler.run_result(),
            deciding_failure: None,
            size: CommitSize::new(actor.commit_limits),
            capacity: actor.free_capacity(),
            is_past_deadline: actor.is_past_deadline(now),
            can_retry_unknown: true,
        }
    }

    /// Returns whether nothing would be written.
    pub(super) fn is_empty(&self) -> bool {
        // Destructured without `..`, so that a new field cannot be forgotten here.
        let AdvanceRun {
            executor: _,
            turn_updates: moves,
            outcomes,
            instant_outcomes: instant,
            ready_steps: ready,
            starts,
            end,
        } = &self.advance;
        moves.is_empty()
            && (outcomes.is_empty() && instant.is_empty())
            && (ready.is_empty() && starts.is_empty())
            && end.is_none()
            && !self.is_past_deadline
    }

    /// Returns whether a result must wait for the next commit; a turn may bring many payloads.
    pub(super) fn is_full_for(&self, effect_result: &EffectResult) -> bool {
        let is_turn = effect_result.tool_call.is_some()
            || matches!(effect_result.outcome, EffectOutcome::TurnAnswered(_));
        self.size.is_full_for_result(is_turn)
    }

    /// Marks the current point of the preparation.
    pub(super) fn take_savepoint(&self) -> PlanSavepoint {
        PlanSavepoint {
            payload_count: self.payloads.len(),
            value_count: self.values.len(),
            table_count: self.candidate_tables.len(),
            budget_usage: self.budget_usage,
            size: self.size,
        }
    }

    /// Returns the bytes of the largest payload added since the savepoint.
    pub(super) fn largest_payload_since(&self, savepoint: &PlanSavepoint) -> usize {
        let added = &self.payloads[savepoint.payload_count..];
        added.iter().map(|payload| payload.bytes.len()).max().unwrap_or(0)
    }

    /// Removes the payloads and budget holds added since the savepoint.
    pub(super) fn rollback_to(&mut self, savepoint: PlanSavepoint) {
        // Outcomes and starts are added after the check of sizes, so they need no rollback.
        self.payloads.truncate(savepoint.payload_count);
        self.values.truncate(savepoint.value_count);
        self.candidate_tables.truncate(savepoint.table_count);
        (self.budget_usage, self.size) = (savepoint.budget_usage, savepoint.size);
    }

    /// Adds a step that starts.
    pub(super) fn add_start(&mut self, start: StepStart) {
        self.size.add_start();
        self.advance.starts.push(start);
    }

    /// Adds an effect to launch after the commit, and takes its capacity.
    pub(super) fn add_launch(&mut self, launch: EffectLaunch) {
        let capacity = &mut self.capacity;
        capacity.steps = capacity.steps.saturating_sub(1);
        match launch.work {
            EffectWork::Model(_) => capacity.model_calls = capacity.model_calls.saturating_sub(1),
            EffectWork::Child(_) => capacity.child_runs = capacity.child_runs.saturating_sub(1),
            EffectWork::Tool { .. } => {}
        }
        self.launches.push(launch);
    }

    /// Stores bytes with the commit and returns their slot.
    pub(super) fn store_payload(
        &mut self,
        bytes: Vec<u8>,
        media_type: impl Into<String>,
        purpose: PayloadPurpose,
    ) -> PayloadSlot {
        self.size.add_payload(bytes.len());
        self.payloads.push(Payload {
            bytes: Bytes::from(bytes),
            media_type: media_type.into(),
            purpose,
            subject: None,
        });
        // The commit's size limits keep the number of payloads far below `u16::MAX`.
        PayloadSlot(u16::try_from(self.payloads.len() - 1).unwrap_or(u16::MAX))
    }

    /// Stores the detail of a failure with the commit.
    pub(super) fn seal_failure(&mut self, failure: UnsealedFailure) -> FailureReport {
        failure.map_detail(|detail| {
            Some(match detail {
                FailureDetail::Known(reference) => FailureDetail::Known(reference),
                FailureDetail::New(text) => {
                    let (bytes, purpose) = (detail_bytes(&text), PayloadPurpose::FailureDetail);
                    FailureDetail::New(self.store_payload(bytes, "application/json", purpose))
                }
            })
        })
    }

    /// Holds tokens and money against the budget.
    pub(super) fn hold_budget(&mut self, tokens: u64, cost: Money) {
        self.budget_usage.reserved_tokens =
            self.budget_usage.reserved_tokens.saturating_add(tokens);
        self.budget_usage.reserved_cost += cost;
    }

    /// Holds the maximum cost of an intent.
    pub(super) fn hold_intent(&mut self, intent: &StepIntent) {
        if let StepIntent::CallModel { reserved_tokens, reserved_cost, .. } = intent {
            self.hold_budget(*reserved_tokens, reserved_cost.unwrap_or_default());
        }
    }

    /// Stores a JSON value with the commit, to be cached once it is durable.
    pub(super) fn store_value(
        &mut self,
        value: &Arc<Value>,
        purpose: PayloadPurpose,
    ) -> PayloadSlot {
        // Serialising a JSON value cannot fail: its keys are strings.
        let bytes = serde_json::to_vec(&**value).unwrap_or_default();
        let slot = self.store_payload(bytes, "application/json", purpose);
        self.values.push((slot, Arc::clone(value)));
        slot
    }

    /// Adopts a delta of the scheduler; returns the nodes that will never run.
    pub(super) fn apply_delta(
        &mut self,
        graph: &CompiledGraph,
        delta: &ScheduleDelta,
    ) -> Vec<NodeId> {
        self.run_result = delta.result;
        self.unrecorded_ready
            .extend(delta.ready.iter().map(|ready| graph.step_id(ready.node, ready.item)));
        let skipped = delta.skipped.iter().map(|number| graph.node_at(*number).id.clone());
        let skipped: Vec<NodeId> = skipped.collect();
        for node in &skipped {
            self.uncommitted.record_outcome(StepId::for_node(node.clone()), "skipped", None);
        }
        skipped
    }

    /// Adds a result of an effect, a wait or a person.
    pub(super) fn add_result(
        &mut self,
        graph: &CompiledGraph,
        state: &RunState,
        result: &EffectResult,
    ) {
        let attempt = result.attempt;
        self.conclude_step(graph, state, result, attempt, false);
    }

    /// Concludes an attempt: adds the outcome of the step, and that of its map after the last item.
    pub(super) fn conclude_step(
        &mut self,
        graph: &CompiledGraph,
        state: &RunState,
        effect_result: &EffectResult,
        attempt: u32,
        is_instant: bool,
    ) {
        let Some(node) = graph.find_node(&effect_result.step.node) else { return };
        let failures = state.steps.get(&effect_result.step).map_or(0, |step| step.failures);
        let mut result = self.step_result(node, effect_result, failures, attempt);
        let (skipped, map) =
            match (kernel_outcome(&result), self.kernel_answer(graph, effect_result)) {
                // A decided step is answered to the kernel, which waits for it, instead of being
                // completed again.
                (_, Some(answer)) => {
                    (self.answer_kernel(graph, state, effect_result, answer, &mut result), None)
                }
                (Some(verdict), None) => {
                    self.complete_in_scheduler(graph, state, &effect_result.step, verdict, &result)
                }
                (None, None) => (Vec::new(), None),
            };
        let result = self.asking_or_failed_result(graph, &effect_result.step, result);
        let step = effect_result.step.clone();
        let outcome =
            StepOutcome { step, attempt, result, call: effect_result.call_report.clone(), skipped };
        if is_instant {
            self.size.add_instant(&outcome.skipped);
            self.advance.instant_outcomes.push(outcome);
        } else {
            self.size.add_outcome(&outcome.skipped);
            self.advance.outcomes.push(outcome);
        }
        // The map follows its last item, so that a reader sees all items before it.
        if let Some(outcome) = map {
            self.size.add_outcome(&outcome.skipped);
            self.advance.outcomes.push(outcome);
        }
    }

    /// Translates a result to what the domain records, and stores its payloads.
    fn step_result(
        &mut self,
        node: &GraphNode,
        result: &EffectResult,
        failures: u32,
        attempt: u32,
    ) -> StepResult {
        match &result.outcome {
            EffectOutcome::Completed(value) => {
                let savepoint = self.take_savepoint();
                let output =
                    value.as_ref().map(|value| self.store_value(value, PayloadPurpose::Output));
                // Too large for the log: the step fails instead of the whole commit.
                let bytes = self.largest_payload_since(&savepoint);
                if bytes > LogLimits::PAYLOAD_BYTES {
                    self.rollback_to(savepoint);
                    self.uncommitted.record_outcome(result.step.clone(), "failed", None);
                    let error = self.seal_failure(oversized_step_failure(&result.step, bytes));
                    return StepResult::Failed { error, retry_at: None };
                }
                self.uncommitted.record_outcome(result.step.clone(), "completed", value.clone());
                StepResult::Completed { output, case: None }
            }
            EffectOutcome::BranchTaken(case) => {
                self.uncommitted.record_outcome(result.step.clone(), "completed", None);
                StepResult::Completed { output: None, case: Some(*case) }
            }
            EffectOutcome::Failed(error) => {
                let jitter = draw_jitter();
                let is_fallback_due =
                    result.call_report.as_ref().is_some_and(|call| call.fallback.is_some());
                // A fallback goes to another model, so there is no reason to wait.
                let retry_at = match is_fallback_due {
                    true => Some(self.now),
                    false => next_attempt_at(&node.retry, failures + 1, error, self.now, jitter)
                        .map(|due| result.delay_to_hint(due, self.now)),
                };
                if retry_at.is_none() {
                    self.uncommitted.record_outcome(result.step.clone(), "failed", None);
                }
                StepResult::Failed { error: self.seal_failure(error.clone()), retry_at }
            }
            EffectOutcome::Resolved(resolution, value) => {
                self.resolution_result(result, *resolution, value)
            }
            EffectOutcome::Interrupted if !self.can_retry_unknown => StepResult::UnknownAsking,
            EffectOutcome::ChildOutputLoaded(yielded) => {
                let value = yielded.as_ref().map(|(_, value)| Arc::clone(value));
                self.uncommitted.record_outcome(result.step.clone(), "completed", value);
                StepResult::Yielded { output: yielded.as_ref().map(|(reference, _)| *reference) }
            }
            EffectOutcome::ChildYielded(output) => {
                self.uncommitted.record_outcome(result.step.clone(), "completed", None);
                StepResult::Yielded { output: *output }
            }
            EffectOutcome::Interrupted
            | EffectOutcome::TurnAnswered(_)
            | EffectOutcome::ToolsAnswered
            | EffectOutcome::ChildCreated => {
                StepResult::Unknown { retry_at: next_attempt_after_crash(attempt, self.now) }
            }
        }
    }

    /// Reports an outcome to the scheduler and adopts its delta. Returns the skipped nodes and,
    /// after the last item of a map, the map's outcome.
    fn complete_in_scheduler(
        &mut self,
        graph: &CompiledGraph,
        state: &RunState,
        step: &StepId,
        kernel_outcome: Verdict,
        result: &StepResult,
    ) -> (Vec<NodeId>, Option<StepOutcome>) {
        let Some(number) = graph.node_number(&step.node) else { return (Vec::new(), None) };
        let completion = match step.item {
            Some(item) => self.scheduler.complete_item(number, item, kernel_outcome),
            None => self.scheduler.complete_node(number, kernel_outcome),
        };
        // The kernel rejects outcomes of items whose map has failed already: they are only
        // recorded.
        let Ok(delta) = completion else { return (Vec::new(), None) };
        let skipped = self.apply_delta(graph, &delta);
        if step.item.is_none() {
            return (skipped, None);
        }
        match self.scheduler.node_status(number) {
            Ok(NodeStatus::Done) => {
                let completed = StepResult::Completed { output: None, case: None };
                (Vec::new(), self.map_outcome(state, step, completed, skipped))
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
    ) -> Option<StepOutcome> {
        let step = StepId::for_node(item.node.clone());
        let attempt = state.steps.get(&step)?.attempt;
        let status =
            if kernel_outcome(&result) == Some(Verdict::Failed) { "failed" } else { "completed" };
        self.uncommitted.record_outcome(step.clone(), status, None);
        Some(StepOutcome { step, attempt, result, call: None::<CallReport>, skipped })
    }

    /// Returns the outcomes that the folded state does not have yet.
    pub(super) fn uncommitted_outcomes(&self) -> &UncommittedOutcomes {
        &self.uncommitted
    }

    /// Returns whether the kernel regards the run as over.
    pub(super) fn is_run_over(&self) -> bool {
        self.run_result != RunResult::Running
    }
}

/// Translates a result to the scheduler's outcome; `None` while another attempt follows.
fn kernel_outcome(result: &StepResult) -> Option<Verdict> {
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
fn draw_jitter() -> u16 {
    let mut bytes = [0; 2];
    // Without randomness the back-off must do alone.
    let is_drawn = getrandom::fill(&mut bytes).is_ok();
    if is_drawn { u16::from_le_bytes(bytes) % 1001 } else { 0 }
}
