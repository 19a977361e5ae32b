//! The catalogue of models: those of all configured providers, as candidates for the router.

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

/// Time for which a provider's list of models is served from the cache.
const FRESH: Duration = Duration::from_secs(30);
/// Time for which a cloud provider whose list failed is not asked again: every step would wait for
/// it.
const ABSENT: Duration = Duration::from_secs(30);
/// The same for a server on this machine, which may be starting.
const ABSENT_LOCAL: Duration = Duration::from_millis(500);
/// Quality of a model whose name has no number of parameters.
const QUALITY: u32 = 500;

/// A model at a provider that could answer a call.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Offer {
    /// The provider's name, as in its configuration.
    pub provider: String,
    /// The model's name, as the provider writes it.
    pub model: String,
    /// Cloud, or local to the user or the operator.
    pub class: ProviderClass,
    /// The server software or cloud that runs the model.
    pub platform: Platform,
    /// Context window in tokens, input and output together, if known.
    pub context_tokens: Option<u64>,
    /// Maximum tokens of an answer, if known.
    pub max_output_tokens: Option<u32>,
    /// Price of an input token in 1e-15 units of the price book's currency; absent if the model has
    /// no price.
    pub price_in: Option<u64>,
    /// Price of an output token, likewise.
    pub price_out: Option<u64>,
    /// Features that the router may require of a model.
    pub capabilities: Capabilities,
    /// Name of the key with which the provider is called.
    pub key: Option<String>,
    /// False while the provider's breaker advises against it.
    pub healthy: bool,
    /// Rank from 0 to 1000, guessed from the number of parameters in the model's name.
    pub quality: u32,
}

/// All providers of this process, with prices, limits, aliases and the privacy policy.
pub struct ModelCatalog {
    entries: Vec<Entry>,
    prices: Arc<PriceBook>,
    limits: ModelLimits,
    aliases: Aliases,
    policy: PrivacyPolicy,
}

/// A provider with the list of models that it last gave.
pub(super) struct Entry {
    pub(super) provider: Arc<Watched>,
    listed: Mutex<Option<Listed>>,
}

/// The cached result of a provider's list.
struct Listed {
    /// Instant after which the list is fetched again.
    until: Instant,
    answer: Result<Vec<ModelInfo>, ModelError>,
}

/// The offers that match a selector, and the errors of providers that could not be asked.
#[derive(Default)]
pub(super) struct Found<'a> {
    pub(super) offers: Vec<(Offer, &'a Entry)>,
    pub(super) errors: Vec<ModelError>,
}

/// A manifest's `model`, parsed.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Wanted<'a> {
    /// `auto`: any chat model.
    Any,
    /// Every model of every kind; used to list them.
    Every,
    /// `local`: any model on machines of the user or the operator.
    Local,
    /// `PROVIDER`: any chat model of this provider.
    Provider(&'a str),
    /// `PROVIDER/MODEL`: this model of this provider.
    Model(&'a str, &'a str),
    /// `MODEL`: this model, at any provider that has it.
    Anywhere(&'a str),
}

impl<'a> Wanted<'a> {
    /// Parses a selector by its form alone: names are not checked against the configuration.
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

    /// Returns whether the selector may choose this model. Models that do not chat are chosen by
    /// name only.
    fn takes_model(self, model: &ModelInfo) -> bool {
        self.is_name() || self == Self::Every || !model.is_no_chat
    }

    /// Returns whether the selector names a single model.
    pub(super) fn is_name(self) -> bool {
        matches!(self, Self::Model(..) | Self::Anywhere(_))
    }

    /// Returns whether the selector matches the offer. Clouds list models for every purpose:
    /// without a model's name only those with a price or in the configuration are meant.
    fn takes_offer(self, offer: &Offer, is_configured: bool) -> bool {
        let is_known =
            offer.class == ProviderClass::Local || offer.price_in.is_some() || is_configured;
        match self {
            Self::Model(_, model) | Self::Anywhere(model) => {
                // In Ollama a name without a tag means the tag `latest`.
                offer.model == model || offer.model.strip_suffix(":latest") == Some(model)
            }
            Self::Every => true,
            _ => is_known,
        }
    }
}

impl ModelCatalog {
    /// Creates a catalogue of these providers, without limits, aliases or a privacy policy.
    ///
    /// # Errors
    /// A provider's URL is malformed, or the machine has no usable TLS.
    pub fn new(configs: Vec<ProviderConfig>, prices: Arc<PriceBook>) -> Result<Self, ModelError> {
        let entry = |config| {
            let provider = Arc::new(Watched::new(HttpProvider::new(config)?));
            Ok(Entry { provider, listed: Mutex::new(None) })
        };
        let entries = configs.into_iter().map(entry).collect::<Result<_, ModelError>>()?;
        let (limits, aliases) = (ModelLimits::default(), Aliases::default());
        Ok(Self { entries, prices, limits, aliases, policy: PrivacyPolicy::default() })
    }

    /// Returns the catalogue with published token limits of models.
    #[must_use]
    pub fn with_limits(self, limits: ModelLimits) -> Self {
        Self { limits, ..self }
    }

    /// Returns the catalogue with the operator's aliases.
    #[must_use]
    pub fn with_aliases(self, aliases: Aliases) -> Self {
        Self { aliases, ..self }
    }

    /// Returns the operator's aliases.
    pub fn aliases(&self) -> &Aliases {
        &self.aliases
    }

    /// Returns the catalogue with a privacy policy that no request can loosen.
    #[must_use]
    pub fn held_to(self, policy: PrivacyPolicy) -> Self {
        Self { policy, ..self }
    }

    /// Returns the privacy level that holds for every tenant.
    pub(super) fn privacy(&self) -> Privacy {
        self.policy.all
    }

    /// Returns the lowest privacy level that a tenant's requests get, whatever they ask for.
    pub fn privacy_of(&self, tenant: &TenantId) -> Privacy {
        self.policy.of(tenant)
    }

    /// Returns whether one of the selected providers may receive prompts that must stay on the
    /// premises.
    pub(super) fn has_private(&self, wanted: Wanted<'_>) -> bool {
        let is_wanted = |entry: &&Entry| wanted.takes_provider(entry.provider.info());
        self.entries.iter().filter(is_wanted).any(|entry| entry.provider.is_private())
    }

    /// Returns whether one of the selected providers would be private if an operator confirmed it.
    pub(super) fn has_unconfirmed(&self, wanted: Wanted<'_>) -> bool {
        let mut infos = self.entries.iter().map(|entry| entry.provider.info());
        infos.any(|info| info.is_unconfirmed && wanted.takes_provider(info))
    }

    /// Returns all providers, for managing them rather than choosing among them.
    pub fn providers(&self) -> impl Iterator<Item = Arc<dyn Provider>> {
        self.entries.iter().map(|entry| Arc::clone(&entry.provider) as Arc<dyn Provider>)
    }

    /// Lists every model that a tenant can name, including models without a price and models that
    /// do not chat.
    pub async fn offers(&self, tenant: &TenantId) -> Vec<Offer> {
        let found = self.find(Wanted::Every, self.privacy_of(tenant)).await;
        found.offers.into_iter().map(|(offer, _)| offer).collect()
    }

    /// Parses a selector. A text that begins with no configured provider's name is taken as the
    /// name of a model, which may contain slashes.
    pub(super) fn wanted<'a>(&self, text: &'a str) -> Wanted<'a> {
        match Wanted::parse(text) {
            Wanted::Provider(name) | Wanted::Model(name, _) if !self.names().contains(&name) => {
                Wanted::Anywhere(text)
            }
            wanted => wanted,
        }
    }

    /// Returns whether a provider runs on machines of the user or the operator.
    pub(crate) fn is_local(&self, provider: &str) -> bool {
        let mut infos = self.entries.iter().map(|entry| entry.provider.info());
        infos.any(|info| info.name == provider && info.class == ProviderClass::Local)
    }

    /// Returns all providers with their cached lists.
    pub(super) fn entries(&self) -> impl Iterator<Item = &Entry> {
        self.entries.iter()
    }

    /// Returns whether no provider is configured.
    pub(super) fn is_empty(&self) -> bool {
        self.entries.is_empty()
    }

    /// Returns the names of the providers, in the order of the configuration.
    pub(super) fn names(&self) -> Vec<&str> {
        let mut names: Vec<_> = self.entries.iter().map(|entry| entry.provider.name()).collect();
        names.dedup();
        names
    }

    /// Finds the offers that match a selector, by provider in the order of the configuration.
    ///
    /// All providers are asked for their models at once; one that fails does not hide the others.
    /// With a privacy other than `any` only private providers are asked. Callers with a key of
    /// their own never fall back to providers at the platform's cost.
    pub(super) async fn find(&self, wanted: Wanted<'_>, privacy: Privacy) -> Found<'_> {
        let is_wanted = |entry: &&Entry| {
            let may_be_told = privacy == Privacy::Any || entry.provider.is_private();
            may_be_told && wanted.takes_provider(entry.provider.info())
        };
        let mut entries: Vec<&Entry> = self.entries.iter().filter(is_wanted).collect();
        // Judged over the providers that match: a key for another provider does not exclude the
        // platform's.
        let has_own = entries.iter().any(|entry| entry.provider.info().is_own());
        entries.retain(|entry| entry.provider.info().owner.may_pay(has_own));
        // Concurrently: a provider that is slow to answer would otherwise add its time to every
        // choice.
        let lists = join_all(entries.iter().map(|entry| entry.models(privacy))).await;
        let mut found = Found::default();
        for (entry, list) in entries.into_iter().zip(lists) {
            let config = entry.provider.info();
            let offer = |model: &ModelInfo| self.offer(entry, model);
            match list {
                Err(error) => found.errors.push(error),
                Ok(models) => {
                    let is_configured = !config.models.is_empty();
                    // Kind first, then name and price: prices are looked up for matching models
                    // only.
                    let models = models.iter().filter(|model| wanted.takes_model(model));
                    let is_taken = |offer: &Offer| wanted.takes_offer(offer, is_configured);
                    let (taken, others): (Vec<Offer>, Vec<Offer>) =
                        models.map(offer).partition(is_taken);
                    // A selector that names only a provider means one of its models, even if none
                    // has a price.
                    let is_unpriced = taken.is_empty() && matches!(wanted, Wanted::Provider(_));
                    let offers = if is_unpriced { others } else { taken };
                    found.offers.extend(offers.into_iter().map(|offer| (offer, entry)));
                }
            }
        }
        found
    }

    /// Builds the offer of one model: price by the price book, limits by the provider or else as
    /// published.
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
        // A price without any output meter is that of an embedding model.
        let embeds = price.is_some_and(|price| !price.per_token.keys().any(|m| m.is_output()));
        // MLX's server accepts a schema and ignores it, so it must not be chosen for one.
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
            // Embedding models have no output tokens and therefore no price of them: absent would
            // read as unknown.
            price_out: per_token(Meter::OutText).or_else(|| embeds.then_some(0)),
            capabilities: Capabilities { json, ..Capabilities::default() },
            key: config.key_name().map(str::to_owned),
            healthy: entry.provider.is_healthy(),
            quality: quality(&model.id),
        }
    }

    /// Returns the published limits of a model, or of the base model of a deployment.
    fn limit_of(&self, config: &ProviderConfig, model: &ModelInfo) -> Option<ModelLimit> {
        let base = model.base_model.as_deref().and_then(|base| base.split_once('/'));
        // A deployment's own name means nothing to the published limits.
        let (provider, name) = base.unwrap_or((&config.name, &model.id));
        self.limits.find(provider, name)
    }
}

impl Entry {
    /// Returns the models that may be used now. A server on this machine is asked even if its
    /// models are configured: llama.cpp answers for any name with the one model that it has loaded.
    async fn models(&self, privacy: Privacy) -> Result<Vec<ModelInfo>, ModelError> {
        let config = self.provider.info();
        if let Some(missing) = config.missing_key() {
            return Err(missing);
        }
        if config.class == ProviderClass::Cloud && !config.models.is_empty() {
            return Ok(config.models.clone());
        }
        let listed = match self.listed().await {
            // A server too busy to list its models may still serve them. Private requests must not
            // rely on that: whether Ollama hands a model to its maker's cloud is known from the
            // list only.
            Err(_) if !config.models.is_empty() && privacy.is_any() => {
                return Ok(config.models.clone());
            }
            listed => listed?,
        };
        if config.models.is_empty() {
            return Ok(listed);
        }
        // A configured model that the server does not list is not loaded there: it is dropped.
        let told = |model: &ModelInfo| {
            let found = listed.iter().find(|listed| listed.id == model.id)?;
            let context_tokens = model.context_tokens.or(found.context_tokens);
            Some(ModelInfo { context_tokens, ..model.clone() })
        };
        Ok(config.models.iter().filter_map(told).collect())
    }

    /// Returns the provider's list from the cache, or fetches it. The lock is held meanwhile, so
    /// that concurrent callers share one request. After a failure the previous list is served.
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
        // An old list is better than none: its models are most likely still there.
        let answer = asked.or_else(|error| old.map_or(Err(error), |old| old.answer));
        *listed = Some(Listed { until: Instant::now() + span, answer: answer.clone() });
        answer
    }
}

/// Guesses a model's quality from its number of parameters: each doubling counts 50. `smollm2-135m`
/// is 350, `qwen3:8b` 600, `llama-3.3-70b` 800.
fn quality(id: &str) -> u32 {
    let id = id.to_lowercase();
    let words = id.split(|letter: char| !letter.is_ascii_alphanumeric() && letter != '.');
    let millions = words.filter_map(millions).max();
    // The scale ends at 1000, which is about a trillion parameters.
    millions.map_or(QUALITY, |millions| (millions.max(1).ilog2() * 50).min(1000))
}

/// Parses a number of parameters, such as `135m`, `1.5b` or `e4b`, into millions.
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
