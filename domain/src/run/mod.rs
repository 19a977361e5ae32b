//! The run: one execution of a graph, from its creation to its end.
//!
//! `decide` and `evolve` are the two entrances; [`Run`] joins them to the event store.
//!
//! Commands become events:
//! - `decide`: dispatches a command to its rule; creation, migration and approvals.
//! - `advance`: an executor's report becomes one commit, with the help of `turn_update` (agent
//!   turns).
//! - `children`: child runs are created, and report their end.
//! - `family`: pause, resumption, cancellation and reopening spread between parents and children.
//! - `control`: retries, signals, decisions about steps, checkpoints and forks.
//! - `amend`: a new budget or graph version.
//! - `command`, `rejection`: the commands, and the reasons to reject them.
//!
//! Events become state:
//! - `evolve`: dispatches an event; `state`: the state; `turns`: the agent turns in it.
//! - `clock`: the time that counts against the budget. `lineage`: history that a fork inherits.
//! - `fingerprint`: hash of the state. `snapshot`, `compact_steps`: the state as bytes.
//!
//! Rules without a state, which the executor asks directly:
//! - `retry`, `fallback`, `failure_code`: what follows a failure. `routing`: record of a model
//!   choice.
//!
//! The kernel's scheduler decides which steps become ready, and the executor calls it: nothing here
//! walks the graph to schedule.

mod advance;
mod amend;
mod children;
mod clock;
mod command;
mod compact_steps;
mod control;
mod decide;
mod evolve;
mod failure_code;
mod fallback;
mod family;
mod fingerprint;
pub mod lineage;
mod rejection;
mod retry;
mod routing;
mod snapshot;
mod state;
mod turn_update;
mod turns;

pub use amend::{AmendRun, NewLimits, find_loosened_node};
pub use children::{
    ChildOutcome, ChildReport, DEPTH_LIMIT, Provenance, RunChild, RunOrigin, WIDTH_LIMIT,
    child_run_id,
};
pub use command::{
    AdvanceRun, AnswerApproval, CallReport, ChildIntent, CommandReason, CreateRun, RunCommand,
    RunOutcome, StepIntent, StepOutcome, StepResult, StepStart,
};
pub use control::{
    ForkRun, Resolution, ResolveStep, SIGNALS_LIMIT, SendSignal, check_fork_point, check_signal,
    fatal_steps,
};
pub use failure_code::{FAILURE_CODES, FailureCode, find_failure_code, retryable_codes};
pub use fallback::{Fallback, HOPS_LIMIT, KeyOwner, ModelTarget, Successor, allowed_successor};
pub use family::{ChildReopening, FamilyCommand, PauseCauses, ReopenRun};
pub use lineage::Ancestor;
pub use rejection::RunRejection;
pub use retry::{apply_retry_hint, next_attempt_after_crash, next_attempt_at};
pub use routing::{
    CandidateFacts, CandidateTableRef, ModelCapability, RouterCandidate, RouterDecision,
    RoutingCandidates, ServingPlatform,
};
pub use state::{
    ApprovalState, Budget, BudgetUsage, PendingModelCall, RunApproval, RunPhase, RunState, RunStep,
    StepStatus,
};
pub use turn_update::{ToolCallResult, ToolOutcome, TurnAnswer, TurnIntent, TurnUpdate};
pub use turns::{AgentTurn, AgentTurns, ToolCallNumber, ToolCallState};

use crate::decider::{
    Decider, DecisionContext, Fingerprint, InheritedHistory, RecordedEvent, Wake,
};
use crate::event::Event;
use crate::id::{RunId, TenantId};
use crate::idempotency::{AppliedRequests, HasAppliedRequests};
use crate::request::derive_uuid;
use crate::stream::Seq;

/// Marker type that carries the [`Decider`] of runs.
#[derive(Debug, Clone, Copy)]
pub struct Run;

/// Returns the id of the run that a request with this idempotency key creates. The same tenant and
/// key always give the same id, so that a repeated request finds its run.
pub fn run_id_for_key(tenant: &TenantId, key: &str) -> RunId {
    RunId(derive_uuid(&["run/v1", tenant.as_str(), key]))
}

impl HasAppliedRequests for RunState {
    fn applied_requests(&self) -> &AppliedRequests {
        &self.requests
    }
}

impl Decider for Run {
    type State = RunState;
    type Command = RunCommand;
    type Rejection = RunRejection;

    fn decide(
        state: &RunState,
        command: RunCommand,
        context: &DecisionContext,
        next: Seq,
    ) -> Result<Vec<Event>, RunRejection> {
        decide::decide(state, command, context, next)
    }

    fn evolve(state: &mut RunState, recorded: RecordedEvent<'_>) {
        evolve::evolve(state, recorded);
    }

    fn next_wake(state: &RunState) -> Wake {
        state.next_wake()
    }

    fn refresh_fingerprint(state: &mut RunState) -> Option<Fingerprint> {
        Some(state.refresh_fingerprint())
    }

    fn inherited_history(first: &Event) -> Option<InheritedHistory> {
        let Event::RunForked(forked) = first else { return None };
        Some(InheritedHistory { id: forked.parent.0, seq: forked.seq, fingerprint: forked.fold })
    }

    fn encode_snapshot(state: &RunState) -> Option<Vec<u8>> {
        state.encode_snapshot()
    }

    fn decode_snapshot(snapshot: &[u8]) -> Option<RunState> {
        RunState::decode_snapshot(snapshot)
    }
}
