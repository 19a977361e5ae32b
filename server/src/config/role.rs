//! Roles of a process.

use clap::ValueEnum;
use convergio_projections::ReadModelStore;

/// Part of the platform that a process runs.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub enum ServerRole {
    /// Everything.
    All,
    /// Answers requests. It keeps its own read models, unless they lie on a database server.
    Gateway,
    /// Executes its share of the runs.
    Executor,
    /// Keeps the read models.
    Projector,
}

impl ServerRole {
    /// True if this role has a gateway.
    pub fn serves_requests(self) -> bool {
        matches!(self, Self::All | Self::Gateway)
    }

    /// True if this role has an executor.
    pub fn executes_runs(self) -> bool {
        matches!(self, Self::All | Self::Executor)
    }

    /// True if this role runs a projector. Read models in a file belong to one process, so a
    /// gateway without a shared store keeps its own.
    pub fn runs_projector(self, store: &ReadModelStore) -> bool {
        match self {
            Self::All | Self::Projector => true,
            Self::Gateway => matches!(store, ReadModelStore::File(_)),
            Self::Executor => false,
        }
    }
}
