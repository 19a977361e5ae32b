//! Turns of agents within the commit in preparation: answers, results and intents of tool calls
//! that are not in the log yet.

use std::sync::Arc;

use convergio_domain::chat::ChatReply;
use convergio_domain::failure::{FailureDetail, FailureReport, UnsealedFailure};
use convergio_domain::id::StepId;
use convergio_domain::payload::PayloadPurpose;
use convergio_domain::run::{AgentTurns, ToolCallNumber, ToolCallResult, ToolOutcome, TurnIntent};
use serde_json::Value;

use super::commit_plan::{CommitPlan, PendingTurn};
use super::launch::EffectLaunch;

/// Maximum events of one update within a step.
const UPDATE_EVENTS: usize = 2;

/// Place of a tool call: its step, attempt and number.
#[derive(Clone)]
pub(crate) struct ToolCallAt {
    pub(crate) step: StepId,
    pub(crate) attempt: u32,
    pub(crate) call: ToolCallNumber,
}

impl CommitPlan {
    pub(crate) fn pending_turn_mut(&mut self, step: &StepId, attempt: u32) -> &mut PendingTurn {
        self.pending_turns.entry(step.clone()).or_insert_with(|| PendingTurn {
            update: convergio_domain::run::TurnUpdate::new(step.clone(), attempt),
            reply: None,
            results: Vec::new(),
        })
    }

    /// Returns the answer of a turn that this commit holds.
    pub(crate) fn pending_reply(&self, step: &StepId) -> Option<&Arc<ChatReply>> {
        self.pending_turns.get(step)?.reply.as_ref()
    }

    /// Adds the result of a tool call that completed or was denied.
    pub(crate) fn add_tool_result(
        &mut self,
        call_at: &ToolCallAt,
        outcome: ToolOutcome,
        result: Value,
    ) {
        self.size.add_events(UPDATE_EVENTS);
        let is_error = outcome != ToolOutcome::Completed;
        let value = Arc::new(result);
        let slot = self.store_value(&value, PayloadPurpose::Output);
        let pending_turn = self.pending_turn_mut(&call_at.step, call_at.attempt);
        pending_turn.update.results.push(ToolCallResult {
            tool_call: call_at.call,
            outcome,
            result: slot,
        });
        pending_turn.results.push((call_at.call, Value::clone(&value), is_error));
    }

    /// Adds a failed tool call. The text that the model reads is also the detail of the failure.
    pub(crate) fn add_tool_failure(
        &mut self,
        call_at: &ToolCallAt,
        error: UnsealedFailure,
        text: String,
    ) {
        self.size.add_events(UPDATE_EVENTS);
        let value = Value::String(text);
        let slot = self.store_value(&Arc::new(value.clone()), PayloadPurpose::Output);
        // The report shares the payload of the result instead of storing the text twice.
        let error = error.map_detail(|_| None);
        let error = FailureReport { detail: Some(FailureDetail::New(slot)), ..error };
        let outcome = ToolOutcome::Failed(error);
        let pending_turn = self.pending_turn_mut(&call_at.step, call_at.attempt);
        pending_turn.update.results.push(ToolCallResult {
            tool_call: call_at.call,
            outcome,
            result: slot,
        });
        pending_turn.results.push((call_at.call, value, true));
    }

    pub(crate) fn add_tool_intent(&mut self, call_at: &ToolCallAt, name: String) {
        self.add_intent(call_at, TurnIntent::Tool { tool_call: call_at.call, name }, None);
    }

    /// Adds a tool call whose child run waits for capacity.
    pub(crate) fn add_queued_tool(&mut self, call_at: &ToolCallAt, name: String) {
        self.add_intent(call_at, TurnIntent::QueuedTool { tool_call: call_at.call, name }, None);
    }

    pub(crate) fn add_intent(
        &mut self,
        call_at: &ToolCallAt,
        next: TurnIntent,
        launch: Option<EffectLaunch>,
    ) {
        self.size.add_events(UPDATE_EVENTS);
        // An intent and its launch belong together: the launch follows the intent's commit.
        self.pending_turn_mut(&call_at.step, call_at.attempt).update.intents.push(next);
        if let Some(launch) = launch {
            self.add_launch(launch);
        }
    }

    /// Returns whether every call of the step's last turn has a result with this commit.
    pub(crate) fn is_turn_over(&self, step: &StepId, turns: Option<&AgentTurns>) -> bool {
        let Some(PendingTurn { update: moved, .. }) = self.pending_turns.get(step) else {
            return turns.is_some_and(AgentTurns::is_complete);
        };
        let has_result =
            |at: &ToolCallNumber| moved.results.iter().any(|told| told.tool_call == *at);
        let is_open = |next: &TurnIntent| match next {
            TurnIntent::Tool { tool_call: at, .. }
            | TurnIntent::QueuedTool { tool_call: at, .. } => !has_result(at),
            TurnIntent::Begin(_) => false,
        };
        // A new answer in this commit replaces the recorded turn as the last one.
        let recorded_turns = turns.filter(|_| moved.answer.is_none());
        let is_over = |turns: &AgentTurns| {
            let turn = turns.last_turn();
            let at = |call: &u32| ToolCallNumber { turn, call: *call };
            turns
                .last_turn_calls()
                .iter()
                .all(|(call, state)| state.is_ended() || has_result(&at(call)))
        };
        !moved.intents.iter().any(is_open) && recorded_turns.is_none_or(is_over)
    }
}
