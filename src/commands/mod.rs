//! Execution of commands, one file each; `cli` holds their arguments.
//!
//! Each file has a `run` that the match below calls. A command finds its server by `target`, speaks
//! to it by `client`, and prints by `view` and `terminal`: JSON with `--json`, else text for
//! people. Files that need no server (`log`, `projections`, `trust`, `run_transfer` for imports)
//! open the data folder themselves. `graph` has what several commands share: inputs, submission,
//! watching and detaching. Nothing here decides what the domain decides.

mod agents;
mod approvals;
mod crash_test;
mod debug;
mod demo;
mod doctor;
mod graph;
mod lists;
mod log;
mod memory;
mod models;
mod projections;
mod replay;
mod run_transfer;
mod runs;
mod serve;
mod steer;
mod tokens;
mod trust;

use std::process::ExitCode;

use convergio_bench::run_bench;
use convergio_executor::tool;
use convergio_process::exit;

use crate::cli::{Cli, CliCommand, WorkerArgs};

/// Runs a command to its end and returns its exit code.
pub(crate) async fn run_command(cli: Cli) -> anyhow::Result<ExitCode> {
    let global = cli.global;
    match cli.command {
        CliCommand::Serve(args) => serve::run(&global, &args).await,
        CliCommand::Graph(command) => graph::run(&global, command).await,
        CliCommand::Agents(command) => agents::run(&global, command).await,
        CliCommand::Runs(command) => runs::run(&global, command).await,
        CliCommand::Approvals(command) => approvals::run(&global, command).await,
        CliCommand::Ledger(of) => lists::show_ledger(&global, &of).await,
        CliCommand::Usage(of) => lists::show_usage(&global, &of).await,
        CliCommand::Audit(of) => lists::show_audit(&global, &of).await,
        CliCommand::Models(command) => models::run(&global, command).await,
        CliCommand::Memory(command) => memory::run(&global, command).await,
        CliCommand::Tokens(command) => tokens::run(&global, command).await,
        CliCommand::Trust { folder } => trust::run(&global, &folder),
        CliCommand::Projections(command) => projections::run(&global, command).await,
        CliCommand::Log(command) => log::run(&global, command).await,
        CliCommand::Replay(args) => replay::run(&global, &args).await,
        CliCommand::CrashTest(args) => crash_test::run(&global, &args).await,
        CliCommand::CrashTestLife(args) => crash_test::run_to_crash_point(&global, &args).await,
        CliCommand::Doctor => doctor::run(&global).await,
        CliCommand::Bench(command) => {
            run_bench(command, &global.log, global.json).await.map(|()| ExitCode::SUCCESS)
        }
        CliCommand::Demo(args) => demo::run(&global, &args).await,
        CliCommand::EvaluationWorker(worker) => Ok(run_evaluation_worker(worker)),
    }
}

/// Runs evaluations for the server that started this process, until it closes the connection.
pub(crate) fn run_evaluation_worker(arguments: WorkerArgs) -> ExitCode {
    match convergio_evaluation::worker::run(arguments.to_worker_limits(), &tool::builtin_catalog())
    {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => exit::report_error(&anyhow::anyhow!("the evaluations end: {error}")),
    }
}
