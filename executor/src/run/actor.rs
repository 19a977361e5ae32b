//! One run in memory: its folded state, and what is derived from it.

use std::collections::BTreeMap;
use std::sync::Arc;

use convergio_domain::run::Run;
use convergio_domain::stream::StreamKey;
use convergio_eventstore::{LoadedStream, Record};

use super::inbox::Inbox;
use super::schedule::Schedule;
use crate::error::{ActorError, missing_run_error};
use crate::graphs::CompiledGraph;
use crate::outputs::StepOutputs;
use crate::plan::FreeCapacity;
use crate::services::SharedServices;
use crate::step::{OutsideEvaluations, Planner, StepCaches};

/// One run in memory.
pub(crate) struct RunActor {
    pub(super) shared: Arc<SharedServices>,
    pub(super) run: LoadedStream<Run>,
    pub(super) graph: Arc<CompiledGraph>,
    pub(super) schedule: Schedule,
    pub(super) inbox: Inbox,
    /// The part of the actor that only the preparation of steps changes.
    pub(super) caches: StepCaches,
}

impl RunActor {
    /// Folds a run from its last record if that is at hand, else from the log, and brings it in
    /// line with the runs that it is related to.
    pub(crate) async fn load(
        shared: Arc<SharedServices>,
        stream: &StreamKey,
        last_record: Option<&Record>,
    ) -> Result<Self, ActorError> {
        let run = match last_record {
            Some(record) => shared.repository.load_from::<Run>(record).await?,
            None => shared.repository.load::<Run>(stream).await?,
        };
        // An imported run is history of another installation: executing it would repeat its
        // effects.
        if run.state.is_imported {
            return Err(ActorError::Imported);
        }
        let (graph, version) = run.state.graph.clone().ok_or_else(|| missing_run_error(stream))?;
        let graph = shared.graphs.get(&shared.repository, &stream.tenant, graph, &version).await?;
        let schedule = Schedule::from_state(&graph, &run.state).map_err(ActorError::Failure)?;
        let lineage = run.state.lineage.clone();
        let (log, large_value_gate) =
            (shared.repository.event_log(), Arc::clone(&shared.large_value_gate));
        let caches = StepCaches {
            outputs: StepOutputs::new(log, stream.clone(), lineage, large_value_gate),
            map_lists: BTreeMap::new(),
            candidate_tables: None,
            evaluations: OutsideEvaluations::default(),
        };
        let mut actor = Self { shared, run, graph, schedule, inbox: Inbox::default(), caches };
        // Ancestors first: a cancelled or paused family must not create further runs.
        actor.follow_ancestors().await?;
        actor.ensure_children().await?;
        Ok(actor)
    }

    /// Returns the planner of one commit.
    pub(super) fn borrow_planner(&mut self) -> Planner<'_> {
        Planner {
            shared: &self.shared,
            run: &self.run,
            graph: &self.graph,
            caches: &mut self.caches,
        }
    }

    /// Reloads what depends on the run's graph version, after another writer may have migrated the
    /// run, and rebuilds everything derived from the state.
    pub(super) async fn sync_with_state(&mut self) -> Result<(), ActorError> {
        if let Some((graph, version)) = self.run.state.graph.clone() {
            let (repository, tenant) = (&self.shared.repository, &self.run.stream.tenant);
            self.graph = self.shared.graphs.get(repository, tenant, graph, &version).await?;
        }
        self.rebuild_derived()
    }

    /// Rebuilds everything derived from the state. Results of attempts that are no longer current
    /// are dropped.
    pub(super) fn rebuild_derived(&mut self) -> Result<(), ActorError> {
        self.inbox.drop_void_results(&self.run.state);
        let concluded = self.inbox.concluded_steps();
        let rebuilt = self.schedule.rebuild_steps(&self.graph, &self.run.state, &concluded);
        rebuilt.map_err(ActorError::Failure)
    }

    /// Returns the capacity before anything is planned.
    pub(super) fn free_capacity(&self) -> FreeCapacity {
        let config = &self.shared.config;
        let child_runs = self.run.state.open_children().count();
        FreeCapacity {
            steps: config.steps_per_run.saturating_sub(self.inbox.in_flight.len()),
            model_calls: config.model_calls_per_run.saturating_sub(self.inbox.agent_step_count()),
            child_runs: config.child_runs_per_run.saturating_sub(child_runs),
        }
    }
}
