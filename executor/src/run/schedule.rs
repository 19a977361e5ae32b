//! The steps of a run as the loop sees them: which may start, which wait, and what the kernel's
//! scheduler knows. All of it is derived from the folded state.

use std::collections::{BTreeMap, BTreeSet, VecDeque};

use convergio_domain::failure::{Failure, UnsealedFailure};
use convergio_domain::id::StepId;
use convergio_domain::run::{RunState, StepStatus, ToolCallNumber};
use convergio_domain::time::Timestamp;
use convergio_kernel_c::{ScheduleDelta, Scheduler};

use crate::graphs::CompiledGraph;
use crate::plan::{CapacityKind, CommitLimits, ReadySteps};
use crate::scheduler;

/// Steps that may start or end, and the limits of the next commit.
pub(super) struct Schedule {
    pub(super) scheduler: Scheduler,
    /// Steps that may start, now or at a time.
    pub(super) ready_steps: ReadySteps,
    /// Tool calls whose child runs wait for capacity.
    pub(super) queued_calls: BTreeSet<(StepId, ToolCallNumber)>,
    /// Steps that end without an effect of this actor: sleeps, approvals, signals, and steps that
    /// another executor left when it died.
    pub(super) waiting_steps: BTreeSet<StepId>,
    /// Steps that the kernel made ready and the log has not scheduled yet, in the kernel's order.
    pub(super) unrecorded_ready: VecDeque<StepId>,
    /// Limits of the next commit.
    pub(super) commit_limits: CommitLimits,
    /// Steps that must fail when they start, because their prompt or payload exceeds the log's
    /// limit.
    pub(super) oversized_steps: BTreeMap<StepId, UnsealedFailure>,
    /// The failure that decides the run, until the run's end is in the log.
    pub(super) deciding_failure: Option<(StepId, Failure)>,
}

impl Schedule {
    /// Builds the schedule of a run that was just folded.
    pub(super) fn from_state(
        graph: &CompiledGraph,
        state: &RunState,
    ) -> Result<Self, UnsealedFailure> {
        let (scheduler, delta) = scheduler::restore_scheduler(graph, state)?;
        let mut schedule = Self {
            scheduler,
            ready_steps: ReadySteps::default(),
            queued_calls: BTreeSet::new(),
            waiting_steps: BTreeSet::new(),
            unrecorded_ready: VecDeque::new(),
            commit_limits: CommitLimits::WHOLE,
            oversized_steps: BTreeMap::new(),
            deciding_failure: None,
        };
        schedule.track_state(graph, state, &delta, &BTreeSet::new());
        Ok(schedule)
    }

    /// Rebuilds the steps from the state rather than adjusting them: the state is the only truth
    /// after a conflict. Steps in `concluded` have a pending result and are not waited for again.
    pub(super) fn rebuild_steps(
        &mut self,
        graph: &CompiledGraph,
        state: &RunState,
        concluded: &BTreeSet<StepId>,
    ) -> Result<(), UnsealedFailure> {
        let (scheduler, delta) = scheduler::restore_scheduler(graph, state)?;
        self.scheduler = scheduler;
        self.track_state(graph, state, &delta, concluded);
        Ok(())
    }

    fn track_state(
        &mut self,
        graph: &CompiledGraph,
        state: &RunState,
        delta: &ScheduleDelta,
        concluded: &BTreeSet<StepId>,
    ) {
        self.unrecorded_ready = scheduler::ready_steps(graph, delta).into();
        self.ready_steps.remove_all();
        self.waiting_steps.clear();
        self.queued_calls.clear();
        for (id, step) in &state.steps {
            match step.status {
                StepStatus::Scheduled { due } => self.track_scheduled_step(graph, id.clone(), due),
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
    }

    /// Tracks a step that may start now, or at a time.
    pub(super) fn track_scheduled_step(
        &mut self,
        graph: &CompiledGraph,
        step: StepId,
        due: Option<Timestamp>,
    ) {
        match due {
            Some(due) => self.ready_steps.insert_later(due, step),
            None => self.ready_steps.insert_now(CapacityKind::for_step(graph, &step), step),
        }
    }

    /// Tracks the queued calls of a step anew from the state.
    pub(super) fn track_queued_calls(&mut self, state: &RunState, step: &StepId) {
        let known_step = state.steps.get(step).filter(|known| known.is_under_way());
        let turns = known_step.and_then(|known| known.turns.as_deref());
        let queued: Vec<ToolCallNumber> =
            turns.into_iter().flat_map(|turns| turns.queued_calls()).collect();
        self.queued_calls.retain(|(other, _)| other != step);
        self.queued_calls.extend(queued.into_iter().map(|call| (step.clone(), call)));
    }

    /// Returns the times at which waiting steps end by themselves.
    pub(super) fn wake_times<'a>(
        &'a self,
        state: &'a RunState,
    ) -> impl Iterator<Item = Timestamp> + 'a {
        self.waiting_steps.iter().filter_map(|id| match &state.steps.get(id)?.status {
            StepStatus::Sleeping { due } => Some(*due),
            StepStatus::Asking { approval } => state.approvals.get(approval)?.expires,
            StepStatus::Awaiting { expires, .. } => *expires,
            _ => None,
        })
    }
}
