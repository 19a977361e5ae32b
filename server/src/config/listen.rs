//! Addresses that a server listens on, and the conditions under which others may reach one.

use std::net::SocketAddr;
use std::path::PathBuf;

use clap::Args;
use convergio_gateway::{AllowedHosts, ConnectionLimits, ServeOptions, Tls};
use convergio_process::{exit, open_files};
use tokio::runtime::Handle;

/// Where to listen, and how.
#[derive(Debug, Clone, PartialEq, Eq, Args)]
pub struct ListenOptions {
    /// Address to listen on. One that other machines reach needs --tls-cert and --tls-key, or
    /// --behind-proxy.
    #[arg(long, default_value = "127.0.0.1:7420", value_name = "ADDRESS:PORT")]
    pub listen: SocketAddr,
    /// Certificates of the server, its own first (PEM). Read again when they change.
    #[arg(long, env = "CONVERGIO_TLS_CERT", value_name = "FILE", requires = "tls_key")]
    pub tls_cert: Option<PathBuf>,
    /// The key of the first certificate (PEM).
    #[arg(long, env = "CONVERGIO_TLS_KEY", value_name = "FILE", requires = "tls_cert")]
    pub tls_key: Option<PathBuf>,
    /// A proxy in front of the server encrypts, and nobody else reaches the address.
    #[arg(long)]
    pub behind_proxy: bool,
    /// A name by which the server may be asked, besides localhost and addresses. Can be repeated.
    #[arg(long = "host", value_name = "NAME")]
    pub hosts: Vec<String>,
}

impl ListenOptions {
    /// Options for a free port on the loopback interface.
    pub fn loopback() -> Self {
        let listen = SocketAddr::from(([127, 0, 0, 1], 0));
        let (tls_cert, tls_key, hosts) = (None, None, Vec::new());
        Self { listen, tls_cert, tls_key, behind_proxy: false, hosts }
    }

    /// True if commands on this machine need another address: this one is encrypted, or not on
    /// loopback.
    pub fn is_external(&self) -> bool {
        self.tls_cert.is_some() || !self.listen.ip().is_loopback()
    }

    /// Scheme of the server's URL.
    pub fn url_scheme(&self) -> &'static str {
        if self.tls_cert.is_some() { "https" } else { "http" }
    }

    /// Options for the gateway's listener.
    ///
    /// # Errors
    /// The address is reachable by others and nothing encrypts, the certificate cannot be used, or
    /// the process may open too few files.
    pub fn serve_options(&self, work_runtime: Handle) -> anyhow::Result<ServeOptions> {
        let is_protected = self.listen.ip().is_loopback() || self.behind_proxy;
        if !is_protected && self.tls_cert.is_none() {
            return Err(exit::bad_input_error(format!(
                "others would reach {} in clear: give --tls-cert and --tls-key, or --behind-proxy \
                 if a proxy in front of it encrypts",
                self.listen
            )));
        }
        let tls = match (&self.tls_cert, &self.tls_key) {
            (Some(certificate), Some(key)) => Some(Tls::from_files(certificate, key)),
            _ => None,
        };
        let tls = tls.transpose().map_err(|error| exit::bad_input_error(error.to_string()))?;
        let limits =
            ConnectionLimits { is_behind_proxy: self.behind_proxy, ..ConnectionLimits::default() };
        // Every connection is an open file: the limit is raised before connections are counted from
        // it.
        let open_files = open_files::raise_file_limit();
        let connections = open_files::connection_limit(open_files, limits.max_connections)?;
        Ok(ServeOptions {
            limits: ConnectionLimits { max_connections: connections, ..limits },
            tls,
            hosts: AllowedHosts::new(self.hosts.iter().cloned()),
            work_runtime: Some(work_runtime),
        })
    }
}
