//! Moving active runs to other versions of their graphs.

use convergio_domain::graph::manifest::Graph;
use convergio_domain::id::{GraphId, GraphVersion, RunId};
use convergio_domain::idempotency::{IdempotentNoun, RequestedCommand};
use convergio_domain::run::{Run, RunCommand};
use convergio_domain::stream::{Seq, StreamKey};
use convergio_eventstore::CommitError;
use convergio_schemas::wire::{MigrateReport, MigrateRequest, Verdict};

use crate::caller::Caller;
use crate::error::UseCaseError;
use crate::use_cases::GraphUseCases;

/// Maximum attempts against concurrent writers of the run.
pub(crate) const MAX_ATTEMPTS: u32 = 8;

/// The version that a run is to continue by.
pub(crate) struct MigrationTarget {
    pub(crate) version: GraphVersion,
    pub(crate) graph: Graph,
    /// True if the manifest came with the request and is not registered yet.
    pub(crate) is_unregistered: bool,
}

impl GraphUseCases<'_> {
    /// Moves a run under way to another version of its graph, if it can go on by it. What was done
    /// stays done.
    ///
    /// # Errors
    /// There is no such run or version, the run has ended or cannot go on by the version, or the
    /// log does not take the commit.
    pub async fn migrate_run(
        self,
        caller: &Caller,
        run: RunId,
        request: MigrateRequest,
    ) -> Result<MigrateReport, UseCaseError> {
        let graph = self.log.graph_of_run(caller, run).await?;
        let graph = graph.ok_or(UseCaseError::NotFound("run"))?;
        let target = self.resolve_target(caller, graph, request).await?;
        for _ in 0..MAX_ATTEMPTS {
            if let Some(report) = self.try_migrate(caller, run, &target).await? {
                return Ok(report);
            }
        }
        Err(UseCaseError::RunMoved)
    }

    /// Finds the version that a request names, or parses the manifest that it carries.
    pub(crate) async fn resolve_target(
        self,
        caller: &Caller,
        graph: GraphId,
        request: MigrateRequest,
    ) -> Result<MigrationTarget, UseCaseError> {
        let (version, graph, is_unregistered) = match (request.manifest, request.version) {
            (Some(text), None) => {
                let graph = self.parse_manifest(caller, &text).await?.graph;
                (graph.compute_version(), graph, true)
            }
            (None, Some(version)) => {
                let loaded = self.log.load_manifest(&caller.tenant, graph, Some(&version)).await?;
                (loaded.0, loaded.1, false)
            }
            _ => {
                let detail = "give either `version` or `manifest`";
                return Err(UseCaseError::Invalid(detail.to_owned()));
            }
        };
        Ok(MigrationTarget { version, graph, is_unregistered })
    }

    /// Moves the run if it is still at the event that was checked; `None` if a concurrent writer
    /// was faster.
    async fn try_migrate(
        self,
        caller: &Caller,
        run: RunId,
        target: &MigrationTarget,
    ) -> Result<Option<MigrateReport>, UseCaseError> {
        let (repository, stream) = (self.log.repository, caller.run_stream(run));
        // Holding the run's turn keeps its executor from appending during the check; a busy run
        // would otherwise never be found unchanged.
        let turn = repository.take_turn(&stream).await;
        let mut loaded = repository.load::<IdempotentNoun<Run>>(&stream).await?;
        let (to, request) = (&target.version, caller.request_id());
        let current_version =
            loaded.state.graph.as_ref().map_or(to, |(_, version)| version).clone();
        // A repeated request appends nothing and reports the version as it is.
        let is_repeated = request.is_some_and(|id| loaded.state.requests.seq_of(id).is_some());
        let mut verdict = Verdict::Compatible;
        if !loaded.state.phase.is_ended() && !is_repeated && current_version != *to {
            let found = self.check_continuation(&stream, target, loaded.state.seq).await?;
            let Some(found) = found else { return Ok(None) };
            // Registered only after the check, so that a rejected version leaves no trace.
            if target.is_unregistered {
                self.log.register_graph(caller, &target.graph).await?;
            }
            verdict = found;
        }
        let command = RunCommand::Migrate { to: to.clone() };
        let command = RequestedCommand { request, command };
        let context = self.log.decision_context(caller);
        let commit = repository.commit_in_turn(&turn, &mut loaded, command, Vec::new(), &context);
        match commit.await {
            Err(CommitError::Conflict) => Ok(None),
            Err(error) => Err(error.into()),
            Ok(_) => Ok(Some(MigrateReport {
                run: run.to_string(),
                from: if is_repeated { to.to_string() } else { current_version.to_string() },
                to: to.to_string(),
                seq: loaded.state.seq.0,
                verdict,
            })),
        }
    }

    /// Replays a run and returns the verdict on a version; `None` if the run has passed the event
    /// meanwhile.
    ///
    /// # Errors
    /// The run must stay on its own version, or cannot be replayed.
    pub(crate) async fn check_continuation(
        self,
        run: &StreamKey,
        target: &MigrationTarget,
        seq: Seq,
    ) -> Result<Option<Verdict>, UseCaseError> {
        let replay = self.replayer.check_migration(run, Some(&target.graph)).await?;
        if replay.verdict == Verdict::Pin {
            let (version, reason) = (target.version.clone(), replay.reason.unwrap_or_default());
            return Err(UseCaseError::Diverged { version, reason });
        }
        Ok((replay.seq == seq.0).then_some(replay.verdict))
    }
}
