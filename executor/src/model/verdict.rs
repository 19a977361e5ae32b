//! The kernel's router over recorded facts of candidates: asked before a call, and asked again when
//! a run is replayed.

use convergio_domain::failure::UnsealedFailure;
use convergio_domain::run::{Ability, Candidates, Offered, Platform, Routing, Traits};
use convergio_kernel_c::{
    Candidate, Capabilities, Decision, KernelError, Platform as Serves, ProviderClass, Reason,
    Request, route,
};
use sha2::{Digest, Sha256};

use super::catalog::Offer;
use super::error::ModelError;

/// The question to the router, as it is recorded.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Asked {
    /// Estimated input tokens of the call.
    pub(crate) tokens_in: u64,
    /// Maximum tokens of the answer.
    pub(crate) tokens_out: u64,
    /// True if only local models may be chosen.
    pub(crate) local: bool,
    /// Index of the only candidate that was asked for, if any.
    pub(crate) pinned: Option<u32>,
    /// Platform preferred over cheaper ones.
    pub(crate) prefers: Option<Platform>,
}

impl Asked {
    /// Returns the question that was recorded before a call.
    pub(crate) fn of(routing: &Routing) -> Self {
        let Routing { tokens_in, tokens_out, local, pinned, prefers, .. } = *routing;
        Self { tokens_in, tokens_out, local, pinned, prefers }
    }

    fn request(self) -> Request {
        Request {
            input_tokens: self.tokens_in,
            max_output_tokens: self.tokens_out,
            pinned: self.pinned,
            require_local: self.local,
            preferred_platform: self.prefers.map(serves),
            ..Request::default()
        }
    }
}

/// A question with its candidates and a digest of the router's decisions.
#[derive(Debug, Clone)]
pub(crate) struct Routed {
    /// The question that was put to the router.
    pub(crate) asked: Asked,
    /// The candidates, in the order in which the router saw them.
    pub(crate) offered: Vec<Offered>,
    /// Digest of the decisions, as [`decisions_digest`] returns it.
    pub(crate) verdicts: Option<String>,
}

impl Routed {
    /// Converts the record into its logged form. A single candidate is logged in place; several go
    /// into a table, which `store_table` stores and returns a reference to.
    pub(crate) fn written<At>(self, table: impl FnOnce(&[Offered]) -> At) -> Routing<At> {
        let Asked { tokens_in, tokens_out, local, pinned, prefers } = self.asked;
        // A table would cost a payload of its own for a single candidate.
        let candidates = match <[Offered; 1]>::try_from(self.offered) {
            Ok([only]) => Candidates::One(only.traits),
            Err(offered) => Candidates::Table(table(&offered)),
        };
        let verdicts = self.verdicts;
        Routing { candidates, tokens_in, tokens_out, local, pinned, prefers, verdicts }
    }
}

/// Asks the router for its decisions, best candidate first. If the only usable candidates are
/// unhealthy, they are ranked as if healthy: a call may still succeed.
///
/// # Errors
/// The kernel rejects the question.
pub(crate) fn judge(asked: Asked, traits: &[&Traits]) -> Result<Vec<Decision>, UnsealedFailure> {
    let candidates: Vec<Candidate> = traits.iter().map(|traits| candidate(traits)).collect();
    let request = asked.request();
    let decide = |candidates: &[Candidate]| route(&request, candidates).map_err(refused);
    // Unhealthy candidates are rejected in the first pass, so that healthy ones win.
    let decisions = decide(&candidates)?;
    let is_any = |reason| decisions.iter().any(|decision| decision.reason == reason);
    if decisions.iter().any(|decision| decision.accepted) || !is_any(Reason::Unhealthy) {
        return Ok(decisions);
    }
    let hopeful = candidates.iter().map(|candidate| Candidate { healthy: true, ..*candidate });
    decide(&hopeful.collect::<Vec<_>>())
}

/// Returns a digest of the router's ranked decisions, by which a replay checks that it ranks alike;
/// `None` for fewer than two decisions, which the recorded choice and reason describe completely.
pub(crate) fn print(decisions: &[Decision]) -> Option<String> {
    if decisions.len() < 2 {
        return None;
    }
    let mut hash = Sha256::new();
    for Decision { index, accepted, reason, cost } in decisions {
        hash.update(index.to_le_bytes());
        hash.update([u8::from(*accepted)]);
        // Costs and reasons count too: a replay must rank for the same reasons.
        hash.update((*reason as u32).to_le_bytes());
        hash.update(cost.to_le_bytes());
    }
    // Eight bytes suffice: the digest detects accidents, not attacks.
    Some(hash.finalize().iter().take(8).map(|byte| format!("{byte:02x}")).collect())
}

/// Converts an offer into the candidate that is recorded.
pub(crate) fn offered(offer: &Offer) -> Offered {
    let Capabilities { tools, json, vision, audio } = offer.capabilities;
    let all = [
        (Ability::Tools, tools),
        (Ability::Json, json),
        (Ability::Vision, vision),
        (Ability::Audio, audio),
    ];
    let traits = Traits {
        platform: match offer.platform {
            Serves::Mlx => Platform::Mlx,
            Serves::Ollama => Platform::Ollama,
            Serves::LlamaCpp => Platform::LlamaCpp,
            Serves::OpenAiCompatible => Platform::OpenaiCompatible,
            Serves::CloudApi => Platform::CloudApi,
        },
        local: offer.class == ProviderClass::Local,
        // Health is recorded as a fact of that moment: a replay must not ask for today's.
        failing: !offer.healthy,
        can: all.into_iter().filter_map(|(ability, has)| has.then_some(ability)).collect(),
        price_in: offer.price_in,
        price_out: offer.price_out,
        context: offer.context_tokens,
        quality: offer.quality,
    };
    let (provider, model) = (offer.provider.clone(), offer.model.clone());
    Offered { provider, model, key: offer.key.clone(), traits }
}

/// Converts recorded facts into the kernel's candidate.
fn candidate(traits: &Traits) -> Candidate {
    let is_local = traits.local;
    // Local models cost nothing; an unpriced cloud model may cost anything.
    let price = |price: Option<u64>| price.unwrap_or(if is_local { 0 } else { u64::MAX });
    let can = |ability| traits.can.contains(&ability);
    Candidate {
        provider_class: if is_local { ProviderClass::Local } else { ProviderClass::Cloud },
        platform: serves(traits.platform),
        declared_local: is_local,
        healthy: !traits.failing,
        capabilities: Capabilities {
            tools: can(Ability::Tools),
            json: can(Ability::Json),
            vision: can(Ability::Vision),
            audio: can(Ability::Audio),
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

fn serves(platform: Platform) -> Serves {
    match platform {
        Platform::Mlx => Serves::Mlx,
        Platform::Ollama => Serves::Ollama,
        Platform::LlamaCpp => Serves::LlamaCpp,
        Platform::OpenaiCompatible => Serves::OpenAiCompatible,
        Platform::CloudApi => Serves::CloudApi,
    }
}

fn refused(error: KernelError) -> UnsealedFailure {
    ModelError::new("internal", false, error.to_string()).into_failure()
}

/// Returns the router's reason in the log's words.
pub(crate) fn reason(reason: Reason) -> &'static str {
    match reason {
        Reason::Pinned => "pinned",
        Reason::PreferredPlatform => "preferred platform",
        Reason::Cheapest => "cheapest",
        Reason::Quality => "quality",
        Reason::Fallback => "fallback",
        Reason::NotRequested => "not requested",
        Reason::NotLocal => "not local",
        Reason::MissingCapability => "a capability is missing",
        Reason::ContextTooSmall => "the model's context is too small",
        Reason::Unhealthy => "unhealthy",
        Reason::OverBudget => "over budget",
        Reason::Downgraded => "downgraded: the budget is low",
        Reason::Unpriced => "unpriced",
        Reason::Offline => "there is no network",
        Reason::TooSlow => "too slow",
        Reason::PriceUnknown => "its price is unknown",
    }
}
