//! Location of the read models.

use std::path::PathBuf;

use clap::Args;
use convergio_projections::ReadModelStore;

use crate::data_dir::DataDir;

/// Options of every process that keeps or reads the read models.
#[derive(Debug, Clone, Args)]
pub struct ReadModelOptions {
    /// File of the read models, in place of one in the data folder: on another disk, say. A link is
    /// not followed.
    #[arg(long, global = true, env = "CONVERGIO_READ_MODELS_FILE", conflicts_with = "database")]
    pub read_models_file: Option<PathBuf>,
    /// URL of a PostgreSQL server for the read models, in place of a file in the data folder. With
    /// a password it belongs into DATABASE_URL: others see arguments in the list of processes.
    #[arg(long, global = true, env = "DATABASE_URL", hide_env_values = true)]
    pub database: Option<String>,
}

impl ReadModelOptions {
    /// A server, a file that was named, or one in the data folder.
    pub fn to_store(&self, data: &DataDir) -> ReadModelStore {
        match (&self.database, &self.read_models_file) {
            (Some(url), _) => ReadModelStore::Server(url.clone()),
            (None, Some(file)) => ReadModelStore::File(file.clone()),
            (None, None) => ReadModelStore::File(data.read_models_file()),
        }
    }
}
