//! A provider's endpoint: its URL, how far away it is, and an HTTP client fit for that.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};
use std::sync::Once;
use std::time::Duration;

use reqwest::{Client, ClientBuilder, Url};

use super::config::Timeouts;
use super::error::ModelError;

/// Time for which idle connections to near servers are kept. Servers on this machine close theirs
/// after 5 seconds (llama.cpp); a connection kept longer would be found closed by the next call.
const POOL_IDLE_LOCAL: Duration = Duration::from_secs(3);
/// Time for which idle connections to far servers are kept.
const POOL_IDLE_REMOTE: Duration = Duration::from_secs(60);

/// The network across which a server is reached.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Reach {
    /// This machine, by a loopback address or name.
    Loopback,
    /// A private network of the user or the operator.
    Premises,
    /// Any other network, taken as public.
    Internet,
}

/// The checked base URL of a provider.
#[derive(Debug, Clone)]
pub(crate) struct Endpoint {
    /// The URL up to and without the interface's paths. Parsed once: host names take long.
    base: Url,
    is_tls: bool,
    pub(crate) reach: Reach,
    /// True if the host is an address or `localhost`, which need no name server.
    needs_no_dns: bool,
}

impl Endpoint {
    /// Parses a base URL such as `http://127.0.0.1:8080/v1`.
    ///
    /// # Errors
    /// `request.invalid`; the message does not repeat the URL, which may hold a password.
    pub(crate) fn parse(text: &str) -> Result<Self, ModelError> {
        let wrong = |why: &str| {
            let message = format!("a model server's URL {why}; right is http://127.0.0.1:8080/v1");
            ModelError::new("request.invalid", false, message)
        };
        let url = Url::parse(text).map_err(|_| wrong("is not a URL"))?;
        if !matches!(url.scheme(), "http" | "https") {
            return Err(wrong("begins with http:// or https://"));
        }
        // Whatever is in a URL ends up in logs sooner or later.
        if !url.username().is_empty() || url.password().is_some() || url.query().is_some() {
            return Err(wrong("holds no user, password or query: a key has its own place"));
        }
        let host = url.host_str().unwrap_or_default();
        let reach = host_reach(host);
        let is_known = host == "localhost" || host_address(host).is_some();
        let is_tls = url.scheme() == "https";
        Ok(Self { base: url, is_tls, reach, needs_no_dns: is_known })
    }

    /// Returns the URL of a path below the base, such as `/chat/completions`; it may have a query.
    pub(crate) fn url_below_base(&self, path: &str) -> Url {
        self.url_below(self.base_path(), path)
    }

    /// Returns the URL of a path beside `/v1`, where servers have the routes that OpenAI's
    /// interface lacks.
    pub(crate) fn url_beside_v1(&self, path: &str) -> Url {
        self.url_below(self.base_path().strip_suffix("/v1").unwrap_or(self.base_path()), path)
    }

    fn base_path(&self) -> &str {
        self.base.path().trim_end_matches('/')
    }

    fn url_below(&self, base_path: &str, path: &str) -> Url {
        let (path, query) =
            path.split_once('?').map_or((path, None), |(path, query)| (path, Some(query)));
        let mut url = self.base.clone();
        url.set_path(&format!("{base_path}{path}"));
        url.set_query(query);
        url
    }

    /// Returns whether requests stay on the premises and no name server learns of them.
    pub(crate) fn is_private(&self) -> bool {
        self.reach != Reach::Internet && self.needs_no_dns
    }

    /// Returns whether a key would travel unencrypted over a public network.
    pub(crate) fn exposes_keys(&self) -> bool {
        !self.is_tls && self.reach == Reach::Internet
    }

    /// Builds a client for this endpoint. The environment's proxies are used for far servers only.
    ///
    /// # Errors
    /// The machine has no usable TLS.
    pub(crate) fn build_client(&self, timeouts: Timeouts) -> Result<Client, ModelError> {
        let is_near = self.reach != Reach::Internet;
        let pool_idle = if is_near { POOL_IDLE_LOCAL } else { POOL_IDLE_REMOTE };
        let builder =
            client_builder().connect_timeout(timeouts.connect).pool_idle_timeout(pool_idle);
        // A proxy would see prompts that must stay on the premises.
        let builder = if is_near { builder.no_proxy() } else { builder };
        // Loading the system's certificates fails on machines without any; without TLS none are
        // needed.
        let builder = if self.is_tls { builder } else { builder.tls_certs_only([]) };
        builder.build().map_err(|error| missing_tls_error(&error))
    }
}

/// Builds a client for servers of this platform: without redirects, proxies or Nagle's algorithm.
///
/// # Errors
/// The machine has no usable TLS.
pub fn http_client() -> Result<Client, ModelError> {
    let builder = || client_builder().connect_timeout(Timeouts::default().connect).no_proxy();
    // A machine without certificates can still speak to servers without TLS.
    let client = builder().build().or_else(|_| builder().tls_certs_only([]).build());
    client.map_err(|error| missing_tls_error(&error))
}

/// Builds a client for downloads from the URL's host: by the environment's proxy if the host is
/// far, directly if it is near. It follows no redirects.
///
/// # Errors
/// The URL is malformed, or the machine has no usable TLS.
pub fn download_client(url: &str) -> Result<Client, ModelError> {
    Endpoint::parse(url)?.build_client(Timeouts::default())
}

/// Installs the cryptography of every TLS connection of the process. Must be called before the
/// first client is built.
pub fn install_tls() {
    static TLS: Once = Once::new();
    // An error means that a provider is installed already, which serves as well.
    TLS.call_once(|| drop(rustls::crypto::ring::default_provider().install_default()));
}

/// Settings that all clients share.
fn client_builder() -> ClientBuilder {
    install_tls();
    // Resolved here, so that no name server is asked for `localhost` and IPv4 is tried first.
    let loopback = [IpAddr::from(Ipv4Addr::LOCALHOST), IpAddr::from(Ipv6Addr::LOCALHOST)];
    let loopback_sockets = loopback.map(|address| SocketAddr::new(address, 0));
    Client::builder()
        // Requests are written at once: waiting for more bytes only adds latency.
        .tcp_nodelay(true)
        // A redirect could lead a key or a prompt to another host.
        .redirect(reqwest::redirect::Policy::none())
        .resolve_to_addrs("localhost", &loopback_sockets)
}

fn missing_tls_error(error: &reqwest::Error) -> ModelError {
    ModelError::new("internal", false, format!("no TLS on this machine: {error}"))
}

/// Returns how far away a host is by its name or address alone, without looking it up.
fn host_reach(host: &str) -> Reach {
    if let Some(address) = host_address(host) {
        return address_reach(address);
    }
    let host = host.to_ascii_lowercase();
    // Names without a dot come from a search domain or a container network; the others are reserved
    // for private networks (RFC 6762, RFC 8375).
    let private_suffixes = ["local", "lan", "internal", "home.arpa"];
    if host == "localhost" || host.ends_with(".localhost") {
        Reach::Loopback
    } else if !host.contains('.')
        || private_suffixes.iter().any(|suffix| host.ends_with(&format!(".{suffix}")))
    {
        Reach::Premises
    } else {
        Reach::Internet
    }
}

fn host_address(host: &str) -> Option<IpAddr> {
    host.trim_start_matches('[').trim_end_matches(']').parse().ok()
}

fn address_reach(address: IpAddr) -> Reach {
    let is_private = match address {
        IpAddr::V4(v4) => v4.is_private() || v4.is_link_local() || is_shared_address(v4),
        IpAddr::V6(v6) => v6.is_unique_local() || v6.is_unicast_link_local(),
    };
    match address {
        _ if address.is_loopback() => Reach::Loopback,
        _ if is_private => Reach::Premises,
        _ => Reach::Internet,
    }
}

/// Returns whether the address is in 100.64.0.0/10 (RFC 6598), used behind carrier-grade NAT and by
/// overlay networks.
fn is_shared_address(address: Ipv4Addr) -> bool {
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
        let below = |path| endpoint.url_below_base(path).to_string();
        assert_eq!(below("/models?limit=1"), "http://127.0.0.1:8080/v1/models?limit=1");
        assert_eq!(below("/models/a:b?alt=sse"), "http://127.0.0.1:8080/v1/models/a:b?alt=sse");
        assert_eq!(endpoint.url_beside_v1("/props").to_string(), "http://127.0.0.1:8080/props");
    }
}
