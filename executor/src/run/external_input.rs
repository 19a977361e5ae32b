//! Inputs from outside of the executor: signals, decisions about steps, sealed answers to
//! approvals; and the manifest's rules for attempts with an unknown outcome.

use std::sync::Arc;

use convergio_domain::failure::UnsealedFailure;
use convergio_domain::graph::ToolEffect;
use convergio_domain::graph::manifest::OnUnknown;
use convergio_domain::id::{ApprovalId, StepId};
use convergio_domain::payload::PayloadRef;
use convergio_domain::run::{Resolution, StepStatus};
use serde_json::Value;

use super::actor::RunActor;
use super::results::approval_outcome;
use crate::error::ActorError;
use crate::outputs::OutputError;
use crate::plan::{EffectOutcome, EffectResult};
use crate::tool::find_tool_effect;

/// An input that a waiting step has received.
enum ExternalInput {
    Signal(PayloadRef),
    Decision(Resolution, Option<PayloadRef>),
    Answer(ApprovalId, PayloadRef),
}

impl RunActor {
    /// Collects the signals, decisions and sealed answers that have arrived.
    pub(super) async fn collect_external_inputs(&mut self) -> Result<(), ActorError> {
        if self.run.state.paused {
            return Ok(());
        }
        let inputs: Vec<(StepId, u32, ExternalInput)> = self
            .schedule
            .waiting_steps
            .iter()
            .filter_map(|id| self.external_input_for(id))
            .collect();
        for (step, attempt, input) in inputs {
            let result = match input {
                ExternalInput::Signal(payload) => {
                    self.load_input_value(payload).await?.map(EffectOutcome::Completed)
                }
                ExternalInput::Answer(approval, reason) => {
                    match self.resolve_approval(approval, reason).await? {
                        Some(result) => Ok(result),
                        None => continue,
                    }
                }
                ExternalInput::Decision(resolution, None) => {
                    Ok(EffectOutcome::Resolved(resolution, None))
                }
                ExternalInput::Decision(resolution, Some(output)) => {
                    let value = self.load_input_value(output).await?;
                    value.map(|value| EffectOutcome::Resolved(resolution, value))
                }
            };
            // A failure to load an input fails the step, not the run.
            let result = result.unwrap_or_else(EffectOutcome::Failed);
            self.schedule.waiting_steps.remove(&step);
            self.inbox.results.push(EffectResult {
                step,
                attempt,
                tool_call: None,
                outcome: result,
                call_report: None,
            });
        }
        Ok(())
    }

    /// Returns the input that a waiting step has received, if any.
    fn external_input_for(&self, id: &StepId) -> Option<(StepId, u32, ExternalInput)> {
        let step = self.run.state.steps.get(id)?;
        let input = match &step.status {
            StepStatus::Awaiting { received: Some(payload), .. } => ExternalInput::Signal(*payload),
            StepStatus::Asking { approval } => {
                ExternalInput::Answer(*approval, self.run.state.approvals.get(approval)?.reason_at?)
            }
            StepStatus::Undecided { decision: Some((resolution, output)), .. } => {
                ExternalInput::Decision(*resolution, *output)
            }
            _ => return None,
        };
        Some((id.clone(), step.attempt, input))
    }

    /// Resolves an approval with its reason; an erased reason counts as none.
    async fn resolve_approval(
        &mut self,
        approval: ApprovalId,
        reason: PayloadRef,
    ) -> Result<Option<EffectOutcome>, ActorError> {
        let reason = self.load_input_value(reason).await?.unwrap_or_default();
        let reason = reason.as_deref().and_then(Value::as_str);
        let now = self.shared.current_time();
        let known_approval = self.run.state.approvals.get(&approval);
        Ok(known_approval.and_then(|known| approval_outcome(known, reason, now)))
    }

    /// Loads a payload; an erased one is a failure of the step.
    async fn load_input_value(
        &mut self,
        payload: PayloadRef,
    ) -> Result<Result<Option<Arc<Value>>, UnsealedFailure>, ActorError> {
        match self.caches.outputs.load_value(payload).await {
            Ok(value) => Ok(Ok(Some(value))),
            Err(OutputError::Failure(failure)) => Ok(Err(failure)),
            Err(error) => Err(error.into()),
        }
    }

    /// Returns whether the manifest allows another attempt after one with an unknown outcome.
    pub(super) fn can_retry_unknown(&self, effect_result: &EffectResult) -> bool {
        let node = self.graph.find_node(&effect_result.step.node);
        match node.and_then(|node| node.on_unknown).unwrap_or_default() {
            OnUnknown::Retry => true,
            OnUnknown::RetryIfIdempotent => self.is_idempotent(&effect_result.step),
            OnUnknown::Reconcile | OnUnknown::Ask => false,
        }
    }

    /// Returns whether repeating the step is safe: its tool may be called again, and it made no
    /// call of a model, or its provider recognises repeats by their idempotency key.
    fn is_idempotent(&self, step: &StepId) -> bool {
        let tool = self.graph.find_node(&step.node).and_then(|node| node.work.step_tool());
        if tool.is_some_and(|tool| find_tool_effect(&tool.name) == ToolEffect::Once) {
            return false;
        }
        let call = self.run.state.steps.get(step).and_then(|step| step.call.as_ref());
        call.is_none_or(|call| {
            let mut providers = self.shared.models.all_providers();
            let provider = providers.find(|provider| provider.name() == call.provider);
            provider.is_some_and(|provider| provider.provider_config().recognises_repeats)
                && call.idempotency_key.is_some()
        })
    }
}
