//! Policy: what runs, agents and people may do, as pure functions that all callers share.
//!
//! - [`agent_limits`]: turns, tokens, tool calls and time of an agent.
//! - [`child_runs`]: depth and width of runs within runs.
//! - [`fork_changes`]: what a fork may change in its parent's graph.
//! - [`reopening`]: which failed steps a retry opens again.
//!
//! The functions look at values and states and return a verdict. Nothing here changes a state or
//! creates an event; limits on money are in [`crate::billing`].

pub mod agent_limits;
pub mod child_runs;
pub mod fork_changes;
pub mod reopening;
