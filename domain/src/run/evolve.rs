//! Folds events into the state of a run. Total: every sequence of events folds, because a log must
//! stay readable whatever it holds.
//!
//! The match is spread over `evolve`, `evolve_control`, `evolve_calls` and `evolve_end`; each
//! passes on what it does not know, and `evolve_end` ignores the rest. A new event must be added to
//! one of them by hand.

use super::state::{ApprovalState, BudgetUsage, FingerprintPart, RunApproval, RunPhase, RunState};
use super::step::{PendingModelCall, StepStatus};
use super::turns::ToolCallState;
use crate::decider::RecordedEvent;
use crate::event::{Event, run};
use crate::id::{ApprovalId, NodeId, StepId};
use crate::money::Money;
use crate::time::Timestamp;

/// Folds the events of steps, approvals and model calls.
pub(super) fn evolve(state: &mut RunState, recorded: RecordedEvent<'_>) {
    state.seq = recorded.seq;
    // Before the event changes the state: whether the run was idle until now depends on the old
    // state.
    state.advance_clock(recorded.time);
    match recorded.event {
        Event::RunCreated(created) => state.apply_created(created, recorded.time),
        Event::StepScheduled(event) => {
            state.set_step_status(&event.step, StepStatus::Scheduled { due: None });
        }
        Event::StepStarted(event) => state.apply_step_started(event, recorded.time),
        Event::MapExpanded(event) => state.apply_map_expanded(event),
        Event::StepCompleted(event) => state.apply_step_completed(event),
        Event::StepFailed(event) => state.apply_step_failed(event),
        Event::StepUnknown(event) => state.apply_step_unknown(&event.step),
        Event::StepRetried(event) => {
            state.release_call(&event.step);
            state.update_step(&event.step, |step| {
                step.status = StepStatus::Scheduled { due: Some(event.due) };
                step.avoid.extend(event.fallback.clone());
            });
        }
        Event::BranchDecided(event) => {
            state.update_step(&StepId::for_node(event.node.clone()), |step| {
                step.case = Some(event.case);
            });
        }
        Event::TimerSet(event) => {
            state.set_step_status(&event.step, StepStatus::Sleeping { due: event.due });
        }
        Event::ApprovalRequested(event) => state.apply_approval_requested(event),
        Event::ApprovalGranted(event) => {
            state.apply_approval_answered(event, ApprovalState::Granted);
        }
        Event::ApprovalDenied(event) => state.apply_approval_answered(event, ApprovalState::Denied),
        Event::ModelCallIntended(event) => state.apply_model_call_intended(event, recorded.time),
        Event::ModelCallCompleted(event) => {
            state.release_call(&event.step);
            state.apply_turn_answered(event);
        }
        Event::AgentSpawned(event) => state.agent = Some(event.agent),
        Event::ModelCallFailed(event) => state.release_call(&event.step),
        Event::UsageRecorded(event) => state.apply_usage(event),
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
        _ => evolve_control(state, recorded),
    }
}

/// Folds events by which people and programs control the run from outside.
fn evolve_control(state: &mut RunState, recorded: RecordedEvent<'_>) {
    match recorded.event {
        Event::RunPaused(event) => state.apply_paused(event, recorded.time),
        Event::RunResumed(event) => state.apply_resumed(event, recorded.time),
        Event::RequestApplied(event) => state.requests.insert(event.request, recorded.seq),
        Event::RunReopened(event) => state.apply_reopened(event, recorded.time),
        Event::RunAmended(event) => state.budget = event.budget,
        Event::RunForked(event) => state.apply_forked(event, recorded.time),
        Event::RunImported(_) => state.is_imported = true,
        Event::RunMigrated(event) => {
            if let Some((_, version)) = &mut state.graph {
                version.clone_from(&event.to);
            }
        }
        Event::SignalAwaited(event) => state.apply_signal_awaited(event),
        Event::SignalReceived(event) => state.apply_signal_received(event),
        Event::StepAsked(event) => {
            let status = StepStatus::Undecided { unknown: event.unknown, decision: None };
            state.set_step_status(&event.step, status);
        }
        Event::StepResolved(event) => state.apply_step_resolved(event),
        Event::StepSkipped(event) => {
            state.set_step_status(&event.step, StepStatus::Skipped);
            state.skip_nodes(&event.skipped);
        }
        _ => evolve_calls(state, recorded),
    }
}

/// Folds tool calls of agents and events of child runs.
fn evolve_calls(state: &mut RunState, recorded: RecordedEvent<'_>) {
    match recorded.event {
        Event::ToolCallIntended(event) => state.apply_tool_call_intended(event, recorded.time),
        Event::ToolCallQueued(event) => {
            state.set_tool_call(&event.step, event.tool_call, ToolCallState::Queued);
        }
        Event::ToolCallCompleted(e) => {
            state.finish_tool_call(&e.step, e.tool_call, e.result, false);
        }
        Event::ToolCallFailed(e) => state.finish_tool_call(&e.step, e.tool_call, e.result, true),
        Event::ToolCallDenied(e) => state.finish_tool_call(&e.step, e.tool_call, e.result, true),
        Event::ChildIntended(event) => state.apply_child_intended(event, recorded.time),
        Event::ChildCreated(event) => state.apply_child_created(event),
        Event::ChildEnded(event) => state.apply_child_ended(event),
        Event::ChildReopened(event) => state.apply_child_reopened(event, recorded.time),
        Event::ParentTold(_) => state.told = true,
        _ => evolve_end(state, recorded),
    }
}

/// Folds the end of the run.
fn evolve_end(state: &mut RunState, recorded: RecordedEvent<'_>) {
    match recorded.event {
        Event::RunCancelled(event) => {
            state.phase = RunPhase::Cancelled;
            state.is_cancel_inherited = event.inherited;
            // A cancellation with the parent can be undone by a reopening; the time until then is a
            // pause.
            if event.inherited {
                state.stopped = Some(recorded.time);
            }
        }
        Event::RunCompleted(event) => {
            state.phase = RunPhase::Completed;
            state.output = event.output.map(|output| state.history_reference(output));
        }
        Event::RunFailed(event) => {
            state.phase = RunPhase::Failed;
            state.stopped = Some(recorded.time);
            state.error = Some(state.history_failure(&event.error));
            state.failed_step.clone_from(&event.step);
        }
        _ => {}
    }
}

impl RunState {
    fn apply_created(&mut self, created: &run::RunCreated, at: Timestamp) {
        self.phase = RunPhase::Running;
        self.created = at;
        self.graph = Some((created.graph, created.version.clone()));
        self.input = Some(self.history_reference(created.input));
        self.budget = created.budget;
        self.privacy = created.privacy;
        self.request_hash.clone_from(&created.request_hash);
        self.origin.clone_from(&created.origin);
    }

    /// Sets the status of a step.
    pub(super) fn set_step_status(&mut self, id: &StepId, status: StepStatus) {
        self.update_step(id, |step| step.status = status);
    }

    fn apply_step_started(&mut self, event: &run::StepStarted, at: Timestamp) {
        self.update_step(&event.step, |step| {
            // A start of the same attempt is a takeover by another executor, which continues with
            // the same child run.
            if step.attempt != event.attempt {
                step.child = None;
            }
            step.attempt = event.attempt;
            step.status = StepStatus::Started { executor: event.executor, at };
        });
    }

    fn apply_map_expanded(&mut self, event: &run::MapExpanded) {
        self.update_step(&StepId::for_node(event.node.clone()), |step| {
            step.status = StepStatus::Expanded;
            step.map = Some((event.width, event.max_parallel));
        });
    }

    fn apply_step_completed(&mut self, event: &run::StepCompleted) {
        let output = event.output.map(|output| self.history_reference(output));
        self.update_step(&event.step, |step| {
            step.status = StepStatus::Completed;
            step.attempt = event.attempt;
            step.output = output;
            step.error = None;
            step.lost_call = None;
        });
        self.skip_nodes(&event.skipped);
    }

    fn apply_step_failed(&mut self, event: &run::StepFailed) {
        self.release_call(&event.step);
        let error = self.history_failure(&event.error);
        self.update_step(&event.step, |step| {
            step.attempt = event.attempt;
            // Only known failures count towards the retry policy; lost attempts do not.
            step.failures += 1;
            step.lost_call = None;
            step.error = Some(error);
            step.status = StepStatus::Failed;
        });
        self.skip_nodes(&event.skipped);
    }

    /// Folds `run.step.unknown.v1`. The idempotency key of the lost call is kept, so that the
    /// provider recognises the repeated call.
    fn apply_step_unknown(&mut self, id: &StepId) {
        self.update_step(id, |step| {
            step.status = StepStatus::Unknown;
            step.lost_call = step.call.as_ref().and_then(|call| call.idempotency_key.clone());
        });
    }

    /// Marks nodes as skipped.
    fn skip_nodes(&mut self, nodes: &[NodeId]) {
        for node in nodes {
            self.set_step_status(&StepId::for_node(node.clone()), StepStatus::Skipped);
        }
    }

    fn apply_approval_requested(&mut self, event: &run::ApprovalRequested) {
        self.set_step_status(&event.step, StepStatus::Asking { approval: event.approval });
        let approval = RunApproval {
            step: event.step.clone(),
            role: event.role.clone(),
            content_hash: event.content_hash.clone(),
            expires: event.expires,
            state: ApprovalState::Open,
            reason: None,
            reason_at: None,
            fingerprint: 0,
        };
        self.changed_parts.insert(FingerprintPart::Approval(event.approval));
        self.approvals.insert(event.approval, approval);
    }

    /// Folds the answer to an approval.
    fn apply_approval_answered(&mut self, event: &run::ApprovalAnswered, answer: ApprovalState) {
        let id: ApprovalId = event.approval;
        let reason_at = event.reason_at.map(|reference| self.history_reference(reference));
        if let Some(approval) = self.approvals.get_mut(&id) {
            approval.state = answer;
            approval.reason.clone_from(&event.reason);
            approval.reason_at = reason_at;
            self.changed_parts.insert(FingerprintPart::Approval(id));
        }
    }

    /// Folds `run.model_call.intended.v1`: holds the worst case of the call.
    fn apply_model_call_intended(&mut self, event: &run::ModelCallIntended, at: Timestamp) {
        // Turn 0 is an agent without tools: it has no turns to keep.
        if event.turn > 0 {
            self.ensure_turns(&event.step, at);
        }
        let call = PendingModelCall {
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
            self.remember_candidate_table(routing);
        }
        self.release_call(&event.step);
        self.spent.hold_call(&call);
        self.update_step(&event.step, |step| {
            step.call = Some(call);
            step.lost_call = None;
        });
    }

    /// Releases the budget hold of the step's model call, if one is in flight.
    pub(super) fn release_call(&mut self, id: &StepId) {
        let is_held = self.steps.get(id).is_some_and(|step| step.call.is_some());
        // `update_step` is called only if a call is in flight: it would mark the step as changed.
        let mut pending_call = None;
        if is_held {
            self.update_step(id, |step| pending_call = step.call.take());
        }
        if let Some(call) = pending_call {
            self.spent.release_call(&call);
        }
    }

    fn apply_usage(&mut self, event: &run::UsageRecorded) {
        self.release_call(&event.step);
        self.add_turn_tokens(event);
        self.spent.add_usage(event);
    }
}

impl BudgetUsage {
    /// Books the usage and cost of a call. The hold of a call of unknown usage is a lower bound.
    pub(super) fn add_usage(&mut self, usage: &run::UsageRecorded) {
        let hold = usage.hold.unwrap_or_default();
        let cost = usage.charge.as_ref().map_or(Money::ZERO, |charge| charge.amount);
        self.tokens = self.tokens.saturating_add(usage.usage.total_tokens().max(hold.tokens));
        self.cost += cost.max(hold.cost);
    }

    /// Holds the worst case of a call.
    pub(super) fn hold_call(&mut self, call: &PendingModelCall) {
        self.hold_tokens(call.reserved_tokens);
        self.reserved_cost += call.reserved_cost;
    }

    /// Holds tokens; saturates at the maximum.
    pub(super) fn hold_tokens(&mut self, tokens: u64) {
        self.reserved_tokens = self.reserved_tokens.saturating_add(tokens);
    }

    /// Releases the hold of a call.
    pub(super) fn release_call(&mut self, call: &PendingModelCall) {
        self.release_amounts(call.reserved_tokens, call.reserved_cost);
    }

    /// Releases tokens and cost; saturates at zero.
    pub(super) fn release_amounts(&mut self, tokens: u64, cost: Money) {
        self.reserved_tokens = self.reserved_tokens.saturating_sub(tokens);
        // Saturating, since logs are folded as they are, even if a release exceeds its hold.
        let left = self.reserved_cost.as_scaled().saturating_sub(cost.as_scaled());
        self.reserved_cost = Money::from_scaled(left);
    }
}
