//! Which providers there are.

use std::fmt;

use convergio_kernel_c::{Platform, ProviderClass};

/// A key that never shows itself: only its last four characters do.
#[derive(Clone, PartialEq, Eq)]
pub struct Secret(String);

impl Secret {
    /// Wraps a key.
    pub fn new(key: impl Into<String>) -> Self {
        Self(key.into())
    }

    /// The key itself, for the one header that carries it.
    pub(super) fn reveal(&self) -> &str {
        &self.0
    }
}

impl fmt::Debug for Secret {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let shown = self.0.len() >= 12;
        let tail: String = self.0.chars().rev().take(4).collect();
        let tail: String = if shown { tail.chars().rev().collect() } else { String::new() };
        write!(f, "…{tail}")
    }
}

/// A model of a provider.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ModelInfo {
    /// Its name, as the provider writes it.
    pub id: String,
    /// Tokens of input and output together, when known.
    pub context_tokens: Option<u64>,
}

/// A provider that speaks OpenAI's chat completions.
#[derive(Debug, Clone)]
pub struct ProviderConfig {
    /// The name used in manifests: `local`, `openai`, ...
    pub name: String,
    /// The URL up to and without `/chat/completions`.
    pub base_url: String,
    /// The key, when the provider wants one.
    pub key: Option<Secret>,
    /// Whether the model runs on the tenant's own machine.
    pub class: ProviderClass,
    /// What runs it.
    pub platform: Platform,
    /// Its models; asked of the provider when empty.
    pub models: Vec<ModelInfo>,
}

impl ProviderConfig {
    /// A server on this machine with one model.
    pub fn local(name: &str, base_url: &str, model: &str) -> Self {
        Self {
            name: name.to_owned(),
            base_url: base_url.trim_end_matches('/').to_owned(),
            key: None,
            class: ProviderClass::Local,
            platform: Platform::LlamaCpp,
            models: vec![ModelInfo { id: model.to_owned(), context_tokens: None }],
        }
    }

    /// OpenAI itself, with the tenant's own key.
    pub fn openai(key: Secret) -> Self {
        Self {
            name: "openai".to_owned(),
            base_url: "https://api.openai.com/v1".to_owned(),
            key: Some(key),
            class: ProviderClass::Cloud,
            platform: Platform::CloudApi,
            models: Vec::new(),
        }
    }
}
