//! The executor: runs the scheduled steps of runs and writes their outcomes to the log.
//!
//! The dispatcher loads an actor for every run that has work. The actor asks the kernel's scheduler
//! which steps are ready, commits their intents, runs their effects (model calls, tool calls, child
//! runs) and commits the results. Business rules are not here: whatever decides about runs is in
//! `convergio_domain::run`, and providers are spoken to in `provider` only.
//!
//! The rooms, from the roof to the ground (a room uses only those below it):
//! - `executor`, `config`: the public handle of a started executor, and its settings.
//! - `dispatcher`: follows the log and the wake index; starts and supervises actors.
//! - `run`: the loop of one run in memory: collect, plan, commit, launch.
//! - `step`: the preparation of steps, by a planner that sees the folded run and one plan.
//! - `effect`: what an intent announced, done: model calls, tool calls, child runs.
//! - `plan`: the next commit and its launches, and the outcomes of effects, as plain data.
//! - `catalog`: which model is asked; `provider`: how a model provider is spoken to.
//! - `tool`, `memory`: built-in tools, and those that store and recall memories.
//! - `services`, `error`: what actors, plans and effects share, and why an actor leaves its run.
//! - `scheduler`, `graphs`: the bridge to the kernel: compiled graphs, and a scheduler's state
//!   rebuilt from a folded run.
//! - `outputs`, `large_values`: step outputs for templates, and the bound on large ones in memory.
//! - `failures`, `alarm`: failures on their way into the log, and sleeping by the log's clock.
//! - `replay`, `migration`: recomputation of a logged run, and moving a run to another graph
//!   version.
//!
//! The way of a prompt, from the start of its step (`run/planning`, `step/prepare`) to the wire;
//! each file hands it on to the next and does not get it back:
//! 1. `step/agent_request` renders the manifest's templates: the prompt is a `ChatRequest`. The
//!    conversation of an agent in turns is appended by `step/transcript`.
//! 2. `step/model_call` chooses a model by what the prompt requires and holds its most cost.
//! 3. `provider/http/request_writer`, over `provider/request_adapter`, leaves out what the
//!    interface lacks; 4. `provider/dialect` writes it: the prompt is bytes.
//! 5. `plan/commit_plan` stores the bytes as a payload of the commit, with the effect to launch.
//! 6. `run/commit` writes the commit; 7. `run/launch` launches the effect, and never before.
//! 8. `effect` gives it a task and a span; 9. `effect/model` sends it, and judges the answer.
//! 10. `catalog/guarded_provider` waits for the provider's health and a place in its queue.
//! 11. `provider/http` bounds the exchange; 12. `provider/http/transport` posts the bytes.

mod alarm;
pub mod catalog;
mod config;
mod dispatcher;
mod effect;
mod error;
mod executor;
mod failures;
mod graphs;
mod large_values;
pub mod memory;
pub mod migration;
mod outputs;
mod plan;
pub mod provider;
pub mod replay;
mod run;
mod scheduler;
mod services;
mod step;
pub mod tool;

pub use config::ExecutorConfig;
pub use executor::Executor;
