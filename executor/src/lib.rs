//! Effects: workers that turn scheduled steps into outcomes.
//!
//! The dispatcher gives every run that has work an actor; the actor asks the kernel what is next,
//! writes intents, performs them (`model`, `tool`), and writes what came of them. It decides
//! nothing about business: that is `convergio_domain::run`.

mod actor;
mod alarm;
mod config;
mod dispatcher;
mod executor;
mod failures;
mod graphs;
pub mod memory;
pub mod migration;
pub mod model;
mod outputs;
pub mod replay;
mod scheduler;
pub mod tool;
mod value_room;

pub use config::ExecutorConfig;
pub use executor::Executor;
