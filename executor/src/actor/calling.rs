//! Preparation of one model call: a model chosen, the exact request stored, the intent written
//! down.

use std::time::Duration;

use convergio_domain::chat::{ChatField, ChatRequest, Privacy};
use convergio_domain::id::StepId;
use convergio_domain::metering::{CallBound, Meter, PriceQuery};
use convergio_domain::money::Money;
use convergio_domain::payload::Purpose;
use convergio_domain::run::Intent;
use serde_json::Value;

use super::Actor;
use super::effect::{Answers, Launch, ModelCall, Work};
use super::hop::Question;
use super::plan::Plan;
use crate::model::{Api, Choice, ServiceCall, WrittenRequest, ask, bound};
use crate::outputs::OutputError;

/// Minimum tokens of an answer that the budget limits; with fewer the budget counts as used up.
const LEAST_ANSWER_TOKENS: u64 = 16;

/// Place of a model call, and the form of its output.
pub(super) struct Calling<'a> {
    pub(super) step: &'a StepId,
    pub(super) attempt: u32,
    /// Turn of the agent, from 1; 0 for an agent without tools.
    pub(super) turn: u32,
    pub(super) timeout: Duration,
    pub(super) answers: Answers,
    /// True if the manifest allows another attempt.
    pub(super) is_repeatable: bool,
}

impl Actor {
    /// Chooses a model, stores the exact request, and returns the intent and the effect.
    pub(super) async fn model_call(
        &mut self,
        plan: &mut Plan,
        mut request: ChatRequest,
        calling: Calling<'_>,
    ) -> Result<(Intent, Launch), OutputError> {
        let Calling { step, attempt, turn, timeout, answers, is_repeatable } = calling;
        ask::check_service(&request, turn).map_err(OutputError::Failure)?;
        request.privacy = request.privacy.max(self.privacy());
        let service = request.service.as_ref().map(ServiceCall::of);
        let need = ask::need(&request);
        let known = self.run.state.steps.get(step);
        let avoid = known.map(|step| step.avoid.clone()).unwrap_or_default();
        // One run stays with one deployment of an alias, whose provider caches the prompt.
        let chance = self.run.stream.id.as_u64_pair().1;
        let models = self.shared.models.expand_models(&request.model, &request.fallbacks, chance);
        if service.is_some() {
            self.shared.models.check_names(&models).map_err(OutputError::Failure)?;
        }
        let choice = self.shared.models.choose_after(&models, &need, &avoid).await;
        let choice = choice.map_err(OutputError::Failure)?;
        // Before the body is written: the budget may set the limit of the answer.
        let hold = self.hold_for(plan, &mut request, &choice);
        let request = ChatRequest { model: choice.model.clone(), ..request };
        let written = choice.provider.write(request);
        let written = written.map_err(|error| OutputError::Failure(error.into_failure()))?;
        let left_out = written.left_out_names();
        let WrittenRequest { body, media_type, headers, .. } = written;
        let provider = choice.provider.name().to_owned();
        let idempotency_key = self.idempotency_key(step, attempt, turn);
        let prompt = plan.store(body.to_vec(), media_type.clone(), Purpose::Prompt);
        let (estimated_meter, estimated_tokens) = estimate(service, need.input_tokens);
        let intent = Intent::CallModel {
            turn,
            reserved_cost: hold.cost,
            estimated_tokens: Some(estimated_tokens),
            estimated_meter,
            output_limit: hold.output_limit,
            provider,
            model: choice.model.clone(),
            route: choice.route,
            routing: Some(self.routing(plan, choice.routed).await?),
            key: choice.key.clone(),
            left_out,
            prompt,
            reserved_tokens: hold.bound.tokens(),
            idempotency_key: Some(idempotency_key.clone()),
        };
        plan.hold_intent(&intent);
        let question = Question { models, need, key: choice.key, avoid, is_repeatable };
        let work = Work::Model(ModelCall {
            provider: choice.provider,
            model: choice.model,
            body,
            media_type,
            headers,
            service,
            idempotency_key,
            answers,
            question: Box::new(question),
        });
        Ok((intent, Launch { step: step.clone(), attempt, at: None, timeout, work }))
    }

    /// Returns the strictest of the run's and the tenant's limit on where conversations may be
    /// sent.
    pub(super) fn privacy(&self) -> Privacy {
        let tenant = &self.run.stream.tenant;
        self.run.state.privacy.max(self.shared.models.privacy_of(tenant))
    }

    /// Computes the budget hold of a call: the most that it can use and cost. An answer without a
    /// limit is bounded by the model's maximum, or by what is left of the budget if that is less.
    fn hold_for(&self, plan: &Plan, request: &mut ChatRequest, choice: &Choice) -> CallHold {
        let info = choice.provider.info();
        let is_open = request.max_tokens.is_none() && request.service.is_none();
        let mut bound = bound::bound_of(request, &choice.model, choice.max_output_tokens);
        let service_tier = request.options.get(&ChatField::ServiceTier).and_then(Value::as_str);
        let query = PriceQuery { service_tier, ..self.shared.price_query(info, &choice.model) };
        let mut output_limit = None;
        if is_open {
            // Below the minimum the full bound stays, which exceeds the budget and so ends the run.
            let affordable = self.affordable_output(plan, query, bound);
            if (LEAST_ANSWER_TOKENS..bound.output_tokens).contains(&affordable) {
                bound.output_tokens = affordable;
                output_limit = u32::try_from(affordable).ok();
            }
        }
        let cost = self.shared.prices.worst_cost(query, bound);
        if is_open {
            // Anthropic's API requires a limit; elsewhere an absent one leaves it to the provider.
            let is_demanded = matches!(info.api, Api::Anthropic { .. });
            let demanded = choice.max_output_tokens.filter(|_| is_demanded);
            request.max_tokens = output_limit.or(demanded);
        }
        CallHold { bound, cost, output_limit }
    }

    /// Returns the answer tokens that the rest of the budget pays for.
    fn affordable_output(&self, plan: &Plan, query: PriceQuery<'_>, bound: CallBound) -> u64 {
        let left = self.run.state.share(plan.spent, 1, self.shared.now());
        let tokens = left.tokens.map(|tokens| tokens.saturating_sub(bound.input_tokens));
        let paid = left
            .cost
            .and_then(|cost| self.shared.prices.affordable_output(query, bound.input_tokens, cost));
        tokens.unwrap_or(u64::MAX).min(paid.unwrap_or(u64::MAX))
    }
}

/// Returns the usage to record if the call's outcome is lost: its meter (`None` for fresh input
/// tokens) and quantity.
fn estimate(service: Option<ServiceCall>, input_tokens: u64) -> (Option<Meter>, u64) {
    match service.map(ServiceCall::estimate) {
        // Fresh input is the default meter, which the event leaves out.
        Some((meter, quantity)) => (Some(meter).filter(|m| *m != Meter::InFresh), quantity),
        None => (None, input_tokens),
    }
}

/// Budget hold of a call.
struct CallHold {
    bound: CallBound,
    /// Maximum cost; `None` when the model has no price.
    cost: Option<Money>,
    /// Limit of the answer in tokens, where the budget sets it.
    output_limit: Option<u32>,
}
