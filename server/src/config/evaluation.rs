//! Limits of evaluations, and the command line of the workers that do them.

use std::time::Duration;

use clap::Args;
use convergio_evaluation::pool::{PoolLimits, WorkerProgram};

/// Limits of what strangers write: templates, conditions, schemas, manifests.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Args)]
pub struct EvaluationLimits {
    /// Worker processes for evaluations that may take long, 1 to 256 (default: one for each core,
    /// two at least).
    #[arg(
        long, env = "CONVERGIO_EVALUATION_WORKERS", value_name = "NUMBER",
        value_parser = clap::value_parser!(u16).range(1..=256)
    )]
    evaluation_workers: Option<u16>,
    /// Seconds that one evaluation may take, 1 to 600; then its worker is killed and its step fails
    /// with `evaluation.limit`.
    #[arg(
        long, env = "CONVERGIO_EVALUATION_TIMEOUT", default_value_t = 10, value_name = "SECONDS",
        value_parser = clap::value_parser!(u16).range(1..=600)
    )]
    evaluation_timeout: u16,
    /// MiB of memory that one evaluation may take, 64 to 65536.
    #[arg(
        long, env = "CONVERGIO_EVALUATION_MEMORY", default_value_t = 512, value_name = "MIB",
        value_parser = clap::value_parser!(u32).range(64..=65536)
    )]
    evaluation_memory: u32,
}

impl Default for EvaluationLimits {
    fn default() -> Self {
        Self { evaluation_workers: None, evaluation_timeout: 10, evaluation_memory: 512 }
    }
}

impl EvaluationLimits {
    /// Limits of a pool of workers.
    pub fn to_pool_limits(self) -> PoolLimits {
        let default = PoolLimits::default();
        PoolLimits {
            workers: self.evaluation_workers.map_or(default.workers, usize::from),
            timeout: Duration::from_secs(u64::from(self.evaluation_timeout)),
            memory_mib: u64::from(self.evaluation_memory),
            ..default
        }
    }

    /// Command line that starts this program as a worker within the limits.
    pub fn worker_program(self) -> WorkerProgram {
        // As arguments, since a worker's environment is cleared.
        let arguments = [
            "evaluation-worker".to_owned(),
            format!("--memory={}", self.evaluation_memory),
            format!("--timeout={}", self.evaluation_timeout),
        ];
        WorkerProgram::current_program(arguments.into())
    }
}
