//! State of an agent's turns while its step is under way.
//!
//! Turns are kept over attempts, so that no answered model call or finished tool call is repeated.

use std::collections::{BTreeMap, BTreeSet};

use serde::{Deserialize, Serialize};

use super::values::ToolCallNumber;
use crate::id::RunId;
use crate::payload::PayloadRef;
use crate::time::Timestamp;

/// Turns of one agent.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct AgentTurns {
    /// Time at which the agent began, from which its time limit counts.
    pub began: Timestamp,
    /// Tool calls before the first turn, by number.
    pub opening: BTreeMap<u32, ToolCallState>,
    /// Answered turns, except one that ended the step.
    pub done: Vec<AgentTurn>,
    /// Tokens used by all turns so far.
    pub tokens: u64,
}

/// A turn whose model call was answered.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct AgentTurn {
    /// Whole reply, a [`crate::chat::ChatReply`].
    pub answer: PayloadRef,
    /// Tool calls that the answer requested, by number.
    pub calls: BTreeMap<u32, ToolCallState>,
}

/// State of a tool call.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub enum ToolCallState {
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

impl ToolCallState {
    /// True if the call has a result.
    pub fn is_ended(&self) -> bool {
        matches!(self, Self::Ended { .. })
    }
}

impl AgentTurns {
    /// Creates the state of an agent that has not yet called its model.
    pub(super) fn new(began: Timestamp) -> Self {
        Self { began, opening: BTreeMap::new(), done: Vec::new(), tokens: 0 }
    }

    /// Returns the number of the last answered turn; 0 before the first.
    pub fn last_turn(&self) -> u32 {
        u32::try_from(self.done.len()).unwrap_or(u32::MAX)
    }

    /// Returns the tool calls of that turn, by number.
    pub fn last_turn_calls(&self) -> &BTreeMap<u32, ToolCallState> {
        self.done.last().map_or(&self.opening, |turn| &turn.calls)
    }

    /// Returns the state of a tool call of that turn; `None` for calls of earlier turns.
    pub fn find_call(&self, number: ToolCallNumber) -> Option<ToolCallState> {
        self.last_turn_calls()
            .get(&number.call)
            .copied()
            .filter(|_| number.turn == self.last_turn())
    }

    /// Returns the number of tool calls of all turns; the opening calls do not count.
    pub fn call_count(&self) -> usize {
        self.done.iter().map(|turn| turn.calls.len()).sum()
    }

    /// True if every tool call of the last turn has ended, so that the model is called next.
    pub fn is_complete(&self) -> bool {
        self.last_turn_calls().values().all(ToolCallState::is_ended)
    }

    /// True if a tool is running in the executor, whose result would be lost with it.
    pub fn is_computing(&self) -> bool {
        self.last_turn_calls().values().any(|call| *call == ToolCallState::Intended)
    }

    /// True if every open tool call is one of these child runs, or queued.
    pub(super) fn awaits_only(&self, runs: &BTreeSet<RunId>) -> bool {
        self.last_turn_calls().values().all(|call| match call {
            ToolCallState::Intended => false,
            ToolCallState::Child(run) => runs.contains(run),
            ToolCallState::Queued | ToolCallState::Ended { .. } => true,
        })
    }

    /// Returns the queued tool calls of the last turn.
    pub fn queued_calls(&self) -> impl Iterator<Item = ToolCallNumber> {
        let turn = self.last_turn();
        let queued =
            self.last_turn_calls().iter().filter(|(_, call)| **call == ToolCallState::Queued);
        queued.map(move |(call, _)| ToolCallNumber { turn, call: *call })
    }

    /// Returns the turns that a fork keeps: all answered ones, timed anew from `now`. If the last
    /// turn waits for a child run, its model call is repeated, since the child belongs to the
    /// parent. `None` if nothing is left.
    pub(super) fn into_fork(mut self, now: Timestamp) -> Option<Self> {
        self.began = now;
        let is_of_parent =
            |call: &ToolCallState| matches!(call, ToolCallState::Child(_) | ToolCallState::Queued);
        if self.last_turn_calls().values().any(is_of_parent) {
            self.done.pop();
        }
        (!self.done.is_empty() || !self.opening.is_empty()).then_some(self)
    }

    /// Sets the state of a call of the last turn. A call that has ended keeps its result.
    pub(super) fn set_call(&mut self, number: ToolCallNumber, state: ToolCallState) {
        // A late event of an earlier turn has no effect: that turn is closed.
        if number.turn != self.last_turn() {
            return;
        }
        let calls = self.done.last_mut().map_or(&mut self.opening, |turn| &mut turn.calls);
        let current = calls.entry(number.call).or_insert(state);
        if !current.is_ended() {
            *current = state;
        }
    }
}
