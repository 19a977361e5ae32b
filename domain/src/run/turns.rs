//! The turns of an agent with tools: what is known of them while its step is under way.
//!
//! They are kept over tries: what was answered and called is never asked or called again.

use std::collections::{BTreeMap, BTreeSet};

use serde::{Deserialize, Serialize};

use super::state::{RunState, Step};
use crate::event::{run, turn};
use crate::id::{RunId, StepId};
use crate::payload::PayloadRef;
use crate::time::Timestamp;

/// Which tool call of an agent.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
pub struct CallNo {
    /// The turn whose answer asked for it; 0 is before the first turn.
    pub turn: u32,
    /// Its number in the turn, from 0.
    pub call: u32,
}

/// The turns of one agent.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Turns {
    /// When the agent began.
    pub began: Timestamp,
    /// Calls before the first turn.
    pub opening: BTreeMap<u32, ToolState>,
    /// Turns that were answered and did not end the step.
    pub done: Vec<Turn>,
    /// Tokens used so far.
    pub tokens: u64,
}

/// A turn that was answered.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Turn {
    /// The answer, a [`crate::chat::ChatReply`].
    pub answer: PayloadRef,
    /// The calls that it asked for, by their number.
    pub calls: BTreeMap<u32, ToolState>,
}

/// Where a tool call stands.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub enum ToolState {
    /// About to be made; its outcome is not known.
    Intended,
    /// Its run waits for a place among the runs within this one.
    Queued,
    /// Answered by a run of its own.
    Child(RunId),
    /// Over.
    Ended {
        /// What the model is told.
        result: PayloadRef,
        /// Whether it failed or was denied.
        is_error: bool,
    },
}

impl ToolState {
    /// Whether nothing more will come of it.
    pub fn is_ended(&self) -> bool {
        matches!(self, Self::Ended { .. })
    }
}

impl Turns {
    pub(super) fn new(began: Timestamp) -> Self {
        Self { began, opening: BTreeMap::new(), done: Vec::new(), tokens: 0 }
    }

    /// The number of the last turn that was answered; 0 before the first.
    pub fn last(&self) -> u32 {
        u32::try_from(self.done.len()).unwrap_or(u32::MAX)
    }

    /// The calls of that turn.
    pub fn calls(&self) -> &BTreeMap<u32, ToolState> {
        self.done.last().map_or(&self.opening, |turn| &turn.calls)
    }

    /// Where one of its calls stands.
    pub fn call(&self, at: CallNo) -> Option<ToolState> {
        self.calls().get(&at.call).copied().filter(|_| at.turn == self.last())
    }

    /// How many calls were asked for in all turns.
    pub fn call_count(&self) -> usize {
        self.done.iter().map(|turn| turn.calls.len()).sum()
    }

    /// Whether every call of the last turn is over: the model is to be asked next.
    pub fn is_complete(&self) -> bool {
        self.calls().values().all(ToolState::is_ended)
    }

    /// Whether a tool is at work whose outcome would be lost with its executor.
    pub fn is_computing(&self) -> bool {
        self.calls().values().any(|call| *call == ToolState::Intended)
    }

    /// Whether every call that is not over is one of these runs.
    fn waits_only_for(&self, runs: &BTreeSet<RunId>) -> bool {
        self.calls().values().all(|call| match call {
            ToolState::Intended => false,
            ToolState::Child(run) => runs.contains(run),
            ToolState::Queued | ToolState::Ended { .. } => true,
        })
    }

    /// The calls of the last turn whose runs wait for a place.
    pub fn queued_calls(&self) -> impl Iterator<Item = CallNo> {
        let turn = self.last();
        let queued = self.calls().iter().filter(|(_, call)| **call == ToolState::Queued);
        queued.map(move |(call, _)| CallNo { turn, call: *call })
    }

    /// What a fork goes on with, from now on: everything that was answered. A last turn that waits
    /// for a run of the parent's is asked again, for that run is not the fork's. `None` if nothing
    /// is left.
    pub(super) fn of_fork(mut self, now: Timestamp) -> Option<Self> {
        self.began = now;
        let is_of_parent =
            |call: &ToolState| matches!(call, ToolState::Child(_) | ToolState::Queued);
        if self.calls().values().any(is_of_parent) {
            self.done.pop();
        }
        (!self.done.is_empty() || !self.opening.is_empty()).then_some(self)
    }

    fn set(&mut self, at: CallNo, state: ToolState) {
        if at.turn != self.last() {
            return;
        }
        let calls = self.done.last_mut().map_or(&mut self.opening, |turn| &mut turn.calls);
        let known = calls.entry(at.call).or_insert(state);
        if !known.is_ended() {
            *known = state;
        }
    }
}

impl Step {
    /// How many of its calls wait for a place.
    pub(super) fn queued_call_count(&self) -> u32 {
        let count = self.turns.as_deref().map_or(0, |turns| turns.queued_calls().count());
        u32::try_from(count).unwrap_or(u32::MAX)
    }

    /// Whether it waits for runs of its own, and for nothing else.
    pub fn is_parked(&self) -> bool {
        let waits = match self.turns.as_deref() {
            Some(turns) => !turns.is_complete() && turns.waits_only_for(&self.awaits),
            None => self.child.is_some_and(|child| self.awaits.contains(&child)),
        };
        waits && self.call.is_none()
    }

    /// Whether something is under way that is lost when its executor dies. Runs of its own go on by
    /// themselves, and what they yield is in the log.
    pub fn is_exposed(&self) -> bool {
        match self.turns.as_deref() {
            _ if self.call.is_some() => true,
            Some(turns) => turns.is_computing(),
            None => self.child.is_none(),
        }
    }
}

impl RunState {
    pub(super) fn begin_turn(&mut self, step: &StepId, at: Timestamp) {
        self.change(step, |step| {
            step.turns.get_or_insert_with(|| Box::new(Turns::new(at)));
        });
    }

    pub(super) fn end_turn(&mut self, event: &run::ModelCallCompleted) {
        let Some(answer) = event.answer.map(|answer| self.own(answer)) else { return };
        self.change(&event.step, |step| {
            // Its answer is in the log: the tries of the next call are counted anew.
            step.failures = 0;
            let Some(turns) = step.turns.as_deref_mut() else { return };
            if event.turn == turns.last() + 1 {
                turns.done.push(Turn { answer, calls: BTreeMap::new() });
            }
        });
    }

    pub(super) fn spend_turn(&mut self, event: &run::UsageRecorded) {
        if event.turn > 0 {
            self.change(&event.step, |step| {
                if let Some(turns) = step.turns.as_deref_mut() {
                    turns.tokens = turns.tokens.saturating_add(event.usage.tokens());
                }
            });
        }
    }

    pub(super) fn intend_tool(&mut self, event: &turn::ToolCallIntended, at: Timestamp) {
        self.begin_turn(&event.step, at);
        self.set_tool(&event.step, event.at, ToolState::Intended);
    }

    pub(super) fn end_tool(
        &mut self,
        step: &StepId,
        at: CallNo,
        result: PayloadRef,
        is_error: bool,
    ) {
        let result = self.own(result);
        self.set_tool(step, at, ToolState::Ended { result, is_error });
    }

    pub(super) fn set_tool(&mut self, step: &StepId, at: CallNo, state: ToolState) {
        self.change(step, |step| {
            if let Some(turns) = step.turns.as_deref_mut() {
                turns.set(at, state);
            }
        });
    }
}
