//! Amending runs: other limits or another version of the graph. A failed run continues with
//! everything that was done; one under way continues under the new limits.

use convergio_domain::graph::manifest::Graph;
use convergio_domain::id::RunId;
use convergio_domain::idempotency::{IdempotentNoun, RequestedCommand};
use convergio_domain::policy::reopening::fatal_steps;
use convergio_domain::run::{
    AmendRun, CommandReason, NewLimits, Run, RunCommand, RunPhase, RunState, find_loosened_node,
};
use convergio_eventstore::{CommitError, Payload};
use convergio_schemas::wire::MigrateRequest;

use crate::caller::Caller;
use crate::error::UseCaseError;
use crate::migrations::{MAX_ATTEMPTS, MigrationTarget};
use crate::payload::{REASON_CHARACTERS_LIMIT, seal_reason};
use crate::use_cases::GraphUseCases;

/// The change that a request asks for, ready to be tried several times.
struct Amendment {
    limits: NewLimits,
    /// The version to continue by; `None` keeps the run's own.
    target: Option<MigrationTarget>,
    reason: Option<CommandReason>,
    payloads: Vec<Payload>,
}

impl GraphUseCases<'_> {
    /// Gives a run other limits, or the version that `target` names if it names one.
    ///
    /// # Errors
    /// There is no such run or version, the run has ended otherwise or cannot go on by the version,
    /// or the log does not take the commit.
    pub async fn amend_run(
        self,
        caller: &Caller,
        run: RunId,
        limits: NewLimits,
        target: MigrateRequest,
        reason: Option<String>,
    ) -> Result<(), UseCaseError> {
        let graph = self.log.graph_of_run(caller, run).await?;
        let graph = graph.ok_or(UseCaseError::NotFound("run"))?;
        let target = match (&target.manifest, &target.version) {
            (None, None) => None,
            _ => Some(self.resolve_target(caller, graph, target).await?),
        };
        // The reason is a payload, so that it can be erased.
        let (reason, payloads) = seal_reason(reason, REASON_CHARACTERS_LIMIT, 0);
        let amendment = Amendment { limits, target, reason, payloads };
        for _ in 0..MAX_ATTEMPTS {
            if self.try_amend(caller, run, &amendment).await? {
                return Ok(());
            }
        }
        Err(UseCaseError::RunMoved)
    }

    /// Amends the run as it is now; returns false if a concurrent writer was faster.
    async fn try_amend(
        self,
        caller: &Caller,
        run: RunId,
        amendment: &Amendment,
    ) -> Result<bool, UseCaseError> {
        let (repository, request) = (self.log.repository, caller.request_id());
        // Loaded again for each attempt: a concurrent writer has moved the run.
        let mut loaded = repository.load::<IdempotentNoun<Run>>(&caller.run_stream(run)).await?;
        // The same request has amended the run already; it may have continued, or failed again,
        // since.
        if request.is_some_and(|id| loaded.state.requests.seq_of(id).is_some()) {
            return Ok(true);
        }
        let current = self.current_graph(caller, &loaded.state).await?;
        if let Some(target) = &amendment.target {
            check_privacy(&current, &target.graph)?;
            // Checked before anything is written: an incompatible version is not even registered.
            let verdict = self.check_continuation(&loaded.stream, target, loaded.state.seq).await?;
            if verdict.is_none() {
                return Ok(false);
            }
            if target.is_unregistered {
                self.log.register_graph(caller, &target.graph).await?;
            }
        }
        let graph = amendment.target.as_ref().map_or(&current, |target| &target.graph);
        let is_failed = loaded.state.phase == RunPhase::Failed;
        let command = RunCommand::Amend(AmendRun {
            limits: amendment.limits,
            version: amendment.target.as_ref().map(|target| target.version.clone()),
            // A failed run must retry the steps that ended it; a running one continues as it is.
            steps: if is_failed { fatal_steps(&loaded.state, graph) } else { Vec::new() },
            reason: amendment.reason.clone(),
        });
        let command = RequestedCommand { request, command };
        let (context, payloads) = (self.log.decision_context(caller), amendment.payloads.clone());
        match repository.commit(&mut loaded, command, payloads, &context).await {
            Err(CommitError::Conflict) => Ok(false),
            Err(error) => Err(error.into()),
            Ok(_) => Ok(true),
        }
    }

    async fn current_graph(self, caller: &Caller, state: &RunState) -> Result<Graph, UseCaseError> {
        let Some((graph, version)) = &state.graph else {
            return Err(UseCaseError::NotFound("run"));
        };
        Ok(self.log.load_manifest(&caller.tenant, *graph, Some(version.as_str())).await?.1)
    }
}

/// Rejects a version that loosens the privacy of a node: conversations of a run must not reach
/// providers that the run was not created for.
fn check_privacy(current: &Graph, other: &Graph) -> Result<(), UseCaseError> {
    let Some(node) = find_loosened_node(current, other) else { return Ok(()) };
    let detail = format!("nodes.{node}: its privacy would be loosened: begin a new run for that");
    Err(UseCaseError::Invalid(detail))
}
