//! Connecting to the cluster, with each obstacle explained in one line.

use std::error::Error;
use std::path::Path;
use std::time::Duration;
use std::{io, iter};

use async_nats::{
    Client, ConnectError, ConnectErrorKind, ConnectOptions, Event, ServerAddr, rustls,
};

use super::api::ClusterApi;
use super::config::{JetStreamConfig, Login};
use crate::error::LogError;
use crate::private_files::read_private_file;

/// Timeout of connecting to one server.
const CONNECT_TIMEOUT: Duration = Duration::from_secs(5);
/// Interval of pings; a server that misses two is left.
const PING_INTERVAL: Duration = Duration::from_secs(5);
/// Maximum delay between two tries to reconnect.
const RECONNECT_DELAY_LIMIT: Duration = Duration::from_millis(500);
/// Length of an NKey seed in base 32.
const SEED_LETTERS: usize = 58;
/// Capacity of a subscription, in messages.
const SUBSCRIPTION_MESSAGES: usize = 8192;

/// Connects; afterwards the client reconnects by itself for ever.
pub(super) async fn connect_api(config: &JetStreamConfig) -> Result<ClusterApi, LogError> {
    connect_client(config).await.map(ClusterApi::new)
}

/// Connects a client for other purposes than the log.
///
/// # Errors
/// No server can be reached, or the credentials are refused.
pub async fn connect_client(config: &JetStreamConfig) -> Result<Client, LogError> {
    let address = &config.address;
    let servers: Result<Vec<ServerAddr>, _> =
        address.servers.iter().map(|server| server.parse()).collect();
    let servers = servers
        .map_err(|error| LogError::Unavailable(format!("{address} is no address: {error}")))?;
    let options = connect_options(config)?;
    options.connect(servers).await.map_err(|error| connect_failure(config, &error))
}

fn connect_options(config: &JetStreamConfig) -> Result<ConnectOptions, LogError> {
    let address = &config.address;
    // Without this the server alone decides about encryption, and an attacker in between could
    // strip it.
    let may_be_clear = config.insecure_cluster || address.is_loopback();
    let options = ConnectOptions::new()
        .name("convergio")
        .connection_timeout(CONNECT_TIMEOUT)
        .ping_interval(PING_INTERVAL)
        .subscription_capacity(SUBSCRIPTION_MESSAGES)
        .require_tls(address.tls || !may_be_clear)
        .reconnect_delay_callback(|tries| {
            // 8 ms doubled per try: a restarted server is found quickly, a dead one is not flooded.
            let doubled = 1 << tries.min(6);
            Duration::from_millis(8 * doubled).min(RECONNECT_DELAY_LIMIT)
        })
        .event_callback(|event| async move {
            match event {
                Event::Connected => tracing::info!("connected to the log's cluster"),
                Event::Disconnected => {
                    tracing::warn!("the connection to the log's cluster is lost");
                }
                other => tracing::debug!(%other, "the log's connection"),
            }
        });
    let options = match &address.authority {
        Some(file) => options.add_root_certificates(file.clone()),
        None => options,
    };
    Ok(match &address.login {
        Login::Nobody => options,
        Login::Password { user, password } => {
            options.user_and_password(user.clone(), password.clone())
        }
        Login::Credentials(path) => with_credentials(options, path)?,
    })
}

/// Adds the credentials of a file: a JWT with its seed, or a seed alone.
fn with_credentials(options: ConnectOptions, path: &Path) -> Result<ConnectOptions, LogError> {
    let text = read_private_file(path).map_err(|error| {
        LogError::Unavailable(format!("the credentials {} are not used: {error}", path.display()))
    })?;
    if let Some(seed) = user_seed(&text) {
        return Ok(options.nkey(seed.to_owned()));
    }
    // The parser's error is dropped: it may quote the file's secret.
    options.credentials(&text).map_err(|_| {
        LogError::Unavailable(format!(
            "{} holds neither credentials (JWT and seed) nor the seed of a user's NKey",
            path.display()
        ))
    })
}

/// Returns the seed if a file holds nothing else but comments.
fn user_seed(text: &str) -> Option<&str> {
    let lines = text.lines().map(str::trim);
    let mut lines = lines.filter(|line| !line.is_empty() && !line.starts_with('#'));
    let seed = lines.next().filter(|_| lines.next().is_none())?;
    let is_base32 = |byte: u8| byte.is_ascii_uppercase() || matches!(byte, b'2'..=b'7');
    let is_seed = seed.len() == SEED_LETTERS && seed.starts_with("SU");
    (is_seed && seed.bytes().all(is_base32)).then_some(seed)
}

fn connect_failure(config: &JetStreamConfig, error: &ConnectError) -> LogError {
    let address = &config.address;
    LogError::Unavailable(match error.kind() {
        ConnectErrorKind::AuthorizationViolation | ConnectErrorKind::Authentication => {
            let check = match &address.login {
                Login::Credentials(path) => format!("check {}", path.display()),
                Login::Nobody => "it wants some: --log-creds FILE".to_owned(),
                Login::Password { .. } => "check user and password".to_owned(),
            };
            format!("{address} refuses the credentials: {check}")
        }
        _ if is_tls_error(error) => format!(
            "{address} cannot be reached by TLS: {error}; set `tls` as in deploy/nats/server.conf, \
             and name its authority by --log-ca"
        ),
        _ => format!("no server of {address} can be reached: {error}"),
    })
}

/// Returns whether TLS failed. A server that answers in clear text causes a read error with a TLS
/// error as its source.
fn is_tls_error(error: &ConnectError) -> bool {
    let is_tls = |source: &(dyn Error + 'static)| {
        let inner = source.downcast_ref::<io::Error>().and_then(io::Error::get_ref);
        source.is::<rustls::Error>() || inner.is_some_and(|inner| inner.is::<rustls::Error>())
    };
    let mut sources = iter::successors(error.source(), |&source| source.source());
    error.kind() == ConnectErrorKind::Tls || sources.any(is_tls)
}

#[cfg(test)]
mod tests {
    use super::user_seed;

    /// A seed of the project's own documentation of NKeys: nobody's.
    const SEED: &str = "SUAIO3FHUX5PNV2LQIIP7TZ3N4L7TX3W53MQGEIVYFIGA635OZCKEYHFLM";

    #[test]
    fn a_seed_stands_alone() {
        assert_eq!(user_seed(&format!("# of the log\n\n{SEED}\n")), Some(SEED));
        let account = SEED.replacen("SU", "SA", 1);
        for other in ["", "SU", &account, &SEED.to_lowercase(), &format!("{SEED}\n{SEED}")] {
            assert_eq!(user_seed(other), None, "{other}");
        }
    }
}
