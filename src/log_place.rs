//! Where the log is: in the data folder, or in a cluster that was named.

use std::sync::Arc;
use std::time::{Duration, Instant};

use clap::ValueEnum;
use convergio_eventstore::embedded::{self, EmbeddedLog};
use convergio_eventstore::jetstream::{Address, Config, JetStreamLog, Login};
use convergio_eventstore::{Durability, EventLog, LogError};

use crate::cli::{ClusterOptions, Global};
use crate::data_dir::DataDir;
use crate::exit;

/// How often a folder is looked at that another process uses.
const FOLDER_CHECK: Duration = Duration::from_millis(50);

/// The least that a cluster must promise.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub(crate) enum Promise {
    /// Survives the end of the caller. Loses acknowledged records in a power cut.
    Process,
    /// Survives a power cut of its one server.
    Fsync,
    /// Survives the loss of a minority of servers.
    QuorumFsync,
}

impl From<Promise> for Durability {
    fn from(promise: Promise) -> Self {
        match promise {
            Promise::Process => Self::Process,
            Promise::Fsync => Self::Fsync,
            Promise::QuorumFsync => Self::QuorumFsync,
        }
    }
}

/// Where a log is.
#[derive(Debug, Clone)]
pub(crate) enum LogPlace {
    /// In the data folder.
    Folder,
    /// In a cluster.
    Cluster(ClusterPlace),
}

/// A log in a cluster, and how the cluster is met.
#[derive(Debug, Clone)]
pub(crate) struct ClusterPlace {
    pub(crate) address: Address,
    promise: Promise,
    insecure_cluster: bool,
}

impl ClusterPlace {
    /// The place that a URL names, met as the options say.
    pub(crate) fn parse(url: &str, global: &Global) -> anyhow::Result<Self> {
        let refuse = |error: LogError| exit::bad_input(error.to_string());
        let mut address: Address = url.parse().map_err(refuse)?;
        let ClusterOptions { credentials, authority, insecure_cluster } = &global.cluster;
        if let Some(file) = credentials {
            if address.login != Login::Nobody {
                return Err(exit::bad_input(
                    "the log's URL names a user, and --log-creds another: give one of them",
                ));
            }
            address.login = Login::Credentials(file.clone());
        }
        address.authority.clone_from(authority);
        let insecure_cluster = *insecure_cluster;
        Ok(Self { address, promise: global.durability, insecure_cluster })
    }

    /// What the log is opened with; the key lies in the data folder.
    pub(crate) fn config(&self, key: [u8; 32]) -> Config {
        let mut config = Config::new(self.address.clone(), key);
        config.require = self.promise.into();
        config.insecure_cluster = self.insecure_cluster;
        config
    }
}

impl LogPlace {
    /// The place that the options name.
    pub(crate) fn find(global: &Global) -> anyhow::Result<Self> {
        match &global.log {
            Some(url) => ClusterPlace::parse(url, global).map(Self::Cluster),
            None if global.cluster.credentials.is_some() => {
                Err(exit::bad_input("--log-creds is for a log in a cluster: name it with --log"))
            }
            None => Ok(Self::Folder),
        }
    }

    /// Opens the log, with a clear error.
    pub(crate) async fn open(&self, data: &DataDir) -> anyhow::Result<OpenLog> {
        self.open_within(data, Duration::ZERO).await
    }

    /// The same; a folder that another process uses is waited for as long as `patience`.
    pub(crate) async fn open_within(
        &self,
        data: &DataDir,
        patience: Duration,
    ) -> anyhow::Result<OpenLog> {
        data.create()?;
        let unavailable = |error: LogError| exit::unavailable(error.to_string());
        match self {
            Self::Folder => {
                let log = open_folder(data, patience).await;
                Ok(OpenLog::Embedded(Arc::new(log.map_err(unavailable)?)))
            }
            Self::Cluster(place) => {
                let config = place.config(*data.payload_key()?);
                let log = JetStreamLog::open(&config).await;
                Ok(OpenLog::Cluster(Arc::new(log.map_err(unavailable)?)))
            }
        }
    }
}

async fn open_folder(data: &DataDir, patience: Duration) -> Result<EmbeddedLog, LogError> {
    let begun = Instant::now();
    loop {
        match EmbeddedLog::open(&embedded::Config::new(data.path())) {
            Err(LogError::InUse(_)) if begun.elapsed() < patience => {
                tokio::time::sleep(FOLDER_CHECK).await;
            }
            opened => return opened,
        }
    }
}

/// A log that is open.
#[derive(Clone)]
pub(crate) enum OpenLog {
    Embedded(Arc<EmbeddedLog>),
    Cluster(Arc<JetStreamLog>),
}

impl OpenLog {
    /// What all providers have.
    pub(crate) fn shared(&self) -> Arc<dyn EventLog> {
        match self {
            Self::Embedded(log) => Arc::clone(log) as _,
            Self::Cluster(log) => Arc::clone(log) as _,
        }
    }
}
