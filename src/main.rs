//! The one binary `convergio`: the command line.
//!
//! Map, from the top down:
//! - `cli` defines arguments, `commands` runs them, one file for each command.
//! - `target` decides which server a command speaks to, `client` speaks HTTP to it; `view` and
//!   `debugger` show what came back.
//!
//! Servers are made in `convergio_server`, benches and crash tests have crates of their own. Only
//! `convergio_process::terminal` prints.

#![warn(clippy::print_stdout, clippy::print_stderr)]

mod cli;
mod client;
mod commands;
mod debugger;
mod target;
mod view;

use clap::Parser;
use convergio_process::{exit, hardening};
use mimalloc::MiMalloc;

// Small allocations come and go on many threads; the system's allocator serialises them.
#[global_allocator]
static ALLOCATOR: MiMalloc = MiMalloc;

fn main() -> std::process::ExitCode {
    // First of all: whatever follows may create files or read keys.
    hardening::harden_process();
    let cli = cli::Cli::parse();
    if let cli::CliCommand::EvaluationWorker(arguments) = cli.command {
        // Before telemetry and runtime: a worker starts no other thread and opens no file.
        return commands::run_evaluation_worker(arguments);
    }
    // Profilers attach to benches; these hold no keys of users.
    if matches!(cli.command, cli::CliCommand::Bench(_)) {
        hardening::allow_inspection();
    }
    let _telemetry = cli.init_telemetry();
    let runtime = match tokio::runtime::Builder::new_multi_thread().enable_all().build() {
        Ok(runtime) => runtime,
        Err(error) => return exit::report_error(&anyhow::anyhow!("no threads: {error}")),
    };
    let outcome = runtime.block_on(commands::run_command(cli));
    // Tasks that are still running are not awaited: the log is closed, so nothing durable is lost.
    runtime.shutdown_background();
    match outcome {
        Ok(code) => code,
        Err(error) => exit::report_error(&error),
    }
}
