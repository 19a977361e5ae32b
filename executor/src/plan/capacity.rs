//! Capacity of a run: the limits on steps, model calls and child runs in flight. Whatever counts as
//! work checks its capacity here first, so that a run at its limits waits instead of spinning.

use std::collections::BTreeSet;

use convergio_domain::graph::manifest::NodeWork;
use convergio_domain::id::StepId;
use convergio_domain::time::Timestamp;

use crate::graphs::CompiledGraph;

/// Capacity that a step needs besides the limit of steps in flight.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) enum CapacityKind {
    /// None besides the step itself.
    Step,
    /// A model call of the run.
    ModelCall,
    /// A child run of the run.
    ChildRun,
}

impl CapacityKind {
    /// Returns the capacity that a step needs to start.
    pub(crate) fn for_step(graph: &CompiledGraph, step: &StepId) -> Self {
        if graph.find_agent(step).is_some() {
            return Self::ModelCall;
        }
        match graph.find_node(&step.node).map(|node| &node.work) {
            Some(NodeWork::Graph(_)) => Self::ChildRun,
            _ => Self::Step,
        }
    }
}

const CAPACITY_KINDS: [CapacityKind; 3] =
    [CapacityKind::Step, CapacityKind::ModelCall, CapacityKind::ChildRun];

/// Remaining capacity of each kind.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub(crate) struct FreeCapacity {
    /// Further steps that may be in flight.
    pub(crate) steps: usize,
    /// Further model calls that may be in flight.
    pub(crate) model_calls: usize,
    /// Further child runs that may be open.
    pub(crate) child_runs: usize,
}

impl FreeCapacity {
    /// Returns whether a step of this kind may start.
    pub(crate) fn has_capacity(&self, kind: CapacityKind) -> bool {
        self.steps > 0
            && match kind {
                CapacityKind::Step => true,
                CapacityKind::ModelCall => self.model_calls > 0,
                CapacityKind::ChildRun => self.child_runs > 0,
            }
    }
}

/// Steps that may start now, by the capacity that they need, or at a later time.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(crate) struct ReadySteps {
    now: [BTreeSet<StepId>; 3],
    later: BTreeSet<(Timestamp, StepId)>,
}

impl ReadySteps {
    /// Adds a step that may start now.
    pub(crate) fn insert_now(&mut self, kind: CapacityKind, step: StepId) {
        self.now[kind as usize].insert(step);
    }

    /// Adds a step that may start at `due`.
    pub(crate) fn insert_later(&mut self, due: Timestamp, step: StepId) {
        self.later.insert((due, step));
    }

    /// Removes the steps whose time has come, to be added to those that may start now.
    pub(crate) fn take_due(&mut self, now: Timestamp) -> Vec<StepId> {
        let mut due_steps = Vec::new();
        while self.later.first().is_some_and(|(due, _)| *due <= now) {
            due_steps.extend(self.later.pop_first().map(|(_, step)| step));
        }
        due_steps
    }

    /// Removes the first step, by id, that may start now and has capacity.
    pub(crate) fn pop_first(&mut self, capacity: &FreeCapacity) -> Option<(CapacityKind, StepId)> {
        let kinds = CAPACITY_KINDS.into_iter().filter(|kind| capacity.has_capacity(*kind));
        let first = |kind: CapacityKind| Some((kind, self.now[kind as usize].first()?.clone()));
        // By id over all kinds, so that the order does not depend on the kinds that have capacity.
        let (kind, step) = kinds.filter_map(first).min_by(|(_, one), (_, two)| one.cmp(two))?;
        self.now[kind as usize].remove(&step);
        Some((kind, step))
    }

    /// Returns whether a step that may start now has capacity.
    pub(crate) fn has_startable(&self, capacity: &FreeCapacity) -> bool {
        let is_waiting = |kind: &CapacityKind| !self.now[*kind as usize].is_empty();
        CAPACITY_KINDS.iter().any(|kind| is_waiting(kind) && capacity.has_capacity(*kind))
    }

    /// Returns the earliest start of the steps that may not start yet.
    pub(crate) fn next_due_at(&self) -> Option<Timestamp> {
        self.later.first().map(|(due, _)| *due)
    }

    /// Removes all steps, before they are rebuilt from the state.
    pub(crate) fn remove_all(&mut self) {
        *self = Self::default();
    }
}

#[cfg(test)]
mod tests {
    use super::{CAPACITY_KINDS, CapacityKind, FreeCapacity, ReadySteps};
    use convergio_domain::time::Timestamp;
    use proptest::prelude::{any, prop, proptest};

    fn places(steps: usize, model_calls: usize, child_runs: usize) -> FreeCapacity {
        FreeCapacity { steps, model_calls, child_runs }
    }

    proptest! {
        /// `has_startable` and `pop_first` never disagree.
        #[test]
        fn a_step_is_startable_exactly_if_one_is_given_out(
            waiting in prop::collection::vec((0_usize..3, 0_u32..50), 0..40),
            free in (0_usize..4, 0_usize..3, 0_usize..3),
            due in any::<i64>(),
        ) {
            let mut ready = ReadySteps::default();
            for (kind, item) in waiting {
                let step = format!("n[{item}]").parse().expect("a step");
                ready.insert_now(CAPACITY_KINDS[kind], step);
            }
            ready.insert_later(Timestamp(due), "later".parse().expect("a step"));
            let mut free = places(free.0, free.1, free.2);
            loop {
                let is_startable = ready.has_startable(&free);
                let popped = ready.pop_first(&free);
                assert_eq!(is_startable, popped.is_some());
                let Some((kind, _)) = popped else { break };
                free.steps -= 1;
                match kind {
                    CapacityKind::Step => {}
                    CapacityKind::ModelCall => free.model_calls -= 1,
                    CapacityKind::ChildRun => free.child_runs -= 1,
                }
            }
            assert_eq!(ready.next_due_at(), Some(Timestamp(due)), "what waits for its time stays");
        }
    }

    #[test]
    fn a_step_without_its_place_keeps_nobody_from_starting() {
        let mut ready = ReadySteps::default();
        ready.insert_now(CapacityKind::ModelCall, "a".parse().expect("a step"));
        ready.insert_now(CapacityKind::Step, "b".parse().expect("a step"));
        let popped = ready.pop_first(&places(1, 0, 0));
        assert_eq!(popped, Some((CapacityKind::Step, "b".parse().expect("a step"))));
        assert_eq!(ready.pop_first(&places(1, 0, 5)), None);
        assert!(ready.has_startable(&places(1, 1, 0)));
    }
}
