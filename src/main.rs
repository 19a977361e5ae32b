//! The one binary `convergio`: composition root and command line.

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
mod log_place;
mod managed_model;
mod model_servers;
mod model_setup;
mod model_store;
mod open_files;
mod owner_tokens;
mod remembered;
mod replayer;
mod server;
mod target;
mod telemetry;
mod trust;
mod user_folders;
mod view;

use clap::Parser;
use mimalloc::MiMalloc;

// Small things come and go on many threads, which the system's allocator serves one at a time.
#[global_allocator]
static ALLOCATOR: MiMalloc = MiMalloc;

fn main() -> std::process::ExitCode {
    hardening::harden_process();
    let cli = cli::Cli::parse();
    if let cli::Command::EvaluationWorker(worker) = cli.command {
        // Before anything else begins: no thread, no file.
        return commands::evaluation_worker(worker);
    }
    if matches!(cli.command, cli::Command::Bench(_)) {
        hardening::allow_inspection();
    }
    let _telemetry = cli.init_telemetry();
    let runtime = match tokio::runtime::Builder::new_multi_thread().enable_all().build() {
        Ok(runtime) => runtime,
        Err(error) => return exit::report(&anyhow::anyhow!("no threads: {error}")),
    };
    let done = runtime.block_on(commands::run(cli));
    // What still runs on other threads is waited for by nobody: the log is closed.
    runtime.shutdown_background();
    match done {
        Ok(code) => code,
        Err(error) => exit::report(&error),
    }
}
