//! Where the cluster is, how the log is named in it, and what it must promise.

use std::fmt;
use std::net::IpAddr;
use std::path::PathBuf;
use std::str::FromStr;

use crate::error::LogError;
use crate::log::Durability;

/// The name of a log in its cluster, if the address names none.
const DEFAULT_NAME: &str = "CVG";
/// Longest name of a log.
const NAME_LIMIT: usize = 20;

/// How a process proves who it is.
#[derive(Clone, Default, PartialEq, Eq)]
pub enum Login {
    /// It does not.
    #[default]
    Nobody,
    /// By a user's name and password.
    Password {
        /// The user.
        user: String,
        /// The password.
        password: String,
    },
    /// By a file: credentials (JWT and seed), or the seed of an NKey.
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

/// Where a log is: `nats://[user:password@]host:port[,host:port…][/NAME]`, or `tls://` the same.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Address {
    /// `host:port` of servers of the cluster; any of them leads to the others.
    pub servers: Vec<String>,
    /// Who we are.
    pub login: Login,
    /// Whether the connection must be encrypted.
    pub tls: bool,
    /// Certificates of who vouches for the servers, in place of those that the system knows.
    pub authority: Option<PathBuf>,
    /// The log's name in the cluster: 1 to 20 of A-Z, 0-9 and `_`.
    pub name: String,
}

impl Address {
    /// Whether it leads to no other machine.
    pub(super) fn is_loopback(&self) -> bool {
        self.servers.iter().all(|server| is_loopback(server))
    }
}

fn is_loopback(server: &str) -> bool {
    let host = server.rsplit_once(':').map_or(server, |(host, _)| host);
    let host = host.trim_start_matches('[').trim_end_matches(']');
    host == "localhost" || host.parse::<IpAddr>().is_ok_and(|address| address.is_loopback())
}

impl FromStr for Address {
    type Err = LogError;

    fn from_str(text: &str) -> Result<Self, LogError> {
        let (scheme, rest) = text.split_once("://").ok_or_else(|| wrong("it has no scheme"))?;
        let tls = match scheme {
            "nats" => false,
            "tls" => true,
            _ => return Err(wrong("its scheme is neither nats nor tls")),
        };
        let (place, name) = rest.split_once('/').unwrap_or((rest, ""));
        let (login, hosts) = match place.rsplit_once('@') {
            Some((user, hosts)) => (login(user)?, hosts),
            None => (Login::Nobody, place),
        };
        let servers: Vec<String> = hosts.split(',').map(with_port).collect();
        if hosts.split(',').any(str::is_empty) {
            return Err(wrong("a host is missing"));
        }
        let name = if name.is_empty() { DEFAULT_NAME } else { name };
        let ok = |b: u8| b.is_ascii_uppercase() || b.is_ascii_digit() || b == b'_';
        if name.len() > NAME_LIMIT || !name.bytes().all(ok) {
            return Err(wrong("the name after `/` must be 1 to 20 characters of A-Z, 0-9 and `_`"));
        }
        Ok(Self { servers, login, tls, authority: None, name: name.to_owned() })
    }
}

impl fmt::Display for Address {
    /// Without the login.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let scheme = if self.tls { "tls" } else { "nats" };
        write!(f, "{scheme}://{}/{}", self.servers.join(","), self.name)
    }
}

fn login(text: &str) -> Result<Login, LogError> {
    let (user, password) =
        text.split_once(':').ok_or_else(|| wrong("before `@` must stand user:password"))?;
    Ok(Login::Password { user: user.to_owned(), password: password.to_owned() })
}

fn with_port(host: &str) -> String {
    if host.rsplit_once(':').is_some_and(|(_, port)| port.parse::<u16>().is_ok()) {
        host.to_owned()
    } else {
        format!("{host}:4222")
    }
}

/// The address itself is not repeated: it may hold a password.
fn wrong(reason: &str) -> LogError {
    LogError::Unavailable(format!(
        "the address of the log is not right: {reason}; \
         use nats://[user:password@]host:port[,host:port][/NAME]"
    ))
}

/// What a log is opened with.
#[derive(Clone)]
pub struct Config {
    /// Where it is.
    pub address: Address,
    /// What it must promise; less is refused.
    pub require: Durability,
    /// Whether a cluster is opened that strangers can join or listen to: for servers on one
    /// machine.
    pub insecure_cluster: bool,
    /// The key that seals payloads; the same in every process that uses the log.
    pub payload_key: [u8; 32],
}

impl Config {
    /// A log that must survive the loss of a minority of its machines, in a cluster that is shut.
    pub fn new(address: Address, payload_key: [u8; 32]) -> Self {
        Self { address, require: Durability::QuorumFsync, insecure_cluster: false, payload_key }
    }
}

impl fmt::Debug for Config {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Config({}, {:?})", self.address, self.require)
    }
}

/// How the streams of a new log are laid out.
#[derive(Debug, Clone, Copy)]
pub struct Layout {
    /// Copies of each record on different servers: 1 for development, 3 or 5.
    pub replicas: usize,
    /// Most bytes of records; then appends are refused as full.
    pub log_bytes: u64,
    /// Most bytes of payloads; then appends with payloads are refused as full.
    pub payload_bytes: u64,
}

impl Default for Layout {
    fn default() -> Self {
        Self { replicas: 3, log_bytes: 64 << 30, payload_bytes: 256 << 30 }
    }
}

#[cfg(test)]
mod tests {
    use super::{Address, Login};

    #[test]
    fn addresses_are_read() {
        let address: Address = "nats://u:p@a:1,b,c:3/PROD_1".parse().unwrap();
        assert_eq!(address.servers, ["a:1", "b:4222", "c:3"]);
        assert_eq!((address.name.as_str(), address.tls), ("PROD_1", false));
        assert_eq!(address.to_string(), "nats://a:1,b:4222,c:3/PROD_1");
        assert!(!format!("{address:?}").contains(":p"), "a password is not shown");
        let plain: Address = "tls://host".parse().unwrap();
        assert_eq!((plain.login, plain.tls, plain.name.as_str()), (Login::Nobody, true, "CVG"));
    }

    #[test]
    fn one_host_elsewhere_is_no_loopback() {
        let is_loopback = |text: &str| text.parse::<Address>().unwrap().is_loopback();
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
            let error = wrong.parse::<Address>().unwrap_err().to_string();
            assert!(error.contains("use nats://") && !error.contains("secret"), "{wrong}: {error}");
        }
    }
}
