//! The one binary `convergio`: composition root and command line.
//!
//! Map, from the top down:
//! - `cli` defines arguments, `commands` runs them, one file for each command.
//! - `target` decides which server a command speaks to, `client` speaks HTTP to it; `view`,
//!   `debugger` and `terminal` show what came back. Only `terminal` prints.
//! - `server` starts the roles of a process from their parts: `log_location`, `data_dir`,
//!   `owner_tokens`, `model_setup`, `model_servers`, `managed_model`, `recall_adapter`, `replayer`,
//!   `front_runtime`, `telemetry`.
//! - `model_store` keeps model files, `trust` and `user_folders` what a user trusts, `hardening`,
//!   `open_files` and `child_environment` what a process may do, `exit` its exit codes.
//! - `bench` and `crash_test` measure and test; nothing else depends on them.
//!
//! No rule of the domain may be here: this crate wires crates together and speaks to people.

#![warn(clippy::print_stdout, clippy::print_stderr)]

#[macro_use]
mod terminal;

mod bench;
mod child_environment;
mod cli;
mod client;
mod commands;
mod crash_test;
mod data_dir;
mod debugger;
mod exit;
mod front_runtime;
mod hardening;
mod log_location;
mod managed_model;
mod model_servers;
mod model_setup;
mod model_store;
mod open_files;
mod owner_tokens;
mod recall_adapter;
mod replayer;
mod server;
mod target;
mod telemetry;
mod trust;
mod user_folders;
mod view;

use clap::Parser;
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
