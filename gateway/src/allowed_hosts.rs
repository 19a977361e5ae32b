//! The accepted `Host` names. Without this check a foreign web page could point its own name at
//! this machine (DNS rebinding) and read answers with the browser of its visitor; the browser still
//! sends the foreign name.

use std::collections::BTreeSet;
use std::net::IpAddr;
use std::sync::Arc;

use axum::http::HeaderMap;
use axum::http::header::HOST;
use axum::http::uri::Authority;

use crate::problem::ApiError;

/// Accepted names besides every IP address and every name without a dot: neither can be rebound by
/// a foreign page.
#[derive(Debug, Clone, Default)]
pub struct AllowedHosts {
    names: Arc<BTreeSet<String>>,
}

impl AllowedHosts {
    /// Accepts these names besides the default ones. Case and port do not matter.
    pub fn new(names: impl IntoIterator<Item = String>) -> Self {
        let names = names.into_iter().map(|name| name.to_ascii_lowercase());
        Self { names: Arc::new(names.collect()) }
    }

    fn is_allowed_host(&self, host: &str) -> bool {
        let host = host.trim_end_matches('.').to_ascii_lowercase();
        let address = host.strip_prefix('[').and_then(|host| host.strip_suffix(']'));
        // A name without a dot belongs to the local network: nobody on the internet can own it.
        let is_near = !host.is_empty() && !host.contains(['.', ':']);
        is_near || address.unwrap_or(&host).parse::<IpAddr>().is_ok() || self.names.contains(&host)
    }

    /// Rejects requests whose `Host` is not accepted. Requests without the header are no browser's.
    pub(crate) fn check_host(&self, headers: &HeaderMap) -> Result<(), ApiError> {
        let Some(value) = headers.get(HOST) else { return Ok(()) };
        let authority = value.to_str().ok().and_then(|value| value.parse::<Authority>().ok());
        let Some(authority) = authority else {
            return Err(ApiError::invalid_request("the header `Host` is not a name or an address"));
        };
        if self.is_allowed_host(authority.host()) {
            return Ok(());
        }
        let detail = "the server does not know the name in the header `Host`: whoever runs it can \
            add it with `serve --host NAME`";
        Err(ApiError::invalid_request(detail))
    }
}

#[cfg(test)]
mod tests {
    use super::AllowedHosts;

    #[test]
    fn addresses_and_listed_names_are_known_and_no_others() {
        let hosts = AllowedHosts::new(["Convergio.example.org".to_owned()]);
        for host in ["localhost", "LOCALHOST", "convergio", "127.0.0.1", "[::1]", "10.1.2.3"] {
            assert!(hosts.is_allowed_host(host), "{host}");
        }
        assert!(
            hosts.is_allowed_host("convergio.EXAMPLE.org")
                && hosts.is_allowed_host("convergio.example.org.")
        );
        for host in ["example.org", "evil.localhost", "127.0.0.1.evil.example", ""] {
            assert!(!hosts.is_allowed_host(host), "{host}");
        }
    }
}
