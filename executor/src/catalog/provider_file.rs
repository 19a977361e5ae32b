//! The provider file: an operator's JSON file of providers and aliases, for any supported interface
//! at any URL.

use std::collections::BTreeMap;
use std::fs::File;
use std::io::Read;
use std::os::unix::fs::{MetadataExt, OpenOptionsExt};
use std::path::{Component, Path};

use convergio_domain::run::KeyOwner;
use convergio_kernel_c::{KernelPlatform, ProviderClass};
use rustix::fs::OFlags;
use rustix::io::Errno;
use rustix::process::geteuid;
use serde::Deserialize;

use super::alias::AliasTarget;
use crate::provider::config::{
    ANTHROPIC_VERSION, CONCURRENT_CALLS_LIMIT, DEFAULT_CONCURRENT_CALLS, is_non_chat_name,
};
use crate::provider::{
    KeyHeader, ModelError, ModelInfo, ProviderApi, ProviderConfig, ProviderTraits, Secret,
};

/// Maximum bytes of a key file.
const KEY_BYTES_LIMIT: u64 = 64 << 10;

/// One provider, as written in the file.
#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
struct ProviderEntry {
    name: String,
    #[serde(default)]
    api: ApiName,
    base_url: String,
    /// The environment variable that holds the key.
    #[serde(default)]
    key_env: Option<String>,
    /// The file that holds the key, in the folder of the provider file.
    #[serde(default)]
    key_file: Option<String>,
    /// Owner of the key: the tenant, or the operator, who bills for its use.
    #[serde(default)]
    owner: KeyOwner,
    #[serde(default)]
    class: ServerClass,
    #[serde(default)]
    models: Vec<ModelFileEntry>,
    /// Version of the interface, for those that have one.
    #[serde(default)]
    api_version: Option<String>,
    /// True if the provider honours `Idempotency-Key`.
    #[serde(default)]
    idempotent: bool,
    /// Maximum concurrent calls with this key.
    #[serde(default)]
    max_parallel: Option<u32>,
    /// Deviations from the interface.
    #[serde(default)]
    traits: ProviderTraits,
}

/// The file as an object. As a list it holds providers alone.
#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
struct ProviderFileForm {
    providers: Vec<ProviderEntry>,
    #[serde(default)]
    aliases: BTreeMap<String, Vec<AliasTarget>>,
}

/// The content of a provider file, with its keys read.
#[derive(Debug, Clone, Default)]
pub struct ProviderFile {
    /// The configured providers, in the order of the file.
    pub providers: Vec<ProviderConfig>,
    /// Aliases, not checked yet; see [`ModelAliases::new`](super::ModelAliases::new).
    pub aliases: BTreeMap<String, Vec<AliasTarget>>,
}

/// Names of interfaces in the file.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "snake_case")]
enum ApiName {
    #[default]
    OpenaiChat,
    OpenaiResponses,
    Azure,
    Anthropic,
    Gemini,
    GeminiInteractions,
    Ollama,
}

/// The class of a provider, as named in the file.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "snake_case")]
enum ServerClass {
    Local,
    #[default]
    Cloud,
}

/// One model of a provider, as written in the file.
#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
struct ModelFileEntry {
    id: String,
    #[serde(default)]
    context_tokens: Option<u64>,
    #[serde(default)]
    max_output_tokens: Option<u32>,
    #[serde(default)]
    base_model: Option<String>,
    #[serde(default)]
    traits: ProviderTraits,
}

impl ProviderFile {
    /// Reads the file's `text`: a JSON list of `{name, api, base_url, key_env | key_file, owner,
    /// class, models, api_version, idempotent, max_parallel, traits}`, or an object with such
    /// `providers` and with `aliases`. `variable` reads an environment variable; `folder` is where
    /// key files are looked for.
    ///
    /// # Errors
    /// `request.invalid`: the JSON has another form, a number is out of range, or a key file cannot
    /// be read. Messages never contain keys.
    pub fn read(
        text: &str,
        folder: &Path,
        variable: impl Fn(&str) -> Option<String>,
    ) -> Result<Self, ModelError> {
        let wrong_form = |error: serde_json::Error| file_error(&error.to_string());
        let is_object = text.trim_start().starts_with('{');
        let ProviderFileForm { providers, aliases } = if is_object {
            serde_json::from_str(text).map_err(wrong_form)?
        } else {
            let providers = serde_json::from_str(text).map_err(wrong_form)?;
            ProviderFileForm { providers, aliases: BTreeMap::new() }
        };
        let providers = providers.into_iter().map(|entry| entry.into_config(folder, &variable));
        Ok(Self { providers: providers.collect::<Result<_, _>>()?, aliases })
    }
}

impl ProviderEntry {
    /// Converts the entry into a provider's configuration and reads its key.
    fn into_config(
        self,
        folder: &Path,
        variable: &impl Fn(&str) -> Option<String>,
    ) -> Result<ProviderConfig, ModelError> {
        let is_name = |letter: char| letter.is_ascii_lowercase() || "0123456789-_".contains(letter);
        // `auto` and `local` are selectors; only a local server may have the name `local`.
        let is_reserved =
            ["auto", "local", ""].contains(&self.name.as_str()) && !self.is_local_server();
        if is_reserved || !self.name.chars().all(is_name) {
            let explanation =
                "a name has letters a-z, digits, - and _; `local` is for local servers";
            return Err(file_error(&format!("provider `{}`: {explanation}", self.name)));
        }
        let max_parallel = self.checked_max_parallel()?;
        let (class, platform) = match (self.class, self.api) {
            (ServerClass::Local, ApiName::Ollama) => (ProviderClass::Local, KernelPlatform::Ollama),
            (ServerClass::Local, _) => (ProviderClass::Local, KernelPlatform::OpenAiCompatible),
            (ServerClass::Cloud, _) => (ProviderClass::Cloud, KernelPlatform::CloudApi),
        };
        let key = match (&self.key_env, &self.key_file) {
            (Some(name), _) => variable(name).map(Secret::new),
            (None, Some(file)) => {
                let read = read_key_file(folder, file);
                Some(read.map_err(|why| file_error(&format!("key_file `{file}`: {why}")))?)
            }
            (None, None) => None,
        };
        let key_source = self.key_env.clone().or_else(|| self.key_file.clone());
        let (api, key_header) = self.api_and_header();
        let model = |model: ModelFileEntry| {
            let ModelFileEntry { id, context_tokens, max_output_tokens, base_model, traits } =
                model;
            let is_no_chat = is_non_chat_name(&id);
            ModelInfo {
                id,
                context_tokens,
                max_output_tokens,
                base_model,
                traits,
                is_non_chat: is_no_chat,
            }
        };
        let traits = ProviderTraits::for_known_provider(&self.name).overlaid_with(&self.traits);
        Ok(ProviderConfig {
            api,
            key_header,
            key: key.filter(|key| !key.is_empty()),
            api_key_env: key_source,
            owner: self.owner,
            models: self.models.into_iter().map(model).collect(),
            recognises_repeats: self.idempotent,
            max_parallel,
            traits,
            ..ProviderConfig::without_key(&self.name, &self.base_url, class, platform)
        })
    }

    /// Returns the limit of concurrent calls, checked.
    fn checked_max_parallel(&self) -> Result<u32, ModelError> {
        let number = self.max_parallel.unwrap_or(DEFAULT_CONCURRENT_CALLS);
        if (1..=CONCURRENT_CALLS_LIMIT).contains(&number) {
            return Ok(number);
        }
        let explanation =
            format!("`max_parallel` is {number}: right is 1 to {CONCURRENT_CALLS_LIMIT}");
        Err(file_error(&format!("provider `{}`: {explanation}", self.name)))
    }

    fn is_local_server(&self) -> bool {
        self.name == "local" && self.class == ServerClass::Local
    }

    /// Returns the interface and the header for keys that belongs to it.
    fn api_and_header(&self) -> (ProviderApi, KeyHeader) {
        let version = self.api_version.clone();
        match self.api {
            ApiName::OpenaiChat => (ProviderApi::OpenAiChat, KeyHeader::Bearer),
            ApiName::OpenaiResponses => (ProviderApi::OpenAiResponses, KeyHeader::Bearer),
            ApiName::Azure => {
                // Azure's v1 URLs speak plain chat completions; a version means the classic URLs.
                let classic = version.map(|api_version| ProviderApi::AzureClassic { api_version });
                (classic.unwrap_or(ProviderApi::OpenAiChat), KeyHeader::ApiKey)
            }
            ApiName::Anthropic => {
                let version = version.unwrap_or_else(|| ANTHROPIC_VERSION.to_owned());
                (ProviderApi::Anthropic { version }, KeyHeader::XApiKey)
            }
            ApiName::Gemini => (ProviderApi::Gemini, KeyHeader::XGoogApiKey),
            ApiName::GeminiInteractions => {
                (ProviderApi::GeminiInteractions, KeyHeader::XGoogApiKey)
            }
            ApiName::Ollama => (ProviderApi::Ollama, KeyHeader::Bearer),
        }
    }
}

/// Reads a key from a file directly in or below `folder`. Links are refused, as is a file that
/// other users may read: both could put a key of somebody else's choice in use, or reveal this one.
fn read_key_file(folder: &Path, name: &str) -> Result<Secret, String> {
    // A plain relative path: no root, no `..`, no `.`.
    if !Path::new(name).components().all(|part| matches!(part, Component::Normal(_))) {
        return Err("it must lie in the folder of the file of providers: name it alone".to_owned());
    }
    // `NOFOLLOW` refuses a link at the last path component only, so the folders are checked below.
    // `NONBLOCK` keeps a FIFO from blocking the start.
    let no_link = OFlags::NOFOLLOW | OFlags::NONBLOCK;
    let mut options = File::options();
    options.read(true).custom_flags(i32::try_from(no_link.bits()).unwrap_or_default());
    let describe_error = |error: std::io::Error| match error.raw_os_error() {
        Some(number) if number == Errno::LOOP.raw_os_error() => "it is a link".to_owned(),
        _ => error.to_string(),
    };
    let parents = Path::new(name).ancestors().skip(1);
    let mut parents = parents.filter(|part| !part.as_os_str().is_empty());
    if parents.any(|part| folder.join(part).is_symlink()) {
        return Err("its folder is a link".to_owned());
    }
    let mut file = options.open(folder.join(name)).map_err(describe_error)?;
    // Of the open file, not of the path, which could be exchanged in between.
    let metadata = file.metadata().map_err(describe_error)?;
    if !metadata.is_file() || metadata.len() > KEY_BYTES_LIMIT {
        return Err("it is no file of a key".to_owned());
    }
    // As `ssh` treats private keys: neither group nor others may have any access.
    if metadata.uid() != geteuid().as_raw() || metadata.mode() & 0o077 != 0 {
        let mode = metadata.mode() & 0o777;
        return Err(format!("others may use it (mode {mode:o}): chmod 600, by who owns it"));
    }
    let mut key = String::new();
    file.read_to_string(&mut key).map_err(describe_error)?;
    Ok(Secret::new(key))
}

fn file_error(explanation: &str) -> ModelError {
    let message = format!("the file of providers: {explanation}");
    ModelError::new("request.invalid", false, message)
}

#[cfg(test)]
mod tests {
    use std::path::Path;

    use convergio_kernel_c::ProviderClass;

    use crate::catalog::ProviderFile;
    use crate::provider::{KeyHeader, ModelError, ProviderApi, ProviderConfig};

    fn read_file(text: &str) -> Result<ProviderFile, ModelError> {
        let variable = |name: &str| (name == "KEY").then(|| "canary-0123456789".to_owned());
        ProviderFile::read(text, Path::new("/nowhere"), variable)
    }

    fn read(text: &str) -> Result<Vec<ProviderConfig>, ModelError> {
        read_file(text).map(|file| file.providers)
    }

    #[test]
    fn an_object_has_aliases_besides_its_providers() {
        let text = r#"{"providers": [{"name": "a", "base_url": "https://a",
                "traits": {"streams": false},
                "models": [{"id": "m", "max_output_tokens": 9, "base_model": "openai/gpt-4o",
                    "traits": {"limit_field": "max_tokens"}}]}],
            "aliases": {"fast": [{"model": "a/m", "weight": 2}]}}"#;
        let file = read_file(text).unwrap();
        let (provider, target) = (&file.providers[0], &file.aliases["fast"][0]);
        assert_eq!((target.model.as_str(), target.weight), ("a/m", 2));
        assert_eq!(provider.models[0].max_output_tokens, Some(9));
        let traits = provider.model_traits("m");
        assert_eq!(traits.streams, Some(false));
        assert_eq!(traits.limit_field.map(|it| it.name()), Some("max_tokens"));
    }

    #[test]
    fn every_interface_can_be_had_at_any_url() {
        let text = r#"[
            {"name": "groq", "base_url": "https://g/openai/v1", "key_env": "KEY"},
            {"name": "work", "api": "azure", "base_url": "https://r/openai", "key_env": "KEY",
             "api_version": "2024-10-21", "models": [{"id": "d", "context_tokens": 9}],
             "max_parallel": 8},
            {"name": "claude", "api": "anthropic", "base_url": "https://a/v1", "key_env": "NONE"},
            {"name": "local", "api": "ollama", "class": "local", "base_url": "http://127.0.0.1:1"}
        ]"#;
        let all = read(text).unwrap();
        assert_eq!((&all[0].api, all[0].key.is_some()), (&ProviderApi::OpenAiChat, true));
        assert_eq!(all[1].api, ProviderApi::AzureClassic { api_version: "2024-10-21".into() });
        assert_eq!((all[1].key_header, all[1].models.len()), (KeyHeader::ApiKey, 1));
        assert_eq!((all[0].max_parallel, all[1].max_parallel), (64, 8));
        assert_eq!(all[2].missing_key().unwrap().code, "byok.missing_key");
        assert_eq!((&all[3].api, all[3].class), (&ProviderApi::Ollama, ProviderClass::Local));
    }

    #[test]
    fn a_key_file_lies_in_the_folder_is_no_link_and_nobody_elses() {
        let folder = tempfile::tempdir().unwrap();
        let key = folder.path().join("k");
        std::fs::write(&key, "canary-0123456789\n").unwrap();
        let read = |name: &str| super::read_key_file(folder.path(), name);
        let set_mode = |mode| {
            std::fs::set_permissions(&key, std::os::unix::fs::PermissionsExt::from_mode(mode))
        };
        set_mode(0o640).unwrap();
        assert!(read("k").unwrap_err().contains("mode 640"));
        set_mode(0o600).unwrap();
        assert_eq!(read("k").unwrap().to_string(), "…6789");
        std::os::unix::fs::symlink(&key, folder.path().join("l")).unwrap();
        std::os::unix::fs::symlink(folder.path(), folder.path().join("d")).unwrap();
        let absolute = key.to_str().unwrap();
        for (name, why) in
            [("l", "a link"), ("d/k", "a link"), ("../k", "folder"), (absolute, "folder")]
        {
            let refused = read(name).unwrap_err();
            assert!(refused.contains(why), "{name}: {refused}");
        }
    }

    #[test]
    fn mistakes_are_named() {
        let cases = [
            ("{}", "providers"),
            (r#"{"providers": [], "alias": {}}"#, "`alias`"),
            (r#"[{"name": "a", "base_url": "x", "traits": {"stream": true}}]"#, "`stream`"),
            (r#"[{"name": "a"}]"#, "base_url"),
            (r#"[{"name": "a", "base_url": "x", "key": "canary-0123456789"}]"#, "`key`"),
            (r#"[{"name": "auto", "base_url": "x"}]"#, "`auto`"),
            (r#"[{"name": "local", "base_url": "x"}]"#, "local servers"),
            (r#"[{"name": "A/b", "base_url": "x"}]"#, "`A/b`"),
            (r#"[{"name": "a", "base_url": "x", "key_file": "k"}]"#, "key_file `k`"),
            (r#"[{"name": "a", "base_url": "x", "max_parallel": 0}]"#, "`max_parallel` is 0"),
            (r#"[{"name": "a", "base_url": "x", "max_parallel": 1025}]"#, "1 to 1024"),
            (r#"[{"name": "a", "base_url": "x", "max_parallel": -1}]"#, "-1"),
            (r#"[{"name": "a", "base_url": "x", "max_paralel": 8}]"#, "`max_paralel`"),
        ];
        for (text, word) in cases {
            let error = read(text).unwrap_err();
            assert!(error.message.contains(word), "{error}");
            assert!(!error.message.contains("canary"), "{error}");
        }
    }
}
