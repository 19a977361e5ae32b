//! Folds the events of an agent's turns into the state of its step.

use std::collections::BTreeMap;

use super::event::{ModelCallCompleted, ToolCallIntended, UsageRecorded};
use super::state::RunState;
use super::turns::{AgentTurn, AgentTurns, ToolCallState};
use super::values::ToolCallNumber;
use crate::id::StepId;
use crate::payload::PayloadRef;
use crate::time::Timestamp;

impl RunState {
    /// Creates the turns of a step, unless it has some.
    pub(super) fn ensure_turns(&mut self, step: &StepId, at: Timestamp) {
        self.update_step(step, |step| {
            step.turns.get_or_insert_with(|| Box::new(AgentTurns::new(at)));
        });
    }

    /// Folds the answer of a model call; an agent keeps it if another turn follows.
    pub(super) fn apply_model_call_completed(&mut self, event: &ModelCallCompleted) {
        self.release_call(&event.step);
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
    pub(super) fn add_turn_tokens(&mut self, event: &UsageRecorded) {
        if event.turn > 0 {
            self.update_step(&event.step, |step| {
                if let Some(turns) = step.turns.as_deref_mut() {
                    turns.tokens = turns.tokens.saturating_add(event.usage.total_tokens());
                }
            });
        }
    }

    pub(super) fn apply_tool_call_intended(&mut self, event: &ToolCallIntended, at: Timestamp) {
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
