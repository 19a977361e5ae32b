//! One run in memory: an actor that commits results and intents, and runs effects once their
//! intents are durable.
//!
//! An actor owns the folded state, the kernel's scheduler and the effects in flight. It holds
//! nothing that the log does not have, or could not have again: it may vanish at any moment, and
//! another one resumes the run.
//!
//! How one iteration of the loop goes:
//!
//! - `run_loop` collects results (`inbox`, `external_input`), asks `planning` for the next commit,
//!   has `commit` write it, and waits when nothing can be done.
//! - `planning` fills a `commit_plan` within `commit_size` and `capacity`: results first
//!   (`resolution` for decided steps, `turns` for agents), then steps that start (`prepare`,
//!   `reopen`, `queued_calls`), then the end of the run.
//! - `prepare` turns a step into an intent and an effect, with templates rendered by `evaluate`,
//!   the request built by `transcript` and `model_call`, and candidates recorded by
//!   `candidate_tables`.
//! - `turns`, `transcript`, `agent_tools`, `tool_check`, `proposals`: agents with tools or memory,
//!   and plan nodes.
//! - `effect` runs an intent in the world, with `fallback` to another model and a span by `trace`.
//! - `children`, `reopen`, `family`: child runs, and the runs that this one is within.
//!
//! Nothing here has an effect before its intent is committed, decides what an event does to a run,
//! or speaks to a provider itself.

mod agent_request;
mod agent_tools;
mod candidate_tables;
mod capacity;
mod children;
mod commit;
mod commit_plan;
mod commit_size;
mod effect;
mod evaluate;
mod external_input;
mod fallback;
mod family;
mod inbox;
mod model_call;
mod pending_turn;
mod planning;
mod prepare;
mod proposals;
mod queued_calls;
mod reopen;
mod resolution;
mod run_loop;
mod tool_check;
mod trace;
mod transcript;
mod turns;

pub(crate) use children::settle_family;
pub(crate) use tool_check::{CallFate, CallVerdict, judge_tool_call};
pub(crate) use transcript::TurnAgent;

use std::collections::{BTreeMap, BTreeSet, VecDeque};
use std::sync::Arc;

use convergio_domain::decider::DecisionContext;
use convergio_domain::event::run::Failure;
use convergio_domain::failure::UnsealedFailure;
use convergio_domain::id::{ActorId, NodeId, StepId};
use convergio_domain::metering::{PriceBook, PriceQuery};
use convergio_domain::payload::PayloadRef;
use convergio_domain::platform_text;
use convergio_domain::run::{Run, RunRejection, StepStatus, ToolCallNumber};
use convergio_domain::stream::StreamKey;
use convergio_domain::time::Timestamp;
use convergio_evaluation::{EvaluationJob, JobDigest};
use convergio_eventstore::{
    AppendError, CommitError, LiveHub, LoadedStream, LogError, Record, Repository,
};
use convergio_kernel_c::{ProviderClass, Scheduler};
use serde_json::Value;
use tokio::sync::Semaphore;
use tokio::task::JoinSet;
use tokio_util::sync::CancellationToken;

use crate::catalog::ModelCatalog;
use crate::config::ExecutorConfig;
use crate::graphs::{CompiledGraph, GraphCache, GraphError};
use crate::large_values::LargeValueGate;
use crate::memory::ToolScope;
use crate::outputs::StepOutputs;
use crate::provider::ProviderConfig;
use crate::scheduler;
use capacity::ReadySteps;
use commit::is_current_attempt;
use commit_size::CommitLimits;
use effect::EffectResult;
use evaluate::OutsideEvaluation;

/// Services and settings that all actors of an executor share.
pub(crate) struct SharedServices {
    pub(crate) config: ExecutorConfig,
    pub(crate) actor: ActorId,
    pub(crate) repository: Repository,
    pub(crate) graphs: GraphCache,
    pub(crate) models: Arc<ModelCatalog>,
    pub(crate) prices: Arc<PriceBook>,
    pub(crate) live: LiveHub,
    pub(crate) model_calls: Arc<Semaphore>,
    pub(crate) large_value_gate: Arc<LargeValueGate>,
    /// Cancelled when a shutdown begins: no step starts any more, those in flight may finish.
    pub(crate) drain_token: CancellationToken,
    /// Cancelled when the grace is over: effects in flight are abandoned.
    pub(crate) abandon_token: CancellationToken,
}

impl SharedServices {
    fn current_time(&self) -> Timestamp {
        self.repository.clock().now()
    }

    /// Builds the query of a model's price, for now and the default service tier.
    pub(super) fn price_query<'a>(
        &self,
        provider: &'a ProviderConfig,
        model: &'a str,
    ) -> PriceQuery<'a> {
        PriceQuery {
            provider: &provider.name,
            model,
            is_local: provider.class == ProviderClass::Local,
            service_tier: None,
            at: self.current_time(),
        }
    }

    /// Builds the scope of a tool call. `origin` is the permanent name of the call.
    pub(crate) fn tool_scope(
        &self,
        stream: &StreamKey,
        origin: String,
        now: Timestamp,
    ) -> ToolScope {
        ToolScope {
            repository: self.repository.clone(),
            memory: self.config.memory.clone(),
            tenant: stream.tenant.clone(),
            actor: self.actor.clone(),
            origin,
            now,
        }
    }

    pub(crate) fn command_context(&self) -> DecisionContext {
        DecisionContext { now: self.current_time(), actor: self.actor.clone() }
    }
}

/// Error that makes an actor leave its run.
#[derive(Debug, thiserror::Error)]
pub(crate) enum ActorError {
    #[error(transparent)]
    Log(#[from] LogError),
    #[error(transparent)]
    Graph(#[from] GraphError),
    #[error("{0}")]
    Failure(UnsealedFailure),
    #[error("the log refuses what the executor did: {0}")]
    Rejected(#[from] RunRejection),
    #[error(transparent)]
    Append(#[from] AppendError),
    #[error("others wrote to the run, and its own turn did not come in time")]
    Conflict,
    #[error("a plan that changes nothing was to be written: this is a defect, please report it")]
    EmptyPlan,
    #[error("the executor is stopping")]
    Stopping,
    #[error("the run was imported: it is never executed")]
    Imported,
    #[error("an evaluation is under way")]
    Evaluation(Box<EvaluationJob>),
}

impl ActorError {
    /// Returns the failure that ends the run, if retrying cannot help.
    pub(crate) fn fatal_failure(&self) -> Option<UnsealedFailure> {
        match self {
            Self::Failure(failure) | Self::Graph(GraphError::Broken(failure)) => {
                Some(failure.clone())
            }
            Self::Append(AppendError::TooLarge { .. }) => {
                let message = platform_text!("the log takes nothing so large");
                let failure = UnsealedFailure::new("request.too_large", message);
                Some(failure.with_cause(self))
            }
            _ => None,
        }
    }
}

impl From<CommitError<RunRejection>> for ActorError {
    fn from(error: CommitError<RunRejection>) -> Self {
        match error {
            CommitError::Rejected(rejection) => Self::Rejected(rejection),
            CommitError::Conflict => Self::Conflict,
            CommitError::Append(error) => Self::Append(error),
            CommitError::Log(error) => Self::Log(error),
        }
    }
}

/// Key of an effect in flight: its step and, for a tool call of an agent, the call.
type EffectKey = (StepId, Option<ToolCallNumber>);

struct InFlightEffect {
    /// True for a step of an agent: those are limited separately.
    is_agent: bool,
    cancel: CancellationToken,
}

/// One run in memory.
pub(crate) struct Actor {
    shared: Arc<SharedServices>,
    run: LoadedStream<Run>,
    graph: Arc<CompiledGraph>,
    scheduler: Scheduler,
    outputs: StepOutputs,
    /// Steps that may start, now or at a time.
    ready_steps: ReadySteps,
    /// Tool calls whose child runs wait for capacity.
    queued_calls: BTreeSet<(StepId, ToolCallNumber)>,
    /// Steps that end without an effect of this actor: sleeps, approvals, signals, and steps that
    /// another executor left when it died.
    waiting_steps: BTreeSet<StepId>,
    /// Lists that `map` nodes iterate over, each rendered once.
    map_lists: BTreeMap<NodeId, Arc<Vec<Value>>>,
    /// Candidate tables that the log has, by digest; `None` until one is needed.
    candidate_tables: Option<Vec<(candidate_tables::TableDigest, PayloadRef)>>,
    /// Steps that the kernel made ready and the log has not scheduled yet, in the kernel's order.
    unrecorded_ready: VecDeque<StepId>,
    effects: JoinSet<EffectResult>,
    in_flight: BTreeMap<EffectKey, InFlightEffect>,
    /// Results that are not in the log yet.
    results: Vec<EffectResult>,
    /// Limits of the next commit.
    commit_limits: CommitLimits,
    /// Steps that must fail when they start, because their prompt or payload exceeds the log's
    /// limit.
    oversized_steps: BTreeMap<StepId, UnsealedFailure>,
    /// The failure that decides the run, until the run's end is in the log.
    deciding_failure: Option<(StepId, Failure)>,
    /// Results of evaluations outside of the actor, until a commit has used them.
    evaluations: BTreeMap<JobDigest, OutsideEvaluation>,
}

impl Actor {
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
        // The scheduler's delta is not kept here: `rebuild_derived` computes it again.
        let (scheduler, _) =
            scheduler::restore_scheduler(&graph, &run.state).map_err(ActorError::Failure)?;
        let lineage = run.state.lineage.clone();
        let (log, large_value_gate) =
            (shared.repository.event_log(), Arc::clone(&shared.large_value_gate));
        let outputs = StepOutputs::new(log, stream.clone(), lineage, large_value_gate);
        let mut actor = Self {
            shared,
            run,
            graph,
            scheduler,
            outputs,
            ready_steps: ReadySteps::default(),
            queued_calls: BTreeSet::new(),
            waiting_steps: BTreeSet::new(),
            map_lists: BTreeMap::new(),
            candidate_tables: None,
            unrecorded_ready: VecDeque::new(),
            effects: JoinSet::new(),
            in_flight: BTreeMap::new(),
            results: Vec::new(),
            commit_limits: CommitLimits::WHOLE,
            oversized_steps: BTreeMap::new(),
            deciding_failure: None,
            evaluations: BTreeMap::new(),
        };
        // Ancestors first: a cancelled or paused family must not create further runs.
        actor.rebuild_derived()?;
        actor.follow_ancestors().await?;
        actor.ensure_children().await?;
        Ok(actor)
    }

    /// Reloads what depends on the run's graph version, after another writer may have migrated the
    /// run, and rebuilds everything derived from the state.
    async fn sync_with_state(&mut self) -> Result<(), ActorError> {
        if let Some((graph, version)) = self.run.state.graph.clone() {
            let (repository, tenant) = (&self.shared.repository, &self.run.stream.tenant);
            self.graph = self.shared.graphs.get(repository, tenant, graph, &version).await?;
        }
        self.rebuild_derived()
    }

    /// Rebuilds everything derived from the state. Results of attempts that are no longer current
    /// are dropped; steps with a pending result are not waited for again.
    fn rebuild_derived(&mut self) -> Result<(), ActorError> {
        let state = &self.run.state;
        // The costs of an ended run are still settled, so its results stay.
        if !state.phase.is_ended() {
            self.results.retain(|done| is_current_attempt(state, &done.step, done.attempt));
        }
        let concluded =
            self.results.iter().filter(|done| done.tool_call.is_none()).map(|done| &done.step);
        let concluded: BTreeSet<StepId> = concluded.cloned().collect();
        // Rebuilt from the state rather than adjusted: the state is the only truth after a
        // conflict.
        let (scheduler, delta) =
            scheduler::restore_scheduler(&self.graph, state).map_err(ActorError::Failure)?;
        self.scheduler = scheduler;
        self.unrecorded_ready = scheduler::ready_steps(&self.graph, &delta).into();
        self.ready_steps.remove_all();
        self.waiting_steps.clear();
        self.queued_calls.clear();
        let mut scheduled = Vec::new();
        for (id, step) in &state.steps {
            match step.status {
                StepStatus::Scheduled { due } => scheduled.push((due, id.clone())),
                StepStatus::Sleeping { .. }
                | StepStatus::Asking { .. }
                | StepStatus::Awaiting { .. }
                | StepStatus::Undecided { .. }
                | StepStatus::Started { .. }
                | StepStatus::Unknown
                    if !concluded.contains(id) =>
                {
                    self.waiting_steps.insert(id.clone());
                }
                _ => {}
            }
            let queued = step.turns.iter().flat_map(|turns| turns.queued_calls());
            self.queued_calls.extend(queued.map(|call| (id.clone(), call)));
        }
        scheduled.into_iter().for_each(|(due, step)| self.track_scheduled_step(step, due));
        Ok(())
    }

    /// Tracks a step that may start now, or at a time.
    fn track_scheduled_step(&mut self, step: StepId, due: Option<Timestamp>) {
        match due {
            Some(due) => self.ready_steps.insert_later(due, step),
            None => self.ready_steps.insert_now(self.capacity_kind(&step), step),
        }
    }
}

/// The wake index names only streams with events, so a log without events of the stream lags
/// behind.
fn missing_run_error(stream: &StreamKey) -> ActorError {
    ActorError::Log(LogError::Unavailable(format!("{stream} has no events yet")))
}
