//! Folds events into the state of a run. Total: every sequence of events folds, because a log must
//! stay readable whatever it holds.

use super::event::RunEvent::{BudgetExhausted, CheckpointSaved, TimerFired, ToolIntended};
use super::event::{
    ApprovalAnswered, ApprovalRequested, BranchDecided, MapExpanded, ModelCallIntended,
    RunCancelled, RunCompleted, RunCreated, RunEvent, RunFailed, RunMigrated, StepAsked,
    StepCompleted, StepFailed, StepRetried, StepSkipped, StepStarted, UsageRecorded,
};
use super::state::{ApprovalState, BudgetUsage, FingerprintPart, RunApproval, RunPhase, RunState};
use super::step::{PendingModelCall, StepStatus};
use super::turns::ToolCallState;
use crate::decider::RecordedEvent;
use crate::id::{ApprovalId, NodeId, StepId};
use crate::money::Money;
use crate::request::event::RequestApplied;
use crate::stream::Seq;
use crate::time::Timestamp;

/// Folds an event. The match names every kind, so that a new one does not compile until it is
/// folded.
pub(super) fn evolve(state: &mut RunState, recorded: RecordedEvent<'_, RunEvent>) {
    state.advance_to(recorded.seq, recorded.time);
    let now = recorded.time;
    match recorded.event {
        RunEvent::RunCreated(event) => state.apply_created(event, now),
        RunEvent::AgentSpawned(event) => state.agent = Some(event.agent),
        RunEvent::StepScheduled(event) => {
            state.set_step_status(&event.step, StepStatus::Scheduled { due: None });
        }
        RunEvent::StepStarted(event) => state.apply_step_started(event, now),
        RunEvent::MapExpanded(event) => state.apply_map_expanded(event),
        RunEvent::StepCompleted(event) => state.apply_step_completed(event),
        RunEvent::StepFailed(event) => state.apply_step_failed(event),
        RunEvent::StepUnknown(event) => state.apply_step_unknown(&event.step),
        RunEvent::StepRetried(event) => state.apply_step_retried(event),
        RunEvent::BranchDecided(event) => state.apply_branch_decided(event),
        RunEvent::TimerSet(event) => {
            state.set_step_status(&event.step, StepStatus::Sleeping { due: event.due });
        }
        RunEvent::ApprovalRequested(event) => state.apply_approval_requested(event),
        RunEvent::ApprovalGranted(event) => {
            state.apply_approval_answered(event, ApprovalState::Granted);
        }
        RunEvent::ApprovalDenied(event) => {
            state.apply_approval_answered(event, ApprovalState::Denied);
        }
        RunEvent::ModelCallIntended(event) => state.apply_model_call_intended(event, now),
        RunEvent::ModelCallCompleted(event) => state.apply_model_call_completed(event),
        RunEvent::ModelCallFailed(event) => state.release_call(&event.step),
        RunEvent::UsageRecorded(event) => state.apply_usage(event),
        RunEvent::ToolCallIntended(event) => state.apply_tool_call_intended(event, now),
        RunEvent::ToolCallQueued(event) => {
            state.set_tool_call(&event.step, event.tool_call, ToolCallState::Queued);
        }
        RunEvent::ToolCallCompleted(e) => {
            state.finish_tool_call(&e.step, e.tool_call, e.result, false);
        }
        RunEvent::ToolCallFailed(e) => state.finish_tool_call(&e.step, e.tool_call, e.result, true),
        RunEvent::ToolCallDenied(e) => state.finish_tool_call(&e.step, e.tool_call, e.result, true),
        RunEvent::ChildIntended(event) => state.apply_child_intended(event, now),
        RunEvent::ChildCreated(event) => state.apply_child_created(event),
        RunEvent::ChildEnded(event) => state.apply_child_ended(event),
        RunEvent::ChildReopened(event) => state.apply_child_reopened(event, now),
        RunEvent::ParentTold(_) => state.told = true,
        RunEvent::RunPaused(event) => state.apply_paused(event, now),
        RunEvent::RunResumed(event) => state.apply_resumed(event, now),
        RunEvent::RunReopened(event) => state.apply_reopened(event, now),
        RunEvent::RunAmended(event) => state.budget = event.budget,
        RunEvent::RunForked(event) => state.apply_forked(event, now),
        RunEvent::RunImported(_) => state.is_imported = true,
        RunEvent::RunMigrated(event) => state.apply_migrated(event),
        RunEvent::SignalAwaited(event) => state.apply_signal_awaited(event),
        RunEvent::SignalReceived(event) => state.apply_signal_received(event),
        RunEvent::StepAsked(event) => state.apply_step_asked(event),
        RunEvent::StepResolved(event) => state.apply_step_resolved(event),
        RunEvent::StepSkipped(event) => state.apply_step_skipped(event),
        RunEvent::RunCancelled(event) => state.apply_cancelled(event, now),
        RunEvent::RunCompleted(event) => state.apply_completed(event),
        RunEvent::RunFailed(event) => state.apply_failed(event, now),
        // They change nothing but time and sequence number.
        ToolIntended(_) | TimerFired(_) | BudgetExhausted(_) | CheckpointSaved(_) => {}
    }
}

/// Folds the mark of a request that the run has carried out.
pub(super) fn evolve_request(state: &mut RunState, applied: RecordedEvent<'_, RequestApplied>) {
    state.advance_to(applied.seq, applied.time);
    state.requests.insert(applied.event.request, applied.seq);
}

impl RunState {
    /// Notes an event's place and time, before it changes the state: whether the run was idle until
    /// now depends on the old state.
    fn advance_to(&mut self, seq: Seq, time: Timestamp) {
        self.seq = seq;
        self.advance_clock(time);
    }

    fn apply_created(&mut self, created: &RunCreated, at: Timestamp) {
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

    fn apply_step_started(&mut self, event: &StepStarted, at: Timestamp) {
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

    fn apply_map_expanded(&mut self, event: &MapExpanded) {
        self.update_step(&StepId::for_node(event.node.clone()), |step| {
            step.status = StepStatus::Expanded;
            step.map = Some((event.width, event.max_parallel));
        });
    }

    fn apply_step_completed(&mut self, event: &StepCompleted) {
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

    fn apply_step_failed(&mut self, event: &StepFailed) {
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

    fn apply_step_retried(&mut self, event: &StepRetried) {
        self.release_call(&event.step);
        self.update_step(&event.step, |step| {
            step.status = StepStatus::Scheduled { due: Some(event.due) };
            step.avoid.extend(event.fallback.clone());
        });
    }

    fn apply_branch_decided(&mut self, event: &BranchDecided) {
        let step = StepId::for_node(event.node.clone());
        self.update_step(&step, |step| step.case = Some(event.case));
    }

    fn apply_step_asked(&mut self, event: &StepAsked) {
        let status = StepStatus::Undecided { unknown: event.unknown, decision: None };
        self.set_step_status(&event.step, status);
    }

    fn apply_step_skipped(&mut self, event: &StepSkipped) {
        self.set_step_status(&event.step, StepStatus::Skipped);
        self.skip_nodes(&event.skipped);
    }

    fn apply_migrated(&mut self, event: &RunMigrated) {
        if let Some((_, version)) = &mut self.graph {
            version.clone_from(&event.to);
        }
    }

    fn apply_cancelled(&mut self, event: &RunCancelled, at: Timestamp) {
        self.phase = RunPhase::Cancelled;
        self.is_cancel_inherited = event.inherited;
        // A cancellation with the parent can be undone by a reopening; the time until then is a
        // pause.
        if event.inherited {
            self.stopped = Some(at);
        }
    }

    fn apply_completed(&mut self, event: &RunCompleted) {
        self.phase = RunPhase::Completed;
        self.output = event.output.map(|output| self.history_reference(output));
    }

    fn apply_failed(&mut self, event: &RunFailed, at: Timestamp) {
        self.phase = RunPhase::Failed;
        self.stopped = Some(at);
        self.error = Some(self.history_failure(&event.error));
        self.failed_step.clone_from(&event.step);
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

    fn apply_approval_requested(&mut self, event: &ApprovalRequested) {
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
    fn apply_approval_answered(&mut self, event: &ApprovalAnswered, answer: ApprovalState) {
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
    fn apply_model_call_intended(&mut self, event: &ModelCallIntended, at: Timestamp) {
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

    fn apply_usage(&mut self, event: &UsageRecorded) {
        self.release_call(&event.step);
        self.add_turn_tokens(event);
        self.spent.add_usage(event);
    }
}

impl BudgetUsage {
    /// Books the usage and cost of a call. The hold of a call of unknown usage is a lower bound.
    pub(super) fn add_usage(&mut self, usage: &UsageRecorded) {
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
