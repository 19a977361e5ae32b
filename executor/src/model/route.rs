//! Which model answers: the kernel's router puts the offers in order, the first one is taken.

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

/// What comes first on this machine: what makes most of its hardware.
const PREFERRED: Platform =
    if cfg!(target_os = "macos") { Platform::Mlx } else { Platform::Ollama };
/// Names that a message lists at most.
const NAMES_LIMIT: usize = 8;

/// What a call needs of a model.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Need {
    /// Tokens that are sent, estimated high.
    pub input_tokens: u64,
    /// Most tokens of the answer.
    pub output_tokens: u32,
    /// Where the prompt may travel.
    pub privacy: Privacy,
    /// Whether the model's server would fetch parts of the prompt by itself.
    pub fetches: bool,
}

/// The model that was chosen, and why.
#[derive(Clone)]
pub struct Choice {
    /// Who is asked.
    pub provider: Arc<dyn Provider>,
    /// The model.
    pub model: String,
    /// The router's reason.
    pub route: String,
    /// The name of the key.
    pub key: Option<String>,
    /// Tokens of input and output together, when known.
    pub context_tokens: Option<u64>,
    /// Most tokens of an answer, when known.
    pub max_output_tokens: Option<u32>,
    /// Whether it runs on machines of the person or the operator.
    pub is_local: bool,
    /// What it was chosen from.
    pub(crate) routed: Routed,
}

impl ModelCatalog {
    /// The models that a call may go to, in this order: what is behind an alias, and what the
    /// caller named besides. `chance` decides by the weights of an alias; the same one decides the
    /// same way.
    pub fn expand_models(&self, wanted: &str, fallbacks: &[String], chance: u64) -> Vec<String> {
        let mut models: Vec<String> = Vec::new();
        for name in std::iter::once(wanted).chain(fallbacks.iter().map(String::as_str)) {
            let targets = self.aliases().targets(name, chance).unwrap_or_else(|| vec![name]);
            for target in targets {
                if !models.iter().any(|model| model == target) {
                    models.push(target.to_owned());
                }
            }
        }
        models
    }

    /// Checks that these are names of models: what does not chat is not chosen.
    ///
    /// # Errors
    /// `request.invalid`: one of them leaves the choice.
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

    /// The best model for a manifest's `model`: `auto`, `local`, a provider's name, or
    /// `PROVIDER/MODEL`.
    ///
    /// # Errors
    /// No model can be used; the message says what to do.
    pub async fn choose(&self, wanted: &str, need: &Need) -> Result<Choice, UnsealedFailure> {
        self.choose_after(&[wanted.to_owned()], need, &[]).await
    }

    /// The best one of the first of these names that has one, for a step that was handed on by
    /// these; one of them again when there is no other.
    ///
    /// # Errors
    /// As those of [`ModelCatalog::choose`], for the first name.
    pub async fn choose_after(
        &self,
        models: &[String],
        need: &Need,
        avoid: &[Fallback],
    ) -> Result<Choice, UnsealedFailure> {
        let mut first_error = None;
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

    /// The best one of a name; `None` when it is among those that handed the step on.
    async fn choose_one(
        &self,
        wanted: &str,
        need: &Need,
        avoid: &[Fallback],
    ) -> Result<Option<Choice>, UnsealedFailure> {
        let wish = self.wanted(wanted);
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

    /// Whether somebody besides these would do who did not fail lately.
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

    /// Whether a call may be made again where it failed.
    pub fn is_healthy(&self, asked: &Asked) -> bool {
        let mut entries = self.entries();
        let is = |info: &ProviderConfig| {
            info.name == asked.provider && info.key_name() == asked.key.as_deref()
        };
        entries.any(|entry| is(entry.provider.info()) && entry.provider.is_healthy())
    }

    /// That privacy is why there is nothing to choose from, if it is.
    fn denied(&self, wanted: &str, wish: Wanted<'_>, privacy: Privacy) -> Option<UnsealedFailure> {
        if privacy == Privacy::Any {
            return None;
        }
        // Ollama's own cloud, behind a local address.
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

    /// Why there is nothing to choose from.
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
        // A provider that could not be asked may have what is wanted.
        if let Some(error) = found.errors.into_iter().next() {
            return error.into_failure();
        }
        let provider = match wish {
            Wanted::Model(name, _) | Wanted::Provider(name) => name,
            _ => "",
        };
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

/// What the router is asked.
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

/// The offers besides those that handed a step on. After a prompt that was too long for one, only
/// a model that is known to hold more is another.
fn others<'a>(
    offers: &[(Offer, &'a Entry)],
    need: &Need,
    avoid: &[Fallback],
) -> Vec<(Offer, &'a Entry)> {
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

/// There are models, and none of them will do.
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
