//! Which providers there are, and how they are reached.

use std::fmt;
use std::time::Duration;

use convergio_kernel_c::{Platform, ProviderClass};

use super::error::ModelError;

/// A key that never shows itself: only its last four characters do.
#[derive(Clone, PartialEq, Eq)]
pub struct Secret(String);

impl Secret {
    /// Wraps a key; white space around it, as files and shells add it, is taken off.
    pub fn new(key: impl Into<String>) -> Self {
        Self(key.into().trim().to_owned())
    }

    /// Whether there is no key in it.
    pub fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    /// The key itself, for the one header that carries it.
    pub(super) fn reveal(&self) -> &str {
        &self.0
    }
}

impl fmt::Display for Secret {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        // Four characters of a short key would be too much of it.
        let length = self.0.chars().count();
        let hidden = if length >= 12 { length - 4 } else { length };
        write!(f, "…{}", self.0.chars().skip(hidden).collect::<String>())
    }
}

impl fmt::Debug for Secret {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(self, f)
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

/// How long a provider is waited for. The whole call has a limit of its own.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Timeouts {
    /// Longest wait for a connection.
    pub connect: Duration,
    /// Longest silence once text has begun to come. Before that, reading a long prompt and
    /// reasoning are silent, and only the limit of the whole call counts.
    pub idle: Duration,
}

impl Default for Timeouts {
    fn default() -> Self {
        Self { connect: Duration::from_secs(5), idle: Duration::from_secs(60) }
    }
}

/// A provider that speaks OpenAI's chat completions.
#[derive(Debug, Clone)]
pub struct ProviderConfig {
    /// The name used in manifests and in the price book: `local`, `openai`, ...
    pub name: String,
    /// The URL up to and without `/chat/completions`.
    pub base_url: String,
    /// The key, when there is one.
    pub key: Option<Secret>,
    /// The environment variable that a key is expected in; absent when no key is needed.
    pub api_key_env: Option<String>,
    /// Whether the model runs on machines of the person or the operator.
    pub class: ProviderClass,
    /// What runs it.
    pub platform: Platform,
    /// The models that may be used; those that the provider lists when empty.
    pub models: Vec<ModelInfo>,
    /// How long it is waited for.
    pub timeouts: Timeouts,
}

impl ProviderConfig {
    /// A provider that needs no key and lists its models itself.
    pub fn keyless(name: &str, base_url: &str, class: ProviderClass, platform: Platform) -> Self {
        Self {
            name: name.to_owned(),
            base_url: base_url.trim_end_matches('/').to_owned(),
            key: None,
            api_key_env: None,
            class,
            platform,
            models: Vec::new(),
            timeouts: Timeouts::default(),
        }
    }

    /// A server on this machine with one model.
    pub fn local(name: &str, base_url: &str, model: &str) -> Self {
        let models = vec![ModelInfo { id: model.to_owned(), context_tokens: None }];
        let (class, platform) = (ProviderClass::Local, Platform::OpenAiCompatible);
        Self { models, ..Self::keyless(name, base_url, class, platform) }
    }

    /// OpenAI itself, with the tenant's own key.
    pub fn openai(key: Secret) -> Self {
        let (class, platform) = (ProviderClass::Cloud, Platform::CloudApi);
        let config = Self::keyless("openai", "https://api.openai.com/v1", class, platform);
        let key = Some(key).filter(|key| !key.is_empty());
        Self { key, api_key_env: Some("OPENAI_API_KEY".to_owned()), ..config }
    }

    /// That the key is missing, if it is.
    pub(super) fn missing_key(&self) -> Option<ModelError> {
        let variable = self.api_key_env.as_deref().filter(|_| self.key.is_none())?;
        let message = format!("{} needs a key: set {variable}", self.name);
        Some(ModelError::new("byok.missing_key", false, message))
    }
}

#[cfg(test)]
mod tests {
    use super::{ProviderConfig, Secret};

    #[test]
    fn a_key_shows_its_last_four_characters_and_never_more() {
        let key = Secret::new(" sk-proj-abcdefgh1234\n");
        assert_eq!(format!("{key} {key:?}"), "…1234 …1234");
        assert_eq!(key.reveal(), "sk-proj-abcdefgh1234");
        assert_eq!(Secret::new("short-key").to_string(), "…");
        let shown = format!("{:?}", ProviderConfig::openai(key));
        assert!(!shown.contains("abcdefgh"), "{shown}");
    }

    #[test]
    fn an_empty_key_is_a_missing_key() {
        let config = ProviderConfig::openai(Secret::new("  "));
        let error = config.missing_key().unwrap();
        assert_eq!(error.code, "byok.missing_key");
        assert!(error.message.contains("OPENAI_API_KEY"), "{}", error.message);
        assert_eq!(ProviderConfig::openai(Secret::new("sk-1")).missing_key(), None);
    }
}
