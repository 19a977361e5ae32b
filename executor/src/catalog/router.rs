//! The kernel's router over recorded facts of candidates: asked before a call, and asked again when
//! a run is replayed.

use convergio_domain::failure::UnsealedFailure;
use convergio_domain::run::{
    CandidateFacts, ModelCapability, RouterCandidate, RouterDecision, RoutingCandidates,
    ServingPlatform,
};
use convergio_kernel_c::{
    Capabilities, KernelError, KernelPlatform as Serves, ProviderClass, RouteCandidate,
    RouteDecision, RouteReason, RouteRequest, route_request,
};
use sha2::{Digest, Sha256};

use super::model_catalog::ModelOffer;
use crate::provider::ModelError;

/// The question to the router, as it is recorded.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct RouteQuestion {
    /// Estimated input tokens of the call.
    pub(crate) tokens_in: u64,
    /// Maximum tokens of the answer.
    pub(crate) tokens_out: u64,
    /// True if only local models may be chosen.
    pub(crate) local: bool,
    /// Index of the only candidate that was asked for, if any.
    pub(crate) pinned: Option<u32>,
    /// Platform preferred over cheaper ones.
    pub(crate) prefers: Option<ServingPlatform>,
}

impl RouteQuestion {
    /// Returns the question that was recorded before a call.
    pub(crate) fn from_routing(routing: &RouterDecision) -> Self {
        let RouterDecision { tokens_in, tokens_out, local, pinned, prefers, .. } = *routing;
        Self { tokens_in, tokens_out, local, pinned, prefers }
    }

    fn to_kernel_request(self) -> RouteRequest {
        RouteRequest {
            input_tokens: self.tokens_in,
            max_output_tokens: self.tokens_out,
            pinned: self.pinned,
            require_local: self.local,
            preferred_platform: self.prefers.map(kernel_platform),
            ..RouteRequest::default()
        }
    }
}

/// A question with its candidates and a digest of the router's decisions.
#[derive(Debug, Clone)]
pub(crate) struct RoutingRecord {
    /// The question that was put to the router.
    pub(crate) question: RouteQuestion,
    /// The candidates, in the order in which the router saw them.
    pub(crate) candidates: Vec<RouterCandidate>,
    /// Digest of the decisions, as [`decisions_digest`] returns it.
    pub(crate) decisions_digest: Option<String>,
}

impl RoutingRecord {
    /// Converts the record into its logged form. A single candidate is logged in place; several go
    /// into a table, which `store_table` stores and returns a reference to.
    pub(crate) fn into_routing<At>(
        self,
        store_table: impl FnOnce(&[RouterCandidate]) -> At,
    ) -> RouterDecision<At> {
        let RouteQuestion { tokens_in, tokens_out, local, pinned, prefers } = self.question;
        // A table would cost a payload of its own for a single candidate.
        let candidates = match <[RouterCandidate; 1]>::try_from(self.candidates) {
            Ok([only]) => RoutingCandidates::One(only.traits),
            Err(offered) => RoutingCandidates::Table(store_table(&offered)),
        };
        let verdicts = self.decisions_digest;
        RouterDecision { candidates, tokens_in, tokens_out, local, pinned, prefers, verdicts }
    }
}

/// Asks the router for its decisions, best candidate first. If the only usable candidates are
/// unhealthy, they are ranked as if healthy: a call may still succeed.
///
/// # Errors
/// The kernel rejects the question.
pub(crate) fn rank_candidates(
    question: RouteQuestion,
    traits: &[&CandidateFacts],
) -> Result<Vec<RouteDecision>, UnsealedFailure> {
    let candidates: Vec<RouteCandidate> =
        traits.iter().map(|traits| kernel_candidate(traits)).collect();
    let request = question.to_kernel_request();
    let decide =
        |candidates: &[RouteCandidate]| route_request(&request, candidates).map_err(router_error);
    // Unhealthy candidates are rejected in the first pass, so that healthy ones win.
    let decisions = decide(&candidates)?;
    let has_reason = |reason| decisions.iter().any(|decision| decision.reason == reason);
    if decisions.iter().any(|decision| decision.accepted) || !has_reason(RouteReason::Unhealthy) {
        return Ok(decisions);
    }
    let as_healthy =
        candidates.iter().map(|candidate| RouteCandidate { healthy: true, ..*candidate });
    decide(&as_healthy.collect::<Vec<_>>())
}

/// Returns a digest of the router's ranked decisions, by which a replay checks that it ranks alike;
/// `None` for fewer than two decisions, which the recorded choice and reason describe completely.
pub(crate) fn decisions_digest(decisions: &[RouteDecision]) -> Option<String> {
    if decisions.len() < 2 {
        return None;
    }
    let mut hasher = Sha256::new();
    for RouteDecision { index, accepted, reason, cost } in decisions {
        hasher.update(index.to_le_bytes());
        hasher.update([u8::from(*accepted)]);
        // Costs and reasons count too: a replay must rank for the same reasons.
        hasher.update((*reason as u32).to_le_bytes());
        hasher.update(cost.to_le_bytes());
    }
    // Eight bytes suffice: the digest detects accidents, not attacks.
    Some(hasher.finalize().iter().take(8).map(|byte| format!("{byte:02x}")).collect())
}

/// Converts an offer into the candidate that is recorded.
pub(crate) fn candidate_from_offer(offer: &ModelOffer) -> RouterCandidate {
    let Capabilities { tools, json, vision, audio } = offer.capabilities;
    let abilities = [
        (ModelCapability::Tools, tools),
        (ModelCapability::Json, json),
        (ModelCapability::Vision, vision),
        (ModelCapability::Audio, audio),
    ];
    let traits = CandidateFacts {
        platform: match offer.platform {
            Serves::Mlx => ServingPlatform::Mlx,
            Serves::Ollama => ServingPlatform::Ollama,
            Serves::LlamaCpp => ServingPlatform::LlamaCpp,
            Serves::OpenAiCompatible => ServingPlatform::OpenaiCompatible,
            Serves::CloudApi => ServingPlatform::CloudApi,
        },
        local: offer.class == ProviderClass::Local,
        // Health is recorded as a fact of that moment: a replay must not ask for today's.
        failing: !offer.healthy,
        can: abilities.into_iter().filter_map(|(ability, has)| has.then_some(ability)).collect(),
        price_in: offer.price_in_e15,
        price_out: offer.price_out_e15,
        context: offer.context_tokens,
        quality: offer.quality,
    };
    let (provider, model) = (offer.provider.clone(), offer.model.clone());
    RouterCandidate { provider, model, key: offer.key_name.clone(), traits }
}

/// Converts recorded facts into the kernel's candidate.
fn kernel_candidate(traits: &CandidateFacts) -> RouteCandidate {
    let is_local = traits.local;
    // Local models cost nothing; an unpriced cloud model may cost anything.
    let price = |price: Option<u64>| price.unwrap_or(if is_local { 0 } else { u64::MAX });
    let has_ability = |ability| traits.can.contains(&ability);
    RouteCandidate {
        provider_class: if is_local { ProviderClass::Local } else { ProviderClass::Cloud },
        platform: kernel_platform(traits.platform),
        declared_local: is_local,
        healthy: !traits.failing,
        capabilities: Capabilities {
            tools: has_ability(ModelCapability::Tools),
            json: has_ability(ModelCapability::Json),
            vision: has_ability(ModelCapability::Vision),
            audio: has_ability(ModelCapability::Audio),
        },
        price_in: price(traits.price_in),
        price_out: price(traits.price_out),
        // A model of unknown context is not ruled out: its provider reports a prompt that is too
        // long.
        context_tokens: traits.context.unwrap_or(u64::MAX),
        latency_ms: None,
        quality: traits.quality,
    }
}

fn kernel_platform(platform: ServingPlatform) -> Serves {
    match platform {
        ServingPlatform::Mlx => Serves::Mlx,
        ServingPlatform::Ollama => Serves::Ollama,
        ServingPlatform::LlamaCpp => Serves::LlamaCpp,
        ServingPlatform::OpenaiCompatible => Serves::OpenAiCompatible,
        ServingPlatform::CloudApi => Serves::CloudApi,
    }
}

fn router_error(error: KernelError) -> UnsealedFailure {
    ModelError::new("internal", false, error.to_string()).into_failure()
}

/// Returns the router's reason in the log's words.
pub(crate) fn reason_text(reason: RouteReason) -> &'static str {
    match reason {
        RouteReason::Pinned => "pinned",
        RouteReason::PreferredPlatform => "preferred platform",
        RouteReason::Cheapest => "cheapest",
        RouteReason::Quality => "quality",
        RouteReason::Fallback => "fallback",
        RouteReason::NotRequested => "not requested",
        RouteReason::NotLocal => "not local",
        RouteReason::MissingCapability => "a capability is missing",
        RouteReason::ContextTooSmall => "the model's context is too small",
        RouteReason::Unhealthy => "unhealthy",
        RouteReason::OverBudget => "over budget",
        RouteReason::Downgraded => "downgraded: the budget is low",
        RouteReason::Unpriced => "unpriced",
        RouteReason::Offline => "there is no network",
        RouteReason::TooSlow => "too slow",
        RouteReason::PriceUnknown => "its price is unknown",
    }
}
