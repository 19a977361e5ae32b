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
mod decide;
mod evolve;
mod failure_code;
mod fallback;
mod family;
mod fingerprint;
pub mod lineage;
mod moves;
mod packed;
mod rejection;
mod retry;
mod routing;
mod snapshot;
mod state;
mod steer;
mod turns;

pub use amend::{AmendRun, NewLimits, loosened_node};
pub use children::{
    Child, ChildOutcome, ChildReport, DEPTH_LIMIT, Lineage, Origin, WIDTH_LIMIT, child_run_id,
};
pub use command::{
    Advance, Answer, CallReport, ChildIntent, CreateRun, End, Intent, Outcome, Reason, RunCommand,
    Start, StepResult,
};
pub use failure_code::{FAILURE_CODES, FailureCode, failure_code, retryable_codes};
pub use fallback::{Candidate, Fallback, HOPS_LIMIT, KeyOwner, Successor, successor};
pub use family::{ChildReopening, FamilyCommand, PauseCauses, ReopenRun};
pub use lineage::Ancestor;
pub use moves::{Answered, Move, Next, Told, ToolOutcome};
pub use rejection::Rejection;
pub use retry::{keep_to_hint, next_try, next_try_after_crash};
pub use routing::{Ability, Candidates, Offered, Platform, Routing, Table, Traits};
pub use state::{Approval, ApprovalState, Budget, Call, Phase, RunState, Spent, Step, StepStatus};
pub use steer::{
    ForkRun, Resolution, Resolve, SIGNALS_LIMIT, Signal, check_fork_point, check_signal,
    fatal_steps,
};
pub use turns::{CallNo, ToolState, Turn, Turns};

use crate::decider::{Context, Decider, Fingerprint, Inherited, Recorded, Wake};
use crate::event::Event;
use crate::id::{RunId, TenantId};
use crate::once::{AppliedRequests, RemembersRequests};
use crate::request::derived_uuid;
use crate::stream::Seq;

/// Marker type that carries the [`Decider`] of runs.
#[derive(Debug, Clone, Copy)]
pub struct Run;

/// Returns the id of the run that a request with this idempotency key creates. The same tenant and
/// key always give the same id, so that a repeated request finds its run.
pub fn run_id_for_key(tenant: &TenantId, key: &str) -> RunId {
    RunId(derived_uuid(&["run/v1", tenant.as_str(), key]))
}

impl RemembersRequests for RunState {
    fn applied_requests(&self) -> &AppliedRequests {
        &self.requests
    }
}

impl Decider for Run {
    type State = RunState;
    type Command = RunCommand;
    type Rejection = Rejection;

    fn decide(
        state: &RunState,
        command: RunCommand,
        context: &Context,
        next: Seq,
    ) -> Result<Vec<Event>, Rejection> {
        decide::decide(state, command, context, next)
    }

    fn evolve(state: &mut RunState, recorded: Recorded<'_>) {
        evolve::evolve(state, recorded);
    }

    fn wake(state: &RunState) -> Wake {
        state.wake()
    }

    fn fingerprint(state: &mut RunState) -> Option<Fingerprint> {
        Some(state.fingerprint())
    }

    fn inherits(first: &Event) -> Option<Inherited> {
        let Event::RunForked(forked) = first else { return None };
        Some(Inherited { id: forked.parent.0, seq: forked.seq, fold: forked.fold })
    }

    fn snapshot(state: &RunState) -> Option<Vec<u8>> {
        state.snapshot()
    }

    fn recall(snapshot: &[u8]) -> Option<RunState> {
        RunState::recall(snapshot)
    }
}
