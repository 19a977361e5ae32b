//! Which model answers: the configured ones as candidates, put in order by the kernel's router.

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex, PoisonError};

use convergio_domain::event::run::Failure;
use convergio_domain::metering::{Meter, PriceBook};
use convergio_domain::time::Timestamp;
use convergio_kernel_c::{Candidate, Capabilities, Reason, Request, route};

use super::chat::Provider;
use super::config::{ModelInfo, ProviderConfig};
use super::error::ModelError;
use super::openai::OpenAi;

/// What a call needs of a model.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Need {
    /// Tokens that are sent, estimated high.
    pub input_tokens: u64,
    /// Most tokens of the answer.
    pub output_tokens: u32,
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
}

struct Entry {
    config: ProviderConfig,
    provider: Arc<dyn Provider>,
}

/// All providers of this process.
pub struct ModelCatalog {
    entries: Vec<Entry>,
    prices: Arc<PriceBook>,
    /// Models that providers told when they were asked.
    told: Mutex<BTreeMap<String, Vec<ModelInfo>>>,
}

impl ModelCatalog {
    /// A catalogue of these providers.
    ///
    /// # Errors
    /// The machine has no usable TLS.
    pub fn new(configs: Vec<ProviderConfig>, prices: Arc<PriceBook>) -> Result<Self, ModelError> {
        let entry = |config: ProviderConfig| {
            let provider = Arc::new(OpenAi::new(config.clone())?) as Arc<dyn Provider>;
            Ok(Entry { config, provider })
        };
        let entries = configs.into_iter().map(entry).collect::<Result<_, ModelError>>()?;
        Ok(Self { entries, prices, told: Mutex::default() })
    }

    /// The best model for a manifest's `model`: `auto`, a provider's name, or `PROVIDER/MODEL`.
    ///
    /// # Errors
    /// No model can be used; the message says what to do.
    pub async fn choose(&self, wanted: &str, need: &Need) -> Result<Choice, Failure> {
        let mut names = Vec::new();
        let mut candidates = Vec::new();
        for entry in &self.entries {
            for model in self.models(entry).await? {
                if is_wanted(wanted, &entry.config.name, &model.id) {
                    candidates.push(self.candidate(&entry.config, &model));
                    names.push((entry, model.id));
                }
            }
        }
        if candidates.is_empty() {
            return Err(none(wanted, self.entries.is_empty()));
        }
        let request = Request {
            require_local: false,
            capabilities: Capabilities::default(),
            input_tokens: need.input_tokens,
            max_output_tokens: u64::from(need.output_tokens),
            budget: None,
            complexity: 0,
            pinned: None,
            preferred_platform: None,
        };
        let decisions = route(&request, &candidates).map_err(|error| internal(&error))?;
        let best = decisions.first().filter(|decision| decision.accepted);
        let Some(best) = best else {
            let reason = decisions.first().map_or("", |decision| reason(decision.reason));
            return Err(unusable(wanted, reason));
        };
        let (entry, model) = &names[best.index as usize];
        let route = reason(best.reason).to_owned();
        Ok(Choice { provider: Arc::clone(&entry.provider), model: model.clone(), route })
    }

    async fn models(&self, entry: &Entry) -> Result<Vec<ModelInfo>, Failure> {
        let name = &entry.config.name;
        let told = self.told.lock().unwrap_or_else(PoisonError::into_inner).get(name).cloned();
        if let Some(models) = told {
            return Ok(models);
        }
        let models = entry.provider.models().await.map_err(ModelError::into_failure)?;
        let mut told = self.told.lock().unwrap_or_else(PoisonError::into_inner);
        told.insert(name.clone(), models.clone());
        Ok(models)
    }

    fn candidate(&self, config: &ProviderConfig, model: &ModelInfo) -> Candidate {
        let price = self.prices.find(&config.name, &model.id, Timestamp(i64::MAX));
        let per_token = |meter| {
            let price = price.and_then(|price| price.per_token.get(&meter));
            price.map_or(0, |money| u64::try_from(money.scaled()).unwrap_or(u64::MAX))
        };
        Candidate {
            provider_class: config.class,
            platform: config.platform,
            declared_local: false,
            healthy: true,
            capabilities: Capabilities::default(),
            price_in: per_token(Meter::InFresh),
            price_out: per_token(Meter::OutText),
            context_tokens: model.context_tokens.unwrap_or(u64::MAX),
            latency_ms: None,
            quality: 0,
        }
    }
}

fn is_wanted(wanted: &str, provider: &str, model: &str) -> bool {
    let named = wanted.split_once('/');
    wanted == "auto" || wanted == provider || named == Some((provider, model))
}

fn none(wanted: &str, is_empty: bool) -> Failure {
    let message = if is_empty {
        "no model is available: start Ollama, a llama.cpp server or an MLX server, run \
         `convergio models install`, or set OPENAI_API_KEY"
            .to_owned()
    } else {
        format!("no model matches `{wanted}`: `convergio models` lists those that are there")
    };
    Failure { code: "provider.unavailable".into(), message, retryable: false }
}

fn unusable(wanted: &str, reason: &str) -> Failure {
    let message = format!("no model for `{wanted}` can take this call: {reason}");
    Failure { code: "provider.context_exceeded".into(), message, retryable: false }
}

fn internal(error: &dyn std::fmt::Display) -> Failure {
    Failure { code: "internal".into(), message: error.to_string(), retryable: false }
}

/// The router's reason in the log's words.
fn reason(reason: Reason) -> &'static str {
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
    }
}
