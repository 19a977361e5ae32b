//! State of an agent's turns while its step is under way.
//!
//! Turns are kept over attempts, so that no answered model call or finished tool call is repeated.

use std::collections::{BTreeMap, BTreeSet};

use serde::{Deserialize, Serialize};

use super::state::{RunState, RunStep};
use crate::event::{run, turn};
use crate::id::{RunId, StepId};
use crate::payload::PayloadRef;
use crate::time::Timestamp;

/// Number of a tool call of an agent: its turn, and its position there.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
pub struct ToolCallNumber {
    /// Turn whose answer requested the call; 0 precedes the first turn.
    pub turn: u32,
    /// Number of the call in the turn, from 0.
    pub call: u32,
}

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
    fn awaits_only(&self, runs: &BTreeSet<RunId>) -> bool {
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
    fn set_call(&mut self, number: ToolCallNumber, state: ToolCallState) {
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

impl RunStep {
    /// Returns the number of the step's queued tool calls.
    pub(super) fn queued_call_count(&self) -> u32 {
        let count = self.turns.as_deref().map_or(0, |turns| turns.queued_calls().count());
        u32::try_from(count).unwrap_or(u32::MAX)
    }

    /// True if the step waits only for child runs.
    pub fn is_parked(&self) -> bool {
        let waits = match self.turns.as_deref() {
            Some(turns) => !turns.is_complete() && turns.awaits_only(&self.awaits),
            None => self.child.is_some_and(|child| self.awaits.contains(&child)),
        };
        waits && self.call.is_none()
    }

    /// True if the executor's death would lose work in flight. Child runs proceed by themselves,
    /// and their results are in the log.
    pub fn has_work_at_risk(&self) -> bool {
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
    pub(super) fn ensure_turns(&mut self, step: &StepId, at: Timestamp) {
        self.update_step(step, |step| {
            step.turns.get_or_insert_with(|| Box::new(AgentTurns::new(at)));
        });
    }

    /// Folds the answer of a turn that another turn follows.
    pub(super) fn apply_turn_answered(&mut self, event: &run::ModelCallCompleted) {
        let Some(answer) = event.answer.map(|answer| self.history_reference(answer)) else {
            return;
        };
        self.update_step(&event.step, |step| {
            // The answer is durable, so the retry policy counts the attempts of the next call anew.
            step.failures = 0;
            let Some(turns) = step.turns.as_deref_mut() else { return };
            // A repeated answer of the same turn must not add a second one.
            if event.turn == turns.last_turn() + 1 {
                turns.done.push(AgentTurn { answer, calls: BTreeMap::new() });
            }
        });
    }

    /// Adds a call's tokens to those of the agent.
    pub(super) fn add_turn_tokens(&mut self, event: &run::UsageRecorded) {
        if event.turn > 0 {
            self.update_step(&event.step, |step| {
                if let Some(turns) = step.turns.as_deref_mut() {
                    turns.tokens = turns.tokens.saturating_add(event.usage.total_tokens());
                }
            });
        }
    }

    pub(super) fn apply_tool_call_intended(
        &mut self,
        event: &turn::ToolCallIntended,
        at: Timestamp,
    ) {
        self.ensure_turns(&event.step, at);
        self.set_tool_call(&event.step, event.tool_call, ToolCallState::Intended);
    }

    /// Ends a tool call with a result.
    pub(super) fn finish_tool_call(
        &mut self,
        step: &StepId,
        at: ToolCallNumber,
        result: PayloadRef,
        is_error: bool,
    ) {
        let result = self.history_reference(result);
        self.set_tool_call(step, at, ToolCallState::Ended { result, is_error });
    }

    /// Sets the state of a step's tool call.
    pub(super) fn set_tool_call(
        &mut self,
        step: &StepId,
        at: ToolCallNumber,
        state: ToolCallState,
    ) {
        self.update_step(step, |step| {
            if let Some(turns) = step.turns.as_deref_mut() {
                turns.set_call(at, state);
            }
        });
    }
}
