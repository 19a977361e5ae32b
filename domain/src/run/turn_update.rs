//! Progress within a step that continues: an agent's turns, its tool calls and its child runs.

use std::collections::BTreeSet;

use super::advance::CommitBuilder;
use super::advance_command::{
    StepIntent, ToolCallResult, ToolIntent, ToolOutcome, TurnAnswer, TurnIntent, TurnUpdate,
};
use super::event::{
    RunEvent, StepStarted, ToolCallCompleted, ToolCallDenied, ToolCallFailed, ToolCallIntended,
    ToolCallQueued, ToolIntended,
};
use super::rejection::RunRejection;
use super::step::{RunStep, StepStatus};
use super::turns::AgentTurns;
use super::values::ToolCallNumber;
use crate::id::{ExecutorId, StepId};

impl CommitBuilder<'_> {
    /// Pushes the intent of a step that is the call of a tool.
    pub(super) fn push_tool_intent(&mut self, step: StepId, attempt: u32, tool: ToolIntent) {
        self.events.push(RunEvent::ToolIntended(ToolIntended {
            step,
            attempt,
            name: tool.name,
            arguments: tool.arguments.to_payload_ref(self.first_seq),
            idempotency_key: tool.idempotency_key,
        }));
    }

    /// Pushes the answer and tool results of an update, after checking the whole update.
    pub(super) fn push_update(&mut self, update: &TurnUpdate) -> Result<(), RunRejection> {
        self.check_update(update)?;
        let (step, attempt) = (&update.step, update.attempt);
        if let Some(TurnAnswer { call, answer }) = &update.answer {
            let answer = Some(answer.to_payload_ref(self.first_seq));
            self.push_completed_call(step, attempt, call, answer);
            self.push_usage(step, attempt, call, false);
        }
        for ToolCallResult { tool_call: at, outcome, result } in &update.results {
            let (step, at, result) = (step.clone(), *at, result.to_payload_ref(self.first_seq));
            self.events.push(match outcome.clone() {
                ToolOutcome::Completed => RunEvent::ToolCallCompleted(ToolCallCompleted {
                    step,
                    attempt,
                    tool_call: at,
                    result,
                }),
                ToolOutcome::Failed(error) => {
                    let error = error.into_failure(self.first_seq);
                    let failed = ToolCallFailed { step, attempt, tool_call: at, error, result };
                    RunEvent::ToolCallFailed(failed)
                }
                ToolOutcome::Denied { name } => {
                    let denied = ToolCallDenied { step, attempt, tool_call: at, name, result };
                    RunEvent::ToolCallDenied(denied)
                }
            });
        }
        Ok(())
    }

    /// Pushes the intents of an update. Returns false if the budget ended the run.
    pub(super) fn begin_intents(&mut self, executor: ExecutorId, update: TurnUpdate) -> bool {
        let TurnUpdate { step, attempt, intents: next, .. } = update;
        // Without intents no takeover is recorded: results alone may come from any executor.
        if next.is_empty() {
            return true;
        }
        let step_status = self.state.steps.get(&step).map(|known| &known.status);
        if !matches!(step_status, Some(StepStatus::Started { executor: by, .. }) if *by == executor)
        {
            // Another executor has taken the step over; the start records whose intents follow.
            let step = step.clone();
            self.events.push(RunEvent::StepStarted(StepStarted { step, attempt, executor }));
        }
        for next in next {
            match next {
                TurnIntent::Tool { tool_call: at, name } => {
                    let step = step.clone();
                    let intended = ToolCallIntended { step, attempt, tool_call: at, name };
                    self.events.push(RunEvent::ToolCallIntended(intended));
                }
                TurnIntent::QueuedTool { tool_call: at, name } => {
                    let step = step.clone();
                    let queued = ToolCallQueued { step, attempt, tool_call: at, name };
                    self.events.push(RunEvent::ToolCallQueued(queued));
                }
                TurnIntent::Begin(intent) => {
                    if let Some(limit) = self.find_exceeded_limit(&intent) {
                        self.fail_over_budget(step, limit);
                        return false;
                    }
                    self.push_intent(&step, attempt, intent);
                }
            }
        }
        true
    }

    /// Checks that an update follows from the state.
    fn check_update(&self, update: &TurnUpdate) -> Result<(), RunRejection> {
        let step = || update.step.clone();
        self.check_under_way(&update.step, update.attempt)?;
        let step_state =
            self.state.steps.get(&update.step).ok_or_else(|| RunRejection::NotUnderWay(step()))?;
        let turn =
            current_turn(step_state, update).ok_or_else(|| RunRejection::NotUnderWay(step()))?;
        let has_answer = update.answer.is_some();
        // A new answer begins a new turn, whose calls the state does not know yet.
        let turns = step_state.turns.as_deref().filter(|_| !has_answer);
        let mut ended = BTreeSet::new();
        for result in &update.results {
            let is_over = turns
                .and_then(|turns| turns.find_call(result.tool_call))
                .is_some_and(|c| c.is_ended());
            let is_new = ended.insert(result.tool_call);
            // Only an intended call can complete; a failed or denied one may never have been made.
            let was_intended =
                result.outcome != ToolOutcome::Completed || has_call(turns, result.tool_call);
            if result.tool_call.turn != turn || is_over || !is_new || !was_intended {
                return Err(RunRejection::ToolCallEnded(step()));
            }
        }
        self.check_intents(update, turns, turn, &ended)
    }

    /// Checks the intents of an update: tool calls of the current turn that are new, one child run
    /// for each open call, and the next model call only once all calls have ended.
    fn check_intents(
        &self,
        update: &TurnUpdate,
        turns: Option<&AgentTurns>,
        turn: u32,
        ended: &BTreeSet<ToolCallNumber>,
    ) -> Result<(), RunRejection> {
        let calls = turns.into_iter().flat_map(|turns| turns.last_turn_calls());
        let open = calls.filter(|(_, call)| !call.is_ended());
        let mut open: BTreeSet<ToolCallNumber> = open
            .map(|(call, _)| ToolCallNumber { turn, call: *call })
            // Calls that end in this very update no longer block the next model call.
            .filter(|at| !ended.contains(at))
            .collect();
        for next in &update.intents {
            let is_allowed = match next {
                TurnIntent::Tool { tool_call: at, .. }
                | TurnIntent::QueuedTool { tool_call: at, .. } => {
                    at.turn == turn
                        && !ended.contains(at)
                        && !has_call(turns, *at)
                        && open.insert(*at)
                }
                TurnIntent::Begin(StepIntent::CallModel { turn: asked, .. }) => {
                    *asked == turn + 1 && open.is_empty()
                }
                TurnIntent::Begin(StepIntent::CreateChild(child)) => {
                    child.tool_call.is_some_and(|at| open.contains(&at))
                        && !self.state.children.contains_key(&child.child)
                }
                TurnIntent::Begin(_) => false,
            };
            if !is_allowed {
                return Err(RunRejection::TurnOpen(update.step.clone()));
            }
        }
        Ok(())
    }
}

/// True if the turn has this tool call already.
fn has_call(turns: Option<&AgentTurns>, at: ToolCallNumber) -> bool {
    turns.and_then(|turns| turns.find_call(at)).is_some()
}

/// Returns the turn that an update belongs to: the turn that it answers, or the last answered one.
/// `None` if the update does not follow from the step's state.
fn current_turn(step_state: &RunStep, update: &TurnUpdate) -> Option<u32> {
    let last = step_state.turns.as_deref().map_or(0, AgentTurns::last_turn);
    match (&update.answer, &step_state.call) {
        (Some(_), Some(call)) if call.turn == last + 1 => Some(last + 1),
        (None, None) if step_state.turns.is_some() => Some(last),
        _ => None,
    }
}
