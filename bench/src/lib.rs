//! Benches of the whole path, each beside the physical limit of the same device in the same run.
//!
//! - `steps`, `waiting`, `wide` and `resume` measure the executor on an embedded log or a cluster.
//! - `log` and `growth` measure logs; `replay` measures replay, `gateway` the front door.
//! - `raw` and `cluster` measure what device and cluster do without this program, `memory` what
//!   this process takes; `workload` and `platform` are graphs, runs and executors that benches
//!   share.
//!
//! Rows are printed as text or JSON lines. Nothing depends on this crate but the command line.

#![warn(clippy::print_stdout, clippy::print_stderr)]

mod cluster;
mod gateway;
mod growth;
mod log;
mod memory;
mod platform;
mod raw;
mod replay;
mod resume;
mod steps;
mod waiting;
mod wide;
mod workload;

use clap::Subcommand;
use convergio_server::config::LogOptions;

use gateway::GatewayArgs;
use log::LogArgs;
use replay::BenchReplayArgs;
use resume::ResumeArgs;
use steps::StepsArgs;
use waiting::WaitingArgs;
use wide::WideArgs;

/// Benches of `convergio bench`.
#[derive(Debug, Subcommand)]
pub enum BenchCommand {
    /// Runs linear graphs of pure steps, every step durable.
    #[command(after_help = "Example:\n  convergio bench steps --steps 10 --payload 200 \
        --concurrency 1,16,64 --json")]
    Steps(StepsArgs),
    /// Appends, replays and loads, each beside what the device or the cluster does without us.
    #[command(after_help = "Example:\n  convergio bench log --json\n  convergio bench log --nats \
        nats://127.0.0.1:4222 --log-creds ./bench.nk --replicas 3")]
    Log(LogArgs),
    /// Loads and forks runs of many events, from checkpoints and without.
    #[command(after_help = "Example:\n  convergio bench resume --events 1000,1000000 --json")]
    Resume(ResumeArgs),
    /// Restarts with many runs that wait.
    #[command(after_help = "Example:\n  convergio bench waiting --runs 100000 --json")]
    Waiting(WaitingArgs),
    /// Runs of many items, nodes, signals and runs within them.
    #[command(after_help = "Example:\n  convergio bench wide --items 1000,100000 --nodes 10000 \
        --json")]
    Wide(WideArgs),
    /// Computes a run of pure steps again: its state, and the kernel's decisions.
    #[command(after_help = "Example:\n  convergio bench replay --events 300000 --json")]
    Replay(BenchReplayArgs),
    /// Asks a model server that answers at once, straight and through a front door.
    #[command(after_help = "Example:\n  convergio bench gateway --concurrency 1,16,64 --json")]
    Gateway(GatewayArgs),
}

/// Runs a bench and prints its rows, as JSON lines if `json` is true. `cluster` is how a log in a
/// cluster is met.
///
/// # Errors
/// The folder, the log or the cluster cannot be used, or what is measured fails.
pub async fn run_bench(
    command: BenchCommand,
    cluster: &LogOptions,
    json: bool,
) -> anyhow::Result<()> {
    match command {
        BenchCommand::Steps(args) => steps::run(args, cluster, json).await,
        BenchCommand::Log(args) => log::run(args, cluster, json).await,
        BenchCommand::Resume(args) => resume::run(args, json).await,
        BenchCommand::Waiting(args) => waiting::run(args, json).await,
        BenchCommand::Wide(args) => wide::run(args, json).await,
        BenchCommand::Replay(args) => replay::run(args, json).await,
        BenchCommand::Gateway(args) => gateway::run(args, json).await,
    }
}
