//! Reaching the cluster, and what stands in the way, in one line each.

use std::time::Duration;

use async_nats::{ConnectError, ConnectErrorKind, ConnectOptions, Event, ServerAddr};

use super::api::Api;
use super::config::{Address, Login};
use crate::error::LogError;

/// Wait for one server.
const CONNECT: Duration = Duration::from_secs(5);
/// A server that is silent for two of these is left.
const PING: Duration = Duration::from_secs(5);
/// Longest wait between two tries to connect again.
const RECONNECT: Duration = Duration::from_millis(500);
/// Messages of one batch that may wait for their reader.
const WAITING: usize = 8192;

/// Connects; afterwards the connection comes back by itself, for ever.
pub(super) async fn connect(address: &Address) -> Result<Api, LogError> {
    let servers: Result<Vec<ServerAddr>, _> =
        address.servers.iter().map(|server| server.parse()).collect();
    let servers = servers
        .map_err(|error| LogError::Unavailable(format!("{address} is no address: {error}")))?;
    let options = options(address)?;
    let client = options.connect(servers).await.map_err(|error| failure(address, &error))?;
    Ok(Api::new(client))
}

fn options(address: &Address) -> Result<ConnectOptions, LogError> {
    let options = ConnectOptions::new()
        .name("convergio")
        .connection_timeout(CONNECT)
        .ping_interval(PING)
        .subscription_capacity(WAITING)
        .require_tls(address.tls)
        .reconnect_delay_callback(|tries| {
            let doubled = 1 << tries.min(6);
            Duration::from_millis(8 * doubled).min(RECONNECT)
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
    Ok(match &address.login {
        Login::Nobody => options,
        Login::Password { user, password } => {
            options.user_and_password(user.clone(), password.clone())
        }
        Login::Credentials(path) => {
            let text = std::fs::read_to_string(path).map_err(|error| {
                LogError::Unavailable(format!("cannot read {}: {error}", path.display()))
            })?;
            // The parser's error may repeat what is in the file.
            options.credentials(&text).map_err(|_| {
                LogError::Unavailable(format!("{} holds no credentials", path.display()))
            })?
        }
    })
}

fn failure(address: &Address, error: &ConnectError) -> LogError {
    LogError::Unavailable(match error.kind() {
        ConnectErrorKind::AuthorizationViolation | ConnectErrorKind::Authentication => {
            format!("{address} refuses the credentials: check user and password")
        }
        ConnectErrorKind::Tls => format!("{address} cannot be reached by TLS: {error}"),
        _ => format!("no server of {address} can be reached: {error}"),
    })
}
