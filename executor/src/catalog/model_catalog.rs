//! The catalogue of models: those of all configured providers, as candidates for the router.

use std::sync::Arc;
use std::time::{Duration, Instant};

use convergio_domain::billing::{Meter, PriceBook, PriceQuery};
use convergio_domain::chat::{ModelLimit, ModelLimitTable, Privacy};
use convergio_domain::id::TenantId;
use convergio_eventstore::{SystemClock, WallClock};
use convergio_kernel_c::{Capabilities, KernelPlatform, ProviderClass};
use futures_util::future::join_all;
use tokio::sync::Mutex;

use super::alias::ModelAliases;
use super::guarded_provider::GuardedProvider;
use super::privacy_policy::PrivacyPolicy;
use crate::provider::{HttpProvider, ModelError, ModelInfo, Provider, ProviderConfig};

/// Time for which a provider's list of models is served from the cache.
const LIST_TTL: Duration = Duration::from_secs(30);
/// Time for which a cloud provider whose list failed is not asked again: every step would wait for
/// it.
const CLOUD_LIST_RETRY: Duration = Duration::from_secs(30);
/// The same for a server on this machine, which may be starting.
const LOCAL_LIST_RETRY: Duration = Duration::from_millis(500);
/// Quality of a model whose name has no number of parameters.
const DEFAULT_QUALITY: u32 = 500;

/// A model at a provider that could answer a call.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ModelOffer {
    /// The provider's name, as in its configuration.
    pub provider: String,
    /// The model's name, as the provider writes it.
    pub model: String,
    /// Cloud, or local to the user or the operator.
    pub class: ProviderClass,
    /// The server software or cloud that runs the model.
    pub platform: KernelPlatform,
    /// Context window in tokens, input and output together, if known.
    pub context_tokens: Option<u64>,
    /// Maximum tokens of an answer, if known.
    pub max_output_tokens: Option<u32>,
    /// Price of an input token in 1e-15 units of the price book's currency; absent if the model has
    /// no price.
    pub price_in_e15: Option<u64>,
    /// Price of an output token, likewise.
    pub price_out_e15: Option<u64>,
    /// Features that the router may require of a model.
    pub capabilities: Capabilities,
    /// Name of the key with which the provider is called.
    pub key_name: Option<String>,
    /// False while the provider's breaker advises against it.
    pub healthy: bool,
    /// Rank from 0 to 1000, guessed from the number of parameters in the model's name.
    pub quality: u32,
}

/// All providers of this process, with prices, limits, aliases and the privacy policy.
pub struct ModelCatalog {
    entries: Vec<CatalogEntry>,
    prices: Arc<PriceBook>,
    limits: ModelLimitTable,
    aliases: ModelAliases,
    policy: PrivacyPolicy,
}

/// A provider with the list of models that it last gave.
pub(super) struct CatalogEntry {
    pub(super) provider: Arc<GuardedProvider>,
    cached_list: Mutex<Option<CachedModelList>>,
}

/// The cached result of a provider's list.
struct CachedModelList {
    /// Instant after which the list is fetched again.
    refresh_at: Instant,
    result: Result<Vec<ModelInfo>, ModelError>,
}

/// The offers that match a selector, and the errors of providers that could not be asked.
#[derive(Default)]
pub(super) struct CatalogMatches<'a> {
    pub(super) offers: Vec<(ModelOffer, &'a CatalogEntry)>,
    pub(super) errors: Vec<ModelError>,
}

/// A manifest's `model`, parsed.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum ModelSelector<'a> {
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

impl<'a> ModelSelector<'a> {
    /// Parses a selector by its form alone: names are not checked against the configuration.
    pub(super) fn parse(text: &'a str) -> Self {
        match text.split_once('/') {
            Some((provider, model)) => Self::Model(provider, model),
            None if text == "auto" => Self::Any,
            None if text == "local" => Self::Local,
            None => Self::Provider(text),
        }
    }

    fn matches_provider(self, config: &ProviderConfig) -> bool {
        match self {
            Self::Any | Self::Every | Self::Anywhere(_) => config.missing_key().is_none(),
            Self::Local => config.class == ProviderClass::Local,
            Self::Provider(name) | Self::Model(name, _) => config.name == name,
        }
    }

    /// Returns whether the selector may choose this model. Models that do not chat are chosen by
    /// name only.
    fn matches_model(self, model: &ModelInfo) -> bool {
        self.is_model_name() || self == Self::Every || !model.is_non_chat
    }

    /// Returns whether the selector names a single model.
    pub(super) fn is_model_name(self) -> bool {
        matches!(self, Self::Model(..) | Self::Anywhere(_))
    }

    /// Returns whether the selector matches the offer. Clouds list models for every purpose:
    /// without a model's name only those with a price or in the configuration are meant.
    fn matches_offer(self, offer: &ModelOffer, is_configured: bool) -> bool {
        let is_known =
            offer.class == ProviderClass::Local || offer.price_in_e15.is_some() || is_configured;
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
            let provider = Arc::new(GuardedProvider::new(HttpProvider::new(config)?));
            Ok(CatalogEntry { provider, cached_list: Mutex::new(None) })
        };
        let entries = configs.into_iter().map(entry).collect::<Result<_, ModelError>>()?;
        let (limits, aliases) = (ModelLimitTable::default(), ModelAliases::default());
        Ok(Self { entries, prices, limits, aliases, policy: PrivacyPolicy::default() })
    }

    /// Returns the catalogue with published token limits of models.
    #[must_use]
    pub fn with_limits(self, limits: ModelLimitTable) -> Self {
        Self { limits, ..self }
    }

    /// Returns the catalogue with the operator's aliases.
    #[must_use]
    pub fn with_aliases(self, aliases: ModelAliases) -> Self {
        Self { aliases, ..self }
    }

    /// Returns the operator's aliases.
    pub fn model_aliases(&self) -> &ModelAliases {
        &self.aliases
    }

    /// Returns the catalogue with a privacy policy that no request can loosen.
    #[must_use]
    pub fn with_privacy_policy(self, policy: PrivacyPolicy) -> Self {
        Self { policy, ..self }
    }

    /// Returns the privacy level that holds for every tenant.
    pub(super) fn server_privacy(&self) -> Privacy {
        self.policy.server_level
    }

    /// Returns the lowest privacy level that a tenant's requests get, whatever they ask for.
    pub fn tenant_privacy(&self, tenant: &TenantId) -> Privacy {
        self.policy.level_for(tenant)
    }

    /// Returns whether one of the selected providers may receive prompts that must stay on the
    /// premises.
    pub(super) fn has_private_provider(&self, selector: ModelSelector<'_>) -> bool {
        let is_selected =
            |entry: &&CatalogEntry| selector.matches_provider(entry.provider.provider_config());
        self.entries.iter().filter(is_selected).any(|entry| entry.provider.is_private())
    }

    /// Returns whether one of the selected providers would be private if an operator confirmed it.
    pub(super) fn has_unconfirmed_provider(&self, selector: ModelSelector<'_>) -> bool {
        let mut infos = self.entries.iter().map(|entry| entry.provider.provider_config());
        infos.any(|info| info.is_unconfirmed && selector.matches_provider(info))
    }

    /// Returns all providers, for managing them rather than choosing among them.
    pub fn all_providers(&self) -> impl Iterator<Item = Arc<dyn Provider>> {
        self.entries.iter().map(|entry| Arc::clone(&entry.provider) as Arc<dyn Provider>)
    }

    /// Lists every model that a tenant can name, including models without a price and models that
    /// do not chat.
    pub async fn list_offers(&self, tenant: &TenantId) -> Vec<ModelOffer> {
        let matches = self.find_offers(ModelSelector::Every, self.tenant_privacy(tenant)).await;
        matches.offers.into_iter().map(|(offer, _)| offer).collect()
    }

    /// Parses a selector. A text that begins with no configured provider's name is taken as the
    /// name of a model, which may contain slashes.
    pub(super) fn parse_selector<'a>(&self, text: &'a str) -> ModelSelector<'a> {
        match ModelSelector::parse(text) {
            ModelSelector::Provider(name) | ModelSelector::Model(name, _)
                if !self.provider_names().contains(&name) =>
            {
                ModelSelector::Anywhere(text)
            }
            wanted => wanted,
        }
    }

    /// Returns whether a provider runs on machines of the user or the operator.
    pub(crate) fn is_local(&self, provider: &str) -> bool {
        let mut infos = self.entries.iter().map(|entry| entry.provider.provider_config());
        infos.any(|info| info.name == provider && info.class == ProviderClass::Local)
    }

    /// Returns all providers with their cached lists.
    pub(super) fn catalog_entries(&self) -> impl Iterator<Item = &CatalogEntry> {
        self.entries.iter()
    }

    /// Returns whether no provider is configured.
    pub(super) fn is_empty(&self) -> bool {
        self.entries.is_empty()
    }

    /// Returns the names of the providers, in the order of the configuration.
    pub(super) fn provider_names(&self) -> Vec<&str> {
        let mut names: Vec<_> = self.entries.iter().map(|entry| entry.provider.name()).collect();
        names.dedup();
        names
    }

    /// Finds the offers that match a selector, by provider in the order of the configuration.
    ///
    /// All providers are asked for their models at once; one that fails does not hide the others.
    /// With a privacy other than `any` only private providers are asked. Callers with a key of
    /// their own never fall back to providers at the platform's cost.
    pub(super) async fn find_offers(
        &self,
        selector: ModelSelector<'_>,
        privacy: Privacy,
    ) -> CatalogMatches<'_> {
        let is_selected = |entry: &&CatalogEntry| {
            let is_admissible = privacy == Privacy::Any || entry.provider.is_private();
            is_admissible && selector.matches_provider(entry.provider.provider_config())
        };
        let mut entries: Vec<&CatalogEntry> = self.entries.iter().filter(is_selected).collect();
        // Judged over the providers that match: a key for another provider does not exclude the
        // platform's.
        let has_own_key =
            entries.iter().any(|entry| entry.provider.provider_config().is_paid_by_caller());
        entries.retain(|entry| entry.provider.provider_config().owner.may_pay(has_own_key));
        // Concurrently: a provider that is slow to answer would otherwise add its time to every
        // choice.
        let lists = join_all(entries.iter().map(|entry| entry.usable_models(privacy))).await;
        let mut matches = CatalogMatches::default();
        for (entry, list) in entries.into_iter().zip(lists) {
            let config = entry.provider.provider_config();
            let offer = |model: &ModelInfo| self.build_offer(entry, model);
            match list {
                Err(error) => matches.errors.push(error),
                Ok(models) => {
                    let is_configured = !config.models.is_empty();
                    // Kind first, then name and price: prices are looked up for matching models
                    // only.
                    let models = models.iter().filter(|model| selector.matches_model(model));
                    let is_match =
                        |offer: &ModelOffer| selector.matches_offer(offer, is_configured);
                    let (matching, unpriced): (Vec<ModelOffer>, Vec<ModelOffer>) =
                        models.map(offer).partition(is_match);
                    // A selector that names only a provider means one of its models, even if none
                    // has a price.
                    let is_unpriced =
                        matching.is_empty() && matches!(selector, ModelSelector::Provider(_));
                    let offers = if is_unpriced { unpriced } else { matching };
                    matches.offers.extend(offers.into_iter().map(|offer| (offer, entry)));
                }
            }
        }
        matches
    }

    /// Builds the offer of one model: price by the price book, limits by the provider or else as
    /// published.
    fn build_offer(&self, entry: &CatalogEntry, model: &ModelInfo) -> ModelOffer {
        let config = entry.provider.provider_config();
        let is_cloud = config.class == ProviderClass::Cloud;
        let price = self.prices.find_price(PriceQuery {
            provider: &config.name,
            model: &model.id,
            is_local: !is_cloud,
            service_tier: None,
            at: SystemClock.now(),
        });
        let limit = self.published_limit(config, model);
        let per_token = |meter| {
            let money = price?.per_token.get(&meter)?;
            Some(u64::try_from(money.as_scaled()).unwrap_or(u64::MAX))
        };
        // A price without any output meter is that of an embedding model.
        let embeds = price.is_some_and(|price| !price.per_token.keys().any(|m| m.is_output()));
        // MLX's server accepts a schema and ignores it, so it must not be chosen for one.
        let takes_schema = config.platform != KernelPlatform::Mlx;
        ModelOffer {
            provider: config.name.clone(),
            model: model.id.clone(),
            class: config.class,
            platform: config.platform,
            context_tokens: model.context_tokens.or(limit
                .map(|limit| limit.input_tokens.saturating_add(u64::from(limit.output_tokens)))),
            max_output_tokens: model.max_output_tokens.or(limit.map(|limit| limit.output_tokens)),
            price_in_e15: per_token(Meter::InFresh),
            // Embedding models have no output tokens and therefore no price of them: absent would
            // read as unknown.
            price_out_e15: per_token(Meter::OutText).or_else(|| embeds.then_some(0)),
            capabilities: Capabilities { json: takes_schema, ..Capabilities::default() },
            key_name: config.key_name().map(str::to_owned),
            healthy: entry.provider.is_healthy(),
            quality: guess_quality(&model.id),
        }
    }

    /// Returns the published limits of a model, or of the base model of a deployment.
    fn published_limit(&self, config: &ProviderConfig, model: &ModelInfo) -> Option<ModelLimit> {
        let base = model.base_model.as_deref().and_then(|base| base.split_once('/'));
        // A deployment's own name means nothing to the published limits.
        let (provider, name) = base.unwrap_or((&config.name, &model.id));
        self.limits.find_limit(provider, name)
    }
}

impl CatalogEntry {
    /// Returns the models that may be used now. A server on this machine is asked even if its
    /// models are configured: llama.cpp answers for any name with the one model that it has loaded.
    async fn usable_models(&self, privacy: Privacy) -> Result<Vec<ModelInfo>, ModelError> {
        let config = self.provider.provider_config();
        if let Some(missing) = config.missing_key() {
            return Err(missing);
        }
        if config.class == ProviderClass::Cloud && !config.models.is_empty() {
            return Ok(config.models.clone());
        }
        let listed = match self.listed_models().await {
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
        let merge_listed = |model: &ModelInfo| {
            let listed_model = listed.iter().find(|listed| listed.id == model.id)?;
            let context_tokens = model.context_tokens.or(listed_model.context_tokens);
            Some(ModelInfo { context_tokens, ..model.clone() })
        };
        Ok(config.models.iter().filter_map(merge_listed).collect())
    }

    /// Returns the provider's list from the cache, or fetches it. The lock is held meanwhile, so
    /// that concurrent callers share one request. After a failure the previous list is served.
    async fn listed_models(&self) -> Result<Vec<ModelInfo>, ModelError> {
        let mut listed = self.cached_list.lock().await;
        if let Some(listed) = listed.as_ref().filter(|listed| Instant::now() < listed.refresh_at) {
            return listed.result.clone();
        }
        let is_local = self.provider.provider_config().class == ProviderClass::Local;
        let (fetched, previous) = (self.provider.list_models().await, listed.take());
        let ttl = match &fetched {
            Ok(_) => LIST_TTL,
            Err(_) if is_local => LOCAL_LIST_RETRY,
            Err(_) => CLOUD_LIST_RETRY,
        };
        // An old list is better than none: its models are most likely still there.
        let answer = fetched.or_else(|error| previous.map_or(Err(error), |old| old.result));
        *listed =
            Some(CachedModelList { refresh_at: Instant::now() + ttl, result: answer.clone() });
        answer
    }
}

/// Guesses a model's quality from its number of parameters: each doubling counts 50. `smollm2-135m`
/// is 350, `qwen3:8b` 600, `llama-3.3-70b` 800.
fn guess_quality(id: &str) -> u32 {
    let id = id.to_lowercase();
    let words = id.split(|letter: char| !letter.is_ascii_alphanumeric() && letter != '.');
    let millions = words.filter_map(parameter_millions).max();
    // The scale ends at 1000, which is about a trillion parameters.
    millions.map_or(DEFAULT_QUALITY, |millions| (millions.max(1).ilog2() * 50).min(1000))
}

/// Parses a number of parameters, such as `135m`, `1.5b` or `e4b`, into millions.
fn parameter_millions(word: &str) -> Option<u64> {
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
    use super::{ModelSelector, guess_quality};

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
            assert_eq!(guess_quality(id), expected, "{id}");
        }
    }

    #[test]
    fn a_models_name_may_hold_slashes() {
        assert_eq!(ModelSelector::parse("auto"), ModelSelector::Any);
        assert_eq!(ModelSelector::parse("local"), ModelSelector::Local);
        assert_eq!(ModelSelector::parse("openai"), ModelSelector::Provider("openai"));
        assert_eq!(ModelSelector::parse("local/a/b"), ModelSelector::Model("local", "a/b"));
    }
}
