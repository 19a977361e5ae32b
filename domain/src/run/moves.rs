//! Progress within a step that continues: an agent's turns, its tool calls and its child runs.

use std::collections::BTreeSet;

use super::advance::Building;
use super::command::{CallReport, Intent};
use super::rejection::Rejection;
use super::state::{Step, StepStatus};
use super::turns::{CallNo, Turns};
use crate::event::{Event, run, turn};
use crate::failure::FailureReport;
use crate::id::{ExecutorId, StepId};
use crate::payload::PayloadSlot;

/// Progress of an agent within its step since the last commit, and its next intents.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Move {
    /// Step of the agent.
    pub step: StepId,
    /// Attempt of that step that is under way.
    pub attempt: u32,
    /// Answer of the turn in flight, if it has arrived and another turn follows.
    pub answered: Option<Answered>,
    /// Results of tool calls of the current turn.
    pub told: Vec<Told>,
    /// Intents that are recorded now.
    pub next: Vec<Next>,
}

/// Answer of a turn's model call.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Answered {
    /// Report of the model call.
    pub call: CallReport,
    /// Whole reply, a [`crate::chat::ChatReply`].
    pub answer: PayloadSlot,
}

/// Result of a tool call. A call that fails or is denied may lack an intent: nothing was called.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Told {
    /// Turn and number of the tool call.
    pub at: CallNo,
    /// Success or failure of the call.
    pub outcome: ToolOutcome,
    /// Result shown to the model, as JSON.
    pub result: PayloadSlot,
}

/// Success or failure of a tool call.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum ToolOutcome {
    /// The tool returned a result.
    Completed,
    /// The tool failed, or the call was invalid and nothing was called.
    Failed(FailureReport),
    /// The agent lacks permission for this tool.
    Denied {
        /// Name of the tool that the model asked for.
        name: String,
    },
}

/// Intent of an agent within its step.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Next {
    /// A tool call that starts now.
    Tool {
        /// Turn and number of the tool call.
        at: CallNo,
        /// Name of the tool, as the agent sees it.
        name: String,
    },
    /// A tool call whose child run waits, since the run has its maximum of open child runs.
    QueuedTool {
        /// Turn and number of the tool call.
        at: CallNo,
        /// Name of the tool, as the agent sees it.
        name: String,
    },
    /// A model call or a child run.
    Begin(Intent),
}

impl Move {
    /// Creates an update without results or intents.
    pub fn of(step: StepId, attempt: u32) -> Self {
        Self { step, attempt, answered: None, told: Vec::new(), next: Vec::new() }
    }
}

impl Building<'_> {
    /// Pushes the answer and tool results of an update, after checking the whole update.
    pub(super) fn told(&mut self, moved: &Move) -> Result<(), Rejection> {
        self.check(moved)?;
        let (step, attempt) = (&moved.step, moved.attempt);
        if let Some(Answered { call, answer }) = &moved.answered {
            let answer = Some(answer.at(self.next));
            self.completed_call(step, attempt, call, answer);
            self.record_usage(step, attempt, call, false);
        }
        for Told { at, outcome, result } in &moved.told {
            let (step, at, result) = (step.clone(), *at, result.at(self.next));
            self.events.push(match outcome.clone() {
                ToolOutcome::Completed => {
                    Event::ToolCallCompleted(turn::ToolCallCompleted { step, attempt, at, result })
                }
                ToolOutcome::Failed(error) => {
                    let error = error.at(self.next);
                    let failed = turn::ToolCallFailed { step, attempt, at, error, result };
                    Event::ToolCallFailed(failed)
                }
                ToolOutcome::Denied { name } => {
                    let denied = turn::ToolCallDenied { step, attempt, at, name, result };
                    Event::ToolCallDenied(denied)
                }
            });
        }
        Ok(())
    }

    /// Pushes the intents of an update. Returns false if the budget ended the run.
    pub(super) fn begin(&mut self, executor: ExecutorId, moved: Move) -> bool {
        let Move { step, attempt, next, .. } = moved;
        // Without intents no takeover is recorded: results alone may come from any executor.
        if next.is_empty() {
            return true;
        }
        let known = self.state.steps.get(&step).map(|known| &known.status);
        if !matches!(known, Some(StepStatus::Started { executor: by, .. }) if *by == executor) {
            // Another executor has taken the step over; the start records whose intents follow.
            let step = step.clone();
            self.events.push(Event::StepStarted(run::StepStarted { step, attempt, executor }));
        }
        for next in next {
            match next {
                Next::Tool { at, name } => {
                    let step = step.clone();
                    let intended = turn::ToolCallIntended { step, attempt, at, name };
                    self.events.push(Event::ToolCallIntended(intended));
                }
                Next::QueuedTool { at, name } => {
                    let step = step.clone();
                    let queued = turn::ToolCallQueued { step, attempt, at, name };
                    self.events.push(Event::ToolCallQueued(queued));
                }
                Next::Begin(intent) => {
                    if let Some(limit) = self.over_budget(&intent) {
                        self.exhausted(step, limit);
                        return false;
                    }
                    self.intend(&step, attempt, intent);
                }
            }
        }
        true
    }

    /// Checks that an update follows from the state.
    fn check(&self, moved: &Move) -> Result<(), Rejection> {
        let step = || moved.step.clone();
        self.under_way(&moved.step, moved.attempt)?;
        let known =
            self.state.steps.get(&moved.step).ok_or_else(|| Rejection::NotUnderWay(step()))?;
        let turn = current_turn(known, moved).ok_or_else(|| Rejection::NotUnderWay(step()))?;
        let fresh = moved.answered.is_some();
        // A new answer begins a new turn, whose calls the state does not know yet.
        let turns = known.turns.as_deref().filter(|_| !fresh);
        let mut ended = BTreeSet::new();
        for told in &moved.told {
            let is_over = turns.and_then(|turns| turns.call(told.at)).is_some_and(|c| c.is_ended());
            let is_new = ended.insert(told.at);
            // Only an intended call can complete; a failed or denied one may never have been made.
            let is_made = told.outcome != ToolOutcome::Completed || knows(turns, told.at);
            if told.at.turn != turn || is_over || !is_new || !is_made {
                return Err(Rejection::ToolCallEnded(step()));
            }
        }
        self.check_begins(moved, turns, turn, &ended)
    }

    /// Checks the intents of an update: tool calls of the current turn that are new, one child run
    /// for each open call, and the next model call only once all calls have ended.
    fn check_begins(
        &self,
        moved: &Move,
        turns: Option<&Turns>,
        turn: u32,
        ended: &BTreeSet<CallNo>,
    ) -> Result<(), Rejection> {
        let calls = turns.into_iter().flat_map(|turns| turns.calls());
        let open = calls.filter(|(_, call)| !call.is_ended());
        let mut open: BTreeSet<CallNo> = open
            .map(|(call, _)| CallNo { turn, call: *call })
            // Calls that end in this very update no longer block the next model call.
            .filter(|at| !ended.contains(at))
            .collect();
        for next in &moved.next {
            let is_allowed = match next {
                Next::Tool { at, .. } | Next::QueuedTool { at, .. } => {
                    at.turn == turn && !ended.contains(at) && !knows(turns, *at) && open.insert(*at)
                }
                Next::Begin(Intent::CallModel { turn: asked, .. }) => {
                    *asked == turn + 1 && open.is_empty()
                }
                Next::Begin(Intent::Child(child)) => {
                    child.at.is_some_and(|at| open.contains(&at))
                        && !self.state.children.contains_key(&child.child)
                }
                Next::Begin(_) => false,
            };
            if !is_allowed {
                return Err(Rejection::TurnOpen(moved.step.clone()));
            }
        }
        Ok(())
    }
}

/// True if the turn has this tool call already.
fn knows(turns: Option<&Turns>, at: CallNo) -> bool {
    turns.and_then(|turns| turns.call(at)).is_some()
}

/// Returns the turn that an update belongs to: the turn that it answers, or the last answered one.
/// `None` if the update does not follow from the step's state.
fn current_turn(known: &Step, moved: &Move) -> Option<u32> {
    let last = known.turns.as_deref().map_or(0, Turns::last);
    match (&moved.answered, &known.call) {
        (Some(_), Some(call)) if call.turn == last + 1 => Some(last + 1),
        (None, None) if known.turns.is_some() => Some(last),
        _ => None,
    }
}
