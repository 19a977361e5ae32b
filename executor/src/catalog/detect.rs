//! Detection of model servers that run on this machine.

use std::time::Duration;

use convergio_kernel_c::{KernelPlatform, ProviderClass};
use futures_util::future::join_all;
use reqwest::Client;
use reqwest::header::{AUTHORIZATION, HeaderMap, HeaderValue};
use rustix::process::geteuid;
use serde_json::Value;

use super::socket_owner::listening_uids;
use crate::provider::endpoint::{Endpoint, Reach};
use crate::provider::listing::{ModelLister, parse_openai_list};
use crate::provider::{ModelInfo, ProviderConfig, Secret, Timeouts};

/// Longest wait for a server: one on this machine answers faster, or is too busy to be used.
const PROBE_TIMEOUT: Duration = Duration::from_millis(1500);
/// Addresses where Ollama, and llama.cpp or MLX, listen by default.
const DEFAULT_ADDRESSES: [&str; 2] = ["127.0.0.1:11434", "127.0.0.1:8080"];

/// The software of a model server.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum ServerKind {
    /// Ollama, used by its native routes: the OpenAI-compatible ones cut long prompts silently.
    Ollama,
    /// llama.cpp's server, including the managed one.
    LlamaCpp,
    /// MLX's server on Apple silicon.
    Mlx,
    /// Any other server that speaks OpenAI's chat completions.
    OpenAiCompatible,
}

impl ServerKind {
    /// Returns the name shown to people.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Ollama => "Ollama",
            Self::LlamaCpp => "llama.cpp",
            Self::Mlx => "MLX",
            Self::OpenAiCompatible => "OpenAI-compatible",
        }
    }

    fn kernel_platform(self) -> KernelPlatform {
        match self {
            Self::Ollama => KernelPlatform::Ollama,
            Self::LlamaCpp => KernelPlatform::LlamaCpp,
            Self::Mlx => KernelPlatform::Mlx,
            Self::OpenAiCompatible => KernelPlatform::OpenAiCompatible,
        }
    }
}

/// Permission to send private prompts to a server, and its reason.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Consent {
    /// An operator named or confirmed the server, or this platform started it.
    Given,
    /// The server was detected, and is a process of the same user.
    SameUser,
    /// The server was detected, and is a process of the user with this uid, or the system does not
    /// tell whose.
    Missing(Option<u32>),
}

/// A model server that answered a probe.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct DetectedServer {
    /// The software that the server runs.
    pub kind: ServerKind,
    /// The server's URL up to and without `/chat/completions`.
    pub base_url: String,
    /// The chat models that the server lists.
    pub models: Vec<ModelInfo>,
    /// Permission to send private prompts to the server.
    pub consent: Consent,
    /// The key that the server requires, if any.
    pub key: Option<Secret>,
}

impl DetectedServer {
    /// Returns the configuration of the server as a provider: `local` on this machine or its
    /// network. A server anywhere else is `remote`, since its price is unknown and prompts leave
    /// the premises. The list of models stays empty, so that the server is asked when one is chosen
    /// and new models are found.
    pub fn to_provider_config(&self) -> ProviderConfig {
        let reach = Endpoint::parse(&self.base_url).map(|endpoint| endpoint.reach);
        let (name, class) = match reach {
            Ok(Reach::Loopback | Reach::Premises) => ("local", ProviderClass::Local),
            _ => ("remote", ProviderClass::Cloud),
        };
        let is_unconfirmed = matches!(self.consent, Consent::Missing(_));
        let platform = self.kind.kernel_platform();
        let config = ProviderConfig::without_key(name, &self.base_url, class, platform);
        ProviderConfig { is_unconfirmed, key: self.key.clone(), ..config }
    }
}

/// Probes the default addresses, or only `urls` if there are any, all at once. Returns the servers
/// that have a chat model, in the order probed. Named servers count as consented to.
pub async fn detect_servers(urls: &[String]) -> Vec<DetectedServer> {
    if urls.is_empty() {
        // Anyone on the machine may listen on a default port, so consent depends on the process
        // behind it.
        let defaults = DEFAULT_ADDRESSES
            .map(|address| (format!("http://{address}"), consent_for_address(address)));
        return probe_servers(&defaults).await;
    }
    let consented: Vec<_> = urls.iter().map(|url| (url.clone(), Consent::Given)).collect();
    probe_servers(&consented).await
}

/// Probes a server that the caller started, with a key or without; `None` until it answers with a
/// model.
pub async fn detect_started_server(url: &str, key: Option<&Secret>) -> Option<DetectedServer> {
    let server = probe_server(url, Consent::Given, key).await?;
    (!server.models.is_empty()).then_some(server)
}

async fn probe_servers(urls: &[(String, Consent)]) -> Vec<DetectedServer> {
    let servers =
        join_all(urls.iter().map(|(url, consent)| probe_server(url, *consent, None))).await;
    servers.into_iter().flatten().filter(|server| !server.models.is_empty()).collect()
}

/// Returns whether the process that listens at an address belongs to this user.
fn consent_for_address(address: &str) -> Consent {
    // More than one process may share a port (`SO_REUSEPORT`): all must be this user's.
    let uids = address.parse().ok().and_then(listening_uids).unwrap_or_default();
    let own_uid = geteuid().as_raw();
    match uids.iter().find(|uid| **uid != own_uid) {
        Some(other) => Consent::Missing(Some(*other)),
        None if uids.is_empty() => Consent::Missing(None),
        None => Consent::SameUser,
    }
}

/// Probes one server, at its base URL or at that with `/v1` appended. `None` if it is no model
/// server.
async fn probe_server(url: &str, consent: Consent, key: Option<&Secret>) -> Option<DetectedServer> {
    let url = url.trim_end_matches('/');
    let base_url = if url.ends_with("/v1") { url.to_owned() } else { format!("{url}/v1") };
    let endpoint = Endpoint::parse(&base_url).ok()?;
    let client: Client =
        endpoint.build_client(Timeouts { connect: PROBE_TIMEOUT, idle: PROBE_TIMEOUT }).ok()?;
    let headers = key.map(bearer_header).unwrap_or_default();
    let lister = ModelLister {
        client: &client,
        endpoint: &endpoint,
        headers: &headers,
        timeout: PROBE_TIMEOUT,
    };
    // Both are asked at once: a server that is not Ollama answers the second with an error.
    let (list, tags) = tokio::join!(lister.fetch_openai_list(), lister.list_ollama_models());
    // llama.cpp answers some of Ollama's routes too, so its own mark in the list decides first.
    let list = list.unwrap_or(Value::Null);
    let (kind, mut models) = match (server_kind(&list), tags) {
        (ServerKind::LlamaCpp, _) => {
            (ServerKind::LlamaCpp, lister.list_llama_cpp_models(&list).await.ok()?)
        }
        (_, Ok(models)) => (ServerKind::Ollama, models),
        (kind, Err(_)) => (kind, parse_openai_list(&list)),
    };
    // Models that do not chat are useless here; a server that has no other is dropped by the
    // callers.
    models.retain(|model| !model.is_non_chat);
    Some(DetectedServer { kind, base_url, models, consent, key: key.cloned() })
}

fn bearer_header(key: &Secret) -> HeaderMap {
    let value = HeaderValue::from_str(&format!("Bearer {}", key.expose_secret()));
    value.map(|value| HeaderMap::from_iter([(AUTHORIZATION, value)])).unwrap_or_default()
}

/// Recognises a server by the first model of its list: llama.cpp names itself as the owner, MLX
/// gives a creation time and no owner.
fn server_kind(list: &Value) -> ServerKind {
    let first = &list["data"][0];
    match first["owned_by"].as_str() {
        Some("llamacpp") => ServerKind::LlamaCpp,
        None if first["created"].is_number() => ServerKind::Mlx,
        _ => ServerKind::OpenAiCompatible,
    }
}
