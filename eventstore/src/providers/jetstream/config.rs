//! Configuration: the cluster's address, the log's name in it, and the durability that it must
//! have.

use std::fmt;
use std::net::IpAddr;
use std::path::PathBuf;
use std::str::FromStr;

use crate::error::LogError;
use crate::log::Durability;

/// Name of the log if the address has none.
const DEFAULT_NAME: &str = "CVG";
/// Maximum length of a log's name.
const NAME_LIMIT: usize = 20;

/// Credentials of a client.
#[derive(Clone, Default, PartialEq, Eq)]
pub enum Login {
    /// No credentials.
    #[default]
    Nobody,
    /// User name and password.
    Password {
        /// User name.
        user: String,
        /// Password; never printed.
        password: String,
    },
    /// Path of a credentials file (JWT and seed) or of an NKey seed.
    Credentials(PathBuf),
}

impl fmt::Debug for Login {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Nobody => f.write_str("Nobody"),
            Self::Password { user, .. } => write!(f, "Password({user}, …)"),
            Self::Credentials(path) => write!(f, "Credentials({})", path.display()),
        }
    }
}

/// Address of a log: `nats://[user:password@]host:port[,host:port…][/NAME]`, or the same with
/// `tls://`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ClusterAddress {
    /// `host:port` of servers of the cluster; any of them leads to the others.
    pub servers: Vec<String>,
    /// Credentials of this process.
    pub login: Login,
    /// True if the connection must be encrypted.
    pub tls: bool,
    /// File of certificate authorities for the servers' certificates, in place of the system's.
    pub authority: Option<PathBuf>,
    /// Name of the log in the cluster: 1 to 20 of A-Z, 0-9 and `_`.
    pub name: String,
}

impl ClusterAddress {
    /// Returns whether all servers are on this machine.
    pub(super) fn is_loopback(&self) -> bool {
        self.servers.iter().all(|server| is_loopback(server))
    }
}

fn is_loopback(server: &str) -> bool {
    let host = server.rsplit_once(':').map_or(server, |(host, _)| host);
    let host = host.trim_start_matches('[').trim_end_matches(']');
    host == "localhost" || host.parse::<IpAddr>().is_ok_and(|address| address.is_loopback())
}

impl FromStr for ClusterAddress {
    type Err = LogError;

    fn from_str(text: &str) -> Result<Self, LogError> {
        let (scheme, rest) =
            text.split_once("://").ok_or_else(|| invalid_address("it has no scheme"))?;
        let tls = match scheme {
            "nats" => false,
            "tls" => true,
            _ => return Err(invalid_address("its scheme is neither nats nor tls")),
        };
        let (place, name) = rest.split_once('/').unwrap_or((rest, ""));
        // The last `@` separates, since a password may hold one too.
        let (login, hosts) = match place.rsplit_once('@') {
            Some((user, hosts)) => (parse_login(user)?, hosts),
            None => (Login::Nobody, place),
        };
        let servers: Vec<String> = hosts.split(',').map(with_default_port).collect();
        if hosts.split(',').any(str::is_empty) {
            return Err(invalid_address("a host is missing"));
        }
        let name = if name.is_empty() { DEFAULT_NAME } else { name };
        let ok = |b: u8| b.is_ascii_uppercase() || b.is_ascii_digit() || b == b'_';
        if name.len() > NAME_LIMIT || !name.bytes().all(ok) {
            return Err(invalid_address(
                "the name after `/` must be 1 to 20 characters of A-Z, 0-9 and `_`",
            ));
        }
        Ok(Self { servers, login, tls, authority: None, name: name.to_owned() })
    }
}

impl fmt::Display for ClusterAddress {
    /// Prints the address without credentials.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let scheme = if self.tls { "tls" } else { "nats" };
        write!(f, "{scheme}://{}/{}", self.servers.join(","), self.name)
    }
}

fn parse_login(text: &str) -> Result<Login, LogError> {
    let (user, password) = text
        .split_once(':')
        .ok_or_else(|| invalid_address("before `@` must stand user:password"))?;
    Ok(Login::Password { user: user.to_owned(), password: password.to_owned() })
}

fn with_default_port(host: &str) -> String {
    if host.rsplit_once(':').is_some_and(|(_, port)| port.parse::<u16>().is_ok()) {
        host.to_owned()
    } else {
        format!("{host}:4222")
    }
}

/// Builds an error that does not repeat the address, since that may hold a password.
fn invalid_address(reason: &str) -> LogError {
    LogError::Unavailable(format!(
        "the address of the log is not right: {reason}; \
         use nats://[user:password@]host:port[,host:port][/NAME]"
    ))
}

/// Configuration of a [`JetStreamLog`](super::JetStreamLog).
#[derive(Clone)]
pub struct JetStreamConfig {
    /// Address of the log.
    pub address: ClusterAddress,
    /// Required durability; a cluster that proves less is refused.
    pub required_durability: Durability,
    /// True to open a cluster that strangers can join or listen to, for servers on one machine.
    pub insecure_cluster: bool,
    /// Key that seals payloads; the same in every process of the log.
    pub payload_key: [u8; 32],
}

impl JetStreamConfig {
    /// Configures a log that must survive the loss of a minority of machines, in a cluster that is
    /// shut.
    pub fn new(address: ClusterAddress, payload_key: [u8; 32]) -> Self {
        Self {
            address,
            required_durability: Durability::QuorumFsync,
            insecure_cluster: false,
            payload_key,
        }
    }
}

impl fmt::Debug for JetStreamConfig {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Config({}, {:?})", self.address, self.required_durability)
    }
}

/// Layout of the streams of a new log.
#[derive(Debug, Clone, Copy)]
pub struct Layout {
    /// Replicas of each record on different servers: 1 for development, 3 or 5.
    pub replicas: usize,
    /// Maximum bytes of records; beyond it appends fail as full.
    pub log_bytes: u64,
    /// Maximum bytes of payloads; beyond it appends with payloads fail as full.
    pub payload_bytes: u64,
}

impl Default for Layout {
    fn default() -> Self {
        Self { replicas: 3, log_bytes: 64 << 30, payload_bytes: 256 << 30 }
    }
}

#[cfg(test)]
mod tests {
    use super::{ClusterAddress, Login};

    #[test]
    fn addresses_are_read() {
        let address: ClusterAddress = "nats://u:p@a:1,b,c:3/PROD_1".parse().unwrap();
        assert_eq!(address.servers, ["a:1", "b:4222", "c:3"]);
        assert_eq!((address.name.as_str(), address.tls), ("PROD_1", false));
        assert_eq!(address.to_string(), "nats://a:1,b:4222,c:3/PROD_1");
        assert!(!format!("{address:?}").contains(":p"), "a password is not shown");
        let plain: ClusterAddress = "tls://host".parse().unwrap();
        assert_eq!((plain.login, plain.tls, plain.name.as_str()), (Login::Nobody, true, "CVG"));
    }

    #[test]
    fn one_host_elsewhere_is_no_loopback() {
        let is_loopback = |text: &str| text.parse::<ClusterAddress>().unwrap().is_loopback();
        assert!(is_loopback("nats://localhost,127.0.0.3:1,[::1]:4222"));
        for elsewhere in ["127.0.0.1,host", "0.0.0.0:1", "localhost.example", "[::]:1"] {
            assert!(!is_loopback(&format!("nats://{elsewhere}")), "{elsewhere}");
        }
    }

    #[test]
    fn wrong_addresses_are_told_without_their_password() {
        for wrong in [
            "host",
            "http://host",
            "nats://u@host",
            "nats://",
            "nats://a,,b/X",
            "nats://u:secret@h/low",
        ] {
            let error = wrong.parse::<ClusterAddress>().unwrap_err().to_string();
            assert!(error.contains("use nats://") && !error.contains("secret"), "{wrong}: {error}");
        }
    }
}
