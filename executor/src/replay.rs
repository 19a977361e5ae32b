//! Replay: what a run's log says, computed again without any effect.
//!
//! Two things are recomputed commit by commit and compared with what was written: the state (by its
//! fingerprint) and the kernel's decisions (which steps became ready, which were skipped, which
//! model was chosen and why, which tool calls were allowed, how the run ended). The first
//! difference is named, with both values.

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

/// A difference between what was written and what is computed.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Divergence {
    /// The event at which it shows.
    pub seq: Seq,
    /// The step that it is about, if it is about one.
    pub step: Option<StepId>,
    /// What differs.
    pub what: &'static str,
    /// As written.
    pub recorded: String,
    /// As computed.
    pub computed: String,
}

/// A replay under way, or at its end.
pub struct Replay {
    graph: CompiledGraph,
    /// Whether the graph stands for every version that the run had.
    is_fixed: bool,
    /// The version that the next migration moves to.
    offered: Option<(GraphVersion, Graph)>,
    scheduler: Option<Scheduler>,
    /// The state after the events so far.
    pub state: RunState,
    /// Made ready by the kernel, and not in the log yet.
    fresh: BTreeSet<StepId>,
    /// The branch's choice, which stands before its completion.
    choice: Option<(NodeId, u32)>,
    result: RunResult,
    payloads: routes::Payloads,
    verdicts: calls::Verdicts,
    /// Commits compared.
    pub commits: u64,
    /// Events folded.
    pub events: u64,
    /// Answers of the kernel compared.
    pub decisions: u64,
    /// Decisions that were not computed again, since what they rest on was not to be had.
    pub unknown: u64,
}

impl Replay {
    /// Begins a replay against the graph version that the run was created with.
    ///
    /// # Errors
    /// The kernel refuses the graph.
    pub fn new(graph: Graph) -> Result<Self, UnsealedFailure> {
        Self::begin(graph, false)
    }

    /// Begins a replay against a graph that stands for every version that the run had.
    ///
    /// # Errors
    /// The kernel refuses the graph.
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

    /// The graph version that a commit moves the run to: to be [offered](Self::offer) first.
    pub fn wants<'r>(&self, record: &'r Record) -> Option<&'r GraphVersion> {
        let mut versions = record.body.events.iter().filter_map(|event| match event {
            Event::RunMigrated(migrated) => Some(&migrated.to),
            _ => None,
        });
        versions.next_back().filter(|_| !self.is_fixed)
    }

    /// Gives the graph version that the next commit moves the run to.
    pub fn offer(&mut self, version: GraphVersion, graph: Graph) {
        self.offered = Some((version, graph));
    }

    /// Computes one commit again, up to an event if one is named: the state is then the one after
    /// it.
    ///
    /// # Errors
    /// The first difference from what was written.
    pub fn commit(&mut self, record: &Arc<Record>, at: Option<Seq>) -> Result<(), Box<Divergence>> {
        let appearing = self.appearing(record);
        for recorded in record.events() {
            if at.is_some_and(|at| recorded.seq > at) {
                return Ok(());
            }
            self.decision(recorded.seq, recorded.event)?;
            Run::evolve(&mut self.state, recorded);
            self.events += 1;
            if matches!(recorded.event, Event::RunForked(_) | Event::RunReopened(_)) {
                self.take_up(recorded.seq)?;
            }
        }
        // Within a commit the items of a map stand before its expansion.
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

    /// Steps that the commit schedules or starts without a word of them before.
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
                // It may have failed before it began.
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

    /// Begins with the state of the run that this one is a fork of, as it was there.
    pub fn inherit(&mut self, state: RunState) {
        self.state = state;
    }

    /// From here on the kernel answers by the new version, from the state as it is.
    fn migrated(&mut self, seq: Seq, event: &run::Migrated) -> Result<(), Box<Divergence>> {
        self.decisions += 1;
        let offered = self.offered.take().filter(|(version, _)| *version == event.to);
        let (_, graph) = offered.ok_or_else(|| refused(seq, None, &"no such graph version"))?;
        let compiled = CompiledGraph::compile(graph);
        self.graph = compiled.map_err(|error| refused(seq, None, &error))?;
        self.take_up(seq)
    }

    /// The kernel takes up the state as it is: nothing of what was before is under way.
    fn take_up(&mut self, seq: Seq) -> Result<(), Box<Divergence>> {
        let restored = scheduler::restore(&self.graph, &self.state);
        let (scheduler, delta) = restored.map_err(|error| refused(seq, None, &error))?;
        self.scheduler = Some(scheduler);
        self.fresh.clear();
        self.absorb(&delta);
        Ok(())
    }

    /// Whether the step failed and the kernel asked what to do.
    fn is_asked(&self, step: &StepId) -> bool {
        let status = self.state.steps.get(step).map(|step| &step.status);
        matches!(status, Some(StepStatus::Undecided { unknown: false, .. }))
    }

    /// A decision about a step that the kernel asked about; another try of any other step is none.
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

    /// A step that appears must have been made ready.
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
        let taken = self.choice.take().filter(|(node, _)| *node == event.step.node);
        let choice = taken.map(|(_, case)| case);
        // What is done at once, as a branch, appears with its completion.
        self.fresh.remove(&event.step);
        self.concluded(seq, &event.step, Outcome::Done { choice }, &event.skipped)
    }

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
        // A map is concluded by its items.
        if is_map && scheduler.status(number).is_ok_and(|status| status != NodeStatus::Ready) {
            return Ok(());
        }
        let delta = match step.item {
            // Items of a map that has failed already are only recorded.
            Some(_) if scheduler.status(number) == Ok(NodeStatus::Failed) => return Ok(()),
            Some(item) => scheduler.complete_item(number, item, outcome),
            None => scheduler.complete(number, outcome),
        };
        let delta = delta.map_err(|error| refused(seq, Some(step), &error))?;
        self.absorb(&delta);
        self.compare_skipped(seq, step, &delta, skipped)
    }

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
        // What an item skips is written with its map.
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

    /// Whether nothing can follow any more.
    pub fn is_ended(&self) -> bool {
        !matches!(self.state.phase, Phase::New | Phase::Running)
    }

    /// Every step and where it stands, in the order of their names.
    pub fn steps(&self) -> Vec<(String, &'static str)> {
        let steps = self.state.steps.iter();
        let name = |step| match self.state.is_abandoned(step) {
            true => "abandoned",
            false => status_name(&step.status),
        };
        steps.map(|(id, step)| (id.to_string(), name(step))).collect()
    }
}

/// Whether the kernel can go on from a state with this graph.
///
/// # Errors
/// Why it cannot.
pub fn fits(state: &RunState, graph: Graph) -> Result<(), UnsealedFailure> {
    let compiled = CompiledGraph::compile(graph)?;
    scheduler::restore(&compiled, state).map(|_| ())
}

/// A registered graph version, from the log.
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

/// The step that an event changes.
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
