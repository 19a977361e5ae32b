//! The configuration of a provider: its URL, interface, key, models and limits.

use std::fmt;
use std::time::Duration;

use convergio_domain::run::KeyOwner;
use convergio_kernel_c::{KernelPlatform, ProviderClass};
use zeroize::Zeroizing;

use super::error::ModelError;
use super::provider_traits::ProviderTraits;

/// The newest version of Anthropic's interface. It accepts no sampling parameters.
pub(crate) const ANTHROPIC_VERSION: &str = "2026-10-21";
/// Concurrent calls per provider and key where the configuration says nothing.
pub(crate) const DEFAULT_CONCURRENT_CALLS: u32 = 64;
/// Most concurrent calls that a configuration may allow.
pub(crate) const CONCURRENT_CALLS_LIMIT: u32 = 1024;

/// A key that shows only its last four characters when printed. Its memory is zeroed when it is
/// dropped.
#[derive(Clone, PartialEq, Eq)]
pub struct Secret(Zeroizing<String>);

impl Secret {
    /// Wraps a key without the white space around it that files and shells add.
    pub fn new(key: impl Into<String>) -> Self {
        let key = Zeroizing::new(key.into());
        Self(Zeroizing::new(key.trim().to_owned()))
    }

    /// Returns whether the key is empty, which counts as no key.
    pub fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    /// Returns the key itself, for the one header that carries it and for masking it in messages.
    pub(crate) fn expose_secret(&self) -> &str {
        &self.0
    }
}

impl fmt::Display for Secret {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        // Of a short key, four characters would give away too much.
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
const NON_CHAT_NAME_PARTS: [&str; 5] = ["embed", "rerank", "transcribe", "tts", "whisper"];

/// Returns whether a model does something other than chat, judged by its name: most lists do not
/// say.
pub(crate) fn is_non_chat_name(id: &str) -> bool {
    let id = id.to_lowercase();
    NON_CHAT_NAME_PARTS.iter().any(|part| id.contains(part))
}

/// A model of a provider, as configured or listed.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct ModelInfo {
    /// The model's name, as the provider writes it.
    pub id: String,
    /// Context window in tokens, input and output together, if known.
    pub context_tokens: Option<u64>,
    /// Maximum tokens of an answer, if known.
    pub max_output_tokens: Option<u32>,
    /// `PROVIDER/MODEL` whose limits hold, for a deployment under a name of its own.
    pub base_model: Option<String>,
    /// Deviations from the provider's own traits.
    pub traits: ProviderTraits,
    /// True if the model does something other than chat: it is used when named, and never chosen.
    pub is_non_chat: bool,
}

impl ModelInfo {
    /// Describes a model by its name and context window.
    pub fn new(id: impl Into<String>, context_tokens: Option<u64>) -> Self {
        let id = id.into();
        let is_no_chat = is_non_chat_name(&id);
        Self { id, context_tokens, is_non_chat: is_no_chat, ..Self::default() }
    }
}

/// Timeouts of a provider's connections. The whole call has a limit of its own.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Timeouts {
    /// Longest wait for a connection.
    pub connect: Duration,
    /// Longest silence once content has begun to arrive. Reading a long prompt and reasoning are
    /// silent, so until then only the limit of the whole call counts.
    pub idle: Duration,
}

impl Default for Timeouts {
    fn default() -> Self {
        Self { connect: Duration::from_secs(5), idle: Duration::from_secs(60) }
    }
}

/// The wire interface that a provider speaks.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum ProviderApi {
    /// OpenAI's chat completions: OpenAI, Azure's v1 URLs, llama.cpp, MLX, and many others.
    OpenAiChat,
    /// OpenAI's responses API, used without stored state.
    OpenAiResponses,
    /// Azure's URLs with a deployment and a version.
    AzureClassic {
        /// The API version, such as `2024-10-21`.
        api_version: String,
    },
    /// Anthropic's messages API, in either of its versions.
    Anthropic {
        /// The value of `anthropic-version`, such as `2026-10-21`.
        version: String,
    },
    /// Google's `generateContent` for Gemini.
    Gemini,
    /// Google's interactions API, used without stored state.
    GeminiInteractions,
    /// Ollama's native interface (`/api/chat`).
    Ollama,
}

/// The header that carries a key.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum KeyHeader {
    /// `Authorization: Bearer KEY`, as most providers expect it.
    Bearer,
    /// `api-key: KEY`, as Azure wants it.
    ApiKey,
    /// `x-api-key: KEY`, as Anthropic wants it.
    XApiKey,
    /// `x-goog-api-key: KEY`. Google also accepts the key in the URL, where it would end up in
    /// logs.
    XGoogApiKey,
}

impl KeyHeader {
    pub(crate) fn name(self) -> &'static str {
        match self {
            Self::Bearer => "authorization",
            Self::ApiKey => "api-key",
            Self::XApiKey => "x-api-key",
            Self::XGoogApiKey => "x-goog-api-key",
        }
    }
}

/// The configuration of one provider with one key.
#[derive(Debug, Clone)]
pub struct ProviderConfig {
    /// The name used in manifests and in the price book, such as `local` or `openai`. Several keys
    /// of one provider share it.
    pub name: String,
    /// The interface in which requests are written and answers are read.
    pub api: ProviderApi,
    /// The URL to which the interface's paths are appended, such as `https://api.openai.com/v1`.
    /// For Ollama a trailing `/v1` is optional.
    pub base_url: String,
    /// The key, if there is one.
    pub key: Option<Secret>,
    /// The header that carries the key.
    pub key_header: KeyHeader,
    /// The environment variable or file in which a key is expected; absent if none is needed.
    pub api_key_env: Option<String>,
    /// Owner of the key: the tenant, or the operator, who bills for its use.
    pub owner: KeyOwner,
    /// Local to the user or the operator, or a cloud.
    pub class: ProviderClass,
    /// True if private prompts must not be sent although the server is near: it was detected,
    /// belongs to another user, and nobody has confirmed it.
    pub is_unconfirmed: bool,
    /// The server software or cloud that runs the models.
    pub platform: KernelPlatform,
    /// The models that may be used; all that the provider lists if empty.
    pub models: Vec<ModelInfo>,
    /// Timeouts of the provider's connections.
    pub timeouts: Timeouts,
    /// True if the provider executes a call once however often it is sent under the same
    /// `Idempotency-Key`.
    pub recognises_repeats: bool,
    /// Maximum concurrent calls with this key, at least 1. Fewer are sent while the provider
    /// refuses some for overload.
    pub max_parallel: u32,
    /// Deviations of the provider from its interface.
    pub traits: ProviderTraits,
}

impl ProviderConfig {
    /// Configures a provider that needs no key and lists its models itself.
    pub fn without_key(
        name: &str,
        base_url: &str,
        class: ProviderClass,
        platform: KernelPlatform,
    ) -> Self {
        Self {
            name: name.to_owned(),
            // Ollama's OpenAI-compatible routes cut long prompts silently; its own refuse them.
            api: if platform == KernelPlatform::Ollama {
                ProviderApi::Ollama
            } else {
                ProviderApi::OpenAiChat
            },
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
            max_parallel: DEFAULT_CONCURRENT_CALLS,
            traits: ProviderTraits::for_known_provider(name),
        }
    }

    /// Configures a server on this machine with one model.
    pub fn for_local_model(name: &str, base_url: &str, model: &str) -> Self {
        let models = vec![ModelInfo::new(model, None)];
        let (class, platform) = (ProviderClass::Local, KernelPlatform::OpenAiCompatible);
        Self { models, ..Self::without_key(name, base_url, class, platform) }
    }

    /// Configures a cloud provider with the tenant's own key; an empty key counts as missing.
    fn for_cloud(name: &str, base_url: &str, variable: &str, key: Secret) -> Self {
        let (class, platform) = (ProviderClass::Cloud, KernelPlatform::CloudApi);
        let config = Self::without_key(name, base_url, class, platform);
        // An empty variable counts as unset, as in the providers' SDKs.
        let key = Some(key).filter(|key| !key.is_empty());
        Self { key, api_key_env: Some(variable.to_owned()), ..config }
    }

    /// Configures OpenAI's cloud, by its chat completions.
    pub fn for_openai(key: Secret) -> Self {
        Self::for_cloud("openai", "https://api.openai.com/v1", "OPENAI_API_KEY", key)
    }

    /// Configures Anthropic's cloud, by the newest version of its interface.
    pub fn for_anthropic(key: Secret) -> Self {
        let url = "https://api.anthropic.com/v1";
        Self {
            api: ProviderApi::Anthropic { version: ANTHROPIC_VERSION.to_owned() },
            key_header: KeyHeader::XApiKey,
            ..Self::for_cloud("anthropic", url, "ANTHROPIC_API_KEY", key)
        }
    }

    /// Configures Google's Gemini, by `generateContent`.
    pub fn for_gemini(key: Secret) -> Self {
        let url = "https://generativelanguage.googleapis.com/v1beta";
        Self {
            api: ProviderApi::Gemini,
            key_header: KeyHeader::XGoogApiKey,
            ..Self::for_cloud("gemini", url, "GEMINI_API_KEY", key)
        }
    }

    /// Configures Azure OpenAI at a resource's `endpoint`, such as `https://RES.openai.azure.com`:
    /// by its classic URLs with an `api_version`, else by its v1 URLs. The models are the
    /// deployments, which Azure does not list.
    pub fn for_azure(
        key: Secret,
        endpoint: &str,
        api_version: Option<&str>,
        deployments: &[&str],
    ) -> Self {
        let endpoint = endpoint.trim_end_matches('/');
        let (api, base_url) = match api_version {
            Some(version) => {
                let api = ProviderApi::AzureClassic { api_version: version.to_owned() };
                (api, format!("{endpoint}/openai"))
            }
            None => (ProviderApi::OpenAiChat, format!("{endpoint}/openai/v1")),
        };
        let model = |id: &&str| ModelInfo::new(*id, None);
        Self {
            api,
            key_header: KeyHeader::ApiKey,
            // Azure's routes list base models, not the resource's deployments.
            models: deployments.iter().map(model).collect(),
            ..Self::for_cloud("azure", &base_url, "AZURE_OPENAI_API_KEY", key)
        }
    }

    /// Returns the traits that hold for one model: its own over the provider's.
    pub fn model_traits(&self, model: &str) -> ProviderTraits {
        match self.models.iter().find(|known| known.id == model) {
            Some(model_info) => self.traits.overlaid_with(&model_info.traits),
            None => self.traits.clone(),
        }
    }

    /// Returns the name of the key, for logs and events; absent if there is no key.
    pub fn key_name(&self) -> Option<&str> {
        let variable = self.api_key_env.as_deref().unwrap_or("key");
        self.key.as_ref().map(|_| variable)
    }

    /// Returns whether calls are paid by a key of the caller's own.
    pub(crate) fn is_paid_by_caller(&self) -> bool {
        self.key.is_some() && self.owner == KeyOwner::User
    }

    /// Returns the error of a missing key if the provider needs one.
    pub(crate) fn missing_key(&self) -> Option<ModelError> {
        let key_variable = self.api_key_env.as_deref().filter(|_| self.key.is_none())?;
        let message = format!("{} needs a key: set {key_variable}", self.name);
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
        assert_eq!(key.expose_secret(), "sk-proj-abcdefgh1234");
        assert_eq!(Secret::new("short-key").to_string(), "…");
        let shown = format!("{:?}", ProviderConfig::for_openai(key));
        assert!(!shown.contains("abcdefgh"), "{shown}");
    }

    #[test]
    fn an_empty_key_is_a_missing_key() {
        let config = ProviderConfig::for_openai(Secret::new("  "));
        let error = config.missing_key().unwrap();
        assert_eq!(error.code, "byok.missing_key");
        assert!(error.message.contains("OPENAI_API_KEY"), "{}", error.message);
        assert_eq!(ProviderConfig::for_openai(Secret::new("sk-1")).missing_key(), None);
    }
}
