//! The choice of a model for a call: the catalogue's offers are put in order by the kernel's
//! router, and the first is taken.

use std::sync::Arc;

use convergio_domain::chat::Privacy;
use convergio_domain::failure::UnsealedFailure;
use convergio_domain::run::{Candidate as Asked, Fallback, Offered, Platform};
use convergio_kernel_c::{Decision, ProviderClass, Reason};

use super::catalog::{Entry, Found, ModelCatalog, Offer, Wanted};
use super::chat::Provider;
use super::config::ProviderConfig;
use super::error::ModelError;
use super::verdict::{Asked as Question, Routed, judge, offered, print, reason};

/// The platform that makes the most of this machine's hardware.
const PREFERRED: Platform =
    if cfg!(target_os = "macos") { Platform::Mlx } else { Platform::Ollama };
/// Maximum names of models that a message lists.
const NAMES_LIMIT: usize = 8;

/// The requirements of a call, which a model must meet.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Need {
    /// Estimated tokens of the prompt, tools included.
    pub input_tokens: u64,
    /// Maximum tokens of the answer.
    pub output_tokens: u32,
    /// The farthest that the prompt may travel.
    pub privacy: Privacy,
    /// True if the model's server would have to fetch parts of the prompt by URL.
    pub fetches: bool,
}

/// The chosen model and the reason for the choice.
#[derive(Clone)]
pub struct Choice {
    /// The provider to call.
    pub provider: Arc<dyn Provider>,
    /// The model's name, as the provider writes it.
    pub model: String,
    /// The router's reason, in the log's words.
    pub route: String,
    /// Name of the key with which the provider is called.
    pub key: Option<String>,
    /// Context window in tokens, input and output together, if known.
    pub context_tokens: Option<u64>,
    /// Maximum tokens of an answer, if known.
    pub max_output_tokens: Option<u32>,
    /// True if the model runs on machines of the user or the operator.
    pub is_local: bool,
    /// The router's question and candidates, for the log.
    pub(crate) routed: Routed,
}

impl ModelCatalog {
    /// Returns the models that a call may go to, in order: the deployments behind an alias, then
    /// the caller's own fallbacks. `chance` selects by the weights of aliases; the same value gives
    /// the same order.
    pub fn expand_models(&self, wanted: &str, fallbacks: &[String], chance: u64) -> Vec<String> {
        let mut models: Vec<String> = Vec::new();
        for name in std::iter::once(wanted).chain(fallbacks.iter().map(String::as_str)) {
            // A name that is no alias stands for itself.
            let targets = self.aliases().targets(name, chance).unwrap_or_else(|| vec![name]);
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
    pub(crate) fn check_names(&self, models: &[String]) -> Result<(), UnsealedFailure> {
        match models.iter().find(|model| !self.wanted(model).is_name()) {
            None => Ok(()),
            Some(model) => {
                let message = format!(
                    "`{model}` leaves the choice of a model: name one that does what is asked for"
                );
                Err(failure("request.invalid", message))
            }
        }
    }

    /// Chooses the best model for a manifest's `model`: `auto`, `local`, a provider's name, a
    /// model's name or `PROVIDER/MODEL`.
    ///
    /// # Errors
    /// No model can be used; the message says what to do.
    pub async fn choose(&self, wanted: &str, need: &Need) -> Result<Choice, UnsealedFailure> {
        self.choose_after(&[wanted.to_owned()], need, &[]).await
    }

    /// Chooses the best model of the first of `models` that offers one, avoiding the candidates
    /// that have handed this step on. If there is no other, one of those is chosen again.
    ///
    /// # Errors
    /// As those of [`ModelCatalog::choose_model`], for the first name.
    pub async fn choose_after(
        &self,
        models: &[String],
        need: &Need,
        avoid: &[Fallback],
    ) -> Result<Choice, UnsealedFailure> {
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
        Err(first_error.unwrap_or_else(|| failure("request.invalid", "no model is named")))
    }

    /// Chooses the best model of one name; `None` if all of its offers are to be avoided.
    async fn choose_one(
        &self,
        wanted: &str,
        need: &Need,
        avoid: &[Fallback],
    ) -> Result<Option<Choice>, UnsealedFailure> {
        let wish = self.wanted(wanted);
        // The stricter level holds: a request cannot loosen the server's.
        let privacy = need.privacy.max(self.privacy());
        if privacy == Privacy::Local && need.fetches {
            let message = "privacy is `local`, and a picture would be fetched by its URL: send its \
                bytes; nothing was sent";
            return Err(failure("privacy.cloud_denied", message));
        }
        let mut found = self.find(wish, privacy).await;
        if found.offers.is_empty() {
            return Err(match self.denied(wanted, wish, privacy) {
                Some(denied) => denied,
                None => self.nothing(wanted, wish, privacy, found).await,
            });
        }
        if !avoid.is_empty() {
            found.offers = others(&found.offers, need, avoid);
            if found.offers.is_empty() {
                return Ok(None);
            }
        }
        let offered: Vec<Offered> = found.offers.iter().map(|(offer, _)| offered(offer)).collect();
        let asked = asked(need, wish, privacy, &offered);
        let decisions = verdicts(asked, &offered)?;
        // The router sorts accepted candidates first.
        let best = decisions.first().filter(|decision| decision.accepted);
        let best = best.and_then(|best| Some((found.offers.get(best.index as usize)?, best)));
        let Some(((offer, entry), decision)) = best else {
            return Err(unfit(wanted, need, &found.offers, &decisions));
        };
        Ok(Some(Choice {
            provider: Arc::clone(&entry.provider) as Arc<dyn Provider>,
            model: offer.model.clone(),
            route: reason(decision.reason).to_owned(),
            key: offer.key.clone(),
            context_tokens: offer.context_tokens,
            max_output_tokens: offer.max_output_tokens,
            is_local: offer.class == ProviderClass::Local,
            routed: Routed { asked, verdicts: print(&decisions), offered },
        }))
    }

    /// Returns whether there is a healthy alternative among `models` besides the avoided
    /// candidates.
    pub async fn has_other(&self, models: &[String], need: &Need, avoid: &[Fallback]) -> bool {
        for wanted in models {
            if self.has_other_of(wanted, need, avoid).await {
                return true;
            }
        }
        false
    }

    async fn has_other_of(&self, wanted: &str, need: &Need, avoid: &[Fallback]) -> bool {
        let wish = self.wanted(wanted);
        let privacy = need.privacy.max(self.privacy());
        let offers = self.find(wish, privacy).await.offers;
        let mut offers = others(&offers, need, avoid);
        offers.retain(|(offer, _)| offer.healthy);
        let offered: Vec<Offered> = offers.iter().map(|(offer, _)| offered(offer)).collect();
        let asked = asked(need, wish, privacy, &offered);
        let decisions = verdicts(asked, &offered).unwrap_or_default();
        decisions.first().is_some_and(|decision| decision.accepted)
    }

    /// Returns whether a call may be repeated with the candidate that failed.
    pub fn is_healthy(&self, asked: &Asked) -> bool {
        let mut entries = self.entries();
        let is = |info: &ProviderConfig| {
            info.name == asked.provider && info.key_name() == asked.key.as_deref()
        };
        entries.any(|entry| is(entry.provider.info()) && entry.provider.is_healthy())
    }

    /// Returns the failure that privacy caused, if it is the reason for having no offer.
    fn denied(&self, wanted: &str, wish: Wanted<'_>, privacy: Privacy) -> Option<UnsealedFailure> {
        if privacy == Privacy::Any {
            return None;
        }
        // Ollama serves its own cloud's models behind a local address.
        let is_cloud_name = |model: &str| model.ends_with("-cloud") || model.ends_with(":cloud");
        let why = match wish {
            Wanted::Model(_, model) | Wanted::Anywhere(model) if is_cloud_name(model) => {
                "it runs in Ollama's cloud"
            }
            _ if self.has_private(wish) => return None,
            _ if self.has_unconfirmed(wish) => {
                "the model server that was found is another user's: confirm it once by `convergio \
                 models trust URL`"
            }
            Wanted::Any | Wanted::Local => {
                "no model server has a loopback address, or another of this network in digits"
            }
            _ => "its provider is not on this machine, or its name would have to be looked up",
        };
        let message =
            format!("privacy is `local`, and `{wanted}` cannot be used: {why}; nothing was sent");
        Some(failure("privacy.cloud_denied", message))
    }

    /// Returns the failure for a name without any offer, with the names that would do.
    async fn nothing(
        &self,
        wanted: &str,
        wish: Wanted<'_>,
        privacy: Privacy,
        found: Found<'_>,
    ) -> UnsealedFailure {
        if self.is_empty() {
            let message = "no model is available: start Ollama, a llama.cpp server or an MLX \
                server, run `convergio models install`, or set OPENAI_API_KEY";
            return failure("provider.unavailable", message);
        }
        // A provider whose list failed may have the model, so its error comes first: it may be
        // retried.
        if let Some(error) = found.errors.into_iter().next() {
            return error.into_failure();
        }
        let provider = match wish {
            Wanted::Model(name, _) | Wanted::Provider(name) => name,
            _ => "",
        };
        // Names of the same provider's other models help against a typing error.
        let siblings = self.find(Wanted::Provider(provider), privacy).await.offers;
        let siblings: Vec<&str> =
            siblings.iter().map(|(offer, _)| offer.model.as_str()).take(NAMES_LIMIT).collect();
        let has = if siblings.is_empty() {
            format!("the providers are {}", self.names().join(", "))
        } else {
            format!("{provider} has {}", siblings.join(", "))
        };
        let message = format!("no model matches `{wanted}`: {has} (see `convergio models`)");
        failure("model.not_found", message)
    }
}

/// Builds the question to the router. A single model that was named is pinned: it is not compared
/// with others.
fn asked(need: &Need, wish: Wanted<'_>, privacy: Privacy, offered: &[Offered]) -> Question {
    Question {
        tokens_in: need.input_tokens,
        tokens_out: u64::from(need.output_tokens),
        local: privacy == Privacy::Local,
        pinned: (wish.is_name() && offered.len() == 1).then_some(0),
        prefers: offered
            .iter()
            .any(|offer| offer.traits.platform == PREFERRED)
            .then_some(PREFERRED),
    }
}

fn verdicts(asked: Question, offered: &[Offered]) -> Result<Vec<Decision>, UnsealedFailure> {
    judge(asked, &offered.iter().map(|offered| &offered.traits).collect::<Vec<_>>())
}

/// Returns the offers other than the avoided ones. After a prompt that was too long for a model,
/// only one with a known larger context is an alternative.
fn others<'a>(
    offers: &[(Offer, &'a Entry)],
    need: &Need,
    avoid: &[Fallback],
) -> Vec<(Offer, &'a Entry)> {
    // The same model with another key is another candidate.
    let is = |offer: &Offer, from: &Asked| {
        (&offer.provider, &offer.model, &offer.key) == (&from.provider, &from.model, &from.key)
    };
    let refused = avoid.iter().filter(|fallback| fallback.reason == "provider.context_exceeded");
    let held = |fallback: &Fallback| {
        let known = offers.iter().find(|(offer, _)| is(offer, &fallback.from));
        known.and_then(|(offer, _)| offer.context_tokens).unwrap_or(need.input_tokens)
    };
    let too_small = refused.map(held).max();
    let is_larger = |offer: &Offer| match too_small {
        Some(least) => offer.context_tokens.is_some_and(|context| context > least),
        None => true,
    };
    let is_other = |offer: &Offer| !avoid.iter().any(|fallback| is(offer, &fallback.from));
    let others = offers.iter().filter(|(offer, _)| is_other(offer) && is_larger(offer));
    others.map(|(offer, entry)| (offer.clone(), *entry)).collect()
}

/// Returns the failure for offers of which none is usable.
fn unfit(
    wanted: &str,
    need: &Need,
    offers: &[(Offer, &Entry)],
    decisions: &[Decision],
) -> UnsealedFailure {
    let is = |reason| decisions.iter().any(|decision| decision.reason == reason);
    if is(Reason::ContextTooSmall) {
        let largest = offers.iter().filter_map(|(offer, _)| offer.context_tokens).max();
        let (input, output) = (need.input_tokens, need.output_tokens);
        let message = format!(
            "the prompt has about {input} tokens and the answer up to {output}, but the models for \
             `{wanted}` hold at most {}: shorten the prompt or use another model",
            largest.unwrap_or(0)
        );
        return failure("provider.context_exceeded", message);
    }
    let why = decisions.first().map_or("none is left", |decision| reason(decision.reason));
    failure("provider.unavailable", format!("no model for `{wanted}` can be used: {why}"))
}

fn failure(code: &'static str, message: impl Into<String>) -> UnsealedFailure {
    ModelError::new(code, false, message).into_failure()
}
