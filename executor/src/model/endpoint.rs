//! Where a provider stands: its URL, how far away it is, and the HTTP client fit for that.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};
use std::sync::Once;
use std::time::Duration;

use reqwest::{Client, ClientBuilder, Url};

use super::config::Timeouts;
use super::error::ModelError;

/// Servers on this machine close idle connections after 5 seconds (llama.cpp): a connection that
/// is kept longer would be found closed by the next call.
const POOL_IDLE_LOCAL: Duration = Duration::from_secs(3);
const POOL_IDLE_REMOTE: Duration = Duration::from_secs(60);

/// How far away a server is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Reach {
    /// This machine.
    Loopback,
    /// A network of the person or the operator.
    Premises,
    /// Anywhere.
    Internet,
}

/// The base URL of an OpenAI-compatible interface, checked.
#[derive(Debug, Clone)]
pub(super) struct Endpoint {
    /// The URL up to and without `/chat/completions`.
    base: String,
    is_tls: bool,
    pub(super) reach: Reach,
    /// Whether the host can be reached without asking a name server.
    is_known: bool,
}

impl Endpoint {
    /// Reads a base URL, as `http://127.0.0.1:8080/v1`.
    pub(super) fn parse(text: &str) -> Result<Self, ModelError> {
        let wrong = |why: &str| {
            let message = format!("a model server's URL {why}; right is http://127.0.0.1:8080/v1");
            ModelError::new("request.invalid", false, message)
        };
        let url = Url::parse(text).map_err(|_| wrong("is not a URL"))?;
        if !matches!(url.scheme(), "http" | "https") {
            return Err(wrong("begins with http:// or https://"));
        }
        // Whatever stands in a URL ends up in logs sooner or later.
        if !url.username().is_empty() || url.password().is_some() || url.query().is_some() {
            return Err(wrong("holds no user, password or query: a key has its own place"));
        }
        let host = url.host_str().unwrap_or_default();
        let reach = reach(host);
        let base = text.trim_end_matches('/').to_owned();
        let is_known = host == "localhost" || address(host).is_some();
        Ok(Self { base, is_tls: url.scheme() == "https", reach, is_known })
    }

    /// The URL of a path under the base, as `/chat/completions`.
    pub(super) fn at(&self, path: &str) -> String {
        format!("{}{path}", self.base)
    }

    /// The URL of a path beside `/v1`, where servers keep what OpenAI's interface does not know.
    pub(super) fn beside(&self, path: &str) -> String {
        format!("{}{path}", self.base.strip_suffix("/v1").unwrap_or(&self.base))
    }

    /// Whether what is sent stays on machines of the person or the operator, and nobody is told of
    /// it: a name would have to be looked up.
    pub(super) fn is_private(&self) -> bool {
        self.reach != Reach::Internet && self.is_known
    }

    /// Whether a key would travel unencrypted over networks of others.
    pub(super) fn exposes_keys(&self) -> bool {
        !self.is_tls && self.reach == Reach::Internet
    }

    /// A client for this endpoint. Proxies are for what is far away: what is local never meets one.
    pub(super) fn client(&self, timeouts: Timeouts) -> Result<Client, ModelError> {
        let local = self.reach != Reach::Internet;
        let pool_idle = if local { POOL_IDLE_LOCAL } else { POOL_IDLE_REMOTE };
        let builder = builder().connect_timeout(timeouts.connect).pool_idle_timeout(pool_idle);
        let builder = if local { builder.no_proxy() } else { builder };
        // Without TLS, a machine without certificates will do.
        let builder = if self.is_tls { builder } else { builder.tls_certs_only([]) };
        builder.build().map_err(|error| no_tls(&error))
    }
}

/// A client for servers of this platform: no redirects, no proxies, no Nagle.
///
/// # Errors
/// The machine has no usable TLS.
pub fn client() -> Result<Client, ModelError> {
    let builder = || builder().connect_timeout(Timeouts::default().connect).no_proxy();
    // A machine without certificates can still speak to servers without TLS.
    let client = builder().build().or_else(|_| builder().tls_certs_only([]).build());
    client.map_err(|error| no_tls(&error))
}

/// A client for what is fetched from a URL's host: by the environment's proxy when it is far away,
/// never when it is near. It follows no redirects.
///
/// # Errors
/// It is no URL of a server, or the machine has no usable TLS.
pub fn download_client(url: &str) -> Result<Client, ModelError> {
    Endpoint::parse(url)?.client(Timeouts::default())
}

/// Chooses the cryptography of every TLS connection of the process; must come before the first
/// client.
pub fn install_tls() {
    static TLS: Once = Once::new();
    // A provider installed by somebody else does as well.
    TLS.call_once(|| drop(rustls::crypto::ring::default_provider().install_default()));
}

fn builder() -> ClientBuilder {
    install_tls();
    let here = [IpAddr::from(Ipv4Addr::LOCALHOST), IpAddr::from(Ipv6Addr::LOCALHOST)];
    let here = here.map(|address| SocketAddr::new(address, 0));
    Client::builder()
        .tcp_nodelay(true)
        .redirect(reqwest::redirect::Policy::none())
        .resolve_to_addrs("localhost", &here)
}

fn no_tls(error: &reqwest::Error) -> ModelError {
    ModelError::new("internal", false, format!("no TLS on this machine: {error}"))
}

/// How far away a host is, by its name or address alone: no name is looked up.
fn reach(host: &str) -> Reach {
    if let Some(address) = address(host) {
        return reach_of(address);
    }
    let host = host.to_ascii_lowercase();
    let is_home = ["local", "lan", "internal", "home.arpa"];
    if host == "localhost" || host.ends_with(".localhost") {
        Reach::Loopback
    } else if !host.contains('.') || is_home.iter().any(|end| host.ends_with(&format!(".{end}"))) {
        Reach::Premises
    } else {
        Reach::Internet
    }
}

fn address(host: &str) -> Option<IpAddr> {
    host.trim_start_matches('[').trim_end_matches(']').parse().ok()
}

fn reach_of(address: IpAddr) -> Reach {
    let is_private = match address {
        IpAddr::V4(v4) => v4.is_private() || v4.is_link_local() || is_shared(v4),
        IpAddr::V6(v6) => v6.is_unique_local() || v6.is_unicast_link_local(),
    };
    match address {
        _ if address.is_loopback() => Reach::Loopback,
        _ if is_private => Reach::Premises,
        _ => Reach::Internet,
    }
}

/// RFC 6598: addresses behind a carrier's or an overlay network's translation.
fn is_shared(address: Ipv4Addr) -> bool {
    let [first, second, ..] = address.octets();
    first == 100 && (64..128).contains(&second)
}

#[cfg(test)]
mod tests {
    use super::{Endpoint, Reach};

    #[test]
    fn hosts_are_near_or_far_by_their_names() {
        let cases = [
            ("http://127.0.0.1:8080/v1", Reach::Loopback),
            ("http://[::1]:8080/v1", Reach::Loopback),
            ("http://localhost/v1", Reach::Loopback),
            ("http://ollama:11434/v1", Reach::Premises),
            ("http://192.168.1.4/v1", Reach::Premises),
            ("http://100.100.1.1/v1", Reach::Premises),
            ("http://studio.local/v1", Reach::Premises),
            ("http://host.docker.internal:1/v1", Reach::Premises),
            ("https://api.openai.com/v1", Reach::Internet),
            ("http://localhost.example.com/v1", Reach::Internet),
            ("http://8.8.8.8/v1", Reach::Internet),
            // Written as one number this is 127.0.0.1: the URL's parser says so.
            ("http://2130706433/v1", Reach::Loopback),
        ];
        for (url, reach) in cases {
            assert_eq!(Endpoint::parse(url).unwrap().reach, reach, "{url}");
        }
    }

    #[test]
    fn only_what_needs_no_name_server_is_private() {
        let cases = [
            ("http://127.0.0.1:8080/v1", true),
            ("http://localhost:8080/v1", true),
            ("http://[::1]:8080/v1", true),
            ("http://192.168.1.4/v1", true),
            ("http://ollama:11434/v1", false),
            ("http://evil.localhost/v1", false),
            ("http://studio.local/v1", false),
            ("https://api.openai.com/v1", false),
            ("http://8.8.8.8/v1", false),
        ];
        for (url, is_private) in cases {
            assert_eq!(Endpoint::parse(url).unwrap().is_private(), is_private, "{url}");
        }
    }

    #[test]
    fn wrong_urls_are_refused_without_being_repeated() {
        let urls = [
            "",
            "127.0.0.1:8080",
            "ftp://h/v1",
            "http://user:hunter2@h/v1",
            "http://h/?key=hunter2",
        ];
        for url in urls {
            let message = Endpoint::parse(url).unwrap_err().message;
            assert!(!message.contains("hunter2"), "{message}");
        }
    }

    #[test]
    fn paths_are_under_the_base_or_beside_it() {
        let endpoint = Endpoint::parse("http://127.0.0.1:8080/v1/").unwrap();
        assert_eq!(endpoint.at("/models"), "http://127.0.0.1:8080/v1/models");
        assert_eq!(endpoint.beside("/props"), "http://127.0.0.1:8080/props");
    }
}
