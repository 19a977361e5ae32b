//! What the next commit holds: outcomes, the scheduler's answers to them, and what starts next.

use std::collections::{BTreeMap, BTreeSet, VecDeque};
use std::sync::Arc;

use bytes::Bytes;
use convergio_domain::event::run::Failure;
use convergio_domain::graph::manifest::Node;
use convergio_domain::id::{NodeId, StepId};
use convergio_domain::money::Money;
use convergio_domain::payload::{PayloadSlot, Purpose};
use convergio_domain::run::{
    Advance, CallReport, End, Intent, Outcome, RunState, Spent, Start, StepResult, next_try,
    next_try_after_crash,
};
use convergio_domain::time::Timestamp;
use convergio_eventstore::{LogError, Payload};
use convergio_kernel_c::{Delta, NodeStatus, Outcome as Verdict, RunResult, Scheduler};
use serde_json::Value;

use super::asking::Moving;
use super::effect::{Done, DoneResult, Launch, Work};
use super::prepare::Prepared;
use super::tables::Print;
use super::{Actor, ActorError};
use crate::graphs::CompiledGraph;
use crate::outputs::{Extra, OutputError};

/// Outcomes taken into one commit at most; with [`STARTS_LIMIT`] it keeps commits within the log's
/// limits.
const OUTCOMES_LIMIT: usize = 24;
/// Steps started in one commit at most.
const STARTS_LIMIT: usize = 24;
/// Payload bytes after which a commit takes no more outcomes or starts.
const BYTES_LIMIT: usize = 8 << 20;
/// Payloads after which a commit starts nothing more.
const PAYLOADS_LIMIT: usize = 60;
/// Payloads after which a commit takes no more turns.
const TURNS_LIMIT: usize = 12;

/// A commit in the making, with what follows once it is durable.
pub(super) struct Plan {
    pub(super) advance: Advance,
    pub(super) payloads: Vec<Payload>,
    /// The scheduler as it stands after the commit.
    pub(super) scheduler: Scheduler,
    /// Effects to begin after the commit.
    pub(super) launches: Vec<Launch>,
    /// Values that the commit stores, to be kept at hand.
    pub(super) values: Vec<(PayloadSlot, Arc<Value>)>,
    /// Tables that the commit stores, to be named by later calls.
    pub(super) tables: Vec<(Print, PayloadSlot)>,
    /// How many of the actor's outcomes are in it.
    pub(super) taken: usize,
    /// What happens within steps that go on.
    pub(super) moving: BTreeMap<StepId, Moving>,
    /// What is spent and held with this commit.
    pub(super) spent: Spent,
    now: Timestamp,
    pub(super) extra: Extra,
    pub(super) fresh: VecDeque<StepId>,
    result: RunResult,
    pub(super) failed: Option<(StepId, Failure)>,
    bytes: usize,
    /// Whether a try whose outcome nobody knows may be followed by another one.
    may_repeat: bool,
}

impl Plan {
    fn new(actor: &Actor) -> Self {
        let advance = Advance {
            executor: actor.shared.config.id,
            moves: Vec::new(),
            outcomes: Vec::new(),
            instant: Vec::new(),
            ready: Vec::new(),
            starts: Vec::new(),
            end: None,
        };
        Self {
            advance,
            payloads: Vec::new(),
            scheduler: actor.scheduler.clone(),
            launches: Vec::new(),
            values: Vec::new(),
            tables: Vec::new(),
            taken: 0,
            moving: BTreeMap::new(),
            spent: actor.run.state.spent,
            now: actor.shared.now(),
            extra: Extra::default(),
            fresh: actor.unrecorded.iter().cloned().collect(),
            result: actor.scheduler.result(),
            failed: None,
            bytes: 0,
            may_repeat: true,
        }
    }

    fn is_full(&self) -> bool {
        self.bytes > BYTES_LIMIT
            || self.advance.starts.len() >= STARTS_LIMIT
            || self.payloads.len() >= PAYLOADS_LIMIT
    }

    /// Whether an outcome waits for the next commit: a turn may bring many payloads.
    fn has_no_room(&self, done: &Done) -> bool {
        let is_turn = done.at.is_some() || matches!(done.result, DoneResult::Answered(_));
        self.bytes > BYTES_LIMIT || (is_turn && self.payloads.len() >= TURNS_LIMIT)
    }

    /// Stores bytes with the commit.
    pub(super) fn store(
        &mut self,
        bytes: Vec<u8>,
        media: &'static str,
        why: Purpose,
    ) -> PayloadSlot {
        self.bytes += bytes.len();
        self.payloads.push(Payload {
            bytes: Bytes::from(bytes),
            media_type: media.into(),
            purpose: why,
            subject: None,
        });
        PayloadSlot(u16::try_from(self.payloads.len() - 1).unwrap_or(u16::MAX))
    }

    /// Holds something against the budget.
    pub(super) fn hold(&mut self, tokens: u64, cost: Money) {
        self.spent.reserved_tokens = self.spent.reserved_tokens.saturating_add(tokens);
        self.spent.reserved_cost += cost;
    }

    /// Holds what an intent may cost.
    pub(super) fn hold_intent(&mut self, intent: &Intent) {
        if let Intent::CallModel { reserved_tokens, reserved_cost, .. } = intent {
            self.hold(*reserved_tokens, reserved_cost.unwrap_or_default());
        }
    }

    /// How many runs within the run begin with this commit.
    pub(super) fn children(&self) -> usize {
        let is_child = |launch: &&Launch| matches!(launch.work, Work::Child(_));
        self.launches.iter().filter(is_child).count()
    }

    /// Stores a step's output with the commit.
    pub(super) fn store_value(&mut self, value: &Arc<Value>, why: Purpose) -> PayloadSlot {
        // Serialising a JSON value into memory cannot fail: its keys are strings.
        let bytes = serde_json::to_vec(&**value).unwrap_or_default();
        let slot = self.store(bytes, "application/json", why);
        self.values.push((slot, Arc::clone(value)));
        slot
    }

    /// Takes the scheduler's answer in; gives the nodes that will never run.
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

    /// An outcome that an executor's task or a person brought.
    pub(super) fn take(&mut self, graph: &CompiledGraph, state: &RunState, done: &Done) {
        let attempt = done.attempt;
        self.conclude(graph, state, done, attempt, false);
    }

    /// Turns what came of a step into outcomes: the step's, and its map's if it was the last item.
    fn conclude(
        &mut self,
        graph: &CompiledGraph,
        state: &RunState,
        done: &Done,
        attempt: u32,
        is_instant: bool,
    ) {
        let Some(node) = graph.graph.node(&done.step.node) else { return };
        let failures = state.steps.get(&done.step).map_or(0, |step| step.failures);
        let mut result = self.result_of(node, done, failures, attempt);
        let (skipped, map) = match (verdict(&result), self.answer_to_question(graph, done)) {
            (_, Some(answer)) => (self.answer(graph, state, done, answer, &mut result), None),
            (Some(verdict), None) => self.tell(graph, state, &done.step, verdict, &result),
            (None, None) => (Vec::new(), None),
        };
        let result = self.failed_or_asking(graph, &done.step, result);
        let step = done.step.clone();
        let outcome = Outcome { step, attempt, result, call: done.call.clone(), skipped };
        if is_instant {
            self.advance.instant.push(outcome);
        } else {
            self.advance.outcomes.push(outcome);
        }
        self.advance.outcomes.extend(map);
    }

    fn result_of(&mut self, node: &Node, done: &Done, failures: u32, attempt: u32) -> StepResult {
        match &done.result {
            DoneResult::Completed(value) => {
                self.extra.note(done.step.clone(), "completed", value.clone());
                let output = value.as_ref().map(|value| self.store_value(value, Purpose::Output));
                StepResult::Completed { output, case: None }
            }
            DoneResult::Chosen(case) => {
                self.extra.note(done.step.clone(), "completed", None);
                StepResult::Completed { output: None, case: Some(*case) }
            }
            DoneResult::Failed(error) => {
                let jitter = jitter();
                let is_handed_on = done.call.as_ref().is_some_and(|call| call.fallback.is_some());
                let retry_at = match is_handed_on {
                    true => Some(self.now),
                    false => next_try(&node.retry, failures + 1, error, self.now, jitter),
                };
                if retry_at.is_none() {
                    self.extra.note(done.step.clone(), "failed", None);
                }
                StepResult::Failed { error: error.clone(), retry_at }
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

    /// Tells the scheduler, and takes its answer in.
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
        // The kernel refuses outcomes of items whose map has failed already: they are only
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

    /// Outcomes that the state does not have yet.
    pub(super) fn extra(&self) -> &Extra {
        &self.extra
    }

    fn is_over(&self) -> bool {
        self.result != RunResult::Running
    }
}

/// What the scheduler is told; nothing while another try follows.
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

/// Drawn once per failed try, and logged as the due time of the next one.
fn jitter() -> u16 {
    let mut bytes = [0; 2];
    // Without randomness there is no jitter, and the back-off alone must do.
    let drawn = getrandom::fill(&mut bytes).is_ok();
    if drawn { u16::from_le_bytes(bytes) % 1001 } else { 0 }
}

impl Actor {
    /// What remains to be written of a run that has ended.
    pub(super) fn settlement(&mut self) -> Plan {
        let mut plan = Plan::new(self);
        for done in self.done.iter().take(OUTCOMES_LIMIT) {
            plan.taken += 1;
            let (step, attempt) = (done.step.clone(), done.attempt);
            let result = StepResult::Unknown { retry_at: None };
            let (call, skipped) = (done.call.clone(), Vec::new());
            plan.advance.outcomes.push(Outcome { step, attempt, result, call, skipped });
        }
        plan
    }

    /// The next commit.
    pub(super) async fn plan(&mut self) -> Result<Plan, ActorError> {
        let mut plan = Plan::new(self);
        let mut next = 0;
        while let Some(done) = self.done.get(next).filter(|_| next < OUTCOMES_LIMIT).cloned() {
            if plan.has_no_room(&done) {
                break;
            }
            plan.may_repeat = self.may_repeat(&done);
            self.progress(&mut plan, done).await?;
            next += 1;
        }
        if self.may_start() {
            self.start_steps(&mut plan).await?;
        }
        if plan.is_over() {
            plan.advance.end = Some(self.end(&mut plan).await?);
            plan.advance.starts.clear();
            plan.launches.clear();
            plan.moving.values_mut().for_each(|moving| moving.moved.next.clear());
        }
        let moving = std::mem::take(&mut plan.moving);
        plan.advance.moves = moving.into_values().map(|moving| moving.moved).collect();
        let known = |step: &StepId| self.run.state.steps.contains_key(step);
        plan.advance.ready = plan.fresh.iter().filter(|step| !known(step)).cloned().collect();
        Ok(plan)
    }

    /// Starts what may start, and concludes at once what needs no effect.
    async fn start_steps(&mut self, plan: &mut Plan) -> Result<(), ActorError> {
        let due = self.delayed.iter().take_while(|(due, _)| *due <= plan.now);
        let mut queue: VecDeque<StepId> = due.map(|(_, step)| step.clone()).collect();
        queue.extend(self.runnable.iter().cloned());
        queue.append(&mut plan.fresh);
        let mut kept = VecDeque::new();
        let mut calls = 0;
        while let Some(step) = queue.pop_front() {
            let is_agent = self.is_agent(&step);
            let slots = self.in_flight.len() + plan.launches.len();
            let no_slot = self.is_of_new_map(&step)
                || slots >= self.shared.config.steps_per_run
                || (is_agent && !self.has_model_slot(calls));
            if plan.is_over() || plan.is_full() || no_slot {
                kept.push_back(step);
                continue;
            }
            calls += usize::from(is_agent);
            self.begin(plan, step).await?;
            queue.append(&mut plan.fresh);
        }
        plan.fresh = kept;
        Ok(())
    }

    /// Items start one commit after their map: their map's own outcome must find it under way.
    fn is_of_new_map(&self, step: &StepId) -> bool {
        let map = |_| self.run.state.node(&step.node).is_none_or(|node| node.map.is_none());
        step.item.is_some_and(map)
    }

    async fn begin(&mut self, plan: &mut Plan, step: StepId) -> Result<(), ActorError> {
        let attempt = self.run.state.steps.get(&step).map_or(0, |step| step.attempt) + 1;
        let extra = std::mem::take(&mut plan.extra);
        let prepared = self.prepare(plan, &step, attempt, &extra).await;
        plan.extra = extra;
        match prepared {
            Ok(Prepared::Start { intent, launches }) => {
                plan.launches.extend(launches);
                plan.advance.starts.push(Start { step, intent });
            }
            Ok(Prepared::Expand { width, max_parallel, intent }) => {
                let number = self.graph.number(&step.node).unwrap_or(u32::MAX);
                let delta = plan.scheduler.expand(number, width, max_parallel);
                let delta = delta.map_err(|error| ActorError::Failure(internal(&error)))?;
                plan.absorb(&self.graph, &delta);
                plan.advance.starts.push(Start { step, intent });
            }
            Ok(Prepared::Instant(result)) => self.conclude_now(plan, step, attempt, result),
            Err(OutputError::Failure(error)) => {
                self.conclude_now(plan, step, attempt, DoneResult::Failed(error));
            }
            Err(OutputError::Log(error)) => return Err(error.into()),
        }
        Ok(())
    }

    fn conclude_now(&self, plan: &mut Plan, step: StepId, attempt: u32, result: DoneResult) {
        let done = Done { step, attempt, at: None, result, call: None };
        plan.conclude(&self.graph, &self.run.state, &done, attempt, true);
    }

    /// The end of the run, as the scheduler sees it.
    async fn end(&mut self, plan: &mut Plan) -> Result<End, LogError> {
        if plan.result == RunResult::Failed {
            let unknown = || (None, internal(&"the run failed without a failed step"));
            let failed = plan.failed.take().or_else(|| self.known_failure());
            let failed = failed.map(|(step, error)| (Some(step), error));
            let (step, error) = failed.unwrap_or_else(unknown);
            return Ok(End::Failed { step, error });
        }
        match self.output(plan).await {
            Ok(None) => Ok(End::Completed { output: None }),
            Ok(Some(value)) => {
                // Mostly it is what the last step yielded.
                let stored = plan.values.iter().find(|(_, stored)| **stored == value);
                let stored = stored.map(|(slot, _)| *slot);
                let output =
                    stored.unwrap_or_else(|| plan.store_value(&Arc::new(value), Purpose::Result));
                Ok(End::Completed { output: Some(output) })
            }
            Err(OutputError::Failure(error)) => Ok(End::Failed { step: None, error }),
            Err(OutputError::Log(error)) => Err(error),
        }
    }
}

fn internal(error: &dyn std::fmt::Display) -> Failure {
    Failure { code: "internal".into(), message: error.to_string(), retryable: false }
}

/// Steps that a commit disposes of: they are not waiting any more.
pub(super) fn disposed(advance: &Advance) -> BTreeSet<&StepId> {
    let starts = advance.starts.iter().map(|start| &start.step);
    starts.chain(advance.instant.iter().map(|outcome| &outcome.step)).collect()
}
