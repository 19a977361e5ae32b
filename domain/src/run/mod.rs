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
//! - `command`, `advance_command`, `rejection`: the commands, an executor's report among them, and
//!   the reasons to reject them.
//!
//! Events become state:
//! - `state`: the state, of which `step`, `turns` and `child_state` are parts.
//! - [`event`]: events of a run, and their content for auditors.
//! - `evolve`, `evolve_turns`: fold the events into it. `candidate_tables`: tables it remembers.
//! - `clock`: the time that counts against the budget. `lineage`: history that a fork inherits.
//! - `fingerprint`: hash of the state. `snapshot`, `compact_steps`: the state as bytes.
//!
//! `values` is below both: values of events that the state has as well.
//!
//! Rules without a state, which the executor asks directly:
//! - `retry`, `fallback`, `failure_code`: what follows a failure. `routing`: record of a model
//!   choice.
//!
//! The kernel's scheduler decides which steps become ready, and the executor calls it: nothing here
//! walks the graph to schedule.

mod advance;
mod advance_command;
mod amend;
mod candidate_tables;
mod child_state;
mod children;
mod clock;
mod command;
mod compact_steps;
mod control;
mod decide;
pub mod event;
mod evolve;
mod evolve_turns;
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
mod step;
mod turn_update;
mod turns;
mod values;

pub use advance_command::{
    AdvanceRun, CallReport, ChildIntent, ChildReopening, RunOutcome, StepIntent, StepOutcome,
    StepResult, StepStart, ToolCallResult, ToolIntent, ToolOutcome, TurnAnswer, TurnIntent,
    TurnUpdate,
};
pub use amend::find_loosened_node;
pub use child_state::{ChildOutcome, RunChild};
pub use children::child_run_id;
pub use command::{
    AmendRun, AnswerApproval, ChildReport, CommandReason, CreateRun, FamilyCommand, ForkRun,
    NewLimits, Provenance, ReopenRun, ResolveStep, RunCommand, SIGNALS_LIMIT, SendSignal,
};
pub use control::{check_fork_point, check_signal};
pub use failure_code::{FAILURE_CODES, FailureCode, find_failure_code, retryable_codes};
pub use fallback::{Fallback, KeyOwner, ModelTarget, may_fall_back};
pub use rejection::RunRejection;
pub use retry::{apply_retry_hint, next_attempt_after_crash, next_attempt_at};
pub use routing::{
    CandidateFacts, CandidateTableRef, ModelCapability, RouterCandidate, RouterDecision,
    RoutingCandidates, ServingPlatform,
};
pub use state::{
    Ancestor, ApprovalState, BudgetUsage, PauseCauses, RunApproval, RunPhase, RunState,
};
pub use step::{PendingModelCall, RunStep, StepStatus};
pub use turns::{AgentTurn, AgentTurns, ToolCallState};
pub use values::{Budget, Resolution, RunOrigin, ToolCallNumber};

use event::RunEvent;

use crate::decider::{Decider, DecisionContext, InheritedHistory, RecordedEvent, Wake};
use crate::event::Event;
use crate::fingerprint::Fingerprint;
use crate::id::{RunId, TenantId, derive_uuid};
use crate::idempotency::{AppliedRequests, HasAppliedRequests};
use crate::request::event::RequestApplied;
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
    type Event = RunEvent;
    type Rejection = RunRejection;

    fn decide(
        state: &RunState,
        command: RunCommand,
        context: &DecisionContext,
        next: Seq,
    ) -> Result<Vec<RunEvent>, RunRejection> {
        decide::decide(state, command, context, next)
    }

    fn evolve(state: &mut RunState, recorded: RecordedEvent<'_, RunEvent>) {
        evolve::evolve(state, recorded);
    }

    fn evolve_request(state: &mut RunState, applied: RecordedEvent<'_, RequestApplied>) {
        evolve::evolve_request(state, applied);
    }

    fn next_wake(state: &RunState) -> Wake {
        state.next_wake()
    }

    fn refresh_fingerprint(state: &mut RunState) -> Option<Fingerprint> {
        Some(state.refresh_fingerprint())
    }

    fn inherited_history(first: &Event) -> Option<InheritedHistory> {
        let Event::Run(RunEvent::RunForked(forked)) = first else { return None };
        Some(InheritedHistory { id: forked.parent.0, seq: forked.seq, fingerprint: forked.fold })
    }

    fn encode_snapshot(state: &RunState) -> Option<Vec<u8>> {
        state.encode_snapshot()
    }

    fn decode_snapshot(snapshot: &[u8]) -> Option<RunState> {
        RunState::decode_snapshot(snapshot)
    }
}
