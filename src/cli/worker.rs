//! Arguments of the worker process that evaluates what strangers wrote.

use std::time::Duration;

use clap::Args;
use convergio_evaluation::worker::WorkerLimits;

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
    use convergio_server::config::EvaluationLimits;

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
