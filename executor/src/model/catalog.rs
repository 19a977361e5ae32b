//! Which models there are: those of all configured providers, as candidates for the router.

use std::sync::Arc;
use std::time::{Duration, Instant};

use convergio_domain::chat::{ModelLimit, ModelLimits, Privacy};
use convergio_domain::id::TenantId;
use convergio_domain::metering::{Meter, PriceBook, PriceQuery};
use convergio_eventstore::{Clock, SystemClock};
use convergio_kernel_c::{Capabilities, Platform, ProviderClass};
use futures_util::future::join_all;
use tokio::sync::Mutex;

use super::alias::Aliases;
use super::chat::Provider;
use super::config::{ModelInfo, ProviderConfig};
use super::error::ModelError;
use super::http::HttpProvider;
use super::policy::PrivacyPolicy;
use super::watched::Watched;

/// How long a list of models is good for.
const FRESH: Duration = Duration::from_secs(30);
/// How long a cloud that cannot be asked is not asked again: every step would wait for it.
const ABSENT: Duration = Duration::from_secs(30);
/// The same for a server on one's own machine, which may be about to start.
const ABSENT_LOCAL: Duration = Duration::from_millis(500);
/// The quality of a model of which nothing is known.
const QUALITY: u32 = 500;

/// A model that could answer.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Offer {
    /// The provider's name.
    pub provider: String,
    /// The model, as the provider writes it.
    pub model: String,
    /// Where it computes.
    pub class: ProviderClass,
    /// What serves it.
    pub platform: Platform,
    /// Tokens of input and output together, when known.
    pub context_tokens: Option<u64>,
    /// Most tokens of an answer, when known.
    pub max_output_tokens: Option<u32>,
    /// Price of an input token, in 1e-15 currency units; absent when the model is unpriced.
    pub price_in: Option<u64>,
    /// Price of an output token, likewise.
    pub price_out: Option<u64>,
    /// What it can do.
    pub capabilities: Capabilities,
    /// The name of the key that it is asked with.
    pub key: Option<String>,
    /// False when it failed lately.
    pub healthy: bool,
    /// From 0 to 1000: a guess by the number of parameters in its name.
    pub quality: u32,
}

/// All providers of this process.
pub struct ModelCatalog {
    entries: Vec<Entry>,
    prices: Arc<PriceBook>,
    limits: ModelLimits,
    aliases: Aliases,
    policy: PrivacyPolicy,
}

/// A provider, and what it answered when it was last asked for its models.
pub(super) struct Entry {
    pub(super) provider: Arc<Watched>,
    listed: Mutex<Option<Listed>>,
}

struct Listed {
    until: Instant,
    answer: Result<Vec<ModelInfo>, ModelError>,
}

/// What could be found, and why there is not more.
#[derive(Default)]
pub(super) struct Found<'a> {
    pub(super) offers: Vec<(Offer, &'a Entry)>,
    pub(super) errors: Vec<ModelError>,
}

/// What a manifest's `model` asks for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Wanted<'a> {
    /// `auto`: any model that chats.
    Any,
    /// Every model, for who lists them.
    Every,
    /// `local`: any model on machines of the person or the operator.
    Local,
    /// `PROVIDER`: any model of it.
    Provider(&'a str),
    /// `PROVIDER/MODEL`: this one.
    Model(&'a str, &'a str),
    /// `MODEL`: this one, at whoever has it.
    Anywhere(&'a str),
}

impl<'a> Wanted<'a> {
    pub(super) fn parse(text: &'a str) -> Self {
        match text.split_once('/') {
            Some((provider, model)) => Self::Model(provider, model),
            None if text == "auto" => Self::Any,
            None if text == "local" => Self::Local,
            None => Self::Provider(text),
        }
    }

    fn takes_provider(self, config: &ProviderConfig) -> bool {
        match self {
            Self::Any | Self::Every | Self::Anywhere(_) => config.missing_key().is_none(),
            Self::Local => config.class == ProviderClass::Local,
            Self::Provider(name) | Self::Model(name, _) => config.name == name,
        }
    }

    /// What does something else than chat is never chosen.
    fn takes_model(self, model: &ModelInfo) -> bool {
        self.is_name() || self == Self::Every || !model.is_no_chat
    }

    /// Whether it is a model's name.
    pub(super) fn is_name(self) -> bool {
        matches!(self, Self::Model(..) | Self::Anywhere(_))
    }

    /// A cloud lists models for every purpose: without a name, those with a price are meant.
    fn takes_offer(self, offer: &Offer, is_configured: bool) -> bool {
        let is_known =
            offer.class == ProviderClass::Local || offer.price_in.is_some() || is_configured;
        match self {
            Self::Model(_, model) | Self::Anywhere(model) => {
                // Ollama's names without a tag mean the latest.
                offer.model == model || offer.model.strip_suffix(":latest") == Some(model)
            }
            Self::Every => true,
            _ => is_known,
        }
    }
}

impl ModelCatalog {
    /// A catalogue of these providers.
    ///
    /// # Errors
    /// A provider's URL is not one, or the machine has no usable TLS.
    pub fn new(configs: Vec<ProviderConfig>, prices: Arc<PriceBook>) -> Result<Self, ModelError> {
        let entry = |config| {
            let provider = Arc::new(Watched::new(HttpProvider::new(config)?));
            Ok(Entry { provider, listed: Mutex::new(None) })
        };
        let entries = configs.into_iter().map(entry).collect::<Result<_, ModelError>>()?;
        let (limits, aliases) = (ModelLimits::default(), Aliases::default());
        Ok(Self { entries, prices, limits, aliases, policy: PrivacyPolicy::default() })
    }

    /// The same catalogue, which knows what models take and give at most.
    #[must_use]
    pub fn with_limits(self, limits: ModelLimits) -> Self {
        Self { limits, ..self }
    }

    /// The same catalogue with an operator's names for several deployments.
    #[must_use]
    pub fn with_aliases(self, aliases: Aliases) -> Self {
        Self { aliases, ..self }
    }

    /// The names for several deployments.
    pub fn aliases(&self) -> &Aliases {
        &self.aliases
    }

    /// The same catalogue, held to a privacy that no request can loosen.
    #[must_use]
    pub fn held_to(self, policy: PrivacyPolicy) -> Self {
        Self { policy, ..self }
    }

    /// The privacy that holds for everybody.
    pub(super) fn privacy(&self) -> Privacy {
        self.policy.all
    }

    /// The privacy that holds for a tenant whatever it asks for.
    pub fn privacy_of(&self, tenant: &TenantId) -> Privacy {
        self.policy.of(tenant)
    }

    /// Whether one of the wanted providers may be asked for what must not leave the premises.
    pub(super) fn has_private(&self, wanted: Wanted<'_>) -> bool {
        let is_wanted = |entry: &&Entry| wanted.takes_provider(entry.provider.info());
        self.entries.iter().filter(is_wanted).any(|entry| entry.provider.is_private())
    }

    /// Whether one of the wanted providers would be private if it were confirmed.
    pub(super) fn has_unconfirmed(&self, wanted: Wanted<'_>) -> bool {
        let mut infos = self.entries.iter().map(|entry| entry.provider.info());
        infos.any(|info| info.is_unconfirmed && wanted.takes_provider(info))
    }

    /// The providers, to be managed rather than chosen from.
    pub fn providers(&self) -> impl Iterator<Item = Arc<dyn Provider>> {
        self.entries.iter().map(|entry| Arc::clone(&entry.provider) as Arc<dyn Provider>)
    }

    /// The models that a tenant can name: those without a price, and what does not chat, too.
    pub async fn offers(&self, tenant: &TenantId) -> Vec<Offer> {
        let found = self.find(Wanted::Every, self.privacy_of(tenant)).await;
        found.offers.into_iter().map(|(offer, _)| offer).collect()
    }

    /// What a text asks for. Who names no provider of ours names a model.
    pub(super) fn wanted<'a>(&self, text: &'a str) -> Wanted<'a> {
        match Wanted::parse(text) {
            Wanted::Provider(name) | Wanted::Model(name, _) if !self.names().contains(&name) => {
                Wanted::Anywhere(text)
            }
            wanted => wanted,
        }
    }

    /// Whether a provider runs on machines of the person or the operator.
    pub(crate) fn is_local(&self, provider: &str) -> bool {
        let mut infos = self.entries.iter().map(|entry| entry.provider.info());
        infos.any(|info| info.name == provider && info.class == ProviderClass::Local)
    }

    /// All providers.
    pub(super) fn entries(&self) -> impl Iterator<Item = &Entry> {
        self.entries.iter()
    }

    /// Whether there is no provider at all.
    pub(super) fn is_empty(&self) -> bool {
        self.entries.is_empty()
    }

    /// The names of the providers.
    pub(super) fn names(&self) -> Vec<&str> {
        let mut names: Vec<_> = self.entries.iter().map(|entry| entry.provider.name()).collect();
        names.dedup();
        names
    }

    /// The models that are wanted, by provider in the order of the configuration. All providers
    /// are asked at once; one that does not answer does not stand in the way of the others.
    /// Who must not be told of the request is not asked either, nor is anybody at the platform's
    /// cost by those who have a key of their own.
    pub(super) async fn find(&self, wanted: Wanted<'_>, privacy: Privacy) -> Found<'_> {
        let is_wanted = |entry: &&Entry| {
            let may_be_told = privacy == Privacy::Any || entry.provider.is_private();
            may_be_told && wanted.takes_provider(entry.provider.info())
        };
        let mut entries: Vec<&Entry> = self.entries.iter().filter(is_wanted).collect();
        let has_own = entries.iter().any(|entry| entry.provider.info().is_own());
        entries.retain(|entry| entry.provider.info().owner.may_pay(has_own));
        let lists = join_all(entries.iter().map(|entry| entry.models(privacy))).await;
        let mut found = Found::default();
        for (entry, list) in entries.into_iter().zip(lists) {
            let config = entry.provider.info();
            let offer = |model: &ModelInfo| self.offer(entry, model);
            match list {
                Err(error) => found.errors.push(error),
                Ok(models) => {
                    let is_configured = !config.models.is_empty();
                    let models = models.iter().filter(|model| wanted.takes_model(model));
                    let is_taken = |offer: &Offer| wanted.takes_offer(offer, is_configured);
                    let (taken, others): (Vec<Offer>, Vec<Offer>) =
                        models.map(offer).partition(is_taken);
                    // Who names a provider means one of its models, though none has a price.
                    let is_unpriced = taken.is_empty() && matches!(wanted, Wanted::Provider(_));
                    let offers = if is_unpriced { others } else { taken };
                    found.offers.extend(offers.into_iter().map(|offer| (offer, entry)));
                }
            }
        }
        found
    }

    fn offer(&self, entry: &Entry, model: &ModelInfo) -> Offer {
        let config = entry.provider.info();
        let is_cloud = config.class == ProviderClass::Cloud;
        let price = self.prices.find(PriceQuery {
            provider: &config.name,
            model: &model.id,
            is_local: !is_cloud,
            service_tier: None,
            at: SystemClock.now(),
        });
        let limit = self.limit_of(config, model);
        let per_token = |meter| {
            let money = price?.per_token.get(&meter)?;
            Some(u64::try_from(money.scaled()).unwrap_or(u64::MAX))
        };
        let embeds = price.is_some_and(|price| !price.per_token.keys().any(|m| m.is_output()));
        // MLX's server takes a schema and ignores it.
        let json = config.platform != Platform::Mlx;
        Offer {
            provider: config.name.clone(),
            model: model.id.clone(),
            class: config.class,
            platform: config.platform,
            context_tokens: model.context_tokens.or(limit
                .map(|limit| limit.input_tokens.saturating_add(u64::from(limit.output_tokens)))),
            max_output_tokens: model.max_output_tokens.or(limit.map(|limit| limit.output_tokens)),
            price_in: per_token(Meter::InFresh),
            // What yields no tokens costs nothing for them.
            price_out: per_token(Meter::OutText).or_else(|| embeds.then_some(0)),
            capabilities: Capabilities { json, ..Capabilities::default() },
            key: config.key_name().map(str::to_owned),
            healthy: entry.provider.is_healthy(),
            quality: quality(&model.id),
        }
    }

    /// What is published of a model, or of the one that it is.
    fn limit_of(&self, config: &ProviderConfig, model: &ModelInfo) -> Option<ModelLimit> {
        let base = model.base_model.as_deref().and_then(|base| base.split_once('/'));
        let (provider, name) = base.unwrap_or((&config.name, &model.id));
        self.limits.find(provider, name)
    }
}

impl Entry {
    /// The models that may be used. A server on one's own machine is asked even when its models
    /// are configured: llama.cpp answers for a model that it does not have with the one it has.
    async fn models(&self, privacy: Privacy) -> Result<Vec<ModelInfo>, ModelError> {
        let config = self.provider.info();
        if let Some(missing) = config.missing_key() {
            return Err(missing);
        }
        if config.class == ProviderClass::Cloud && !config.models.is_empty() {
            return Ok(config.models.clone());
        }
        let listed = match self.listed().await {
            // A server too busy to list its models can still have them. Where they compute is not
            // known then: Ollama hands some on to its maker's cloud.
            Err(_) if !config.models.is_empty() && privacy.is_any() => {
                return Ok(config.models.clone());
            }
            listed => listed?,
        };
        if config.models.is_empty() {
            return Ok(listed);
        }
        let told = |model: &ModelInfo| {
            let found = listed.iter().find(|listed| listed.id == model.id)?;
            let context_tokens = model.context_tokens.or(found.context_tokens);
            Some(ModelInfo { context_tokens, ..model.clone() })
        };
        Ok(config.models.iter().filter_map(told).collect())
    }

    /// The provider's list, asked for by one caller at a time. An old list is better than none.
    async fn listed(&self) -> Result<Vec<ModelInfo>, ModelError> {
        let mut listed = self.listed.lock().await;
        if let Some(listed) = listed.as_ref().filter(|listed| Instant::now() < listed.until) {
            return listed.answer.clone();
        }
        let is_local = self.provider.info().class == ProviderClass::Local;
        let (asked, old) = (self.provider.models().await, listed.take());
        let span = match &asked {
            Ok(_) => FRESH,
            Err(_) if is_local => ABSENT_LOCAL,
            Err(_) => ABSENT,
        };
        let answer = asked.or_else(|error| old.map_or(Err(error), |old| old.answer));
        *listed = Some(Listed { until: Instant::now() + span, answer: answer.clone() });
        answer
    }
}

/// A guess at how able a model is, for want of better: each doubling of its parameters counts the
/// same. `smollm2-135m` is 350, `qwen3:8b` 600, `llama-3.3-70b` 800.
fn quality(id: &str) -> u32 {
    let id = id.to_lowercase();
    let words = id.split(|letter: char| !letter.is_ascii_alphanumeric() && letter != '.');
    let millions = words.filter_map(millions).max();
    millions.map_or(QUALITY, |millions| (millions.max(1).ilog2() * 50).min(1000))
}

/// A number of parameters in millions, as `135m`, `1.5b` or `e4b` say it.
fn millions(word: &str) -> Option<u64> {
    let word = word.trim_start_matches('e');
    let (number, unit) = word.split_at_checked(word.len().checked_sub(1)?)?;
    let (whole, tenth) = number.split_once('.').unwrap_or((number, "0"));
    let (whole, tenth): (u64, u64) = (whole.parse().ok()?, tenth.parse().ok()?);
    match unit {
        "m" => Some(whole),
        "b" if tenth < 10 => whole.checked_mul(1000)?.checked_add(tenth * 100),
        _ => None,
    }
}

#[cfg(test)]
mod tests {
    use super::{Wanted, quality};

    #[test]
    fn quality_follows_the_parameters_in_the_name() {
        let cases = [
            ("smollm2-135m", 350),
            ("qwen3:8b", 600),
            ("Qwen2.5-1.5B-Instruct", 500),
            ("llama-3.3-70b-instruct-q4", 800),
            ("mlx-community/gemma-3n-E4B-it", 550),
            ("llama3.2:latest", 500),
            ("99999999999999999999b", 500),
            ("18446744073709551615b", 500),
            ("é", 500),
            ("", 500),
        ];
        for (id, expected) in cases {
            assert_eq!(quality(id), expected, "{id}");
        }
    }

    #[test]
    fn a_models_name_may_hold_slashes() {
        assert_eq!(Wanted::parse("auto"), Wanted::Any);
        assert_eq!(Wanted::parse("local"), Wanted::Local);
        assert_eq!(Wanted::parse("openai"), Wanted::Provider("openai"));
        assert_eq!(Wanted::parse("local/a/b"), Wanted::Model("local", "a/b"));
    }
}
