//! Finding model servers that run on this machine.

use std::time::Duration;

use convergio_kernel_c::{Platform, ProviderClass};
use futures_util::future::join_all;
use reqwest::Client;
use reqwest::header::{AUTHORIZATION, HeaderMap, HeaderValue};
use rustix::process::geteuid;
use serde_json::Value;

use super::config::{ModelInfo, ProviderConfig, Secret, Timeouts};
use super::endpoint::{Endpoint, Reach};
use super::listing::{Lister, of_openai};
use super::socket_owner::listening_uids;

/// A server on this machine answers in less, or is too busy to be used.
const TIMEOUT: Duration = Duration::from_millis(1500);
/// Where Ollama, and llama.cpp or MLX, listen when nobody says otherwise.
const USUAL: [&str; 2] = ["127.0.0.1:11434", "127.0.0.1:8080"];

/// What runs the models.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum ServerKind {
    /// Ollama, spoken to by its own routes: the OpenAI-compatible ones cut long prompts silently.
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

    fn platform(self) -> Platform {
        match self {
            Self::Ollama => Platform::Ollama,
            Self::LlamaCpp => Platform::LlamaCpp,
            Self::Mlx => Platform::Mlx,
            Self::OpenAiCompatible => Platform::OpenAiCompatible,
        }
    }
}

/// Why a server may be sent what is private, or why not.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Consent {
    /// It was named or confirmed by who uses it, or is one that we started.
    Given,
    /// It was found, and is a process of this user.
    SameUser,
    /// It was found, and is a process of another user, or the system does not tell whose.
    Missing(Option<u32>),
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
    /// Whether what is private may go there.
    pub consent: Consent,
    /// What it asks for with every call.
    pub key: Option<Secret>,
}

impl Detected {
    /// The provider that it makes: `local` on this machine or its network. A server anywhere else
    /// is `remote`: nothing is known of its price, and what it is sent leaves the premises.
    /// The models are asked for again when one is chosen, so that a new one is found.
    pub fn provider(&self) -> ProviderConfig {
        let reach = Endpoint::parse(&self.base_url).map(|endpoint| endpoint.reach);
        let (name, class) = match reach {
            Ok(Reach::Loopback | Reach::Premises) => ("local", ProviderClass::Local),
            _ => ("remote", ProviderClass::Cloud),
        };
        let is_unconfirmed = matches!(self.consent, Consent::Missing(_));
        let platform = self.kind.platform();
        let config = ProviderConfig::keyless(name, &self.base_url, class, platform);
        ProviderConfig { is_unconfirmed, key: self.key.clone(), ..config }
    }
}

/// Asks the usual ports, or only these URLs when some are given, all at once; gives what answered
/// with a model, in the order asked. Those that are named are consented to.
pub async fn detect(urls: &[String]) -> Vec<Detected> {
    if urls.is_empty() {
        let usual = USUAL.map(|address| (format!("http://{address}"), consent(address)));
        return probe_all(&usual).await;
    }
    let named: Vec<_> = urls.iter().map(|url| (url.clone(), Consent::Given)).collect();
    probe_all(&named).await
}

/// Asks a server that was started by who asks, with a key of its own or none; nothing while it does
/// not answer.
pub async fn detect_started(url: &str, key: Option<&Secret>) -> Option<Detected> {
    let server = probe(url, Consent::Given, key).await?;
    (!server.models.is_empty()).then_some(server)
}

async fn probe_all(urls: &[(String, Consent)]) -> Vec<Detected> {
    let found = join_all(urls.iter().map(|(url, consent)| probe(url, *consent, None))).await;
    found.into_iter().flatten().filter(|server| !server.models.is_empty()).collect()
}

/// Whether a server that is found at an address is this user's.
fn consent(address: &str) -> Consent {
    let uids = address.parse().ok().and_then(listening_uids).unwrap_or_default();
    let ours = geteuid().as_raw();
    match uids.iter().find(|uid| **uid != ours) {
        Some(other) => Consent::Missing(Some(*other)),
        None if uids.is_empty() => Consent::Missing(None),
        None => Consent::SameUser,
    }
}

/// Asks one server, under its base URL or that with `/v1`.
async fn probe(url: &str, consent: Consent, key: Option<&Secret>) -> Option<Detected> {
    let url = url.trim_end_matches('/');
    let base_url = if url.ends_with("/v1") { url.to_owned() } else { format!("{url}/v1") };
    let endpoint = Endpoint::parse(&base_url).ok()?;
    let client: Client = endpoint.client(Timeouts { connect: TIMEOUT, idle: TIMEOUT }).ok()?;
    let headers = key.map(bearer_header).unwrap_or_default();
    let lister =
        Lister { client: &client, endpoint: &endpoint, headers: &headers, timeout: TIMEOUT };
    let (list, tags) = tokio::join!(lister.openai(), lister.ollama());
    // llama.cpp answers some of Ollama's routes too, so its own mark is looked for first.
    let list = list.unwrap_or(Value::Null);
    let (kind, mut models) = match (kind_of(&list), tags) {
        (ServerKind::LlamaCpp, _) => (ServerKind::LlamaCpp, lister.llama_cpp(&list).await.ok()?),
        (_, Ok(models)) => (ServerKind::Ollama, models),
        (kind, Err(_)) => (kind, of_openai(&list)),
    };
    // A server without a model that chats is none that answers.
    models.retain(|model| !model.is_no_chat);
    Some(Detected { kind, base_url, models, consent, key: key.cloned() })
}

fn bearer_header(key: &Secret) -> HeaderMap {
    let value = HeaderValue::from_str(&format!("Bearer {}", key.reveal()));
    value.map(|value| HeaderMap::from_iter([(AUTHORIZATION, value)])).unwrap_or_default()
}

fn kind_of(list: &Value) -> ServerKind {
    let first = &list["data"][0];
    match first["owned_by"].as_str() {
        Some("llamacpp") => ServerKind::LlamaCpp,
        None if first["created"].is_number() => ServerKind::Mlx,
        _ => ServerKind::OpenAiCompatible,
    }
}
