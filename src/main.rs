//! The one binary `convergio`: composition root and command line.

#![warn(clippy::print_stdout, clippy::print_stderr)]

#[macro_use]
mod terminal;

mod bench;
mod cli;
mod client;
mod commands;
mod crash_test;
mod data_dir;
mod debugger;
mod exit;
mod log_place;
mod managed_model;
mod model_store;
mod people;
mod remembered;
mod replayer;
mod server;
mod target;
mod telemetry;
mod view;

use clap::Parser;
use mimalloc::MiMalloc;

// Small things come and go on many threads, which the system's allocator serves one at a time.
#[global_allocator]
static ALLOCATOR: MiMalloc = MiMalloc;

fn main() -> std::process::ExitCode {
    let cli = cli::Cli::parse();
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
