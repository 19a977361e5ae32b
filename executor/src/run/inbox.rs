//! The effects of a run in flight, and the results that are not in the log yet.

use std::collections::{BTreeMap, BTreeSet};

use convergio_domain::id::StepId;
use convergio_domain::run::{RunState, ToolCallNumber};
use tokio::task::JoinSet;
use tokio_util::sync::CancellationToken;

use crate::plan::EffectResult;

/// Key of an effect in flight: its step and, for a tool call of an agent, the call.
type EffectKey = (StepId, Option<ToolCallNumber>);

pub(super) struct InFlightEffect {
    /// True for a step of an agent: those are limited separately.
    pub(super) is_agent: bool,
    pub(super) cancel: CancellationToken,
}

/// Effects in flight and their results.
#[derive(Default)]
pub(super) struct Inbox {
    pub(super) effects: JoinSet<EffectResult>,
    pub(super) in_flight: BTreeMap<EffectKey, InFlightEffect>,
    /// Results that are not in the log yet.
    pub(super) results: Vec<EffectResult>,
}

impl Inbox {
    /// Returns whether an effect of the step is in flight, or its result is not in the log yet.
    pub(super) fn has_step(&self, id: &StepId) -> bool {
        self.in_flight.keys().any(|(step, _)| step == id)
            || self.results.iter().any(|done| done.step == *id)
    }

    /// Counts the steps of agents in flight. An agent with several tool calls counts as one.
    pub(super) fn agent_step_count(&self) -> usize {
        let agent_effects = self.in_flight.iter().filter(|(_, flight)| flight.is_agent);
        agent_effects.map(|((step, _), _)| step).collect::<BTreeSet<_>>().len()
    }

    /// Returns the steps that have ended with a result that is not in the log yet.
    pub(super) fn concluded_steps(&self) -> BTreeSet<StepId> {
        let results = self.results.iter().filter(|done| done.tool_call.is_none());
        results.map(|done| done.step.clone()).collect()
    }

    /// Drops results of attempts that are no longer current. The costs of an ended run are still
    /// settled, so its results stay.
    pub(super) fn drop_void_results(&mut self, state: &RunState) {
        if !state.phase.is_ended() {
            self.results.retain(|done| is_current_attempt(state, &done.step, done.attempt));
        }
    }
}

/// Returns whether an attempt is still in progress. Another writer may have ended it and scheduled
/// the next.
pub(super) fn is_current_attempt(state: &RunState, step: &StepId, attempt: u32) -> bool {
    let known_step = state.steps.get(step);
    known_step.is_some_and(|known| known.attempt == attempt && known.is_under_way())
}
