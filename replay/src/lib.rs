//! Replay of whole runs: nothing is called, nothing is written.
//!
//! - `source`: where a run is read from, a log or a file.
//! - `run_replay`: one replay, commit by commit, by `convergio_executor::replay`.
//! - `report`: its result in the API's form.
//! - `replayer`: the gateway's port: replay with a comparison of rows, and runs under another
//!   graph.

mod replayer;
mod report;
mod run_replay;
mod source;

pub use replayer::LogReplayer;
pub use report::replay_report;
pub use run_replay::{ReplayOutcome, replay_run};
pub use source::ReplaySource;
