//! Which providers there are, and how they are reached.

use std::fmt;
use std::time::Duration;

use convergio_domain::run::KeyOwner;
use convergio_kernel_c::{Platform, ProviderClass};
use zeroize::Zeroizing;

use super::concurrency::DEFAULT_MAXIMUM;
use super::error::ModelError;
use super::provider_traits::ProviderTraits;

/// The newest version of Anthropic's interface; it takes no sampling parameters.
pub(super) const ANTHROPIC_VERSION: &str = "2026-10-21";

/// A key that never shows itself: only its last four characters do.
#[derive(Clone, PartialEq, Eq)]
pub struct Secret(Zeroizing<String>);

impl Secret {
    /// Wraps a key; white space around it, as files and shells add it, is taken off.
    pub fn new(key: impl Into<String>) -> Self {
        let key = Zeroizing::new(key.into());
        Self(Zeroizing::new(key.trim().to_owned()))
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

/// Parts of the names of models that do not chat.
const NOT_CHAT: [&str; 5] = ["embed", "rerank", "transcribe", "tts", "whisper"];

/// Whether a model does something else than chat, by its name.
pub(super) fn is_no_chat(id: &str) -> bool {
    let id = id.to_lowercase();
    NOT_CHAT.iter().any(|part| id.contains(part))
}

/// A model of a provider.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct ModelInfo {
    /// Its name, as the provider writes it.
    pub id: String,
    /// Tokens of input and output together, when known.
    pub context_tokens: Option<u64>,
    /// Most tokens of an answer, when known.
    pub max_output_tokens: Option<u32>,
    /// The model that it is, `PROVIDER/MODEL`, for a deployment under a name of its own.
    pub base_model: Option<String>,
    /// How it departs from its provider's ways.
    pub traits: ProviderTraits,
    /// Whether it does something else than chat: it is asked when it is named, and not chosen.
    pub is_no_chat: bool,
}

impl ModelInfo {
    /// A model of which no more is known.
    pub fn new(id: impl Into<String>, context_tokens: Option<u64>) -> Self {
        let id = id.into();
        let is_no_chat = is_no_chat(&id);
        Self { id, context_tokens, is_no_chat, ..Self::default() }
    }
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

/// The interface that a provider speaks.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Api {
    /// OpenAI's chat completions: OpenAI, Azure's v1 URLs, llama.cpp, MLX, and many others.
    OpenAiChat,
    /// OpenAI's responses.
    OpenAiResponses,
    /// Azure's URLs with a deployment and a version.
    AzureClassic {
        /// The version, as `2024-10-21`.
        api_version: String,
    },
    /// Anthropic's messages.
    Anthropic {
        /// The version, as `2026-10-21`.
        version: String,
    },
    /// Google's `generateContent`.
    Gemini,
    /// Google's interactions; nothing is stored.
    GeminiInteractions,
    /// Ollama's own.
    Ollama,
}

/// The header that carries a key.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum KeyHeader {
    /// `Authorization: Bearer KEY`.
    Bearer,
    /// `api-key: KEY`, as Azure wants it.
    ApiKey,
    /// `x-api-key: KEY`, as Anthropic wants it.
    XApiKey,
    /// `x-goog-api-key: KEY`. Google would take it in the URL too, where logs would get it.
    XGoogApiKey,
}

impl KeyHeader {
    pub(super) fn name(self) -> &'static str {
        match self {
            Self::Bearer => "authorization",
            Self::ApiKey => "api-key",
            Self::XApiKey => "x-api-key",
            Self::XGoogApiKey => "x-goog-api-key",
        }
    }
}

/// A provider of models.
#[derive(Debug, Clone)]
pub struct ProviderConfig {
    /// The name used in manifests and in the price book: `local`, `openai`, ...
    pub name: String,
    /// The interface.
    pub api: Api,
    /// The URL that the interface's paths follow, as `https://api.openai.com/v1`; for Ollama the
    /// URL with `/v1` will do too.
    pub base_url: String,
    /// The key, when there is one.
    pub key: Option<Secret>,
    /// The header that carries it.
    pub key_header: KeyHeader,
    /// The environment variable or file that a key is expected in; absent when none is needed.
    pub api_key_env: Option<String>,
    /// Whose key it is.
    pub owner: KeyOwner,
    /// Whether the model runs on machines of the person or the operator.
    pub class: ProviderClass,
    /// Whether what is private must not go there, though it is near: it was found, it is another
    /// user's, and nobody has confirmed it.
    pub is_unconfirmed: bool,
    /// What runs it.
    pub platform: Platform,
    /// The models that may be used; those that the provider lists when empty.
    pub models: Vec<ModelInfo>,
    /// How long it is waited for.
    pub timeouts: Timeouts,
    /// Whether it answers a call once, however often it is sent under the same `Idempotency-Key`.
    pub recognises_repeats: bool,
    /// Most calls at once with this key, at least 1; fewer while the provider refuses some because
    /// it has too many.
    pub max_parallel: u32,
    /// How it departs from its interface.
    pub traits: ProviderTraits,
}

impl ProviderConfig {
    /// A provider that needs no key and lists its models itself.
    pub fn keyless(name: &str, base_url: &str, class: ProviderClass, platform: Platform) -> Self {
        Self {
            name: name.to_owned(),
            api: if platform == Platform::Ollama { Api::Ollama } else { Api::OpenAiChat },
            key_header: KeyHeader::Bearer,
            base_url: base_url.trim_end_matches('/').to_owned(),
            key: None,
            api_key_env: None,
            owner: KeyOwner::User,
            class,
            is_unconfirmed: false,
            platform,
            models: Vec::new(),
            timeouts: Timeouts::default(),
            recognises_repeats: false,
            max_parallel: DEFAULT_MAXIMUM,
            traits: ProviderTraits::known(name),
        }
    }

    /// A server on this machine with one model.
    pub fn local(name: &str, base_url: &str, model: &str) -> Self {
        let models = vec![ModelInfo::new(model, None)];
        let (class, platform) = (ProviderClass::Local, Platform::OpenAiCompatible);
        Self { models, ..Self::keyless(name, base_url, class, platform) }
    }

    /// A cloud, with the tenant's own key.
    fn cloud(name: &str, base_url: &str, variable: &str, key: Secret) -> Self {
        let (class, platform) = (ProviderClass::Cloud, Platform::CloudApi);
        let config = Self::keyless(name, base_url, class, platform);
        let key = Some(key).filter(|key| !key.is_empty());
        Self { key, api_key_env: Some(variable.to_owned()), ..config }
    }

    /// OpenAI itself.
    pub fn openai(key: Secret) -> Self {
        Self::cloud("openai", "https://api.openai.com/v1", "OPENAI_API_KEY", key)
    }

    /// Anthropic.
    pub fn anthropic(key: Secret) -> Self {
        let url = "https://api.anthropic.com/v1";
        Self {
            api: Api::Anthropic { version: ANTHROPIC_VERSION.to_owned() },
            key_header: KeyHeader::XApiKey,
            ..Self::cloud("anthropic", url, "ANTHROPIC_API_KEY", key)
        }
    }

    /// Google's Gemini.
    pub fn gemini(key: Secret) -> Self {
        let url = "https://generativelanguage.googleapis.com/v1beta";
        Self {
            api: Api::Gemini,
            key_header: KeyHeader::XGoogApiKey,
            ..Self::cloud("gemini", url, "GEMINI_API_KEY", key)
        }
    }

    /// Azure's OpenAI at a resource's `endpoint`, as `https://RES.openai.azure.com`: with an
    /// `api_version` by its classic URLs, else by its v1 ones. Its models are its deployments,
    /// which only the operator knows.
    pub fn azure(
        key: Secret,
        endpoint: &str,
        api_version: Option<&str>,
        deployments: &[&str],
    ) -> Self {
        let endpoint = endpoint.trim_end_matches('/');
        let (api, base_url) = match api_version {
            Some(version) => {
                let api = Api::AzureClassic { api_version: version.to_owned() };
                (api, format!("{endpoint}/openai"))
            }
            None => (Api::OpenAiChat, format!("{endpoint}/openai/v1")),
        };
        let model = |id: &&str| ModelInfo::new(*id, None);
        Self {
            api,
            key_header: KeyHeader::ApiKey,
            models: deployments.iter().map(model).collect(),
            ..Self::cloud("azure", &base_url, "AZURE_OPENAI_API_KEY", key)
        }
    }

    /// How one of its models departs from its interface.
    pub fn traits_of(&self, model: &str) -> ProviderTraits {
        match self.models.iter().find(|known| known.id == model) {
            Some(known) => self.traits.overlaid(&known.traits),
            None => self.traits.clone(),
        }
    }

    /// The name of the key, for logs and events; absent when there is no key.
    pub fn key_name(&self) -> Option<&str> {
        let named = self.api_key_env.as_deref().unwrap_or("key");
        self.key.as_ref().map(|_| named)
    }

    /// Whether it is paid by a key of the caller's own.
    pub(super) fn is_own(&self) -> bool {
        self.key.is_some() && self.owner == KeyOwner::User
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
