//! Plans: a commit in preparation and the effects that follow it, as plain data.
//!
//! - `commit_plan`: what the next commit will hold, within `commit_size` and `capacity`
//! - `conclusion`, `resolution`: results become outcomes, and the kernel's scheduler answers them
//! - `pending_turn`, `candidate_tables`: turns of agents and tables of candidates in the commit
//! - `launch`: effects to launch once the commit is durable
//! - `outcome`: results of effects and waits, on their way into the next plan
//!
//! `run` begins a plan and writes it, `step` fills it, `effect` does what it launches. Nothing here
//! is asynchronous, reads a log, knows an actor or has an effect: a folded state and results come
//! in, `AdvanceRun` and launches go out.

mod candidate_tables;
mod capacity;
mod commit_plan;
mod commit_size;
mod conclusion;
mod launch;
mod outcome;
mod pending_turn;
mod resolution;

pub(crate) use candidate_tables::table_digest;
pub(crate) use capacity::{CapacityKind, FreeCapacity, ReadySteps};
pub(crate) use commit_plan::{CommitPlan, PendingTurn, PlanStart, TableDigest};
pub(crate) use commit_size::CommitLimits;
pub(crate) use launch::{
    EffectLaunch, EffectWork, FallbackContext, ModelCall, NewChild, OutputFormat, PreparedStep,
};
pub(crate) use outcome::{
    EffectOutcome, EffectResult, OUTPUT_BYTES_LIMIT, completed_outcome, completed_outcome_within,
    invalid_json_answer, new_failure, oversized_step_failure, value_bytes,
};
pub(crate) use pending_turn::ToolCallAt;
pub(crate) use resolution::find_fatal_failure;
