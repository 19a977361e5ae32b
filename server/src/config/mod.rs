//! Configuration of a server: what all roles share, and one struct for each role.
//!
//! Options of the command line are parsed by the structs that hold them, one file each, with their
//! defaults and the variables that stand in for them; `environment` reads the variables that have
//! no option. The table of all is `docs/configuration.md`.

mod doors;
pub(crate) mod environment;
mod evaluation;
mod listen;
mod log;
mod model_calls;
mod read_models;
mod role;

use std::time::Duration;

use convergio_projections::ReadModelStore;

use crate::data_dir::DataDir;
use crate::log_location::LogLocation;

pub use doors::DoorOptions;
pub use evaluation::EvaluationLimits;
pub use listen::ListenOptions;
pub use log::{LogOptions, RequiredDurability};
pub use model_calls::ModelCallLimits;
pub use read_models::ReadModelOptions;
pub use role::ServerRole;

/// Configuration of a server.
pub struct ServerConfig {
    /// Folder of keys, tokens, checkpoints and files of the operator; of the log too, unless it is
    /// in a cluster.
    pub data: DataDir,
    /// Location of the log.
    pub log_location: LogLocation,
    /// Maximum time to wait for a folder that another process holds.
    pub folder_patience: Duration,
    /// The parts that this process runs.
    pub role: ServerRole,
    /// Limits of evaluations of untrusted text, by gateway and executor.
    pub evaluation: EvaluationLimits,
    /// Used if the role serves requests.
    pub gateway: GatewayConfig,
    /// Used if the role executes runs.
    pub executor: ExecutorRoleConfig,
    /// Used if the role keeps read models or reads them.
    pub projector: ProjectorConfig,
}

/// Configuration of a process that serves requests.
#[derive(Debug, Clone)]
pub struct GatewayConfig {
    /// Address, certificates and names of the listener.
    pub listen: ListenOptions,
    /// Limits of one call at a front door.
    pub doors: DoorOptions,
}

/// Configuration of a process that executes runs. Providers and privacy come from the environment
/// and from files of the data folder.
#[derive(Debug, Clone, Default)]
pub struct ExecutorRoleConfig {
    /// URLs of model servers, in place of those detected on the machine.
    pub model_urls: Vec<String>,
    /// Limits on concurrent model calls.
    pub model_calls: ModelCallLimits,
}

/// Configuration of a process that keeps read models.
#[derive(Debug, Clone)]
pub struct ProjectorConfig {
    /// Location of the read models.
    pub read_models: ReadModelStore,
}

impl ServerConfig {
    /// All roles with their defaults, on a free port of the loopback interface.
    pub fn new(data: DataDir, log_location: LogLocation, read_models: ReadModelStore) -> Self {
        Self {
            data,
            log_location,
            folder_patience: Duration::ZERO,
            role: ServerRole::All,
            evaluation: EvaluationLimits::default(),
            gateway: GatewayConfig {
                listen: ListenOptions::loopback(),
                doors: DoorOptions::default(),
            },
            executor: ExecutorRoleConfig::default(),
            projector: ProjectorConfig { read_models },
        }
    }
}
