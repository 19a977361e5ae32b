//! The executor: runs the scheduled steps of runs and writes their outcomes to the log.
//!
//! The dispatcher loads an actor for every run that has work. The actor asks the kernel's scheduler
//! which steps are ready, commits their intents, runs their effects (model calls, tool calls, child
//! runs) and commits the results. Business rules are not here: whatever decides about runs is in
//! `convergio_domain::run`, and providers are spoken to in `provider` only.
//!
//! - `executor`, `config`: the public handle of a started executor, and its settings.
//! - `dispatcher`: follows the log and the wake index; starts and supervises actors.
//! - `actor`: one run in memory: plan, commit, run effects, collect results.
//! - `scheduler`, `graphs`: the bridge to the kernel: compiled graphs, and a scheduler's state
//!   rebuilt from a folded run.
//! - `outputs`, `large_values`: step outputs for templates, and the bound on large ones in memory.
//! - `provider`: how a model provider is spoken to; `catalog`: which one is asked, and the router.
//! - `tool`, `memory`: built-in tools, and those that store and recall memories.
//! - `replay`, `migration`: recomputation of a logged run, and moving a run to another graph
//!   version.
//! - `failures`, `alarm`: failures on their way into the log, and sleeping by the log's clock.

mod actor;
mod alarm;
pub mod catalog;
mod config;
mod dispatcher;
mod executor;
mod failures;
mod graphs;
mod large_values;
pub mod memory;
pub mod migration;
mod outputs;
pub mod provider;
pub mod replay;
mod scheduler;
pub mod tool;

pub use config::ExecutorConfig;
pub use executor::Executor;
