//! One model call on its way: a model chosen, the exact request stored, the intent written down.

use std::time::Duration;

use convergio_domain::chat::{ChatRequest, Privacy};
use convergio_domain::id::StepId;
use convergio_domain::metering::{Meter, Usage};
use convergio_domain::money::Money;
use convergio_domain::payload::Purpose;
use convergio_domain::run::Intent;

use super::Actor;
use super::effect::{Answers, Launch, ModelCall, Work};
use super::hop::Question;
use super::plan::Plan;
use crate::model::{Need, WrittenRequest, ask};
use crate::outputs::OutputError;

/// Where a call belongs, and what becomes of its answer.
pub(super) struct Calling<'a> {
    pub(super) step: &'a StepId,
    pub(super) attempt: u32,
    /// The agent's turn, from 1; 0 for an agent without tools.
    pub(super) turn: u32,
    pub(super) timeout: Duration,
    pub(super) answers: Answers,
    /// Whether the manifest lets it be tried again at all.
    pub(super) is_repeatable: bool,
}

impl Actor {
    /// The intent of a call, its request stored, and its launch.
    pub(super) async fn model_call(
        &mut self,
        plan: &mut Plan,
        mut request: ChatRequest,
        calling: Calling<'_>,
    ) -> Result<(Intent, Launch), OutputError> {
        let Calling { step, attempt, turn, timeout, answers, is_repeatable } = calling;
        request.privacy = request.privacy.max(self.privacy());
        let need = ask::need(&request);
        let known = self.run.state.steps.get(step);
        let avoid = known.map(|step| step.avoid.clone()).unwrap_or_default();
        let choice = self.shared.models.choose_after(&request.model, &need, &avoid).await;
        let choice = choice.map_err(OutputError::Failure)?;
        let wanted = request.model.clone();
        let request = ChatRequest { model: choice.model.clone(), ..request };
        let need = ask::reserved(&request, need, &choice);
        let written = choice.provider.write(request);
        let written = written.map_err(|error| OutputError::Failure(error.into_failure()))?;
        let WrittenRequest { body, headers, left_out } = written;
        let left_out = left_out.into_iter().map(|field| field.name().to_owned()).collect();
        let provider = choice.provider.name().to_owned();
        let idempotency_key = self.idempotency_key(step, attempt, turn);
        let prompt = plan.store(body.to_vec(), "application/json", Purpose::Prompt);
        let intent = Intent::CallModel {
            turn,
            reserved_cost: self.worst_cost(&provider, &choice.model, &need),
            provider,
            model: choice.model.clone(),
            route: choice.route,
            routing: Some(self.routing(plan, choice.routed).await?),
            key: choice.key.clone(),
            left_out,
            prompt,
            reserved_tokens: need.input_tokens + u64::from(need.output_tokens),
            idempotency_key: Some(idempotency_key.clone()),
        };
        plan.hold_intent(&intent);
        let question = Question { wanted, need, key: choice.key, avoid, is_repeatable };
        let work = Work::Model(ModelCall {
            provider: choice.provider,
            model: choice.model,
            body,
            headers,
            idempotency_key,
            answers,
            question: Box::new(question),
        });
        Ok((intent, Launch { step: step.clone(), attempt, at: None, timeout, work }))
    }

    /// Where this run's conversations may travel at most: by its own word and by its tenant's.
    pub(super) fn privacy(&self) -> Privacy {
        let tenant = &self.run.stream.tenant;
        self.run.state.privacy.max(self.shared.models.privacy_of(tenant))
    }

    fn worst_cost(&self, provider: &str, model: &str, need: &Need) -> Option<Money> {
        let out = (Meter::OutText, u64::from(need.output_tokens));
        let usage = Usage([(Meter::InFresh, need.input_tokens), out].into());
        let charge = self.shared.prices.charge(provider, model, self.shared.now(), &usage)?;
        Some(charge.amount)
    }
}
