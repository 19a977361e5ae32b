//! One run in memory: an actor that turns outcomes into commits, and commits into effects.
//!
//! It owns the folded state, the kernel's scheduler and the steps under way. It keeps nothing that
//! the log does not have: it may vanish at any moment, and another one goes on.

mod asking;
mod calling;
mod children;
mod collect;
mod commit;
mod decide;
mod effect;
mod hop;
mod judged;
mod outside;
mod plan;
mod prepare;
mod proposals;
mod span;
mod tables;
mod toolbox;
mod turns;

pub(crate) use asking::Asker;
pub(crate) use children::farewell;
pub(crate) use judged::{Fate, Judged, judged};

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use convergio_domain::decider::{Context, Wake};
use convergio_domain::event::run::Failure;
use convergio_domain::id::{ActorId, NodeId, StepId};
use convergio_domain::metering::PriceBook;
use convergio_domain::payload::PayloadRef;
use convergio_domain::run::{CallNo, Rejection, Run, StepStatus};
use convergio_domain::stream::StreamKey;
use convergio_domain::time::Timestamp;
use convergio_eventstore::{
    AppendError, CommitError, LiveHub, Loaded, LogError, Record, Repository,
};
use convergio_kernel_c::{RunResult, Scheduler};
use serde_json::Value;
use tokio::sync::{Notify, Semaphore};
use tokio::task::JoinSet;
use tokio_util::sync::CancellationToken;

use crate::config::ExecutorConfig;
use crate::graphs::{CompiledGraph, GraphCache, GraphError};
use crate::memory::ToolScope;
use crate::model::ModelCatalog;
use crate::outputs::Outputs;
use crate::scheduler;
use effect::Done;

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
    /// No step starts any more; those under way may finish.
    pub(crate) stopping: CancellationToken,
    /// Steps under way are abandoned.
    pub(crate) stopped: CancellationToken,
}

impl Shared {
    fn now(&self) -> Timestamp {
        self.repository.clock().now()
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
    Failure(Failure),
    #[error("the log refuses what the executor did: {0}")]
    Rejected(#[from] Rejection),
    #[error(transparent)]
    Append(#[from] AppendError),
    #[error("others write to the run all the time")]
    Conflict,
    #[error("the executor is stopping")]
    Stopping,
}

impl ActorError {
    /// The reason to end the run, when trying again cannot help.
    pub(crate) fn verdict(&self) -> Option<Failure> {
        match self {
            Self::Failure(failure) | Self::Graph(GraphError::Broken(failure)) => {
                Some(failure.clone())
            }
            Self::Append(AppendError::TooLarge { .. }) => Some(Failure {
                code: "request.too_large".into(),
                message: self.to_string(),
                retryable: false,
            }),
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
    /// Steps that may start now.
    runnable: BTreeSet<StepId>,
    /// Steps that may start later.
    delayed: BTreeSet<(Timestamp, StepId)>,
    /// Steps that come to an end without an effect of ours: sleeps, questions, and those that an
    /// executor left behind when it died.
    waiting: BTreeSet<StepId>,
    /// The lists of maps, rendered once.
    lists: BTreeMap<NodeId, Arc<Vec<Value>>>,
    /// Tables that models were chosen from and that lie in the log; `None` until one is needed.
    tables: Option<Vec<(tables::Print, PayloadRef)>>,
    /// What the kernel made ready and the log does not know yet.
    unrecorded: BTreeSet<StepId>,
    effects: JoinSet<Done>,
    in_flight: BTreeMap<FlightKey, Flight>,
    /// Outcomes that are not in the log yet.
    done: Vec<Done>,
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
        let (graph, version) = run.state.graph.clone().ok_or_else(|| no_run(stream))?;
        let graph = shared.graphs.get(&shared.repository, &stream.tenant, graph, &version).await?;
        let (scheduler, _) = scheduler::restore(&graph, &run.state).map_err(ActorError::Failure)?;
        let lineage = run.state.lineage.clone();
        let outputs = Outputs::new(shared.repository.log(), stream.clone(), lineage);
        let mut actor = Self {
            shared,
            run,
            graph,
            scheduler,
            outputs,
            runnable: BTreeSet::new(),
            delayed: BTreeSet::new(),
            waiting: BTreeSet::new(),
            lists: BTreeMap::new(),
            tables: None,
            unrecorded: BTreeSet::new(),
            effects: JoinSet::new(),
            in_flight: BTreeMap::new(),
            done: Vec::new(),
        };
        actor.rebuild()?;
        actor.ensure_children().await?;
        Ok(actor)
    }

    /// Works until nothing more can be done now. `signal` tells of events that others appended.
    pub(crate) async fn run(mut self, signal: &Notify) -> Result<Wake, ActorError> {
        loop {
            if self.run.state.phase.is_ended() {
                self.settle().await?;
                farewell(&self.shared, &mut self.run).await?;
                return Ok(self.run.state.wake());
            }
            self.collect();
            self.collect_outside().await?;
            if self.has_work() {
                let plan = self.plan().await?;
                self.commit(plan).await?;
            } else if self.in_flight.is_empty() {
                return Ok(self.run.state.wake());
            } else {
                self.wait(signal).await?;
            }
        }
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

    /// Brings what is derived in line with the state.
    fn rebuild(&mut self) -> Result<(), ActorError> {
        let state = &self.run.state;
        let (scheduler, delta) =
            scheduler::restore(&self.graph, state).map_err(ActorError::Failure)?;
        self.scheduler = scheduler;
        self.unrecorded = scheduler::steps(&self.graph, &delta).into_iter().collect();
        self.runnable.clear();
        self.delayed.clear();
        self.waiting.clear();
        for (id, step) in &state.steps {
            match step.status {
                StepStatus::Scheduled { due: None } => {
                    self.runnable.insert(id.clone());
                }
                StepStatus::Scheduled { due: Some(due) } => {
                    self.delayed.insert((due, id.clone()));
                }
                StepStatus::Sleeping { .. }
                | StepStatus::Asking { .. }
                | StepStatus::Awaiting { .. }
                | StepStatus::Undecided { .. }
                | StepStatus::Started { .. }
                | StepStatus::Unknown => {
                    self.waiting.insert(id.clone());
                }
                _ => {}
            }
        }
        Ok(())
    }

    fn has_work(&self) -> bool {
        let now = self.shared.now();
        let is_late = self.run.state.deadline().is_some_and(|deadline| deadline <= now);
        !self.done.is_empty()
            || is_late
            || self.is_over()
            || (self.may_start() && self.can_start_one(now))
    }

    /// Whether the kernel says that the run is over and the log does not: a fork may begin so.
    fn is_over(&self) -> bool {
        self.in_flight.is_empty() && self.scheduler.result() != RunResult::Running
    }

    fn may_start(&self) -> bool {
        !self.shared.stopping.is_cancelled()
            && !self.run.state.paused
            && self.in_flight.len() < self.shared.config.steps_per_run
    }

    fn can_start_one(&self, now: Timestamp) -> bool {
        let is_due = self.delayed.first().is_some_and(|(due, _)| *due <= now);
        let blocked = |id: &StepId| self.is_agent(id) && !self.has_model_slot(0);
        !self.unrecorded.is_empty() || is_due || self.runnable.iter().any(|id| !blocked(id))
    }

    /// Whether one more agent may be at work besides `planned` others.
    fn has_model_slot(&self, planned: usize) -> bool {
        let agents = self.in_flight.iter().filter(|(_, flight)| flight.is_agent);
        let agents: BTreeSet<&StepId> = agents.map(|((step, _), _)| step).collect();
        agents.len() + planned < self.shared.config.model_calls_per_run
    }

    /// Waits for an outcome, for an event of others, for the deadline, or for the end of the grace.
    async fn wait(&mut self, signal: &Notify) -> Result<(), ActorError> {
        let due = [self.run.state.deadline(), self.delayed.first().map(|(due, _)| *due)];
        let due = due.into_iter().flatten().chain(self.wakes()).min();
        let alarm = sleep_until(due, self.shared.now());
        let stopped = self.shared.stopped.clone();
        tokio::select! {
            Some(done) = self.effects.join_next() => self.landed(done),
            () = signal.notified() => {
                if self.shared.repository.refresh(&mut self.run).await? {
                    self.renew().await?;
                }
            }
            () = alarm => {}
            () = stopped.cancelled() => self.abandon().await,
        }
        Ok(())
    }
}

impl Actor {
    /// When steps that wait by themselves come to an end.
    fn wakes(&self) -> impl Iterator<Item = Timestamp> {
        let state = &self.run.state;
        self.waiting.iter().filter_map(|id| match &state.steps.get(id)?.status {
            StepStatus::Sleeping { due } => Some(*due),
            StepStatus::Asking { approval } => state.approvals.get(approval)?.expires,
            StepStatus::Awaiting { expires, .. } => *expires,
            _ => None,
        })
    }
}

async fn sleep_until(due: Option<Timestamp>, now: Timestamp) {
    match due {
        Some(due) => tokio::time::sleep(std::time::Duration::from_millis(due.since(now).0)).await,
        None => std::future::pending().await,
    }
}

/// The wake index names streams that have events: a log that has none there is behind.
fn no_run(stream: &StreamKey) -> ActorError {
    ActorError::Log(LogError::Unavailable(format!("{stream} has no events yet")))
}
