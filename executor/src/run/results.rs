//! Results that arrive without a new effect: finished tasks, expired sleeps, answered approvals,
//! ended child runs, and steps whose executor died.

use std::sync::Arc;

use convergio_domain::billing::PriceQuery;
use convergio_domain::failure::{PlatformText, UnsealedFailure};
use convergio_domain::graph::manifest::GraphNode;
use convergio_domain::id::StepId;
use convergio_domain::platform_text;
use convergio_domain::run::{
    AgentTurns, ApprovalState, CallReport, PendingModelCall, RunApproval, RunStep, StepStatus,
    ToolCallState,
};
use convergio_domain::time::Timestamp;
use serde_json::json;
use tokio::task::JoinError;

use super::actor::RunActor;
use super::inbox::is_current_attempt;
use crate::plan::{CapacityKind, EffectOutcome, EffectResult};

impl RunActor {
    /// Collects everything that has ended.
    pub(super) fn collect_results(&mut self) {
        // Without waiting: effects that are still in flight are collected by a later iteration.
        while let Some(landed) = self.inbox.effects.try_join_next() {
            self.handle_finished_effect(landed);
        }
        // A paused run records effects that were in flight, and lets nothing else go on.
        if self.run.state.paused {
            return;
        }
        let now = self.shared.current_time();
        let ended_results: Vec<EffectResult> = self
            .schedule
            .waiting_steps
            .iter()
            .filter_map(|id| self.waiting_step_result(id, now))
            .collect();
        for done in &ended_results {
            self.schedule.waiting_steps.remove(&done.step);
        }
        self.inbox.results.extend(ended_results);
        let child_results = self.ended_children();
        self.inbox.results.extend(child_results);
    }

    /// Handles the end of an effect's task.
    pub(super) fn handle_finished_effect(&mut self, landed: Result<EffectResult, JoinError>) {
        // A panic is caught inside of the task; only an abort of the runtime gets here.
        let Ok(effect_result) = landed else { return };
        // Freed even if the result is void: capacity counts what is in flight.
        self.inbox.in_flight.remove(&(effect_result.step.clone(), effect_result.tool_call));
        let state = &self.run.state;
        let is_void = !state.phase.is_ended()
            && !is_current_attempt(state, &effect_result.step, effect_result.attempt);
        // A created child needs no record: its own end reports back.
        if !is_void && !matches!(effect_result.outcome, EffectOutcome::ChildCreated) {
            self.inbox.results.push(effect_result);
        }
    }

    /// Returns the result of a waiting step that has ended by now.
    fn waiting_step_result(&self, id: &StepId, now: Timestamp) -> Option<EffectResult> {
        let step = self.run.state.steps.get(id)?;
        let result = match &step.status {
            StepStatus::Sleeping { due } if *due <= now => self.sleep_outcome(id),
            StepStatus::Asking { approval } => {
                let approval = self.run.state.approvals.get(approval)?;
                // A sealed reason must be loaded first: see `collect_external_inputs`.
                approval_outcome(approval, approval.reason.as_deref(), now)
                    .filter(|_| approval.reason_at.is_none())?
            }
            StepStatus::Awaiting { received: None, expires: Some(expires), .. }
                if *expires <= now =>
            {
                let message = platform_text!("the signal did not come in time: raise the timeout");
                failed_outcome("signal.timeout", message)
            }
            // This process still runs the effect: its own result will come.
            StepStatus::Started { .. } | StepStatus::Unknown if self.inbox.has_step(id) => {
                return None;
            }
            StepStatus::Unknown => EffectOutcome::Interrupted,
            // Exposed: an effect may have reached the world before the executor died.
            StepStatus::Started { .. } if step.has_work_at_risk() => EffectOutcome::Interrupted,
            StepStatus::Started { .. } => self.tools_answered(step)?,
            _ => return None,
        };
        let call = step.call.as_ref().map(|call| self.unconfirmed_report(id, call));
        Some(EffectResult {
            step: id.clone(),
            attempt: step.attempt,
            tool_call: None,
            outcome: result,
            call_report: call,
        })
    }

    /// Returns the outcome of an expired sleep: a failure if the node's `timeout` was shorter.
    fn sleep_outcome(&self, id: &StepId) -> EffectOutcome {
        let node = self.graph.graph.find_node(&id.node);
        if node.is_some_and(GraphNode::sleeps_too_long) {
            let message = platform_text!(
                "the sleep is longer than the node's timeout: raise it, or sleep less"
            );
            return failed_outcome("sleep.timeout", message);
        }
        EffectOutcome::Completed(None)
    }

    /// Returns a result for an agent whose tools have all answered, if its model may be called
    /// again.
    fn tools_answered(&self, step: &RunStep) -> Option<EffectOutcome> {
        let is_over = step.turns.as_deref().is_some_and(AgentTurns::is_complete);
        let may_ask =
            || self.can_start_steps() && self.free_capacity().has_capacity(CapacityKind::ModelCall);
        (is_over && may_ask()).then_some(EffectOutcome::ToolsAnswered)
    }

    /// Returns results for child runs that have ended and whose step has not recorded it.
    fn ended_children(&self) -> Vec<EffectResult> {
        let state = &self.run.state;
        let results = state.children.iter().filter_map(|(run, child)| {
            // A child whose end the parent has not recorded is still open.
            let outcome = child.ended.as_ref()?;
            let step = state.steps.get(&child.step)?;
            let is_due = matches!(step.status, StepStatus::Started { .. })
                && match child.at {
                    None => step.child == Some(*run),
                    Some(at) => {
                        step.turns.as_deref()?.find_call(at) == Some(ToolCallState::Child(*run))
                    }
                };
            let is_known = || {
                let is_it =
                    |done: &EffectResult| done.step == child.step && done.tool_call == child.at;
                self.inbox.results.iter().any(is_it)
            };
            if !is_due || is_known() {
                return None;
            }
            let result = match &outcome.error {
                Some(error) => EffectOutcome::Failed(error.clone().into_repeated()),
                None => EffectOutcome::ChildYielded(outcome.output),
            };
            let (step, at, attempt) = (child.step.clone(), child.at, step.attempt);
            Some(EffectResult { step, attempt, tool_call: at, outcome: result, call_report: None })
        });
        results.collect()
    }

    /// Builds the usage report of a call whose outcome is lost: most likely its input was
    /// processed.
    fn unconfirmed_report(&self, id: &StepId, call: &PendingModelCall) -> CallReport {
        let agent = self.graph.find_agent(id);
        let usage = call.lost_usage(agent.map_or(0, |agent| u64::from(agent.max_tokens)));
        let query = PriceQuery {
            provider: &call.provider,
            model: &call.model,
            is_local: self.shared.models.is_local(&call.provider),
            service_tier: None,
            at: self.shared.current_time(),
        };
        let charge = self.shared.prices.charge_call(query, &usage);
        let report = CallReport::unconfirmed(&call.provider, &call.model);
        CallReport { usage: Some(usage), charge, ..report }
    }
}

/// Returns the outcome of an approval that was answered or has expired; `None` while it is open.
pub(super) fn approval_outcome(
    approval: &RunApproval,
    reason: Option<&str>,
    now: Timestamp,
) -> Option<EffectOutcome> {
    match approval.state {
        ApprovalState::Granted => {
            let value = json!({"granted": true, "reason": reason});
            Some(EffectOutcome::Completed(Some(Arc::new(value))))
        }
        ApprovalState::Denied => {
            let reason = reason.unwrap_or("no reason given");
            let failure =
                UnsealedFailure::new("approval.denied", platform_text!("the approval was denied"));
            let failure = failure.with_cause(reason);
            Some(EffectOutcome::Failed(failure))
        }
        ApprovalState::Open if approval.expires.is_some_and(|expires| expires <= now) => {
            Some(failed_outcome(
                "approval.expired",
                platform_text!("nobody answered in time: raise the approval's ttl, or its timeout"),
            ))
        }
        ApprovalState::Open => None,
    }
}

fn failed_outcome(code: &'static str, message: PlatformText) -> EffectOutcome {
    EffectOutcome::Failed(UnsealedFailure::new(code, message))
}
