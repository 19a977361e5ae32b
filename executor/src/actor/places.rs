//! Places: what a step needs before it may start. Whatever counts as work asks for its place here
//! first, so that a run whose places are all taken waits and does not turn.

use std::collections::BTreeSet;

use convergio_domain::graph::manifest::Work;
use convergio_domain::id::StepId;
use convergio_domain::time::Timestamp;

use super::Actor;

/// What a step needs besides a place among the steps that are under way in its run.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub(super) enum PlaceKind {
    /// Nothing.
    Step,
    /// A place among the model calls of its run.
    ModelCall,
    /// A place among the runs within its run.
    ChildRun,
}

const PLACE_KINDS: [PlaceKind; 3] = [PlaceKind::Step, PlaceKind::ModelCall, PlaceKind::ChildRun];

/// How many places of each kind are free.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub(super) struct FreePlaces {
    /// Steps that may be under way besides those that are.
    pub(super) steps: usize,
    /// Steps that may ask a model.
    pub(super) model_calls: usize,
    /// Runs that may begin within the run.
    pub(super) child_runs: usize,
}

impl FreePlaces {
    /// Whether a step that needs this may start.
    pub(super) fn has_place(&self, kind: PlaceKind) -> bool {
        self.steps > 0
            && match kind {
                PlaceKind::Step => true,
                PlaceKind::ModelCall => self.model_calls > 0,
                PlaceKind::ChildRun => self.child_runs > 0,
            }
    }
}

/// Steps that may start, by what they need: now, or from a time on.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(super) struct ReadySteps {
    now: [BTreeSet<StepId>; 3],
    later: BTreeSet<(Timestamp, StepId)>,
}

impl ReadySteps {
    /// Adds a step that may start now.
    pub(super) fn insert_now(&mut self, kind: PlaceKind, step: StepId) {
        self.now[kind as usize].insert(step);
    }

    /// Adds a step that may start at `due`.
    pub(super) fn insert_later(&mut self, due: Timestamp, step: StepId) {
        self.later.insert((due, step));
    }

    /// Steps whose time has come: they are to be added to those that may start now.
    pub(super) fn take_due(&mut self, now: Timestamp) -> Vec<StepId> {
        let mut due_steps = Vec::new();
        while self.later.first().is_some_and(|(due, _)| *due <= now) {
            due_steps.extend(self.later.pop_first().map(|(_, step)| step));
        }
        due_steps
    }

    /// Takes the first step that may start and has a place.
    pub(super) fn pop_first(&mut self, places: &FreePlaces) -> Option<(PlaceKind, StepId)> {
        let kinds = PLACE_KINDS.into_iter().filter(|kind| places.has_place(*kind));
        let first = |kind: PlaceKind| Some((kind, self.now[kind as usize].first()?.clone()));
        let (kind, step) = kinds.filter_map(first).min_by(|(_, one), (_, two)| one.cmp(two))?;
        self.now[kind as usize].remove(&step);
        Some((kind, step))
    }

    /// Whether a step that may start now has a place.
    pub(super) fn has_startable(&self, places: &FreePlaces) -> bool {
        let is_waiting = |kind: &PlaceKind| !self.now[*kind as usize].is_empty();
        PLACE_KINDS.iter().any(|kind| is_waiting(kind) && places.has_place(*kind))
    }

    /// When the next step may start that may not start now.
    pub(super) fn next_due(&self) -> Option<Timestamp> {
        self.later.first().map(|(due, _)| *due)
    }

    /// Forgets everything.
    pub(super) fn clear(&mut self) {
        *self = Self::default();
    }
}

impl Actor {
    /// What a step needs before it starts.
    pub(super) fn place_kind(&self, step: &StepId) -> PlaceKind {
        if self.is_agent(step) {
            return PlaceKind::ModelCall;
        }
        let node = self.graph.find_node(&step.node);
        match node.map(|node| &node.work) {
            Some(Work::Graph(_)) => PlaceKind::ChildRun,
            _ => PlaceKind::Step,
        }
    }

    /// The places that are free before anything is planned.
    pub(super) fn free_places(&self) -> FreePlaces {
        let config = &self.shared.config;
        let agents = self.in_flight.iter().filter(|(_, flight)| flight.is_agent);
        let agents: BTreeSet<&StepId> = agents.map(|((step, _), _)| step).collect();
        let child_runs = self.run.state.open_children().count();
        FreePlaces {
            steps: config.steps_per_run.saturating_sub(self.in_flight.len()),
            model_calls: config.model_calls_per_run.saturating_sub(agents.len()),
            child_runs: config.child_runs_per_run.saturating_sub(child_runs),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::{FreePlaces, PLACE_KINDS, PlaceKind, ReadySteps};
    use convergio_domain::time::Timestamp;
    use proptest::prelude::{any, prop, proptest};

    fn places(steps: usize, model_calls: usize, child_runs: usize) -> FreePlaces {
        FreePlaces { steps, model_calls, child_runs }
    }

    proptest! {
        /// What counts as startable is started: the two never disagree.
        #[test]
        fn a_step_is_startable_exactly_if_one_is_given_out(
            waiting in prop::collection::vec((0_usize..3, 0_u32..50), 0..40),
            free in (0_usize..4, 0_usize..3, 0_usize..3),
            due in any::<i64>(),
        ) {
            let mut ready = ReadySteps::default();
            for (kind, item) in waiting {
                let step = format!("n[{item}]").parse().expect("a step");
                ready.insert_now(PLACE_KINDS[kind], step);
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
                    PlaceKind::Step => {}
                    PlaceKind::ModelCall => free.model_calls -= 1,
                    PlaceKind::ChildRun => free.child_runs -= 1,
                }
            }
            assert_eq!(ready.next_due(), Some(Timestamp(due)), "what waits for its time stays");
        }
    }

    #[test]
    fn a_step_without_its_place_keeps_nobody_from_starting() {
        let mut ready = ReadySteps::default();
        ready.insert_now(PlaceKind::ModelCall, "a".parse().expect("a step"));
        ready.insert_now(PlaceKind::Step, "b".parse().expect("a step"));
        let popped = ready.pop_first(&places(1, 0, 0));
        assert_eq!(popped, Some((PlaceKind::Step, "b".parse().expect("a step"))));
        assert_eq!(ready.pop_first(&places(1, 0, 5)), None);
        assert!(ready.has_startable(&places(1, 1, 0)));
    }
}
