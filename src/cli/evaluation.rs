//! Limits of evaluations, and the arguments of the worker process that does them.

use std::time::Duration;

use clap::Args;
use convergio_evaluation::pool::{PoolLimits, WorkerProgram};
use convergio_evaluation::worker::WorkerLimits;

/// Limits of what strangers write: templates, conditions, schemas, manifests.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Args)]
pub(crate) struct EvaluationLimits {
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
    pub(crate) fn to_pool_limits(self) -> PoolLimits {
        let default = PoolLimits::default();
        PoolLimits {
            workers: self.evaluation_workers.map_or(default.workers, usize::from),
            timeout: Duration::from_secs(u64::from(self.evaluation_timeout)),
            memory_mib: u64::from(self.evaluation_memory),
            ..default
        }
    }

    /// Command line that starts this program as a worker within the limits.
    pub(crate) fn worker_program(self) -> WorkerProgram {
        // As arguments, since a worker's environment is cleared.
        let arguments = [
            "evaluation-worker".to_owned(),
            format!("--memory={}", self.evaluation_memory),
            format!("--timeout={}", self.evaluation_timeout),
        ];
        WorkerProgram::current_program(arguments.into())
    }
}

/// What a worker is told by the pool that starts it.
#[derive(Debug, Clone, Copy, Args)]
pub(crate) struct WorkerArgs {
    /// MiB of memory.
    #[arg(long)]
    memory: u32,
    /// Seconds of the processor for one evaluation.
    #[arg(long)]
    timeout: u16,
}

impl WorkerArgs {
    pub(crate) fn to_worker_limits(self) -> WorkerLimits {
        WorkerLimits {
            memory_bytes: u64::from(self.memory) << 20,
            processor_time: Duration::from_secs(u64::from(self.timeout)),
        }
    }
}

#[cfg(test)]
mod tests {
    use clap::Parser;

    use super::EvaluationLimits;
    use crate::cli::{Cli, CliCommand};

    #[test]
    fn a_worker_is_started_with_what_it_understands() {
        let program = EvaluationLimits::default().worker_program();
        let arguments = ["convergio".to_owned()].into_iter().chain(program.arguments);
        match Cli::try_parse_from(arguments).expect("understood").command {
            CliCommand::EvaluationWorker(args) => {
                assert_eq!(args.to_worker_limits().memory_bytes, 512 << 20);
                assert_eq!(args.to_worker_limits().processor_time.as_secs(), 10);
            }
            other => panic!("{other:?}"),
        }
    }
}
