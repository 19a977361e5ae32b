//! Location of the log, and the conditions under which a cluster is used.

use std::path::PathBuf;

use clap::{Args, ValueEnum};
use convergio_eventstore::Durability;

/// Options of every process that opens the log.
#[derive(Debug, Clone, Args)]
pub struct LogOptions {
    /// The log, if it is not in the data folder: tls://host:port[,host:port][/NAME], with
    /// --log-creds. A URL with user:password@ belongs into CONVERGIO_LOG_URL: others see arguments
    /// in the list of processes.
    #[arg(long, global = true, env = "CONVERGIO_LOG_URL", hide_env_values = true)]
    pub log: Option<String>,
    /// Credentials for the log's cluster: a .creds file (JWT and seed), or a file with the seed of
    /// a user's NKey. It must be yours, with mode 600.
    #[arg(long = "log-creds", value_name = "FILE", global = true, env = "CONVERGIO_LOG_CREDS")]
    pub credentials: Option<PathBuf>,
    /// Certificates (PEM) of who vouches for the servers of the log's cluster, in place of those
    /// that the system knows.
    #[arg(long = "log-ca", value_name = "FILE", global = true, env = "CONVERGIO_LOG_CA")]
    pub authority: Option<PathBuf>,
    /// Use a cluster whose servers let others join or listen. For servers on one machine.
    #[arg(
        long,
        global = true,
        env = "CONVERGIO_INSECURE_CLUSTER",
        value_parser = clap::builder::FalseyValueParser::new()
    )]
    pub insecure_cluster: bool,
    /// The least that a log in a cluster must promise.
    #[arg(long, global = true, value_enum, default_value = "quorum-fsync")]
    pub durability: RequiredDurability,
}

/// Minimum durability that a cluster must offer.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub enum RequiredDurability {
    /// Survives the end of the caller. Loses acknowledged records in a power cut.
    Process,
    /// Survives a power cut of its one server.
    Fsync,
    /// Survives the loss of a minority of servers.
    QuorumFsync,
}

impl From<RequiredDurability> for Durability {
    fn from(promise: RequiredDurability) -> Self {
        match promise {
            RequiredDurability::Process => Self::Process,
            RequiredDurability::Fsync => Self::Fsync,
            RequiredDurability::QuorumFsync => Self::QuorumFsync,
        }
    }
}
