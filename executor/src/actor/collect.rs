//! Results that arrive without a new effect: finished tasks, expired sleeps, answered approvals,
//! ended child runs, and steps whose executor died.

use std::sync::Arc;

use convergio_domain::failure::{PlatformText, UnsealedFailure};
use convergio_domain::graph::manifest::{MapWork, Node, Work};
use convergio_domain::id::StepId;
use convergio_domain::metering::{Meter, PriceQuery, Usage};
use convergio_domain::platform_text;
use convergio_domain::run::{
    Approval, ApprovalState, Call, CallReport, Step, StepStatus, ToolState, Turns,
};
use convergio_domain::time::Timestamp;
use serde_json::json;
use tokio::task::JoinError;

use super::Actor;
use super::commit::is_current;
use super::effect::{Done, DoneResult};
use super::places::PlaceKind;

impl Actor {
    /// Collects everything that has ended.
    pub(super) fn collect(&mut self) {
        // Without waiting: effects that are still in flight are collected by a later iteration.
        while let Some(landed) = self.effects.try_join_next() {
            self.landed(landed);
        }
        // A paused run records effects that were in flight, and lets nothing else go on.
        if self.run.state.paused {
            return;
        }
        let now = self.shared.now();
        let ended: Vec<Done> = self.waiting.iter().filter_map(|id| self.ended(id, now)).collect();
        for done in &ended {
            self.waiting.remove(&done.step);
        }
        self.done.extend(ended);
        let returned = self.returned();
        self.done.extend(returned);
    }

    /// Handles the end of an effect's task.
    pub(super) fn landed(&mut self, landed: Result<Done, JoinError>) {
        // A panic is caught inside of the task; only an abort of the runtime gets here.
        let Ok(done) = landed else { return };
        // Freed even if the result is void: capacity counts what is in flight.
        self.in_flight.remove(&(done.step.clone(), done.at));
        let state = &self.run.state;
        let is_void = !state.phase.is_ended() && !is_current(state, &done.step, done.attempt);
        // A created child needs no record: its own end reports back.
        if !is_void && !matches!(done.result, DoneResult::Created) {
            self.done.push(done);
        }
    }

    /// Returns the result of a waiting step that has ended by now.
    fn ended(&self, id: &StepId, now: Timestamp) -> Option<Done> {
        let step = self.run.state.steps.get(id)?;
        let result = match &step.status {
            StepStatus::Sleeping { due } if *due <= now => self.awoken(id),
            StepStatus::Asking { approval } => {
                let approval = self.run.state.approvals.get(approval)?;
                // A sealed reason must be loaded first: see `collect_external_inputs`.
                answered(approval, approval.reason.as_deref(), now)
                    .filter(|_| approval.reason_at.is_none())?
            }
            StepStatus::Awaiting { received: None, expires: Some(expires), .. }
                if *expires <= now =>
            {
                let message = platform_text!("the signal did not come in time: raise the timeout");
                refused("signal.timeout", message)
            }
            // This process still runs the effect: its own result will come.
            StepStatus::Started { .. } | StepStatus::Unknown if self.flies(id) => return None,
            StepStatus::Unknown => DoneResult::Interrupted,
            // Exposed: an effect may have reached the world before the executor died.
            StepStatus::Started { .. } if step.is_exposed() => DoneResult::Interrupted,
            StepStatus::Started { .. } => self.turn_over(step)?,
            _ => return None,
        };
        let call = step.call.as_ref().map(|call| self.unconfirmed(id, call));
        Some(Done { step: id.clone(), attempt: step.attempt, at: None, result, call })
    }

    /// Returns the outcome of an expired sleep: a failure if the node's `timeout` was shorter.
    fn awoken(&self, id: &StepId) -> DoneResult {
        let node = self.graph.graph.node(&id.node);
        if node.is_some_and(Node::sleeps_too_long) {
            let message = platform_text!(
                "the sleep is longer than the node's timeout: raise it, or sleep less"
            );
            return refused("sleep.timeout", message);
        }
        DoneResult::Completed(None)
    }

    /// Returns whether an effect of the step is in flight, or its result is not in the log yet.
    fn flies(&self, id: &StepId) -> bool {
        self.in_flight.keys().any(|(step, _)| step == id)
            || self.done.iter().any(|done| done.step == *id)
    }

    /// Returns a result for an agent whose tools have all answered, if its model may be called
    /// again.
    fn turn_over(&self, step: &Step) -> Option<DoneResult> {
        let is_over = step.turns.as_deref().is_some_and(Turns::is_complete);
        let may_ask = || self.may_start() && self.free_places().has_place(PlaceKind::ModelCall);
        (is_over && may_ask()).then_some(DoneResult::TurnOver)
    }

    /// Returns results for child runs that have ended and whose step has not recorded it.
    fn returned(&self) -> Vec<Done> {
        let state = &self.run.state;
        let returned = state.children.iter().filter_map(|(run, child)| {
            // A child whose end the parent has not recorded is still open.
            let outcome = child.ended.as_ref()?;
            let step = state.steps.get(&child.step)?;
            let is_due = matches!(step.status, StepStatus::Started { .. })
                && match child.at {
                    None => step.child == Some(*run),
                    Some(at) => step.turns.as_deref()?.call(at) == Some(ToolState::Child(*run)),
                };
            let is_known = || {
                let is_it = |done: &Done| done.step == child.step && done.at == child.at;
                self.done.iter().any(is_it)
            };
            if !is_due || is_known() {
                return None;
            }
            let result = match &outcome.error {
                Some(error) => DoneResult::Failed(error.clone().again()),
                None => DoneResult::Yielded(outcome.output),
            };
            let (step, at, attempt) = (child.step.clone(), child.at, step.attempt);
            Some(Done { step, attempt, at, result, call: None })
        });
        returned.collect()
    }

    /// Builds the usage report of a call whose outcome is lost: most likely its input was
    /// processed.
    fn unconfirmed(&self, id: &StepId, call: &Call) -> CallReport {
        // Records of early versions have no estimate: derive the input from the hold.
        let input = call.estimated_tokens.unwrap_or_else(|| {
            let answer = self.agent(id).map_or(0, |agent| u64::from(agent.max_tokens));
            call.reserved_tokens.saturating_sub(answer)
        });
        let meter = call.estimated_meter.unwrap_or(Meter::InFresh);
        let usage = Usage([(meter, input)].into());
        let query = PriceQuery {
            provider: &call.provider,
            model: &call.model,
            is_local: self.shared.models.is_local(&call.provider),
            service_tier: None,
            at: self.shared.now(),
        };
        let charge = self.shared.prices.charge(query, &usage);
        CallReport {
            provider: call.provider.clone(),
            model: call.model.clone(),
            finish: None,
            duration_ms: 0,
            first_token_ms: None,
            usage: Some(usage),
            confirmed: false,
            service_tier: None,
            charge,
            provider_cost: None,
            fallback: None,
            retry_after: None,
        }
    }

    /// Returns the agent that a step calls, if it calls one.
    pub(super) fn agent(&self, id: &StepId) -> Option<&convergio_domain::graph::manifest::Agent> {
        match (&self.graph.find_node(&id.node)?.work, id.item) {
            (Work::Agent(agent), None) => Some(agent),
            (Work::Plan(plan), None) => Some(&plan.agent),
            (Work::Map(map), Some(_)) => match &map.work {
                MapWork::Agent(agent) => Some(agent),
                MapWork::Tool(_) => None,
            },
            _ => None,
        }
    }

    pub(super) fn is_agent(&self, id: &StepId) -> bool {
        self.agent(id).is_some()
    }
}

/// Returns the outcome of an approval that was answered or has expired; `None` while it is open.
pub(super) fn answered(
    approval: &Approval,
    reason: Option<&str>,
    now: Timestamp,
) -> Option<DoneResult> {
    match approval.state {
        ApprovalState::Granted => {
            let value = json!({"granted": true, "reason": reason});
            Some(DoneResult::Completed(Some(Arc::new(value))))
        }
        ApprovalState::Denied => {
            let reason = reason.unwrap_or("no reason given");
            let failure =
                UnsealedFailure::new("approval.denied", platform_text!("the approval was denied"));
            let failure = failure.with_cause(reason);
            Some(DoneResult::Failed(failure))
        }
        ApprovalState::Open if approval.expires.is_some_and(|expires| expires <= now) => {
            Some(refused(
                "approval.expired",
                platform_text!("nobody answered in time: raise the approval's ttl, or its timeout"),
            ))
        }
        ApprovalState::Open => None,
    }
}

fn refused(code: &'static str, message: PlatformText) -> DoneResult {
    DoneResult::Failed(UnsealedFailure::new(code, message))
}
