//! The server that a command speaks to: one that was named, the one that uses the data folder, or
//! one started in this process for the time of the command. A token is sent only to the server that
//! it was given for.

use std::net::{IpAddr, Ipv4Addr, SocketAddr};
use std::os::unix::fs::MetadataExt;
use std::path::PathBuf;

use convergio_executor::catalog::listening_uids;
use convergio_process::{err_line, exit};
use convergio_server::config::{ServerConfig, ServerRole};
use convergio_server::data_dir::{DataDir, ServerRecord, read_token};
use convergio_server::{FrontRuntime, InProcessServer, LogLocation};
use reqwest::Url;
use rustix::process::geteuid;
use zeroize::Zeroizing;

use crate::cli::GlobalOptions;
use crate::client::ApiClient;

/// Variable with the token for the server that `CONVERGIO_URL` or `--server` names.
const TOKEN_VARIABLE: &str = "CONVERGIO_TOKEN";

/// A server to speak to, and the client for it.
pub(crate) struct ServerTarget {
    pub(crate) client: ApiClient,
    /// The server, if it runs in this process.
    pub(crate) own_server: Option<InProcessServer>,
    /// File that the token was read from, if any.
    pub(crate) token_file: Option<PathBuf>,
}

/// A token with the file that it was read from.
struct ClientToken {
    token: Zeroizing<String>,
    file: Option<PathBuf>,
}

impl ServerTarget {
    /// Finds a server or starts one. `execute` decides whether a server that is started also
    /// executes runs meanwhile.
    pub(crate) async fn find_or_start(
        global: &GlobalOptions,
        execute: bool,
    ) -> anyhow::Result<Self> {
        // Read first: a mistake in it is reported whichever server is found.
        let given_token = read_given_token(global)?;
        if let Some(url) = &global.server {
            return Self::from_url(global, url, given_token);
        }
        if std::env::var_os(TOKEN_VARIABLE).is_some_and(|token| !token.is_empty()) {
            err_line!(
                "convergio: {TOKEN_VARIABLE} is not used: it is for the server that CONVERGIO_URL \
                 names; for the data folder's server there is --token-file"
            );
        }
        let data = DataDir::find_folder(global.data.as_deref())?;
        let folder_token = |data: &DataDir| {
            let file = Some(data.token_file());
            data.owner_token().map(|token| ClientToken { token, file })
        };
        // Both are needed; otherwise a server of our own is started below, which reports why it
        // cannot.
        if let Some(running) = trusted_server(&data)
            && let Some(token) =
                given_token.as_ref().map(ClientToken::duplicate).or_else(|| folder_token(&data))
        {
            let client = ApiClient::new(&running.url, &token.token)?;
            // A stale `server.json` is left behind by a crash: only a server that answers counts.
            if client.is_alive().await {
                return Ok(Self { client, own_server: None, token_file: token.file });
            }
        }
        let token_file = data.token_file();
        let read_models = global.read_models.to_store(&data);
        let log_location = LogLocation::from_options(&global.log)?;
        let mut config = ServerConfig::new(data, log_location, read_models);
        config.executor.model_urls.clone_from(&global.model_urls);
        config.role = if execute { ServerRole::All } else { ServerRole::Gateway };
        let server = InProcessServer::start_server(config, FrontRuntime::start()?).await?;
        let token = given_token
            .unwrap_or_else(|| ClientToken { token: server.token.clone(), file: Some(token_file) });
        let client = ApiClient::new(&server.url, &token.token)?;
        Ok(Self { client, own_server: Some(server), token_file: token.file })
    }

    /// The server that was named, with the token that was given for it.
    fn from_url(
        global: &GlobalOptions,
        url: &str,
        given_token: Option<ClientToken>,
    ) -> anyhow::Result<Self> {
        let from_environment = || {
            let token = std::env::var(TOKEN_VARIABLE).ok().filter(|token| !token.is_empty())?;
            let token = Zeroizing::new(token.trim().to_owned());
            Some(ClientToken { token, file: None })
        };
        let token = given_token.or_else(from_environment).or_else(|| own_server_token(global, url));
        let token = token.ok_or_else(|| {
            let how = format!("give the token of {url} by --token-file, or in {TOKEN_VARIABLE}");
            exit::bad_input_error(how)
        })?;
        let client = ApiClient::new(url, &token.token)?;
        Ok(Self { client, own_server: None, token_file: token.file })
    }

    /// Shuts the server down, if it runs in this process.
    pub(crate) async fn close(self) -> anyhow::Result<()> {
        match self.own_server {
            Some(server) => server.shutdown_server().await,
            None => Ok(()),
        }
    }
}

impl ClientToken {
    fn duplicate(&self) -> Self {
        Self { token: self.token.clone(), file: self.file.clone() }
    }
}

fn read_given_token(global: &GlobalOptions) -> anyhow::Result<Option<ClientToken>> {
    if let Some(token) = &global.token {
        let token = Zeroizing::new(token.trim().to_owned());
        return Ok(Some(ClientToken { token, file: None }));
    }
    let Some(file) = &global.token_file else { return Ok(None) };
    let token = read_token(file).map_err(|error| {
        exit::bad_input_error(format!("--token-file {}: {error}", file.display()))
    })?;
    if token.is_empty() {
        return Err(exit::bad_input_error(format!("--token-file {} is empty", file.display())));
    }
    Ok(Some(ClientToken { token, file: Some(file.clone()) }))
}

/// The folder's token, if the URL is that of the folder's own server.
fn own_server_token(global: &GlobalOptions, url: &str) -> Option<ClientToken> {
    let data = DataDir::find_folder(global.data.as_deref()).ok()?;
    let running = trusted_server(&data)?;
    let is_same = running.url.trim_end_matches('/') == url.trim_end_matches('/');
    let token = data.owner_token().filter(|_| is_same)?;
    Some(ClientToken { token, file: Some(data.token_file()) })
}

/// The server that `server.json` names, unless the folder's token must not go there: it is on
/// another machine, or the process that listens there belongs neither to this user nor to the
/// folder's owner.
pub(crate) fn trusted_server(data: &DataDir) -> Option<ServerRecord> {
    let server_record = data.server_record()?;
    let address = socket_address(&server_record.url);
    let allowed = [Some(geteuid().as_raw()), folder_owner(data)];
    let is_trusted = address.is_some_and(|address| match listening_uids(address) {
        // No listener at all may be a server that is starting or gone: it is not trusted either.
        Some(uids) => uids.iter().all(|uid| allowed.contains(&Some(*uid))) && !uids.is_empty(),
        None => address.ip().is_loopback(),
    });
    let is_gone = address.and_then(listening_uids).is_some_and(|uids| uids.is_empty());
    if !is_trusted && !is_gone {
        err_line!(
            "convergio: the server that {:?} names is not spoken to: it is not on this machine, or \
             is another user's",
            data.as_path().join("server.json")
        );
    }
    is_trusted.then_some(server_record)
}

fn folder_owner(data: &DataDir) -> Option<u32> {
    std::fs::metadata(data.as_path()).ok().map(|found| found.uid())
}

/// Socket address that a URL names by IP address, without a name lookup.
fn socket_address(url: &str) -> Option<SocketAddr> {
    let url = Url::parse(url).ok().filter(|url| url.scheme() == "http")?;
    let ip: IpAddr = url.host_str()?.trim_matches(['[', ']']).parse().ok()?;
    // A server that listens on all addresses is reached over loopback.
    let ip = if ip.is_unspecified() { IpAddr::V4(Ipv4Addr::LOCALHOST) } else { ip };
    Some(SocketAddr::new(ip, url.port_or_known_default()?))
}

#[cfg(test)]
mod tests {
    use super::socket_address;

    #[test]
    fn only_digits_say_where_a_url_leads() {
        let at = |url: &str| socket_address(url).map(|address| address.to_string());
        assert_eq!(at("http://127.0.0.1:7420").as_deref(), Some("127.0.0.1:7420"));
        assert_eq!(at("http://0.0.0.0:1/").as_deref(), Some("127.0.0.1:1"));
        assert_eq!(at("http://[::1]:1").as_deref(), Some("[::1]:1"));
        for other in ["http://localhost:1", "http://evil.example", "https://127.0.0.1", "x", ""] {
            assert_eq!(at(other), None, "{other}");
        }
    }
}
