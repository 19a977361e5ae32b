//! Replay: recomputes a run from its log without any effect and compares.
//!
//! Two things are recomputed for each commit and compared with the record: the state (by its
//! fingerprint) and the decisions (which steps became ready or were skipped, which model was chosen
//! and why, which tool calls were allowed, how the run ended). The first difference is returned
//! with both values.
//!
//! - this file: the state and the scheduler's decisions.
//! - `progress`: the replay itself, as data, and the difference that ends it.
//! - `routes`: the router's choices, from stored candidate tables.
//! - `tool_calls`: the checks of an agent's tool calls.
//!
//! Nothing here calls a provider or a tool, or writes to the log.

mod progress;
mod routes;
mod tool_calls;

use std::collections::BTreeSet;
use std::sync::Arc;

use convergio_domain::decider::Decider;
use convergio_domain::failure::UnsealedFailure;
use convergio_domain::graph::manifest::Graph;
use convergio_domain::id::{GraphId, GraphVersion, NodeId, StepId, TenantId};
use convergio_domain::run::event::RunEvent::{
    self, AgentSpawned, ApprovalDenied, ApprovalGranted, ApprovalRequested, BudgetExhausted,
    CheckpointSaved, ChildCreated, ChildEnded, ChildIntended, ChildReopened, ModelCallFailed,
    ParentTold, RunAmended, RunCancelled, RunFailed, RunForked, RunImported, RunPaused,
    RunReopened, RunResumed, SignalAwaited, SignalReceived, StepAsked, StepResolved, StepScheduled,
    StepStarted, StepUnknown, TimerFired, TimerSet, ToolCallCompleted, UsageRecorded,
};
use convergio_domain::run::event::{MapExpanded, RunMigrated, StepCompleted, ToolIntended};
use convergio_domain::run::{Run, RunPhase, RunState, StepStatus};
use convergio_domain::stream::Seq;
use convergio_eventstore::{Record, Repository};
use convergio_kernel_c::{
    NodeAnswer, NodeOutcome, NodeStatus, RunResult, ScheduleDelta, Scheduler,
};

use crate::graphs::CompiledGraph;
pub use crate::graphs::GraphError;
use crate::scheduler;
pub use progress::{Divergence, Replay};
use progress::{ReplayPayloads, TurnVerdicts, kernel_refusal};

impl Replay {
    /// Starts a replay against the graph version that the run was created with.
    ///
    /// # Errors
    /// The kernel rejects the graph.
    pub fn new(graph: Graph) -> Result<Self, UnsealedFailure> {
        Self::from_graph(graph, false)
    }

    /// Starts a replay against a graph that stands for every version that the run had.
    ///
    /// # Errors
    /// The kernel rejects the graph.
    pub fn with_fixed_graph(graph: Graph) -> Result<Self, UnsealedFailure> {
        Self::from_graph(graph, true)
    }

    fn from_graph(graph: Graph, is_fixed: bool) -> Result<Self, UnsealedFailure> {
        Ok(Self {
            graph: CompiledGraph::from_manifest(graph)?,
            is_fixed,
            offered_graph: None,
            scheduler: None,
            state: RunState::default(),
            unrecorded_ready: BTreeSet::new(),
            pending_choice: None,
            result: RunResult::Running,
            payloads: ReplayPayloads::new(),
            turn_verdicts: TurnVerdicts::new(),
            commits: 0,
            events: 0,
            decisions: 0,
            skipped_decisions: 0,
        })
    }

    /// Returns the graph version that a commit migrates the run to. It must be
    /// [offered](Self::offer_graph) before the commit is replayed.
    pub fn migration_target<'r>(&self, record: &'r Record) -> Option<&'r GraphVersion> {
        let mut versions = record.body.events.iter().filter_map(|event| match event.as_run()? {
            RunEvent::RunMigrated(migrated) => Some(&migrated.to),
            _ => None,
        });
        // Of several migrations in one commit only the last one stands.
        versions.next_back().filter(|_| !self.is_fixed)
    }

    /// Provides the graph version that the next commit migrates the run to.
    pub fn offer_graph(&mut self, version: GraphVersion, graph: Graph) {
        self.offered_graph = Some((version, graph));
    }

    /// Replays one commit, up to and including event `stop_after` if it is given;
    /// [`state`](Self::state) is then the state after that event.
    ///
    /// # Errors
    /// The first difference from the log.
    pub fn replay_commit(
        &mut self,
        record: &Arc<Record>,
        stop_after: Option<Seq>,
    ) -> Result<(), Box<Divergence>> {
        let first_seen = self.first_seen_steps(record);
        for recorded in record.recorded_events() {
            if stop_after.is_some_and(|at| recorded.seq > at) {
                return Ok(());
            }
            if let Some(event) = recorded.event.as_run() {
                self.check_event(recorded.seq, event)?;
            }
            Run::fold_event(&mut self.state, recorded);
            self.events += 1;
            // Forks and reopened runs continue from a state that no scheduler decision led to.
            let leaps = |event: &RunEvent| {
                matches!(event, RunEvent::RunForked(_) | RunEvent::RunReopened(_))
            };
            if recorded.event.as_run().is_some_and(leaps) {
                self.restore_scheduler(recorded.seq)?;
            }
        }
        // Checked after all events: within a commit the items of a map precede its expansion.
        for (seq, step) in &first_seen {
            self.check_step_is_ready(*seq, step)?;
        }
        self.commits += 1;
        let computed = self.state.refresh_fingerprint();
        match record.body.fold {
            Some(written) if written != computed => Err(Box::new(Divergence {
                seq: record.last_seq(),
                step: record.body.events.iter().find_map(|event| event.as_run()?.subject_step()),
                aspect: "the state",
                recorded: written.to_string(),
                computed: computed.to_string(),
            })),
            _ => Ok(()),
        }
    }

    /// Returns the steps that the commit schedules or starts and that the state does not have yet.
    fn first_seen_steps(&self, record: &Record) -> Vec<(Seq, StepId)> {
        let mut seen = BTreeSet::new();
        let steps =
            record.recorded_events().filter_map(|recorded| match recorded.event.as_run()? {
                RunEvent::StepScheduled(event) => Some((recorded.seq, &event.step)),
                RunEvent::StepStarted(event) => Some((recorded.seq, &event.step)),
                _ => None,
            });
        let new_steps = steps.filter(|(_, step)| !self.state.steps.contains_key(*step));
        new_steps
            .filter(|(_, step)| seen.insert(*step))
            .map(|(seq, step)| (seq, step.clone()))
            .collect()
    }

    /// Compares the decision that an event records, before the event is folded.
    fn check_event(&mut self, seq: Seq, event: &RunEvent) -> Result<(), Box<Divergence>> {
        match event {
            RunEvent::RunCreated(_) => self.start_scheduler(seq),
            RunEvent::BranchDecided(event) => {
                self.pending_choice = Some((event.node.clone(), event.case));
                Ok(())
            }
            RunEvent::MapExpanded(event) => self.expand_map(seq, event),
            RunEvent::StepCompleted(event) => self.check_completed_step(seq, event),
            RunEvent::StepRetried(event) => {
                self.check_answer(seq, &event.step, NodeAnswer::Retry, &[])
            }
            RunEvent::StepSkipped(event) => {
                self.check_answer(seq, &event.step, NodeAnswer::Skip, &event.skipped)
            }
            RunEvent::StepFailed(event) if event.last && self.is_awaiting_answer(&event.step) => {
                self.check_answer(seq, &event.step, NodeAnswer::Fail, &event.skipped)
            }
            RunEvent::StepFailed(event) if event.last => {
                // A step may fail before it started; then nothing removed it from the ready steps.
                self.unrecorded_ready.remove(&event.step);
                self.check_outcome(seq, &event.step, NodeOutcome::Failed, &event.skipped)
            }
            RunEvent::ModelCallIntended(event) => self.check_route(seq, event),
            RunEvent::ModelCallCompleted(event) => {
                self.judge_requested_calls(event);
                Ok(())
            }
            RunEvent::ToolIntended(event) => self.check_step_tool(seq, event),
            RunEvent::ToolCallIntended(event) => {
                self.check_call_made(seq, (&event.step, event.tool_call), &event.name)
            }
            RunEvent::ToolCallQueued(event) => {
                self.check_call_made(seq, (&event.step, event.tool_call), &event.name)
            }
            RunEvent::ToolCallDenied(event) => self.check_call_denied(seq, event),
            RunEvent::ToolCallFailed(event) => self.check_call_failed(seq, event),
            RunEvent::RunMigrated(event) if !self.is_fixed => self.apply_migration(seq, event),
            RunEvent::RunCompleted(_) => self.check_run_end(seq),
            RunEvent::StepFailed(_) | RunEvent::RunMigrated(_) => Ok(()),
            StepScheduled(_) | StepStarted(_) | StepUnknown(_) | TimerSet(_) | TimerFired(_)
            | ApprovalRequested(_) | ApprovalGranted(_) | ApprovalDenied(_)
            | ModelCallFailed(_) | ToolCallCompleted(_) | ChildIntended(_) | ChildCreated(_)
            | ChildEnded(_) | ChildReopened(_) | ParentTold(_) | AgentSpawned(_)
            | UsageRecorded(_) | BudgetExhausted(_) | RunPaused(_) | RunResumed(_)
            | RunReopened(_) | RunAmended(_) | RunForked(_) | RunImported(_) | SignalAwaited(_)
            | SignalReceived(_) | StepAsked(_) | StepResolved(_) | CheckpointSaved(_)
            | RunCancelled(_) | RunFailed(_) => Ok(()),
        }
    }

    fn start_scheduler(&mut self, seq: Seq) -> Result<(), Box<Divergence>> {
        let started = Scheduler::start(&self.graph.kernel_graph);
        let (scheduler, delta) = started.map_err(|error| kernel_refusal(seq, None, &error))?;
        self.scheduler = Some(scheduler);
        self.apply_delta(&delta);
        Ok(())
    }

    /// Starts from the state of the run that this one is a fork of, as of the fork.
    pub fn inherit_state(&mut self, state: RunState) {
        self.state = state;
    }

    /// Adopts the new version: the kernel continues with it from the current state.
    fn apply_migration(&mut self, seq: Seq, event: &RunMigrated) -> Result<(), Box<Divergence>> {
        self.decisions += 1;
        // A version that the caller offered for another commit must not be used for this one.
        let offered_graph = self.offered_graph.take().filter(|(version, _)| *version == event.to);
        let (_, graph) =
            offered_graph.ok_or_else(|| kernel_refusal(seq, None, &"no such graph version"))?;
        let compiled = CompiledGraph::from_manifest(graph);
        self.graph = compiled.map_err(|error| kernel_refusal(seq, None, &error))?;
        self.restore_scheduler(seq)
    }

    /// Rebuilds the scheduler from the current state. Decisions that were pending before are
    /// dropped.
    fn restore_scheduler(&mut self, seq: Seq) -> Result<(), Box<Divergence>> {
        let restored = scheduler::restore_scheduler(&self.graph, &self.state);
        let (scheduler, delta) = restored.map_err(|error| kernel_refusal(seq, None, &error))?;
        self.scheduler = Some(scheduler);
        self.unrecorded_ready.clear();
        self.apply_delta(&delta);
        Ok(())
    }

    /// Returns whether the step failed and the kernel waits for an answer about it.
    fn is_awaiting_answer(&self, step: &StepId) -> bool {
        let status = self.state.steps.get(step).map(|step| &step.status);
        matches!(status, Some(StepStatus::Undecided { unknown: false, .. }))
    }

    /// Compares the answer about a step that the kernel asked about. A retry of any other step is
    /// no decision of the kernel.
    fn check_answer(
        &mut self,
        seq: Seq,
        step: &StepId,
        answer: NodeAnswer,
        skipped: &[NodeId],
    ) -> Result<(), Box<Divergence>> {
        if !self.is_awaiting_answer(step) {
            return Ok(());
        }
        self.decisions += 1;
        let (number, scheduler) = self.scheduler_for_step(seq, step)?;
        let delta = scheduler.answer_node(number, answer);
        let mut delta = delta.map_err(|error| kernel_refusal(seq, Some(step), &error))?;
        // The log names the step itself in its own event; only further steps are compared.
        delta.ready.retain(|ready| ready.node != number);
        delta.skipped.retain(|node| *node != number);
        self.apply_delta(&delta);
        self.check_skipped_nodes(seq, step, &delta, skipped)
    }

    /// Compares the tool of a step's intent with the one that the graph names.
    fn check_step_tool(&mut self, seq: Seq, event: &ToolIntended) -> Result<(), Box<Divergence>> {
        self.decisions += 1;
        let node = self.graph.find_node(&event.step.node);
        let tool = node.and_then(|node| node.work.step_tool()).map(|tool| tool.name.as_str());
        if tool == Some(event.name.as_str()) {
            return Ok(());
        }
        Err(Box::new(Divergence {
            seq,
            step: Some(event.step.clone()),
            aspect: "the tool that the step calls",
            recorded: event.name.clone(),
            computed: tool.unwrap_or("no tool").to_owned(),
        }))
    }

    fn expand_map(&mut self, seq: Seq, event: &MapExpanded) -> Result<(), Box<Divergence>> {
        let step = StepId::for_node(event.node.clone());
        let (number, scheduler) = self.scheduler_for_step(seq, &step)?;
        let delta = scheduler.expand_node(number, event.width, event.max_parallel);
        let delta = delta.map_err(|error| kernel_refusal(seq, Some(&step), &error))?;
        self.apply_delta(&delta);
        Ok(())
    }

    /// Checks that a step which appears in the log was made ready by the kernel.
    fn check_step_is_ready(&mut self, seq: Seq, step: &StepId) -> Result<(), Box<Divergence>> {
        self.decisions += 1;
        if self.unrecorded_ready.remove(step) {
            return Ok(());
        }
        Err(Box::new(Divergence {
            seq,
            step: Some(step.clone()),
            aspect: "the kernel's decision",
            recorded: "ready".into(),
            computed: self.node_status_name(step),
        }))
    }

    fn check_completed_step(
        &mut self,
        seq: Seq,
        event: &StepCompleted,
    ) -> Result<(), Box<Divergence>> {
        // A choice belongs to the completion that follows it immediately.
        let branch_choice = self.pending_choice.take().filter(|(node, _)| *node == event.step.node);
        let choice = branch_choice.map(|(_, case)| case);
        // An instant step, such as a branch, appears in the log only with its completion.
        self.unrecorded_ready.remove(&event.step);
        self.check_outcome(seq, &event.step, NodeOutcome::Done { choice }, &event.skipped)
    }

    /// Reports an outcome to the kernel and compares the nodes that it skips.
    fn check_outcome(
        &mut self,
        seq: Seq,
        step: &StepId,
        outcome: NodeOutcome,
        skipped: &[NodeId],
    ) -> Result<(), Box<Divergence>> {
        self.decisions += 1;
        let is_map = self.state.steps.get(step).is_some_and(|known| known.map.is_some());
        let (number, scheduler) = self.scheduler_for_step(seq, step)?;
        // A map is concluded by its items; its own completion adds nothing.
        if is_map && scheduler.node_status(number).is_ok_and(|status| status != NodeStatus::Ready) {
            return Ok(());
        }
        let delta = match step.item {
            // Outcomes of items whose map has failed already are recorded without a decision.
            Some(_) if scheduler.node_status(number) == Ok(NodeStatus::Failed) => return Ok(()),
            Some(item) => scheduler.complete_item(number, item, outcome),
            None => scheduler.complete_node(number, outcome),
        };
        let delta = delta.map_err(|error| kernel_refusal(seq, Some(step), &error))?;
        self.apply_delta(&delta);
        self.check_skipped_nodes(seq, step, &delta, skipped)
    }

    /// Compares the nodes that an outcome skips.
    fn check_skipped_nodes(
        &self,
        seq: Seq,
        step: &StepId,
        delta: &ScheduleDelta,
        skipped: &[NodeId],
    ) -> Result<(), Box<Divergence>> {
        let name = |node: &u32| self.graph.node_at(*node).id.clone();
        let computed: BTreeSet<NodeId> = delta.skipped.iter().map(name).collect();
        let recorded: BTreeSet<NodeId> = skipped.iter().cloned().collect();
        // Nodes that an item's outcome skips are recorded with the outcome of its map.
        if step.item.is_some() || computed == recorded {
            return Ok(());
        }
        Err(Box::new(Divergence {
            seq,
            step: Some(step.clone()),
            aspect: "the skipped nodes",
            recorded: join_names(&recorded),
            computed: join_names(&computed),
        }))
    }

    /// Checks that the kernel is done, and nothing that it made ready is missing from the log.
    fn check_run_end(&mut self, seq: Seq) -> Result<(), Box<Divergence>> {
        self.decisions += 1;
        if self.result == RunResult::Succeeded && self.unrecorded_ready.is_empty() {
            return Ok(());
        }
        let waiting: Vec<String> = self.unrecorded_ready.iter().map(ToString::to_string).collect();
        let computed = match waiting.is_empty() {
            true => format!("{:?}", self.result).to_lowercase(),
            false => format!("still to run: {}", waiting.join(", ")),
        };
        let (aspect, recorded) = ("the end of the run", "completed".to_owned());
        Err(Box::new(Divergence { seq, step: None, aspect, recorded, computed }))
    }

    fn apply_delta(&mut self, delta: &ScheduleDelta) {
        self.result = delta.result;
        let graph = &self.graph;
        self.unrecorded_ready
            .extend(delta.ready.iter().map(|ready| graph.step_id(ready.node, ready.item)));
    }

    /// Returns the kernel's number of a step's node, and the scheduler.
    fn scheduler_for_step(
        &mut self,
        seq: Seq,
        step: &StepId,
    ) -> Result<(u32, &mut Scheduler), Box<Divergence>> {
        let unknown = || {
            let (aspect, recorded) = ("the graph", "a step of the run".to_owned());
            let computed = "the graph has no such node".to_owned();
            Box::new(Divergence { seq, step: Some(step.clone()), aspect, recorded, computed })
        };
        let number = self.graph.node_number(&step.node).ok_or_else(unknown)?;
        Ok((number, self.scheduler.as_mut().ok_or_else(unknown)?))
    }

    fn node_status_name(&self, step: &StepId) -> String {
        let number = self.graph.node_number(&step.node);
        let status = number.and_then(|n| self.scheduler.as_ref()?.node_status(n).ok());
        match status {
            Some(status) => format!("{status:?}").to_lowercase(),
            None => "the graph has no such node".into(),
        }
    }

    /// Returns whether the run has ended.
    pub fn is_ended(&self) -> bool {
        !matches!(self.state.phase, RunPhase::New | RunPhase::Running)
    }

    /// Lists every step with its status, in the order of step ids.
    pub fn list_steps(&self) -> Vec<(String, &'static str)> {
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
pub fn check_graph_fits(state: &RunState, graph: Graph) -> Result<(), UnsealedFailure> {
    let compiled = CompiledGraph::from_manifest(graph)?;
    scheduler::restore_scheduler(&compiled, state).map(|_| ())
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

fn join_names(nodes: &BTreeSet<NodeId>) -> String {
    let names: Vec<_> = nodes.iter().map(NodeId::as_str).collect();
    if names.is_empty() { "none".into() } else { names.join(", ") }
}
