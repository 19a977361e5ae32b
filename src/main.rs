//! The one binary `convergio`: composition root and command line.

mod bench;
mod child_environment;
mod cli;
mod client;
mod commands;
mod crash_test;
mod data_dir;
mod debugger;
mod exit;
mod hardening;
mod log_place;
mod managed_model;
mod model_servers;
mod model_store;
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
    if matches!(cli.command, cli::Command::Bench(_)) {
        hardening::allow_inspection();
    }
    let _telemetry = cli.init_telemetry();
    let runtime = match tokio::runtime::Builder::new_multi_thread().enable_all().build() {
        Ok(runtime) => runtime,
        Err(error) => return exit::report(&anyhow::anyhow!("no threads: {error}")),
    };
    match runtime.block_on(commands::run(cli)) {
        Ok(code) => code,
        Err(error) => exit::report(&error),
    }
}
