//! The choice of a model for a call: the catalogue's offers are put in order by the kernel's
//! router, and the first is taken.

use std::sync::Arc;

use convergio_domain::chat::Privacy;
use convergio_domain::failure::UnsealedFailure;
use convergio_domain::run::{Fallback, ModelTarget as Asked, RouterCandidate, ServingPlatform};
use convergio_kernel_c::{ProviderClass, RouteDecision, RouteReason};

use super::model_catalog::{CatalogEntry, CatalogMatches, ModelCatalog, ModelOffer, ModelSelector};
use super::router::{
    RouteQuestion as Question, RoutingRecord, candidate_from_offer, decisions_digest,
    rank_candidates, reason_text,
};
use crate::provider::{ModelError, Provider, ProviderConfig};

/// The platform that makes the most of this machine's hardware.
const PREFERRED_PLATFORM: ServingPlatform =
    if cfg!(target_os = "macos") { ServingPlatform::Mlx } else { ServingPlatform::Ollama };
/// Maximum names of models that a message lists.
const NAMES_LIMIT: usize = 8;

/// The requirements of a call, which a model must meet.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct ModelRequirements {
    /// Estimated tokens of the prompt, tools included.
    pub input_tokens: u64,
    /// Maximum tokens of the answer.
    pub output_tokens: u32,
    /// The farthest that the prompt may travel.
    pub privacy: Privacy,
    /// True if the model's server would have to fetch parts of the prompt by URL.
    pub fetches_urls: bool,
}

/// The chosen model and the reason for the choice.
#[derive(Clone)]
pub struct ModelChoice {
    /// The provider to call.
    pub provider: Arc<dyn Provider>,
    /// The model's name, as the provider writes it.
    pub model: String,
    /// The router's reason, in the log's words.
    pub route_reason: String,
    /// Name of the key with which the provider is called.
    pub key_name: Option<String>,
    /// Context window in tokens, input and output together, if known.
    pub context_tokens: Option<u64>,
    /// Maximum tokens of an answer, if known.
    pub max_output_tokens: Option<u32>,
    /// True if the model runs on machines of the user or the operator.
    pub is_local: bool,
    /// The router's question and candidates, for the log.
    pub(crate) routing_record: RoutingRecord,
}

impl ModelCatalog {
    /// Returns the models that a call may go to, in order: the deployments behind an alias, then
    /// the caller's own fallbacks. `chance` selects by the weights of aliases; the same value gives
    /// the same order.
    pub fn expand_models(&self, model: &str, fallbacks: &[String], chance: u64) -> Vec<String> {
        let mut models: Vec<String> = Vec::new();
        for name in std::iter::once(model).chain(fallbacks.iter().map(String::as_str)) {
            // A name that is no alias stands for itself.
            let targets =
                self.model_aliases().ordered_targets(name, chance).unwrap_or_else(|| vec![name]);
            for target in targets {
                if !models.iter().any(|model| model == target) {
                    models.push(target.to_owned());
                }
            }
        }
        models
    }

    /// Checks that each of these names a single model. Models that do not chat are never chosen, so
    /// a service must name its model.
    ///
    /// # Errors
    /// `request.invalid`: a name leaves a choice.
    pub(crate) fn check_model_names(&self, models: &[String]) -> Result<(), UnsealedFailure> {
        match models.iter().find(|model| !self.parse_selector(model).is_model_name()) {
            None => Ok(()),
            Some(model) => {
                let message = format!(
                    "`{model}` leaves the choice of a model: name one that does what is asked for"
                );
                Err(model_failure("request.invalid", message))
            }
        }
    }

    /// Chooses the best model for a manifest's `model`: `auto`, `local`, a provider's name, a
    /// model's name or `PROVIDER/MODEL`.
    ///
    /// # Errors
    /// No model can be used; the message says what to do.
    pub async fn choose_model(
        &self,
        wanted: &str,
        need: &ModelRequirements,
    ) -> Result<ModelChoice, UnsealedFailure> {
        self.choose_model_after(&[wanted.to_owned()], need, &[]).await
    }

    /// Chooses the best model of the first of `models` that offers one, avoiding the candidates
    /// that have handed this step on. If there is no other, one of those is chosen again.
    ///
    /// # Errors
    /// As those of [`ModelCatalog::choose_model`], for the first name.
    pub async fn choose_model_after(
        &self,
        models: &[String],
        need: &ModelRequirements,
        avoid: &[Fallback],
    ) -> Result<ModelChoice, UnsealedFailure> {
        let mut first_error = None;
        // The second pass avoids nobody: a provider that failed is better than none.
        let passes: &[&[Fallback]] = if avoid.is_empty() { &[&[]] } else { &[avoid, &[]] };
        for avoid in passes {
            for wanted in models {
                match self.choose_one(wanted, need, avoid).await {
                    Ok(Some(choice)) => return Ok(choice),
                    Ok(None) => {}
                    Err(error) => {
                        first_error.get_or_insert(error);
                    }
                }
            }
        }
        Err(first_error.unwrap_or_else(|| model_failure("request.invalid", "no model is named")))
    }

    /// Chooses the best model of one name; `None` if all of its offers are to be avoided.
    async fn choose_one(
        &self,
        wanted: &str,
        need: &ModelRequirements,
        avoid: &[Fallback],
    ) -> Result<Option<ModelChoice>, UnsealedFailure> {
        let selector = self.parse_selector(wanted);
        // The stricter level holds: a request cannot loosen the server's.
        let privacy = need.privacy.max(self.server_privacy());
        if privacy == Privacy::Local && need.fetches_urls {
            let message = "privacy is `local`, and a picture would be fetched by its URL: send its \
                bytes; nothing was sent";
            return Err(model_failure("privacy.cloud_denied", message));
        }
        let mut matches = self.find_offers(selector, privacy).await;
        if matches.offers.is_empty() {
            return Err(match self.privacy_denial(wanted, selector, privacy) {
                Some(denial) => denial,
                None => self.no_offer_failure(wanted, selector, privacy, matches).await,
            });
        }
        if !avoid.is_empty() {
            matches.offers = exclude_avoided(&matches.offers, need, avoid);
            if matches.offers.is_empty() {
                return Ok(None);
            }
        }
        let candidates: Vec<RouterCandidate> =
            matches.offers.iter().map(|(offer, _)| candidate_from_offer(offer)).collect();
        let question = route_question(need, selector, privacy, &candidates);
        let decisions = rank_offers(question, &candidates)?;
        // The router sorts accepted candidates first.
        let best = decisions.first().filter(|decision| decision.accepted);
        let best = best.and_then(|best| Some((matches.offers.get(best.index as usize)?, best)));
        let Some(((offer, entry), decision)) = best else {
            return Err(no_usable_offer_failure(wanted, need, &matches.offers, &decisions));
        };
        Ok(Some(ModelChoice {
            provider: Arc::clone(&entry.provider) as Arc<dyn Provider>,
            model: offer.model.clone(),
            route_reason: reason_text(decision.reason).to_owned(),
            key_name: offer.key_name.clone(),
            context_tokens: offer.context_tokens,
            max_output_tokens: offer.max_output_tokens,
            is_local: offer.class == ProviderClass::Local,
            routing_record: RoutingRecord {
                question,
                decisions_digest: decisions_digest(&decisions),
                candidates,
            },
        }))
    }

    /// Returns whether there is a healthy alternative among `models` besides the avoided
    /// candidates.
    pub async fn has_alternative(
        &self,
        models: &[String],
        need: &ModelRequirements,
        avoid: &[Fallback],
    ) -> bool {
        for wanted in models {
            if self.has_alternative_for(wanted, need, avoid).await {
                return true;
            }
        }
        false
    }

    async fn has_alternative_for(
        &self,
        wanted: &str,
        need: &ModelRequirements,
        avoid: &[Fallback],
    ) -> bool {
        let selector = self.parse_selector(wanted);
        let privacy = need.privacy.max(self.server_privacy());
        let offers = self.find_offers(selector, privacy).await.offers;
        let mut offers = exclude_avoided(&offers, need, avoid);
        offers.retain(|(offer, _)| offer.healthy);
        let candidates: Vec<RouterCandidate> =
            offers.iter().map(|(offer, _)| candidate_from_offer(offer)).collect();
        let question = route_question(need, selector, privacy, &candidates);
        let decisions = rank_offers(question, &candidates).unwrap_or_default();
        decisions.first().is_some_and(|decision| decision.accepted)
    }

    /// Returns whether a call may be repeated with the candidate that failed.
    pub fn is_healthy(&self, candidate: &Asked) -> bool {
        let mut entries = self.catalog_entries();
        let is_same = |info: &ProviderConfig| {
            info.name == candidate.provider && info.key_name() == candidate.key.as_deref()
        };
        entries
            .any(|entry| is_same(entry.provider.provider_config()) && entry.provider.is_healthy())
    }

    /// Returns the failure that privacy caused, if it is the reason for having no offer.
    fn privacy_denial(
        &self,
        wanted: &str,
        selector: ModelSelector<'_>,
        privacy: Privacy,
    ) -> Option<UnsealedFailure> {
        if privacy == Privacy::Any {
            return None;
        }
        // Ollama serves its own cloud's models behind a local address.
        let is_cloud_name = |model: &str| model.ends_with("-cloud") || model.ends_with(":cloud");
        let reason = match selector {
            ModelSelector::Model(_, model) | ModelSelector::Anywhere(model)
                if is_cloud_name(model) =>
            {
                "it runs in Ollama's cloud"
            }
            _ if self.has_private_provider(selector) => return None,
            _ if self.has_unconfirmed_provider(selector) => {
                "the model server that was found is another user's: confirm it once by `convergio \
                 models trust URL`"
            }
            ModelSelector::Any | ModelSelector::Local => {
                "no model server has a loopback address, or another of this network in digits"
            }
            _ => "its provider is not on this machine, or its name would have to be looked up",
        };
        let message = format!(
            "privacy is `local`, and `{wanted}` cannot be used: {reason}; nothing was sent"
        );
        Some(model_failure("privacy.cloud_denied", message))
    }

    /// Returns the failure for a name without any offer, with the names that would do.
    async fn no_offer_failure(
        &self,
        wanted: &str,
        selector: ModelSelector<'_>,
        privacy: Privacy,
        matches: CatalogMatches<'_>,
    ) -> UnsealedFailure {
        if self.is_empty() {
            let message = "no model is available: start Ollama, a llama.cpp server or an MLX \
                server, run `convergio models install`, or set OPENAI_API_KEY";
            return model_failure("provider.unavailable", message);
        }
        // A provider whose list failed may have the model, so its error comes first: it may be
        // retried.
        if let Some(error) = matches.errors.into_iter().next() {
            return error.into_failure();
        }
        let provider = match selector {
            ModelSelector::Model(name, _) | ModelSelector::Provider(name) => name,
            _ => "",
        };
        // Names of the same provider's other models help against a typing error.
        let sibling_offers =
            self.find_offers(ModelSelector::Provider(provider), privacy).await.offers;
        let siblings: Vec<&str> = sibling_offers
            .iter()
            .map(|(offer, _)| offer.model.as_str())
            .take(NAMES_LIMIT)
            .collect();
        let suggestion = if siblings.is_empty() {
            format!("the providers are {}", self.provider_names().join(", "))
        } else {
            format!("{provider} has {}", siblings.join(", "))
        };
        let message = format!("no model matches `{wanted}`: {suggestion} (see `convergio models`)");
        model_failure("model.not_found", message)
    }
}

/// Builds the question to the router. A single model that was named is pinned: it is not compared
/// with others.
fn route_question(
    need: &ModelRequirements,
    selector: ModelSelector<'_>,
    privacy: Privacy,
    candidates: &[RouterCandidate],
) -> Question {
    Question {
        tokens_in: need.input_tokens,
        tokens_out: u64::from(need.output_tokens),
        local: privacy == Privacy::Local,
        pinned: (selector.is_model_name() && candidates.len() == 1).then_some(0),
        prefers: candidates
            .iter()
            .any(|offer| offer.traits.platform == PREFERRED_PLATFORM)
            .then_some(PREFERRED_PLATFORM),
    }
}

fn rank_offers(
    question: Question,
    candidates: &[RouterCandidate],
) -> Result<Vec<RouteDecision>, UnsealedFailure> {
    rank_candidates(question, &candidates.iter().map(|offered| &offered.traits).collect::<Vec<_>>())
}

/// Returns the offers other than the avoided ones. After a prompt that was too long for a model,
/// only one with a known larger context is an alternative.
fn exclude_avoided<'a>(
    offers: &[(ModelOffer, &'a CatalogEntry)],
    need: &ModelRequirements,
    avoid: &[Fallback],
) -> Vec<(ModelOffer, &'a CatalogEntry)> {
    // The same model with another key is another candidate.
    let is_same = |offer: &ModelOffer, from: &Asked| {
        (&offer.provider, &offer.model, &offer.key_name) == (&from.provider, &from.model, &from.key)
    };
    let context_refusals =
        avoid.iter().filter(|fallback| fallback.reason == "provider.context_exceeded");
    let context_held = |fallback: &Fallback| {
        let known_offer = offers.iter().find(|(offer, _)| is_same(offer, &fallback.from));
        known_offer.and_then(|(offer, _)| offer.context_tokens).unwrap_or(need.input_tokens)
    };
    let too_small = context_refusals.map(context_held).max();
    let is_larger = |offer: &ModelOffer| match too_small {
        Some(least) => offer.context_tokens.is_some_and(|context| context > least),
        None => true,
    };
    let is_other =
        |offer: &ModelOffer| !avoid.iter().any(|fallback| is_same(offer, &fallback.from));
    let others = offers.iter().filter(|(offer, _)| is_other(offer) && is_larger(offer));
    others.map(|(offer, entry)| (offer.clone(), *entry)).collect()
}

/// Returns the failure for offers of which none is usable.
fn no_usable_offer_failure(
    wanted: &str,
    need: &ModelRequirements,
    offers: &[(ModelOffer, &CatalogEntry)],
    decisions: &[RouteDecision],
) -> UnsealedFailure {
    let has_reason = |reason| decisions.iter().any(|decision| decision.reason == reason);
    if has_reason(RouteReason::ContextTooSmall) {
        let largest = offers.iter().filter_map(|(offer, _)| offer.context_tokens).max();
        let (input, output) = (need.input_tokens, need.output_tokens);
        let message = format!(
            "the prompt has about {input} tokens and the answer up to {output}, but the models for \
             `{wanted}` hold at most {}: shorten the prompt or use another model",
            largest.unwrap_or(0)
        );
        return model_failure("provider.context_exceeded", message);
    }
    let reason_text =
        decisions.first().map_or("none is left", |decision| reason_text(decision.reason));
    model_failure(
        "provider.unavailable",
        format!("no model for `{wanted}` can be used: {reason_text}"),
    )
}

fn model_failure(code: &'static str, message: impl Into<String>) -> UnsealedFailure {
    ModelError::new(code, false, message).into_failure()
}
