//! Preparation of one model call: a model chosen, the exact request stored, the intent written
//! down.

use std::time::Duration;

use convergio_domain::billing::{CallReserve, PriceQuery, lost_call_estimate};
use convergio_domain::chat::{ChatField, ChatRequest, Privacy};
use convergio_domain::expr::ExprScope;
use convergio_domain::graph::manifest::Agent;
use convergio_domain::id::StepId;
use convergio_domain::payload::PayloadPurpose;
use convergio_domain::request::derive_uuid;
use convergio_domain::run::StepIntent;
use serde_json::Value;

use super::planner::Planner;
use super::requirements::{check_service, requirements_of};
use crate::catalog::ModelChoice;
use crate::outputs::OutputError;
use crate::plan::{
    CommitPlan, EffectLaunch, EffectWork, FallbackContext, ModelCall, OutputFormat, PreparedStep,
};
use crate::provider::{EncodedRequest, ProviderApi, ServiceCall, usage_bound};

/// Place of a model call, and the form of its output.
pub(super) struct ModelCallSpec<'a> {
    pub(super) step: &'a StepId,
    pub(super) attempt: u32,
    /// Turn of the agent, from 1; 0 for an agent without tools.
    pub(super) turn: u32,
    pub(super) timeout: Duration,
    pub(super) output_format: OutputFormat,
    /// True if the manifest allows another attempt.
    pub(super) is_repeatable: bool,
}

/// An attempt of a step that is about to start.
pub(super) struct StepAttempt<'a> {
    pub(super) step: &'a StepId,
    pub(super) attempt: u32,
    pub(super) timeout: Duration,
    /// True if the manifest allows another attempt.
    pub(super) is_repeatable: bool,
}

impl Planner<'_> {
    /// Prepares the one call of an agent that does not go in turns.
    pub(super) async fn prepare_agent_call(
        &mut self,
        plan: &mut CommitPlan,
        step_attempt: StepAttempt<'_>,
        agent: &Agent,
        scope: &ExprScope,
    ) -> Result<PreparedStep, OutputError> {
        let output_format = match &agent.request {
            Some(_) => OutputFormat::FullReply,
            None if agent.schema.is_some() => OutputFormat::Json,
            None => OutputFormat::Text,
        };
        // Turn 0 marks a call of an agent without tools.
        let StepAttempt { step, attempt, timeout, is_repeatable } = step_attempt;
        let call_spec =
            ModelCallSpec { step, attempt, turn: 0, timeout, output_format, is_repeatable };
        let request = self.render_request(agent, scope).await?;
        let (intent, launch) = self.prepare_model_call(plan, request, call_spec).await?;
        Ok(PreparedStep::Start { intent, launches: vec![launch] })
    }

    /// Chooses a model, stores the exact request, and returns the intent and the effect.
    pub(super) async fn prepare_model_call(
        &mut self,
        plan: &mut CommitPlan,
        mut request: ChatRequest,
        call_spec: ModelCallSpec<'_>,
    ) -> Result<(StepIntent, EffectLaunch), OutputError> {
        let ModelCallSpec { step, attempt, turn, timeout, output_format: answers, is_repeatable } =
            call_spec;
        check_service(&request, turn).map_err(OutputError::Failure)?;
        request.privacy = request.privacy.max(self.effective_privacy());
        let service = request.service.as_ref().map(ServiceCall::from_service);
        let need = requirements_of(&request);
        let step_state = self.run.state.steps.get(step);
        let avoid = step_state.map(|step| step.avoid.clone()).unwrap_or_default();
        // One run stays with one deployment of an alias, whose provider caches the prompt.
        let placement_seed = self.run.stream.id.as_u64_pair().1;
        let models =
            self.shared.models.expand_models(&request.model, &request.fallbacks, placement_seed);
        if service.is_some() {
            self.shared.models.check_model_names(&models).map_err(OutputError::Failure)?;
        }
        let choice = self.shared.models.choose_model_after(&models, &need, &avoid).await;
        let choice = choice.map_err(OutputError::Failure)?;
        // Before the body is written: the budget may set the limit of the answer.
        let hold = self.hold_for_call(plan, &mut request, &choice);
        let request = ChatRequest { model: choice.model.clone(), ..request };
        let written = choice.provider.write_request(request);
        let written = written.map_err(|error| OutputError::Failure(error.into_failure()))?;
        let left_out = written.left_out_names();
        let EncodedRequest { body, media_type, headers, .. } = written;
        let provider = choice.provider.name().to_owned();
        let idempotency_key = self.idempotency_key(step, attempt, turn);
        let prompt = plan.store_payload(body.to_vec(), &media_type, PayloadPurpose::Prompt);
        let (estimated_meter, estimated_tokens) =
            lost_call_estimate(service.map(ServiceCall::estimated_quantity), need.input_tokens);
        let intent = StepIntent::CallModel {
            turn,
            reserved_cost: hold.cost,
            estimated_tokens: Some(estimated_tokens),
            estimated_meter,
            output_limit: hold.output_limit,
            provider,
            model: choice.model.clone(),
            route: choice.route_reason,
            routing: Some(self.record_routing(plan, choice.routing_record).await?),
            key: choice.key_name.clone(),
            left_out,
            prompt,
            reserved_tokens: hold.bound.total_tokens(),
            idempotency_key: Some(idempotency_key.clone()),
        };
        plan.hold_intent(&intent);
        let question = FallbackContext { models, need, key: choice.key_name, avoid, is_repeatable };
        let work = EffectWork::Model(ModelCall {
            provider: choice.provider,
            model: choice.model,
            body,
            media_type,
            headers,
            service,
            idempotency_key,
            output_format: answers,
            fallback_context: Box::new(question),
        });
        Ok((intent, EffectLaunch { step: step.clone(), attempt, tool_call: None, timeout, work }))
    }

    /// Returns the strictest of the run's and the tenant's limit on where conversations may be
    /// sent.
    pub(super) fn effective_privacy(&self) -> Privacy {
        let tenant = &self.run.stream.tenant;
        self.run.state.privacy.max(self.shared.models.tenant_privacy(tenant))
    }

    /// Returns the idempotency key of a call. An attempt that follows one with an unknown outcome
    /// uses the key of that call again.
    fn idempotency_key(&self, step: &StepId, attempt: u32, turn: u32) -> String {
        let lost_call_key = self.run.state.steps.get(step).and_then(|step| step.lost_call.clone());
        // The key is derived and not drawn, so that a repeated plan yields the same one.
        lost_call_key.unwrap_or_else(|| {
            let stream = &self.run.stream;
            let (run, step) = (stream.id.to_string(), step.to_string());
            let call = format!("{attempt}.{turn}");
            derive_uuid(&["call/v1", stream.tenant.as_str(), &run, &step, &call]).to_string()
        })
    }

    /// Computes the budget hold of a call: the most that it can use and cost. An answer without a
    /// limit is bounded by the model's maximum, or by what is left of the budget if that is less.
    fn hold_for_call(
        &self,
        plan: &CommitPlan,
        request: &mut ChatRequest,
        choice: &ModelChoice,
    ) -> CallReserve {
        let info = choice.provider.provider_config();
        let is_unlimited = request.max_tokens.is_none() && request.service.is_none();
        let bound = usage_bound::call_bound(request, &choice.model, choice.max_output_tokens);
        let service_tier = request.options.get(&ChatField::ServiceTier).and_then(Value::as_str);
        let query = PriceQuery { service_tier, ..self.shared.price_query(info, &choice.model) };
        let budget_left =
            || self.run.state.child_budget(plan.budget_usage, 1, self.shared.current_time());
        let reserve = self.shared.prices.reserve_call(query, bound, is_unlimited.then(budget_left));
        if is_unlimited {
            // Anthropic's API requires a limit; elsewhere an absent one leaves it to the provider.
            let is_limit_required = matches!(info.api, ProviderApi::Anthropic { .. });
            let required_limit = choice.max_output_tokens.filter(|_| is_limit_required);
            request.max_tokens = reserve.output_limit.or(required_limit);
        }
        reserve
    }
}
