//! Use cases: each command to the platform as one function, the same for everybody who asks: HTTP,
//! the compatible APIs, the command line, the executor, benches.
//!
//! A use case takes a [`Caller`], reads what it needs, and gives the repository one command.
//! - `use_cases`: [`UseCases`] need only the log; [`GraphUseCases`] also evaluate what strangers
//!   wrote (manifests, inputs) and ask whether a run can go on by another graph.
//! - A file for each noun has its functions: `graphs`, `runs`, `agents`, `approvals`, `memories`,
//!   `tokens`, `run_files`; operations on a run are in `run_control`, `forks`, `migrations`,
//!   `amendments`.
//! - `caller`, `error`, `payload`, `ports`, `idempotency`: what they share.
//!
//! Not here: rules (crate `domain`), appending (crate `eventstore`), read models, HTTP and texts of
//! its answers.

mod agents;
mod amendments;
mod approvals;
mod caller;
mod error;
mod evaluate;
mod forks;
mod graphs;
mod idempotency;
mod memories;
mod migrations;
mod payload;
mod ports;
mod run_control;
mod run_files;
mod runs;
mod signal_names;
mod tokens;
mod use_cases;

pub use approvals::NewApprovalAnswer;
pub use caller::{Caller, IdempotencyKey, InvalidIdempotencyKey};
pub use error::UseCaseError;
pub use graphs::ManifestError;
pub use idempotency::{KeyedRequest, request_hash};
pub use memories::{MemoryWrite, choose_memory_id};
pub use ports::{ReplayError, Replayer};
pub use run_control::{NewResolution, RunMark};
pub use runs::NewRun;
pub use use_cases::{GraphUseCases, UseCases};
