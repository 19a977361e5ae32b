//! The next commit in preparation: its payloads, starts and launches, and the budget and capacity
//! that they take.

use std::collections::{BTreeMap, VecDeque};
use std::sync::Arc;

use bytes::Bytes;
use convergio_domain::chat::ChatReply;
use convergio_domain::failure::{FailureDetail, FailureReport, UnsealedFailure};
use convergio_domain::id::{ExecutorId, NodeId, StepId};
use convergio_domain::money::Money;
use convergio_domain::payload::{PayloadPurpose, PayloadSlot};
use convergio_domain::run::{
    AdvanceRun, BudgetUsage, RunState, StepIntent, StepStart, ToolCallNumber, TurnUpdate,
};
use convergio_domain::time::Timestamp;
use convergio_eventstore::Payload;
use convergio_kernel_c::{RunResult, ScheduleDelta, Scheduler};
use serde_json::Value;

use super::capacity::FreeCapacity;
use super::commit_size::{CommitLimits, CommitSize};
use super::launch::{EffectLaunch, EffectWork};
use super::outcome::{EffectOutcome, EffectResult};
use crate::failures::detail_bytes;
use crate::graphs::CompiledGraph;
use crate::outputs::UncommittedOutcomes;

/// SHA-256 of a candidate table's JSON, which identifies equal tables.
pub(crate) type TableDigest = [u8; 32];

/// A commit in preparation, with the effects that follow once it is durable.
pub(crate) struct CommitPlan {
    pub(crate) advance: AdvanceRun,
    pub(crate) payloads: Vec<Payload>,
    /// The scheduler as it stands after the commit.
    pub(crate) scheduler: Scheduler,
    /// Effects to launch after the commit.
    pub(crate) launches: Vec<EffectLaunch>,
    /// Values that the commit stores, to be cached.
    pub(crate) values: Vec<(PayloadSlot, Arc<Value>)>,
    /// Candidate tables that the commit stores, for reference by later calls.
    pub(crate) candidate_tables: Vec<(TableDigest, PayloadSlot)>,
    /// Number of the actor's results that are in the plan.
    pub(crate) result_count: usize,
    /// Updates of steps that go on in turns.
    pub(crate) pending_turns: BTreeMap<StepId, PendingTurn>,
    /// Steps whose next turn waits for capacity.
    pub(crate) postponed_turns: Vec<StepId>,
    /// Budget used and held after this commit.
    pub(crate) budget_usage: BudgetUsage,
    pub(crate) now: Timestamp,
    pub(crate) uncommitted: UncommittedOutcomes,
    /// Steps that the kernel made ready and the log has not scheduled yet.
    pub(crate) unrecorded_ready: VecDeque<StepId>,
    pub(crate) run_result: RunResult,
    pub(crate) deciding_failure: Option<(StepId, FailureReport)>,
    pub(crate) size: CommitSize,
    /// Capacity left besides what the commit takes.
    pub(crate) capacity: FreeCapacity,
    /// True if steps may start.
    pub(crate) can_start_steps: bool,
    /// True if the run's deadline has passed: the commit ends the run.
    is_past_deadline: bool,
    /// True if an attempt with an unknown outcome may be followed by another one.
    pub(crate) can_retry_unknown: bool,
}

/// Update of a step within the commit in preparation.
pub(crate) struct PendingTurn {
    pub(crate) update: TurnUpdate,
    /// The turn's answer, if it is in this commit.
    pub(crate) reply: Option<Arc<ChatReply>>,
    /// Tool results in this commit with their call numbers; true for failures.
    pub(crate) results: Vec<(ToolCallNumber, Value, bool)>,
}

/// A point in the preparation to roll back to.
pub(crate) struct PlanSavepoint {
    payload_count: usize,
    value_count: usize,
    table_count: usize,
    budget_usage: BudgetUsage,
    size: CommitSize,
}

/// The loop's side of a plan: what its run may still do.
pub(crate) struct PlanStart {
    pub(crate) executor: ExecutorId,
    pub(crate) now: Timestamp,
    /// A copy of the actor's scheduler, which stays as it is should the commit fail.
    pub(crate) scheduler: Scheduler,
    /// Steps that the kernel made ready and the log has not scheduled yet.
    pub(crate) unrecorded_ready: VecDeque<StepId>,
    pub(crate) limits: CommitLimits,
    /// Capacity before anything is planned.
    pub(crate) capacity: FreeCapacity,
    /// True if steps may start: the run is not paused, and the limit of steps is not reached.
    pub(crate) can_start_steps: bool,
}

impl CommitPlan {
    /// Begins a plan for a run as it is folded now.
    pub(crate) fn new(start: PlanStart, state: &RunState) -> Self {
        let deadline = state.earliest_deadline();
        Self {
            advance: AdvanceRun::new(start.executor),
            payloads: Vec::new(),
            run_result: start.scheduler.run_result(),
            scheduler: start.scheduler,
            launches: Vec::new(),
            values: Vec::new(),
            candidate_tables: Vec::new(),
            result_count: 0,
            pending_turns: BTreeMap::new(),
            postponed_turns: Vec::new(),
            budget_usage: state.spent,
            now: start.now,
            uncommitted: UncommittedOutcomes::default(),
            unrecorded_ready: start.unrecorded_ready,
            deciding_failure: None,
            size: CommitSize::new(start.limits),
            capacity: start.capacity,
            can_start_steps: start.can_start_steps,
            is_past_deadline: deadline.is_some_and(|deadline| deadline <= start.now),
            can_retry_unknown: true,
        }
    }

    /// Returns whether nothing would be written.
    pub(crate) fn is_empty(&self) -> bool {
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
    pub(crate) fn is_full_for(&self, effect_result: &EffectResult) -> bool {
        let is_turn = effect_result.tool_call.is_some()
            || matches!(effect_result.outcome, EffectOutcome::TurnAnswered(_));
        self.size.is_full_for_result(is_turn)
    }

    /// Marks the current point of the preparation.
    pub(crate) fn take_savepoint(&self) -> PlanSavepoint {
        PlanSavepoint {
            payload_count: self.payloads.len(),
            value_count: self.values.len(),
            table_count: self.candidate_tables.len(),
            budget_usage: self.budget_usage,
            size: self.size,
        }
    }

    /// Returns the bytes of the largest payload added since the savepoint.
    pub(crate) fn largest_payload_since(&self, savepoint: &PlanSavepoint) -> usize {
        let added = &self.payloads[savepoint.payload_count..];
        added.iter().map(|payload| payload.bytes.len()).max().unwrap_or(0)
    }

    /// Removes the payloads and budget holds added since the savepoint.
    pub(crate) fn rollback_to(&mut self, savepoint: PlanSavepoint) {
        // Outcomes and starts are added after the check of sizes, so they need no rollback.
        self.payloads.truncate(savepoint.payload_count);
        self.values.truncate(savepoint.value_count);
        self.candidate_tables.truncate(savepoint.table_count);
        (self.budget_usage, self.size) = (savepoint.budget_usage, savepoint.size);
    }

    /// Adds a step that starts.
    pub(crate) fn add_start(&mut self, start: StepStart) {
        self.size.add_start();
        self.advance.starts.push(start);
    }

    /// Adds an effect to launch after the commit, and takes its capacity.
    pub(crate) fn add_launch(&mut self, launch: EffectLaunch) {
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
    pub(crate) fn store_payload(
        &mut self,
        bytes: Vec<u8>,
        media_type: &str,
        purpose: PayloadPurpose,
    ) -> PayloadSlot {
        self.size.add_payload(bytes.len());
        self.payloads.push(Payload::new(Bytes::from(bytes), media_type, purpose, None));
        // The commit's size limits keep the number of payloads far below `u16::MAX`.
        PayloadSlot(u16::try_from(self.payloads.len() - 1).unwrap_or(u16::MAX))
    }

    /// Stores the detail of a failure with the commit.
    pub(crate) fn seal_failure(&mut self, failure: UnsealedFailure) -> FailureReport {
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
    pub(crate) fn hold_budget(&mut self, tokens: u64, cost: Money) {
        self.budget_usage.reserved_tokens =
            self.budget_usage.reserved_tokens.saturating_add(tokens);
        self.budget_usage.reserved_cost += cost;
    }

    /// Holds the maximum cost of an intent.
    pub(crate) fn hold_intent(&mut self, intent: &StepIntent) {
        if let StepIntent::CallModel { reserved_tokens, reserved_cost, .. } = intent {
            self.hold_budget(*reserved_tokens, reserved_cost.unwrap_or_default());
        }
    }

    /// Stores a JSON value with the commit, to be cached once it is durable.
    pub(crate) fn store_value(
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
    pub(crate) fn apply_delta(
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

    /// Returns the outcomes that the folded state does not have yet.
    pub(crate) fn uncommitted_outcomes(&self) -> &UncommittedOutcomes {
        &self.uncommitted
    }

    /// Returns whether the kernel regards the run as over.
    pub(crate) fn is_run_over(&self) -> bool {
        self.run_result != RunResult::Running
    }
}
