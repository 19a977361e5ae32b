//! Folds events into the state of a run. Total: every sequence of events folds, because a log must
//! stay readable whatever it holds.
//!
//! The match is spread over `evolve`, `evolve_control`, `evolve_calls` and `evolve_end`; each
//! passes on what it does not know, and `evolve_end` ignores the rest. A new event must be added to
//! one of them by hand.

use super::fingerprint::Part;
use super::state::{Approval, ApprovalState, Call, Phase, RunState, Spent, StepStatus};
use super::turns::ToolState;
use crate::decider::Recorded;
use crate::event::{Event, run};
use crate::id::{ApprovalId, NodeId, StepId};
use crate::money::Money;
use crate::time::Timestamp;

/// Folds the events of steps, approvals and model calls.
pub(super) fn evolve(state: &mut RunState, recorded: Recorded<'_>) {
    state.seq = recorded.seq;
    // Before the event changes the state: whether the run was idle until now depends on the old
    // state.
    state.advance_clock(recorded.time);
    match recorded.event {
        Event::RunCreated(created) => state.create(created, recorded.time),
        Event::StepScheduled(event) => {
            state.set(&event.step, StepStatus::Scheduled { due: None });
        }
        Event::StepStarted(event) => state.start(event, recorded.time),
        Event::MapExpanded(event) => state.expand(event),
        Event::StepCompleted(event) => state.complete(event),
        Event::StepFailed(event) => state.fail_step(event),
        Event::StepUnknown(event) => state.lose(&event.step),
        Event::StepRetried(event) => {
            state.release(&event.step);
            state.change(&event.step, |step| {
                step.status = StepStatus::Scheduled { due: Some(event.due) };
                step.avoid.extend(event.fallback.clone());
            });
        }
        Event::BranchDecided(event) => {
            state.change(&StepId::node(event.node.clone()), |step| {
                step.case = Some(event.case);
            });
        }
        Event::TimerSet(event) => state.set(&event.step, StepStatus::Sleeping { due: event.due }),
        Event::ApprovalRequested(event) => state.ask(event),
        Event::ApprovalGranted(event) => state.answer(event, ApprovalState::Granted),
        Event::ApprovalDenied(event) => state.answer(event, ApprovalState::Denied),
        Event::ModelCallIntended(event) => state.intend(event, recorded.time),
        Event::ModelCallCompleted(event) => {
            state.release(&event.step);
            state.end_turn(event);
        }
        Event::AgentSpawned(event) => state.agent = Some(event.agent),
        Event::ModelCallFailed(event) => state.release(&event.step),
        Event::UsageRecorded(event) => state.spend(event),
        // These events carry no state of the run, or belong to another noun's stream.
        Event::TimerFired(_)
        | Event::BudgetExhausted(_)
        | Event::AgentCreated(_)
        | Event::AgentUpdated(_)
        | Event::AgentTerminated(_)
        | Event::GraphRegistered(_)
        | Event::MemoryStored(_)
        | Event::MemoryForgotten(_)
        | Event::RequestAccepted(_)
        | Event::RequestAnswered(_) => {}
        _ => steering(state, recorded),
    }
}

/// Folds events by which people and programs control the run from outside.
fn steering(state: &mut RunState, recorded: Recorded<'_>) {
    match recorded.event {
        Event::RunPaused(event) => state.take_pause(event, recorded.time),
        Event::RunResumed(event) => state.take_resumption(event, recorded.time),
        Event::RequestApplied(event) => state.requests.insert(event.request, recorded.seq),
        Event::RunReopened(event) => state.reopen(event, recorded.time),
        Event::RunAmended(event) => state.budget = event.budget,
        Event::RunForked(event) => state.fork(event, recorded.time),
        Event::RunImported(_) => state.is_imported = true,
        Event::RunMigrated(event) => {
            if let Some((_, version)) = &mut state.graph {
                version.clone_from(&event.to);
            }
        }
        Event::SignalAwaited(event) => state.await_signal(event),
        Event::SignalReceived(event) => state.receive(event),
        Event::StepAsked(event) => {
            let status = StepStatus::Undecided { unknown: event.unknown, decision: None };
            state.set(&event.step, status);
        }
        Event::StepResolved(event) => state.resolve(event),
        Event::StepSkipped(event) => {
            state.set(&event.step, StepStatus::Skipped);
            state.skip(&event.skipped);
        }
        _ => evolve_calls(state, recorded),
    }
}

/// Folds tool calls of agents and events of child runs.
fn evolve_calls(state: &mut RunState, recorded: Recorded<'_>) {
    match recorded.event {
        Event::ToolCallIntended(event) => state.intend_tool(event, recorded.time),
        Event::ToolCallQueued(event) => state.set_tool(&event.step, event.at, ToolState::Queued),
        Event::ToolCallCompleted(e) => state.end_tool(&e.step, e.at, e.result, false),
        Event::ToolCallFailed(e) => state.end_tool(&e.step, e.at, e.result, true),
        Event::ToolCallDenied(e) => state.end_tool(&e.step, e.at, e.result, true),
        Event::ChildIntended(event) => state.intend_child(event, recorded.time),
        Event::ChildCreated(event) => state.note_child(event),
        Event::ChildEnded(event) => state.end_child(event),
        Event::ChildReopened(event) => state.reopen_child(event, recorded.time),
        Event::ParentTold(_) => state.told = true,
        _ => end(state, recorded),
    }
}

/// Folds the end of the run.
fn end(state: &mut RunState, recorded: Recorded<'_>) {
    match recorded.event {
        Event::RunCancelled(event) => {
            state.phase = Phase::Cancelled;
            state.is_cancel_inherited = event.inherited;
            // A cancellation with the parent can be undone by a reopening; the time until then is a
            // pause.
            if event.inherited {
                state.stopped = Some(recorded.time);
            }
        }
        Event::RunCompleted(event) => {
            state.phase = Phase::Completed;
            state.output = event.output.map(|output| state.own(output));
        }
        Event::RunFailed(event) => {
            state.phase = Phase::Failed;
            state.stopped = Some(recorded.time);
            state.error = Some(state.own_failure(&event.error));
            state.failed_step.clone_from(&event.step);
        }
        _ => {}
    }
}

impl RunState {
    fn create(&mut self, created: &run::Created, at: Timestamp) {
        self.phase = Phase::Running;
        self.created = at;
        self.graph = Some((created.graph, created.version.clone()));
        self.input = Some(self.own(created.input));
        self.budget = created.budget;
        self.privacy = created.privacy;
        self.request_hash.clone_from(&created.request_hash);
        self.origin.clone_from(&created.origin);
    }

    /// Sets the status of a step.
    pub(super) fn set(&mut self, id: &StepId, status: StepStatus) {
        self.change(id, |step| step.status = status);
    }

    fn start(&mut self, event: &run::StepStarted, at: Timestamp) {
        self.change(&event.step, |step| {
            // A start of the same attempt is a takeover by another executor, which continues with
            // the same child run.
            if step.attempt != event.attempt {
                step.child = None;
            }
            step.attempt = event.attempt;
            step.status = StepStatus::Started { executor: event.executor, at };
        });
    }

    fn expand(&mut self, event: &run::MapExpanded) {
        self.change(&StepId::node(event.node.clone()), |step| {
            step.status = StepStatus::Expanded;
            step.map = Some((event.width, event.max_parallel));
        });
    }

    fn complete(&mut self, event: &run::StepCompleted) {
        let output = event.output.map(|output| self.own(output));
        self.change(&event.step, |step| {
            step.status = StepStatus::Completed;
            step.attempt = event.attempt;
            step.output = output;
            step.error = None;
            step.lost_call = None;
        });
        self.skip(&event.skipped);
    }

    fn fail_step(&mut self, event: &run::StepFailed) {
        self.release(&event.step);
        let error = self.own_failure(&event.error);
        self.change(&event.step, |step| {
            step.attempt = event.attempt;
            // Only known failures count towards the retry policy; lost attempts do not.
            step.failures += 1;
            step.lost_call = None;
            step.error = Some(error);
            step.status = StepStatus::Failed;
        });
        self.skip(&event.skipped);
    }

    /// Folds `run.step.unknown.v1`. The idempotency key of the lost call is kept, so that the
    /// provider recognises the repeated call.
    fn lose(&mut self, id: &StepId) {
        self.change(id, |step| {
            step.status = StepStatus::Unknown;
            step.lost_call = step.call.as_ref().and_then(|call| call.idempotency_key.clone());
        });
    }

    /// Marks nodes as skipped.
    fn skip(&mut self, nodes: &[NodeId]) {
        for node in nodes {
            self.set(&StepId::node(node.clone()), StepStatus::Skipped);
        }
    }

    fn ask(&mut self, event: &run::ApprovalRequested) {
        self.set(&event.step, StepStatus::Asking { approval: event.approval });
        let approval = Approval {
            step: event.step.clone(),
            role: event.role.clone(),
            content_hash: event.content_hash.clone(),
            expires: event.expires,
            state: ApprovalState::Open,
            reason: None,
            reason_at: None,
            print: 0,
        };
        self.changed.insert(Part::Approval(event.approval));
        self.approvals.insert(event.approval, approval);
    }

    /// Folds the answer to an approval.
    fn answer(&mut self, event: &run::ApprovalAnswered, answer: ApprovalState) {
        let id: ApprovalId = event.approval;
        let reason_at = event.reason_at.map(|reference| self.own(reference));
        if let Some(approval) = self.approvals.get_mut(&id) {
            approval.state = answer;
            approval.reason.clone_from(&event.reason);
            approval.reason_at = reason_at;
            self.changed.insert(Part::Approval(id));
        }
    }

    /// Folds `run.model_call.intended.v1`: holds the worst case of the call.
    fn intend(&mut self, event: &run::ModelCallIntended, at: Timestamp) {
        // Turn 0 is an agent without tools: it has no turns to keep.
        if event.turn > 0 {
            self.begin_turn(&event.step, at);
        }
        let call = Call {
            turn: event.turn,
            provider: event.provider.clone(),
            model: event.model.clone(),
            reserved_tokens: event.reserved_tokens,
            reserved_cost: event.reserved_cost.unwrap_or_default(),
            estimated_tokens: event.estimated_tokens,
            estimated_meter: event.estimated_meter,
            idempotency_key: event.idempotency_key.clone(),
        };
        if let Some(routing) = &event.routing {
            self.note_table(routing);
        }
        self.release(&event.step);
        self.spent.hold(&call);
        self.change(&event.step, |step| {
            step.call = Some(call);
            step.lost_call = None;
        });
    }

    /// Releases the budget hold of the step's model call, if one is in flight.
    pub(super) fn release(&mut self, id: &StepId) {
        let is_held = self.steps.get(id).is_some_and(|step| step.call.is_some());
        // `update_step` is called only if a call is in flight: it would mark the step as changed.
        let mut held = None;
        if is_held {
            self.change(id, |step| held = step.call.take());
        }
        if let Some(call) = held {
            self.spent.release(&call);
        }
    }

    fn spend(&mut self, event: &run::UsageRecorded) {
        self.release(&event.step);
        self.spend_turn(event);
        self.spent.spend(event);
    }
}

impl Spent {
    /// Books the usage and cost of a call. The hold of a call of unknown usage is a lower bound.
    pub(super) fn spend(&mut self, usage: &run::UsageRecorded) {
        let hold = usage.hold.unwrap_or_default();
        let cost = usage.charge.as_ref().map_or(Money::ZERO, |charge| charge.amount);
        self.tokens = self.tokens.saturating_add(usage.usage.tokens().max(hold.tokens));
        self.cost += cost.max(hold.cost);
    }

    /// Holds the worst case of a call.
    pub(super) fn hold(&mut self, call: &Call) {
        self.hold_tokens(call.reserved_tokens);
        self.reserved_cost += call.reserved_cost;
    }

    /// Holds tokens; saturates at the maximum.
    pub(super) fn hold_tokens(&mut self, tokens: u64) {
        self.reserved_tokens = self.reserved_tokens.saturating_add(tokens);
    }

    /// Releases the hold of a call.
    pub(super) fn release(&mut self, call: &Call) {
        self.release_amounts(call.reserved_tokens, call.reserved_cost);
    }

    /// Releases tokens and cost; saturates at zero.
    pub(super) fn release_amounts(&mut self, tokens: u64, cost: Money) {
        self.reserved_tokens = self.reserved_tokens.saturating_sub(tokens);
        // Saturating, since logs are folded as they are, even if a release exceeds its hold.
        let left = self.reserved_cost.scaled().saturating_sub(cost.scaled());
        self.reserved_cost = Money::from_scaled(left);
    }
}
