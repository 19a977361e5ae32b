//! State of an agent's turns while its step is under way.
//!
//! Turns are kept over attempts, so that no answered model call or finished tool call is repeated.

use std::collections::{BTreeMap, BTreeSet};

use serde::{Deserialize, Serialize};

use super::state::{RunState, Step};
use crate::event::{run, turn};
use crate::id::{RunId, StepId};
use crate::payload::PayloadRef;
use crate::time::Timestamp;

/// Number of a tool call of an agent: its turn, and its position there.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
pub struct CallNo {
    /// Turn whose answer requested the call; 0 precedes the first turn.
    pub turn: u32,
    /// Number of the call in the turn, from 0.
    pub call: u32,
}

/// Turns of one agent.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Turns {
    /// Time at which the agent began, from which its time limit counts.
    pub began: Timestamp,
    /// Tool calls before the first turn, by number.
    pub opening: BTreeMap<u32, ToolState>,
    /// Answered turns, except one that ended the step.
    pub done: Vec<Turn>,
    /// Tokens used by all turns so far.
    pub tokens: u64,
}

/// A turn whose model call was answered.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Turn {
    /// Whole reply, a [`crate::chat::ChatReply`].
    pub answer: PayloadRef,
    /// Tool calls that the answer requested, by number.
    pub calls: BTreeMap<u32, ToolState>,
}

/// State of a tool call.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub enum ToolState {
    /// About to be made, or made; the outcome is unknown.
    Intended,
    /// Waits, since the run has its maximum of open child runs.
    Queued,
    /// Performed by this child run.
    Child(RunId),
    /// The call has a result.
    Ended {
        /// Result shown to the model, as JSON.
        result: PayloadRef,
        /// True if the call failed or was denied.
        is_error: bool,
    },
}

impl ToolState {
    /// True if the call has a result.
    pub fn is_ended(&self) -> bool {
        matches!(self, Self::Ended { .. })
    }
}

impl Turns {
    /// Creates the state of an agent that has not yet called its model.
    pub(super) fn new(began: Timestamp) -> Self {
        Self { began, opening: BTreeMap::new(), done: Vec::new(), tokens: 0 }
    }

    /// Returns the number of the last answered turn; 0 before the first.
    pub fn last(&self) -> u32 {
        u32::try_from(self.done.len()).unwrap_or(u32::MAX)
    }

    /// Returns the tool calls of that turn, by number.
    pub fn calls(&self) -> &BTreeMap<u32, ToolState> {
        self.done.last().map_or(&self.opening, |turn| &turn.calls)
    }

    /// Returns the state of a tool call of that turn; `None` for calls of earlier turns.
    pub fn call(&self, at: CallNo) -> Option<ToolState> {
        self.calls().get(&at.call).copied().filter(|_| at.turn == self.last())
    }

    /// Returns the number of tool calls of all turns; the opening calls do not count.
    pub fn call_count(&self) -> usize {
        self.done.iter().map(|turn| turn.calls.len()).sum()
    }

    /// True if every tool call of the last turn has ended, so that the model is called next.
    pub fn is_complete(&self) -> bool {
        self.calls().values().all(ToolState::is_ended)
    }

    /// True if a tool is running in the executor, whose result would be lost with it.
    pub fn is_computing(&self) -> bool {
        self.calls().values().any(|call| *call == ToolState::Intended)
    }

    /// True if every open tool call is one of these child runs, or queued.
    fn waits_only_for(&self, runs: &BTreeSet<RunId>) -> bool {
        self.calls().values().all(|call| match call {
            ToolState::Intended => false,
            ToolState::Child(run) => runs.contains(run),
            ToolState::Queued | ToolState::Ended { .. } => true,
        })
    }

    /// Returns the queued tool calls of the last turn.
    pub fn queued_calls(&self) -> impl Iterator<Item = CallNo> {
        let turn = self.last();
        let queued = self.calls().iter().filter(|(_, call)| **call == ToolState::Queued);
        queued.map(move |(call, _)| CallNo { turn, call: *call })
    }

    /// Returns the turns that a fork keeps: all answered ones, timed anew from `now`. If the last
    /// turn waits for a child run, its model call is repeated, since the child belongs to the
    /// parent. `None` if nothing is left.
    pub(super) fn of_fork(mut self, now: Timestamp) -> Option<Self> {
        self.began = now;
        let is_of_parent =
            |call: &ToolState| matches!(call, ToolState::Child(_) | ToolState::Queued);
        if self.calls().values().any(is_of_parent) {
            self.done.pop();
        }
        (!self.done.is_empty() || !self.opening.is_empty()).then_some(self)
    }

    /// Sets the state of a call of the last turn. A call that has ended keeps its result.
    fn set(&mut self, at: CallNo, state: ToolState) {
        // A late event of an earlier turn has no effect: that turn is closed.
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
    /// Returns the number of the step's queued tool calls.
    pub(super) fn queued_call_count(&self) -> u32 {
        let count = self.turns.as_deref().map_or(0, |turns| turns.queued_calls().count());
        u32::try_from(count).unwrap_or(u32::MAX)
    }

    /// True if the step waits only for child runs.
    pub fn is_parked(&self) -> bool {
        let waits = match self.turns.as_deref() {
            Some(turns) => !turns.is_complete() && turns.waits_only_for(&self.awaits),
            None => self.child.is_some_and(|child| self.awaits.contains(&child)),
        };
        waits && self.call.is_none()
    }

    /// True if the executor's death would lose work in flight. Child runs proceed by themselves,
    /// and their results are in the log.
    pub fn is_exposed(&self) -> bool {
        match self.turns.as_deref() {
            // A model call is paid for, whatever becomes of its answer.
            _ if self.call.is_some() => true,
            Some(turns) => turns.is_computing(),
            None => self.child.is_none(),
        }
    }
}

impl RunState {
    /// Creates the turns of a step, unless it has some.
    pub(super) fn begin_turn(&mut self, step: &StepId, at: Timestamp) {
        self.change(step, |step| {
            step.turns.get_or_insert_with(|| Box::new(Turns::new(at)));
        });
    }

    /// Folds the answer of a turn that another turn follows.
    pub(super) fn end_turn(&mut self, event: &run::ModelCallCompleted) {
        let Some(answer) = event.answer.map(|answer| self.own(answer)) else { return };
        self.change(&event.step, |step| {
            // The answer is durable, so the retry policy counts the attempts of the next call anew.
            step.failures = 0;
            let Some(turns) = step.turns.as_deref_mut() else { return };
            // A repeated answer of the same turn must not add a second one.
            if event.turn == turns.last() + 1 {
                turns.done.push(Turn { answer, calls: BTreeMap::new() });
            }
        });
    }

    /// Adds a call's tokens to those of the agent.
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

    /// Ends a tool call with a result.
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

    /// Sets the state of a step's tool call.
    pub(super) fn set_tool(&mut self, step: &StepId, at: CallNo, state: ToolState) {
        self.change(step, |step| {
            if let Some(turns) = step.turns.as_deref_mut() {
                turns.set(at, state);
            }
        });
    }
}
