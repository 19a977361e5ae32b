//! Location of the log: in the data folder, or in a cluster that was named.

use std::sync::Arc;
use std::time::{Duration, Instant};

use convergio_eventstore::embedded::{self, EmbeddedLog};
use convergio_eventstore::jetstream::{ClusterAddress, JetStreamConfig, JetStreamLog, Login};
use convergio_eventstore::{LogError, LogWriter};
use convergio_process::exit;

use crate::config::{LogOptions, RequiredDurability};
use crate::data_dir::DataDir;

/// Interval at which a folder that another process holds is tried again.
const FOLDER_RETRY: Duration = Duration::from_millis(50);

/// Location of a log.
#[derive(Debug, Clone)]
pub enum LogLocation {
    /// The embedded log of the data folder.
    Folder,
    /// Streams of a NATS JetStream cluster.
    Cluster(ClusterLocation),
}

/// Address of a log in a cluster, and the conditions to use it.
#[derive(Debug, Clone)]
pub struct ClusterLocation {
    /// Servers, names and login.
    pub address: ClusterAddress,
    required_durability: RequiredDurability,
    insecure_cluster: bool,
}

impl ClusterLocation {
    /// Parses a URL and takes credentials and conditions from the options.
    ///
    /// # Errors
    /// The URL is wrong, or names another user than the credentials.
    pub fn parse_url(url: &str, options: &LogOptions) -> anyhow::Result<Self> {
        let to_bad_input = |error: LogError| exit::bad_input_error(error.to_string());
        let mut address: ClusterAddress = url.parse().map_err(to_bad_input)?;
        if let Some(file) = &options.credentials {
            // Two identities for one connection: it is not clear which one was meant.
            if address.login != Login::Nobody {
                return Err(exit::bad_input_error(
                    "the log's URL names a user, and --log-creds another: give one of them",
                ));
            }
            address.login = Login::Credentials(file.clone());
        }
        address.authority.clone_from(&options.authority);
        let (required_durability, insecure_cluster) =
            (options.durability, options.insecure_cluster);
        Ok(Self { address, required_durability, insecure_cluster })
    }

    /// Configuration to open the log with. `key` is the payload key of the data folder.
    pub fn to_config(&self, key: [u8; 32]) -> JetStreamConfig {
        let mut config = JetStreamConfig::new(self.address.clone(), key);
        config.required_durability = self.required_durability.into();
        config.insecure_cluster = self.insecure_cluster;
        config
    }
}

impl LogLocation {
    /// The location that the options name; the data folder if they name none.
    ///
    /// # Errors
    /// The URL is wrong, or there are credentials without one.
    pub fn from_options(options: &LogOptions) -> anyhow::Result<Self> {
        match &options.log {
            Some(url) => ClusterLocation::parse_url(url, options).map(Self::Cluster),
            None if options.credentials.is_some() => Err(exit::bad_input_error(
                "--log-creds is for a log in a cluster: name it with --log",
            )),
            None => Ok(Self::Folder),
        }
    }

    /// Opens the log at once, or fails.
    ///
    /// # Errors
    /// As for [`LogLocation::open_with_patience`].
    pub async fn open(&self, data: &DataDir) -> anyhow::Result<OpenLog> {
        self.open_with_patience(data, Duration::ZERO).await
    }

    /// Opens the log; waits up to `patience` for a folder that another process holds.
    ///
    /// # Errors
    /// The folder, its key or the cluster cannot be used, or another process holds the folder.
    pub async fn open_with_patience(
        &self,
        data: &DataDir,
        patience: Duration,
    ) -> anyhow::Result<OpenLog> {
        // Also for a cluster: the folder holds the payload key and checkpoints.
        data.create_folder()?;
        let unavailable = |error: LogError| exit::unavailable_error(error.to_string());
        match self {
            Self::Folder => {
                let log = open_embedded(data, patience).await;
                Ok(OpenLog::Embedded(Arc::new(log.map_err(unavailable)?)))
            }
            Self::Cluster(place) => {
                let config = place.to_config(*data.payload_key()?);
                let log = JetStreamLog::open(&config).await;
                Ok(OpenLog::Cluster(Arc::new(log.map_err(unavailable)?)))
            }
        }
    }
}

async fn open_embedded(data: &DataDir, patience: Duration) -> Result<EmbeddedLog, LogError> {
    let started = Instant::now();
    loop {
        // The lock is free again when a short command in the same folder has ended.
        match EmbeddedLog::open(&embedded::EmbeddedConfig::new(data.as_path())) {
            Err(LogError::InUse(_)) if started.elapsed() < patience => {
                tokio::time::sleep(FOLDER_RETRY).await;
            }
            opened => return opened,
        }
    }
}

/// An open log of either kind.
#[derive(Clone)]
pub enum OpenLog {
    /// Of a data folder; this process alone uses it.
    Embedded(Arc<EmbeddedLog>),
    /// Of a cluster, which several processes share.
    Cluster(Arc<JetStreamLog>),
}

impl OpenLog {
    /// The log behind the trait that both kinds share, to make a repository of it.
    pub fn as_log_writer(&self) -> Arc<dyn LogWriter> {
        match self {
            Self::Embedded(log) => Arc::clone(log) as _,
            Self::Cluster(log) => Arc::clone(log) as _,
        }
    }
}
