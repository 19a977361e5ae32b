//! One run in memory: an actor that turns outcomes into commits, and commits into effects.
//!
//! It owns the folded state, the kernel's scheduler and the steps under way. It keeps nothing that
//! the log does not have: it may vanish at any moment, and another one goes on.

mod asking;
mod calling;
mod children;
mod collect;
mod commit;
mod commit_room;
mod decide;
mod effect;
mod evaluate;
mod family;
mod hop;
mod judged;
mod outside;
mod places;
mod plan;
mod planning;
mod prepare;
mod proposals;
mod queued_calls;
mod reopen;
mod run_loop;
mod span;
mod tables;
mod toolbox;
mod turns;

pub(crate) use asking::Asker;
pub(crate) use children::farewell;
pub(crate) use judged::{Fate, Judged, judged};

use std::collections::{BTreeMap, BTreeSet, VecDeque};
use std::sync::Arc;

use convergio_domain::decider::Context;
use convergio_domain::event::run::Failure;
use convergio_domain::failure::UnsealedFailure;
use convergio_domain::id::{ActorId, NodeId, StepId};
use convergio_domain::metering::{PriceBook, PriceQuery};
use convergio_domain::payload::PayloadRef;
use convergio_domain::platform_text;
use convergio_domain::run::{CallNo, Rejection, Run, StepStatus};
use convergio_domain::stream::StreamKey;
use convergio_domain::time::Timestamp;
use convergio_evaluation::{Job, Print};
use convergio_eventstore::{
    AppendError, CommitError, LiveHub, Loaded, LogError, Record, Repository,
};
use convergio_kernel_c::{ProviderClass, Scheduler};
use serde_json::Value;
use tokio::sync::Semaphore;
use tokio::task::JoinSet;
use tokio_util::sync::CancellationToken;

use crate::config::ExecutorConfig;
use crate::graphs::{CompiledGraph, GraphCache, GraphError};
use crate::memory::ToolScope;
use crate::model::{ModelCatalog, ProviderConfig};
use crate::outputs::Outputs;
use crate::scheduler;
use crate::value_room::ValueRoom;
use commit::is_current;
use commit_room::CommitLimits;
use effect::Done;
use evaluate::Evaluated;
use places::ReadySteps;

/// What all actors of an executor share.
pub(crate) struct Shared {
    pub(crate) config: ExecutorConfig,
    pub(crate) actor: ActorId,
    pub(crate) repository: Repository,
    pub(crate) graphs: GraphCache,
    pub(crate) models: Arc<ModelCatalog>,
    pub(crate) prices: Arc<PriceBook>,
    pub(crate) live: LiveHub,
    pub(crate) model_calls: Arc<Semaphore>,
    pub(crate) value_room: Arc<ValueRoom>,
    /// No step starts any more; those under way may finish.
    pub(crate) stopping: CancellationToken,
    /// Steps under way are abandoned.
    pub(crate) stopped: CancellationToken,
}

impl Shared {
    fn now(&self) -> Timestamp {
        self.repository.clock().now()
    }

    /// What a model's price is looked up by, now and at the usual tier of service.
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
            at: self.now(),
        }
    }

    /// What a tool of a step may use. The origin names the call for ever.
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

    pub(crate) fn context(&self) -> Context {
        Context { now: self.now(), actor: self.actor.clone() }
    }
}

/// Why an actor gives up its run.
#[derive(Debug, thiserror::Error)]
pub(crate) enum ActorError {
    #[error(transparent)]
    Log(#[from] LogError),
    #[error(transparent)]
    Graph(#[from] GraphError),
    #[error("{0}")]
    Failure(UnsealedFailure),
    #[error("the log refuses what the executor did: {0}")]
    Rejected(#[from] Rejection),
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
    Evaluation(Box<Job>),
}

impl ActorError {
    /// The reason to end the run, when trying again cannot help.
    pub(crate) fn verdict(&self) -> Option<UnsealedFailure> {
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

impl From<CommitError<Rejection>> for ActorError {
    fn from(error: CommitError<Rejection>) -> Self {
        match error {
            CommitError::Rejected(rejection) => Self::Rejected(rejection),
            CommitError::Conflict => Self::Conflict,
            CommitError::Append(error) => Self::Append(error),
            CommitError::Log(error) => Self::Log(error),
        }
    }
}

/// An effect under way in this process: a step's, or one of its tool calls'.
type FlightKey = (StepId, Option<CallNo>);

struct Flight {
    /// Whether it is an agent's: these have a limit of their own.
    is_agent: bool,
    cancel: CancellationToken,
}

/// One run in memory.
pub(crate) struct Actor {
    shared: Arc<Shared>,
    run: Loaded<Run>,
    graph: Arc<CompiledGraph>,
    scheduler: Scheduler,
    outputs: Outputs,
    /// Steps that may start.
    ready: ReadySteps,
    /// Tool calls whose runs wait for a place.
    queued_calls: BTreeSet<(StepId, CallNo)>,
    /// Steps that come to an end without an effect of ours: sleeps, questions, and those that an
    /// executor left behind when it died.
    waiting: BTreeSet<StepId>,
    /// The lists of maps, rendered once.
    lists: BTreeMap<NodeId, Arc<Vec<Value>>>,
    /// Tables that models were chosen from and that lie in the log; `None` until one is needed.
    tables: Option<Vec<(tables::Print, PayloadRef)>>,
    /// What the kernel made ready and the log does not know yet, in the kernel's order.
    unrecorded: VecDeque<StepId>,
    effects: JoinSet<Done>,
    in_flight: BTreeMap<FlightKey, Flight>,
    /// Outcomes that are not in the log yet.
    done: Vec<Done>,
    /// What the next commit may hold.
    limits: CommitLimits,
    /// Steps that are to fail when they begin: what they would send is more than the log takes.
    oversized: BTreeMap<StepId, UnsealedFailure>,
    /// The failure that decides the run, until its end is in the log.
    failed: Option<(StepId, Failure)>,
    /// What was evaluated elsewhere, until a commit has made use of it.
    evaluated: BTreeMap<Print, Evaluated>,
}

impl Actor {
    /// Folds a run: from its last record if that is at hand, else from the log.
    pub(crate) async fn load(
        shared: Arc<Shared>,
        stream: &StreamKey,
        last: Option<&Record>,
    ) -> Result<Self, ActorError> {
        let run = match last {
            Some(record) => shared.repository.load_from::<Run>(record).await?,
            None => shared.repository.load::<Run>(stream).await?,
        };
        if run.state.is_imported {
            return Err(ActorError::Imported);
        }
        let (graph, version) = run.state.graph.clone().ok_or_else(|| no_run(stream))?;
        let graph = shared.graphs.get(&shared.repository, &stream.tenant, graph, &version).await?;
        let (scheduler, _) = scheduler::restore(&graph, &run.state).map_err(ActorError::Failure)?;
        let lineage = run.state.lineage.clone();
        let (log, room) = (shared.repository.log(), Arc::clone(&shared.value_room));
        let outputs = Outputs::new(log, stream.clone(), lineage, room);
        let mut actor = Self {
            shared,
            run,
            graph,
            scheduler,
            outputs,
            ready: ReadySteps::default(),
            queued_calls: BTreeSet::new(),
            waiting: BTreeSet::new(),
            lists: BTreeMap::new(),
            tables: None,
            unrecorded: VecDeque::new(),
            effects: JoinSet::new(),
            in_flight: BTreeMap::new(),
            done: Vec::new(),
            limits: CommitLimits::WHOLE,
            oversized: BTreeMap::new(),
            failed: None,
            evaluated: BTreeMap::new(),
        };
        actor.rebuild()?;
        actor.follow_ancestors().await?;
        actor.ensure_children().await?;
        Ok(actor)
    }

    /// Brings everything in line with the state, after others changed it. They may have moved the
    /// run to another version of its graph.
    async fn renew(&mut self) -> Result<(), ActorError> {
        if let Some((graph, version)) = self.run.state.graph.clone() {
            let (repository, tenant) = (&self.shared.repository, &self.run.stream.tenant);
            self.graph = self.shared.graphs.get(repository, tenant, graph, &version).await?;
        }
        self.rebuild()
    }

    /// Brings what is derived in line with the state. Outcomes of steps that are not under way any
    /// more are void; those that are not yet written are not looked for again.
    fn rebuild(&mut self) -> Result<(), ActorError> {
        let state = &self.run.state;
        if !state.phase.is_ended() {
            self.done.retain(|done| is_current(state, &done.step, done.attempt));
        }
        let concluded = self.done.iter().filter(|done| done.at.is_none()).map(|done| &done.step);
        let concluded: BTreeSet<StepId> = concluded.cloned().collect();
        let (scheduler, delta) =
            scheduler::restore(&self.graph, state).map_err(ActorError::Failure)?;
        self.scheduler = scheduler;
        self.unrecorded = scheduler::steps(&self.graph, &delta).into();
        self.ready.clear();
        self.waiting.clear();
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
                    self.waiting.insert(id.clone());
                }
                _ => {}
            }
            let queued = step.turns.iter().flat_map(|turns| turns.queued_calls());
            self.queued_calls.extend(queued.map(|call| (id.clone(), call)));
        }
        scheduled.into_iter().for_each(|(due, step)| self.note_scheduled(step, due));
        Ok(())
    }

    /// Notes a step that may start now, or from a time on.
    fn note_scheduled(&mut self, step: StepId, due: Option<Timestamp>) {
        match due {
            Some(due) => self.ready.insert_later(due, step),
            None => self.ready.insert_now(self.place_kind(&step), step),
        }
    }
}

/// The wake index names streams that have events: a log that has none there is behind.
fn no_run(stream: &StreamKey) -> ActorError {
    ActorError::Log(LogError::Unavailable(format!("{stream} has no events yet")))
}
