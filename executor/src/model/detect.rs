//! Finding model servers that run on this machine.

use std::time::Duration;

use convergio_kernel_c::{Platform, ProviderClass};
use reqwest::Client;
use serde_json::Value;

use super::config::{ModelInfo, ProviderConfig};
use super::openai;

/// A server on this machine answers in less, or is too busy to be used.
const TIMEOUT: Duration = Duration::from_millis(1500);

/// What runs the models.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum ServerKind {
    /// Ollama, spoken to by its OpenAI-compatible routes. They cut long prompts silently.
    Ollama,
    /// llama.cpp's server, the managed one included.
    LlamaCpp,
    /// MLX's server on Apple silicon.
    Mlx,
    /// Something else that speaks OpenAI's chat completions.
    OpenAiCompatible,
}

impl ServerKind {
    /// The name shown to people.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Ollama => "Ollama",
            Self::LlamaCpp => "llama.cpp",
            Self::Mlx => "MLX",
            Self::OpenAiCompatible => "OpenAI-compatible",
        }
    }
}

/// A server that answered.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Detected {
    /// What it is.
    pub kind: ServerKind,
    /// Its URL up to and without `/chat/completions`.
    pub base_url: String,
    /// Its models.
    pub models: Vec<ModelInfo>,
}

impl Detected {
    /// The provider `local` that it makes.
    pub fn provider(&self) -> ProviderConfig {
        let platform = match self.kind {
            ServerKind::Ollama => Platform::Ollama,
            ServerKind::LlamaCpp => Platform::LlamaCpp,
            ServerKind::Mlx => Platform::Mlx,
            ServerKind::OpenAiCompatible => Platform::OpenAiCompatible,
        };
        ProviderConfig {
            name: "local".to_owned(),
            base_url: self.base_url.clone(),
            key: None,
            class: ProviderClass::Local,
            platform,
            models: self.models.clone(),
        }
    }
}

/// Asks the usual ports, or only these URLs when some are given; gives what answered with a model.
pub async fn detect(urls: &[String]) -> Vec<Detected> {
    let Ok(client) = openai::client() else { return Vec::new() };
    let mut found = Vec::new();
    if urls.is_empty() {
        let (ollama, other) = tokio::join!(
            ollama(&client, "http://127.0.0.1:11434"),
            compatible(&client, "http://127.0.0.1:8080/v1")
        );
        found.extend(ollama.into_iter().chain(other));
    }
    for url in urls {
        let url = url.trim_end_matches('/');
        let base = if url.ends_with("/v1") { url.to_owned() } else { format!("{url}/v1") };
        found.extend(compatible(&client, &base).await);
    }
    found.retain(|server| !server.models.is_empty());
    found
}

async fn get(client: &Client, url: &str) -> Option<Value> {
    let response = client.get(url).timeout(TIMEOUT).send().await.ok()?;
    if !response.status().is_success() {
        return None;
    }
    response.json().await.ok()
}

/// Ollama lists models that it would fetch from the cloud too; those are not local.
async fn ollama(client: &Client, url: &str) -> Option<Detected> {
    let tags = get(client, &format!("{url}/api/tags")).await?;
    let is_local = |model: &&Value| model.get("remote_host").is_none_or(Value::is_null);
    let models = tags["models"].as_array()?.iter().filter(is_local);
    let models = models.filter_map(|model| {
        let context_tokens = model.pointer("/details/context_length").and_then(Value::as_u64);
        Some(ModelInfo { id: model["name"].as_str()?.to_owned(), context_tokens })
    });
    let base_url = format!("{url}/v1");
    Some(Detected { kind: ServerKind::Ollama, base_url, models: models.collect() })
}

async fn compatible(client: &Client, base: &str) -> Option<Detected> {
    let list = get(client, &format!("{base}/models")).await?;
    let owner = list.pointer("/data/0/owned_by").and_then(Value::as_str).unwrap_or("");
    let kind = match owner {
        "llamacpp" => ServerKind::LlamaCpp,
        _ if list.pointer("/data/0/created").is_some() && owner.is_empty() => ServerKind::Mlx,
        _ => ServerKind::OpenAiCompatible,
    };
    Some(Detected { kind, base_url: base.to_owned(), models: model_list(&list) })
}

/// The models of an OpenAI-compatible list.
pub(super) fn model_list(list: &Value) -> Vec<ModelInfo> {
    let models = list["data"].as_array().into_iter().flatten();
    let info = |model: &Value| {
        let context_tokens = model.pointer("/meta/n_ctx_train").and_then(Value::as_u64);
        Some(ModelInfo { id: model["id"].as_str()?.to_owned(), context_tokens })
    };
    models.filter_map(info).collect()
}
