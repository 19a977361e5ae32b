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
mod offline;
mod portable;
mod replay;
mod runs;
mod serve;
mod steer;
mod tokens;
mod trust;

use std::process::ExitCode;

use convergio_executor::tool;
use serde::Serialize;

use crate::cli::{BenchCommand, Cli, Command, WorkerArgs};
use crate::{bench, exit, terminal};

/// Runs a command to its end and returns its exit code.
pub(crate) async fn run(cli: Cli) -> anyhow::Result<ExitCode> {
    let global = cli.global;
    match cli.command {
        Command::Serve(args) => serve::run(&global, &args).await,
        Command::Graph(command) => graph::run(&global, command).await,
        Command::Agents(command) => agents::run(&global, command).await,
        Command::Runs(command) => runs::run(&global, command).await,
        Command::Approvals(command) => approvals::run(&global, command).await,
        Command::Ledger(of) => lists::ledger(&global, &of).await,
        Command::Usage(of) => lists::usage(&global, &of).await,
        Command::Audit(of) => lists::audit(&global, &of).await,
        Command::Models(command) => models::run(&global, command).await,
        Command::Memory(command) => memory::run(&global, command).await,
        Command::Tokens(command) => tokens::run(&global, command).await,
        Command::Trust { folder } => trust::run(&global, &folder),
        Command::Projections(command) => offline::projections(&global, command).await,
        Command::Log(command) => log::run(&global, command).await,
        Command::Replay(args) => replay::run(&global, &args).await,
        Command::CrashTest(args) => crash_test::run(&global, &args).await,
        Command::CrashTestLife(args) => crash_test::life(&global, &args).await,
        Command::Doctor => doctor::run(&global).await,
        Command::Bench(BenchCommand::Steps(args)) => {
            bench::steps::run(args, &global).await.map(|()| ExitCode::SUCCESS)
        }
        Command::Bench(BenchCommand::Log(args)) => {
            bench::log::run(args, &global).await.map(|()| ExitCode::SUCCESS)
        }
        Command::Bench(BenchCommand::Resume(args)) => {
            bench::resume::run(args, global.json).await.map(|()| ExitCode::SUCCESS)
        }
        Command::Bench(BenchCommand::Wide(args)) => {
            bench::wide::run(args, global.json).await.map(|()| ExitCode::SUCCESS)
        }
        Command::Bench(BenchCommand::Waiting(args)) => {
            bench::waiting::run(args, global.json).await.map(|()| ExitCode::SUCCESS)
        }
        Command::Bench(BenchCommand::Replay(args)) => {
            bench::replay::run(args, global.json).await.map(|()| ExitCode::SUCCESS)
        }
        Command::Bench(BenchCommand::Gateway(args)) => {
            bench::gateway::run(args, global.json).await.map(|()| ExitCode::SUCCESS)
        }
        Command::Demo(args) => demo::run(&global, &args).await,
        Command::EvaluationWorker(worker) => Ok(evaluation_worker(worker)),
    }
}

/// Runs evaluations for the server that started this process, until it closes the connection.
pub(crate) fn evaluation_worker(worker: WorkerArgs) -> ExitCode {
    match convergio_evaluation::worker::run(worker.limits(), &tool::catalog()) {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => exit::report(&anyhow::anyhow!("the evaluations end: {error}")),
    }
}

/// Prints a value as indented JSON.
fn print_json(value: &impl Serialize) -> anyhow::Result<()> {
    Ok(terminal::print_json(value)?)
}
