//! Inputs from outside of the executor: signals, decisions about steps, sealed answers to
//! approvals; and the manifest's rules for attempts with an unknown outcome.

use std::sync::Arc;

use convergio_domain::failure::UnsealedFailure;
use convergio_domain::graph::manifest::OnUnknown;
use convergio_domain::id::{ApprovalId, StepId};
use convergio_domain::payload::PayloadRef;
use convergio_domain::request::derived_uuid;
use convergio_domain::run::{Resolution, StepStatus};
use serde_json::Value;

use super::collect::answered;
use super::effect::{Done, DoneResult};
use super::{Actor, ActorError};
use crate::outputs::OutputError;

/// An input that a waiting step has received.
enum Got {
    Signal(PayloadRef),
    Decision(Resolution, Option<PayloadRef>),
    Answer(ApprovalId, PayloadRef),
}

impl Actor {
    /// Collects the signals, decisions and sealed answers that have arrived.
    pub(super) async fn collect_outside(&mut self) -> Result<(), ActorError> {
        if self.run.state.paused {
            return Ok(());
        }
        let got: Vec<(StepId, u32, Got)> =
            self.waiting.iter().filter_map(|id| self.got(id)).collect();
        for (step, attempt, got) in got {
            let result = match got {
                Got::Signal(payload) => self.carried(payload).await?.map(DoneResult::Completed),
                Got::Answer(approval, reason) => match self.answer(approval, reason).await? {
                    Some(result) => Ok(result),
                    None => continue,
                },
                Got::Decision(resolution, None) => Ok(DoneResult::Decided(resolution, None)),
                Got::Decision(resolution, Some(output)) => {
                    let value = self.carried(output).await?;
                    value.map(|value| DoneResult::Decided(resolution, value))
                }
            };
            // A failure to load an input fails the step, not the run.
            let result = result.unwrap_or_else(DoneResult::Failed);
            self.waiting.remove(&step);
            self.done.push(Done { step, attempt, at: None, result, call: None });
        }
        Ok(())
    }

    /// Returns the input that a waiting step has received, if any.
    fn got(&self, id: &StepId) -> Option<(StepId, u32, Got)> {
        let step = self.run.state.steps.get(id)?;
        let got = match &step.status {
            StepStatus::Awaiting { received: Some(payload), .. } => Got::Signal(*payload),
            StepStatus::Asking { approval } => {
                Got::Answer(*approval, self.run.state.approvals.get(approval)?.reason_at?)
            }
            StepStatus::Undecided { decision: Some((resolution, output)), .. } => {
                Got::Decision(*resolution, *output)
            }
            _ => return None,
        };
        Some((id.clone(), step.attempt, got))
    }

    /// Resolves an approval with its reason; an erased reason counts as none.
    async fn answer(
        &mut self,
        approval: ApprovalId,
        reason: PayloadRef,
    ) -> Result<Option<DoneResult>, ActorError> {
        let reason = self.carried(reason).await?.unwrap_or_default();
        let reason = reason.as_deref().and_then(Value::as_str);
        let now = self.shared.now();
        let known = self.run.state.approvals.get(&approval);
        Ok(known.and_then(|known| answered(known, reason, now)))
    }

    /// Loads a payload; an erased one is a failure of the step.
    async fn carried(
        &mut self,
        payload: PayloadRef,
    ) -> Result<Result<Option<Arc<Value>>, UnsealedFailure>, ActorError> {
        match self.outputs.recall(payload).await {
            Ok(value) => Ok(Ok(Some(value))),
            Err(OutputError::Failure(failure)) => Ok(Err(failure)),
            Err(error) => Err(error.into()),
        }
    }

    /// Returns whether the manifest allows another attempt after one with an unknown outcome.
    pub(super) fn may_repeat(&self, done: &Done) -> bool {
        let node = self.graph.find_node(&done.step.node);
        match node.and_then(|node| node.on_unknown).unwrap_or_default() {
            OnUnknown::Retry => true,
            OnUnknown::RetryIfIdempotent => self.is_idempotent(&done.step),
            OnUnknown::Reconcile | OnUnknown::Ask => false,
        }
    }

    /// Returns whether repeating the step is safe: it made no call, or its provider recognises
    /// repeats by their idempotency key.
    fn is_idempotent(&self, step: &StepId) -> bool {
        let call = self.run.state.steps.get(step).and_then(|step| step.call.as_ref());
        call.is_none_or(|call| {
            let mut providers = self.shared.models.providers();
            let provider = providers.find(|provider| provider.name() == call.provider);
            provider.is_some_and(|provider| provider.info().recognises_repeats)
                && call.idempotency_key.is_some()
        })
    }

    /// Returns the idempotency key of a call. An attempt that follows one with an unknown outcome
    /// uses the key of that call again.
    pub(super) fn idempotency_key(&self, step: &StepId, attempt: u32, turn: u32) -> String {
        let lost = self.run.state.steps.get(step).and_then(|step| step.lost_call.clone());
        // The key is derived and not drawn, so that a repeated plan yields the same one.
        lost.unwrap_or_else(|| {
            let stream = &self.run.stream;
            let (run, step) = (stream.id.to_string(), step.to_string());
            let call = format!("{attempt}.{turn}");
            derived_uuid(&["call/v1", stream.tenant.as_str(), &run, &step, &call]).to_string()
        })
    }
}
