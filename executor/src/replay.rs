//! Replay: recomputes a run from its log without any effect and compares.
//!
//! Two things are recomputed for each commit and compared with the record: the state (by its
//! fingerprint) and the decisions (which steps became ready or were skipped, which model was chosen
//! and why, which tool calls were allowed, how the run ended). The first difference is returned
//! with both values.
//!
//! - this file: the state and the scheduler's decisions.
//! - `routes`: the router's choices, from stored candidate tables.
//! - `tool_calls`: the checks of an agent's tool calls.
//!
//! Nothing here calls a provider or a tool, or writes to the log.

mod calls;
mod routes;

use std::collections::BTreeSet;
use std::sync::Arc;

use convergio_domain::decider::Decider;
use convergio_domain::event::{Event, run};
use convergio_domain::failure::UnsealedFailure;
use convergio_domain::graph::manifest::Graph;
use convergio_domain::id::{GraphId, GraphVersion, NodeId, StepId, TenantId};
use convergio_domain::run::{Phase, Run, RunState, StepStatus};
use convergio_domain::stream::Seq;
use convergio_eventstore::{Record, Repository};
use convergio_kernel_c::{Answer, Delta, NodeStatus, Outcome, RunResult, Scheduler};

use crate::graphs::CompiledGraph;
pub use crate::graphs::GraphError;
use crate::scheduler;

/// A difference between the log and the recomputation.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Divergence {
    /// Sequence number of the event that differs.
    pub seq: Seq,
    /// Step that the event is about, if it is about one.
    pub step: Option<StepId>,
    /// Aspect that differs, as `the state` or `the route`.
    pub what: &'static str,
    /// Value in the log.
    pub recorded: String,
    /// Value that the replay computed.
    pub computed: String,
}

/// A replay in progress, or finished.
pub struct Replay {
    graph: CompiledGraph,
    /// True if one graph stands for all versions that the run had; migrations are then ignored.
    is_fixed: bool,
    /// Version that the next migration moves to, offered by the caller.
    offered: Option<(GraphVersion, Graph)>,
    scheduler: Option<Scheduler>,
    /// State after the events replayed so far.
    pub state: RunState,
    /// Steps that the kernel made ready and that the log has not scheduled yet.
    fresh: BTreeSet<StepId>,
    /// Case that a branch chose; its event precedes the completion of the branch.
    choice: Option<(NodeId, u32)>,
    result: RunResult,
    payloads: routes::Payloads,
    verdicts: calls::Verdicts,
    /// Commits that were compared.
    pub commits: u64,
    /// Events that were folded.
    pub events: u64,
    /// Kernel decisions that were compared.
    pub decisions: u64,
    /// Decisions that were not recomputed because a payload they depend on is not available.
    pub unknown: u64,
}

impl Replay {
    /// Starts a replay against the graph version that the run was created with.
    ///
    /// # Errors
    /// The kernel rejects the graph.
    pub fn new(graph: Graph) -> Result<Self, UnsealedFailure> {
        Self::begin(graph, false)
    }

    /// Starts a replay against a graph that stands for every version that the run had.
    ///
    /// # Errors
    /// The kernel rejects the graph.
    pub fn against(graph: Graph) -> Result<Self, UnsealedFailure> {
        Self::begin(graph, true)
    }

    fn begin(graph: Graph, is_fixed: bool) -> Result<Self, UnsealedFailure> {
        Ok(Self {
            graph: CompiledGraph::compile(graph)?,
            is_fixed,
            offered: None,
            scheduler: None,
            state: RunState::default(),
            fresh: BTreeSet::new(),
            choice: None,
            result: RunResult::Running,
            payloads: routes::Payloads::new(),
            verdicts: calls::Verdicts::new(),
            commits: 0,
            events: 0,
            decisions: 0,
            unknown: 0,
        })
    }

    /// Returns the graph version that a commit migrates the run to. It must be
    /// [offered](Self::offer_graph) before the commit is replayed.
    pub fn wants<'r>(&self, record: &'r Record) -> Option<&'r GraphVersion> {
        let mut versions = record.body.events.iter().filter_map(|event| match event {
            Event::RunMigrated(migrated) => Some(&migrated.to),
            _ => None,
        });
        // Of several migrations in one commit only the last one stands.
        versions.next_back().filter(|_| !self.is_fixed)
    }

    /// Provides the graph version that the next commit migrates the run to.
    pub fn offer(&mut self, version: GraphVersion, graph: Graph) {
        self.offered = Some((version, graph));
    }

    /// Replays one commit, up to and including event `stop_after` if it is given;
    /// [`state`](Self::state) is then the state after that event.
    ///
    /// # Errors
    /// The first difference from the log.
    pub fn commit(&mut self, record: &Arc<Record>, at: Option<Seq>) -> Result<(), Box<Divergence>> {
        let appearing = self.appearing(record);
        for recorded in record.events() {
            if at.is_some_and(|at| recorded.seq > at) {
                return Ok(());
            }
            self.decision(recorded.seq, recorded.event)?;
            Run::evolve(&mut self.state, recorded);
            self.events += 1;
            // Forks and reopened runs continue from a state that no scheduler decision led to.
            if matches!(recorded.event, Event::RunForked(_) | Event::RunReopened(_)) {
                self.take_up(recorded.seq)?;
            }
        }
        // Checked after all events: within a commit the items of a map precede its expansion.
        for (seq, step) in &appearing {
            self.began(*seq, step)?;
        }
        self.commits += 1;
        let computed = self.state.fingerprint();
        match record.body.fold {
            Some(written) if written != computed => Err(Box::new(Divergence {
                seq: record.last_seq(),
                step: record.body.events.iter().find_map(step_of).cloned(),
                what: "the state",
                recorded: written.to_string(),
                computed: computed.to_string(),
            })),
            _ => Ok(()),
        }
    }

    /// Returns the steps that the commit schedules or starts and that the state does not have yet.
    fn appearing(&self, record: &Record) -> Vec<(Seq, StepId)> {
        let mut seen = BTreeSet::new();
        let steps = record.events().filter_map(|recorded| match recorded.event {
            Event::StepScheduled(event) => Some((recorded.seq, &event.step)),
            Event::StepStarted(event) => Some((recorded.seq, &event.step)),
            _ => None,
        });
        let new = steps.filter(|(_, step)| !self.state.steps.contains_key(*step));
        new.filter(|(_, step)| seen.insert(*step)).map(|(seq, step)| (seq, step.clone())).collect()
    }

    /// Compares the decision that an event records, before the event is folded.
    fn decision(&mut self, seq: Seq, event: &Event) -> Result<(), Box<Divergence>> {
        match event {
            Event::RunCreated(_) => self.start(seq),
            Event::BranchDecided(event) => {
                self.choice = Some((event.node.clone(), event.case));
                Ok(())
            }
            Event::MapExpanded(event) => self.expand(seq, event),
            Event::StepCompleted(event) => self.completed(seq, event),
            Event::StepRetried(event) => self.answered(seq, &event.step, Answer::Retry, &[]),
            Event::StepSkipped(event) => {
                self.answered(seq, &event.step, Answer::Skip, &event.skipped)
            }
            Event::StepFailed(event) if event.last && self.is_asked(&event.step) => {
                self.answered(seq, &event.step, Answer::Fail, &event.skipped)
            }
            Event::StepFailed(event) if event.last => {
                // A step may fail before it started; then nothing removed it from the ready steps.
                self.fresh.remove(&event.step);
                self.concluded(seq, &event.step, Outcome::Failed, &event.skipped)
            }
            Event::ModelCallIntended(event) => self.routed(seq, event),
            Event::ModelCallCompleted(event) => {
                self.asked(event);
                Ok(())
            }
            Event::ToolCallIntended(event) => {
                self.call_made(seq, (&event.step, event.at), &event.name)
            }
            Event::ToolCallQueued(event) => {
                self.call_made(seq, (&event.step, event.at), &event.name)
            }
            Event::ToolCallDenied(event) => self.call_denied(seq, event),
            Event::ToolCallFailed(event) => self.call_failed(seq, event),
            Event::RunMigrated(event) if !self.is_fixed => self.migrated(seq, event),
            Event::RunCompleted(_) => self.ended(seq),
            _ => Ok(()),
        }
    }

    fn start(&mut self, seq: Seq) -> Result<(), Box<Divergence>> {
        let started = Scheduler::start(&self.graph.kernel);
        let (scheduler, delta) = started.map_err(|error| refused(seq, None, &error))?;
        self.scheduler = Some(scheduler);
        self.absorb(&delta);
        Ok(())
    }

    /// Starts from the state of the run that this one is a fork of, as of the fork.
    pub fn inherit(&mut self, state: RunState) {
        self.state = state;
    }

    /// Adopts the new version: the kernel continues with it from the current state.
    fn migrated(&mut self, seq: Seq, event: &run::Migrated) -> Result<(), Box<Divergence>> {
        self.decisions += 1;
        // A version that the caller offered for another commit must not be used for this one.
        let offered = self.offered.take().filter(|(version, _)| *version == event.to);
        let (_, graph) = offered.ok_or_else(|| refused(seq, None, &"no such graph version"))?;
        let compiled = CompiledGraph::compile(graph);
        self.graph = compiled.map_err(|error| refused(seq, None, &error))?;
        self.take_up(seq)
    }

    /// Rebuilds the scheduler from the current state. Decisions that were pending before are
    /// dropped.
    fn take_up(&mut self, seq: Seq) -> Result<(), Box<Divergence>> {
        let restored = scheduler::restore(&self.graph, &self.state);
        let (scheduler, delta) = restored.map_err(|error| refused(seq, None, &error))?;
        self.scheduler = Some(scheduler);
        self.fresh.clear();
        self.absorb(&delta);
        Ok(())
    }

    /// Returns whether the step failed and the kernel waits for an answer about it.
    fn is_asked(&self, step: &StepId) -> bool {
        let status = self.state.steps.get(step).map(|step| &step.status);
        matches!(status, Some(StepStatus::Undecided { unknown: false, .. }))
    }

    /// Compares the answer about a step that the kernel asked about. A retry of any other step is
    /// no decision of the kernel.
    fn answered(
        &mut self,
        seq: Seq,
        step: &StepId,
        answer: Answer,
        skipped: &[NodeId],
    ) -> Result<(), Box<Divergence>> {
        if !self.is_asked(step) {
            return Ok(());
        }
        self.decisions += 1;
        let (number, scheduler) = self.kernel(seq, step)?;
        let delta = scheduler.answer(number, answer);
        let mut delta = delta.map_err(|error| refused(seq, Some(step), &error))?;
        // The log names the step itself in its own event; only further steps are compared.
        delta.ready.retain(|ready| ready.node != number);
        delta.skipped.retain(|node| *node != number);
        self.absorb(&delta);
        self.compare_skipped(seq, step, &delta, skipped)
    }

    fn expand(&mut self, seq: Seq, event: &run::MapExpanded) -> Result<(), Box<Divergence>> {
        let step = StepId::node(event.node.clone());
        let (number, scheduler) = self.kernel(seq, &step)?;
        let delta = scheduler.expand(number, event.width, event.max_parallel);
        let delta = delta.map_err(|error| refused(seq, Some(&step), &error))?;
        self.absorb(&delta);
        Ok(())
    }

    /// Checks that a step which appears in the log was made ready by the kernel.
    fn began(&mut self, seq: Seq, step: &StepId) -> Result<(), Box<Divergence>> {
        self.decisions += 1;
        if self.fresh.remove(step) {
            return Ok(());
        }
        Err(Box::new(Divergence {
            seq,
            step: Some(step.clone()),
            what: "the kernel's decision",
            recorded: "ready".into(),
            computed: self.standing(step),
        }))
    }

    fn completed(&mut self, seq: Seq, event: &run::StepCompleted) -> Result<(), Box<Divergence>> {
        // A choice belongs to the completion that follows it immediately.
        let taken = self.choice.take().filter(|(node, _)| *node == event.step.node);
        let choice = taken.map(|(_, case)| case);
        // An instant step, such as a branch, appears in the log only with its completion.
        self.fresh.remove(&event.step);
        self.concluded(seq, &event.step, Outcome::Done { choice }, &event.skipped)
    }

    /// Reports an outcome to the kernel and compares the nodes that it skips.
    fn concluded(
        &mut self,
        seq: Seq,
        step: &StepId,
        outcome: Outcome,
        skipped: &[NodeId],
    ) -> Result<(), Box<Divergence>> {
        self.decisions += 1;
        let is_map = self.state.steps.get(step).is_some_and(|known| known.map.is_some());
        let (number, scheduler) = self.kernel(seq, step)?;
        // A map is concluded by its items; its own completion adds nothing.
        if is_map && scheduler.status(number).is_ok_and(|status| status != NodeStatus::Ready) {
            return Ok(());
        }
        let delta = match step.item {
            // Outcomes of items whose map has failed already are recorded without a decision.
            Some(_) if scheduler.status(number) == Ok(NodeStatus::Failed) => return Ok(()),
            Some(item) => scheduler.complete_item(number, item, outcome),
            None => scheduler.complete(number, outcome),
        };
        let delta = delta.map_err(|error| refused(seq, Some(step), &error))?;
        self.absorb(&delta);
        self.compare_skipped(seq, step, &delta, skipped)
    }

    /// Compares the nodes that an outcome skips.
    fn compare_skipped(
        &self,
        seq: Seq,
        step: &StepId,
        delta: &Delta,
        skipped: &[NodeId],
    ) -> Result<(), Box<Divergence>> {
        let name = |node: &u32| self.graph.node(*node).id.clone();
        let computed: BTreeSet<NodeId> = delta.skipped.iter().map(name).collect();
        let recorded: BTreeSet<NodeId> = skipped.iter().cloned().collect();
        // Nodes that an item's outcome skips are recorded with the outcome of its map.
        if step.item.is_some() || computed == recorded {
            return Ok(());
        }
        Err(Box::new(Divergence {
            seq,
            step: Some(step.clone()),
            what: "the skipped nodes",
            recorded: names(&recorded),
            computed: names(&computed),
        }))
    }

    /// Checks that the kernel is done, and nothing that it made ready is missing from the log.
    fn ended(&mut self, seq: Seq) -> Result<(), Box<Divergence>> {
        self.decisions += 1;
        if self.result == RunResult::Succeeded && self.fresh.is_empty() {
            return Ok(());
        }
        let waiting: Vec<String> = self.fresh.iter().map(ToString::to_string).collect();
        let computed = match waiting.is_empty() {
            true => format!("{:?}", self.result).to_lowercase(),
            false => format!("still to run: {}", waiting.join(", ")),
        };
        let (what, recorded) = ("the end of the run", "completed".to_owned());
        Err(Box::new(Divergence { seq, step: None, what, recorded, computed }))
    }

    fn absorb(&mut self, delta: &Delta) {
        self.result = delta.result;
        let graph = &self.graph;
        self.fresh.extend(delta.ready.iter().map(|ready| graph.step(ready.node, ready.item)));
    }

    /// Returns the kernel's number of a step's node, and the scheduler.
    fn kernel(
        &mut self,
        seq: Seq,
        step: &StepId,
    ) -> Result<(u32, &mut Scheduler), Box<Divergence>> {
        let unknown = || {
            let (what, recorded) = ("the graph", "a step of the run".to_owned());
            let computed = "the graph has no such node".to_owned();
            Box::new(Divergence { seq, step: Some(step.clone()), what, recorded, computed })
        };
        let number = self.graph.number(&step.node).ok_or_else(unknown)?;
        Ok((number, self.scheduler.as_mut().ok_or_else(unknown)?))
    }

    fn standing(&self, step: &StepId) -> String {
        let number = self.graph.number(&step.node);
        let status = number.and_then(|n| self.scheduler.as_ref()?.status(n).ok());
        match status {
            Some(status) => format!("{status:?}").to_lowercase(),
            None => "the graph has no such node".into(),
        }
    }

    /// Returns whether the run has ended.
    pub fn is_ended(&self) -> bool {
        !matches!(self.state.phase, Phase::New | Phase::Running)
    }

    /// Lists every step with its status, in the order of step ids.
    pub fn steps(&self) -> Vec<(String, &'static str)> {
        let steps = self.state.steps.iter();
        let name = |step| match self.state.is_abandoned(step) {
            true => "abandoned",
            false => status_name(&step.status),
        };
        steps.map(|(id, step)| (id.to_string(), name(step))).collect()
    }
}

/// Checks that the kernel can continue from a state with this graph.
///
/// # Errors
/// The reason why it cannot.
pub fn fits(state: &RunState, graph: Graph) -> Result<(), UnsealedFailure> {
    let compiled = CompiledGraph::compile(graph)?;
    scheduler::restore(&compiled, state).map(|_| ())
}

/// Reads a registered graph version from the log.
///
/// # Errors
/// It is not registered, its manifest was erased, or the log cannot be read.
pub async fn read_graph(
    repository: &Repository,
    tenant: &TenantId,
    graph: GraphId,
    version: &GraphVersion,
) -> Result<Graph, GraphError> {
    crate::graphs::read_manifest(repository, tenant, graph, version).await
}

/// Returns the step that an event changes, if it changes one.
fn step_of(event: &Event) -> Option<&StepId> {
    match event {
        Event::StepScheduled(event) => Some(&event.step),
        Event::StepStarted(event) => Some(&event.step),
        Event::StepCompleted(event) => Some(&event.step),
        Event::StepFailed(event) => Some(&event.step),
        Event::StepUnknown(event) => Some(&event.step),
        Event::StepRetried(event) => Some(&event.step),
        Event::TimerSet(event) => Some(&event.step),
        Event::ApprovalRequested(event) => Some(&event.step),
        Event::ModelCallIntended(event) => Some(&event.step),
        Event::UsageRecorded(event) => Some(&event.step),
        _ => None,
    }
}

fn status_name(status: &StepStatus) -> &'static str {
    match status {
        StepStatus::Scheduled { .. } => "scheduled",
        StepStatus::Started { .. } => "started",
        StepStatus::Unknown => "unknown",
        StepStatus::Sleeping { .. } => "sleeping",
        StepStatus::Asking { .. } => "asking",
        StepStatus::Awaiting { .. } => "awaiting",
        StepStatus::Undecided { .. } => "undecided",
        StepStatus::Expanded => "expanded",
        StepStatus::Completed => "completed",
        StepStatus::Failed => "failed",
        StepStatus::Skipped => "skipped",
    }
}

fn names(nodes: &BTreeSet<NodeId>) -> String {
    let names: Vec<_> = nodes.iter().map(NodeId::as_str).collect();
    if names.is_empty() { "none".into() } else { names.join(", ") }
}

fn refused(seq: Seq, step: Option<&StepId>, error: &dyn std::fmt::Display) -> Box<Divergence> {
    let (what, recorded) = ("the kernel's decision", "accepted".to_owned());
    let computed = format!("the kernel refuses it: {error}");
    Box::new(Divergence { seq, step: step.cloned(), what, recorded, computed })
}
