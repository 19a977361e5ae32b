//! What happened within a step that goes on: an agent's turns and the runs that it waits for.

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

/// What an agent did within its step, and what it is about to do.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Move {
    /// The step.
    pub step: StepId,
    /// The try.
    pub attempt: u32,
    /// The turn's answer, when it came and another turn follows.
    pub answered: Option<Answered>,
    /// Tool calls that are over.
    pub told: Vec<Told>,
    /// What begins now.
    pub next: Vec<Next>,
}

/// The answer of a turn.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Answered {
    /// The model call.
    pub call: CallReport,
    /// The answer, a [`crate::chat::ChatReply`].
    pub answer: PayloadSlot,
}

/// The outcome of a tool call. A call that fails or is denied need not have been intended.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Told {
    /// Which call.
    pub at: CallNo,
    /// What came of it.
    pub outcome: ToolOutcome,
    /// What the model is told, a JSON text.
    pub result: PayloadSlot,
}

/// What came of a tool call.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum ToolOutcome {
    /// It succeeded.
    Completed,
    /// It failed, or was a bad one.
    Failed(FailureReport),
    /// The agent may not call this tool.
    Denied {
        /// The tool's name.
        name: String,
    },
}

/// What begins within a step.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Next {
    /// A tool call.
    Tool {
        /// Which call.
        at: CallNo,
        /// The tool's name.
        name: String,
    },
    /// A tool call whose run waits for a place.
    QueuedTool {
        /// Which call.
        at: CallNo,
        /// The tool's name.
        name: String,
    },
    /// A model call, or a run within this one.
    Begin(Intent),
}

impl Move {
    /// Nothing yet.
    pub fn of(step: StepId, attempt: u32) -> Self {
        Self { step, attempt, answered: None, told: Vec::new(), next: Vec::new() }
    }
}

impl Building<'_> {
    /// What happened within a step.
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

    /// What begins within a step; false when the budget ended the run.
    pub(super) fn begin(&mut self, executor: ExecutorId, moved: Move) -> bool {
        let Move { step, attempt, next, .. } = moved;
        if next.is_empty() {
            return true;
        }
        let known = self.state.steps.get(&step).map(|known| &known.status);
        if !matches!(known, Some(StepStatus::Started { executor: by, .. }) if *by == executor) {
            // Another one goes on where the first one left it.
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

    /// Whether a move is one that the state allows.
    fn check(&self, moved: &Move) -> Result<(), Rejection> {
        let step = || moved.step.clone();
        self.under_way(&moved.step, moved.attempt)?;
        let known =
            self.state.steps.get(&moved.step).ok_or_else(|| Rejection::NotUnderWay(step()))?;
        let turn = current_turn(known, moved).ok_or_else(|| Rejection::NotUnderWay(step()))?;
        let fresh = moved.answered.is_some();
        let turns = known.turns.as_deref().filter(|_| !fresh);
        let mut ended = BTreeSet::new();
        for told in &moved.told {
            let is_over = turns.and_then(|turns| turns.call(told.at)).is_some_and(|c| c.is_ended());
            let is_new = ended.insert(told.at);
            // What completes was intended before.
            let is_made = told.outcome != ToolOutcome::Completed || knows(turns, told.at);
            if told.at.turn != turn || is_over || !is_new || !is_made {
                return Err(Rejection::ToolCallEnded(step()));
            }
        }
        self.check_begins(moved, turns, turn, &ended)
    }

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

fn knows(turns: Option<&Turns>, at: CallNo) -> bool {
    turns.and_then(|turns| turns.call(at)).is_some()
}

/// The turn that a move speaks of: the one that it answers, or the last that was answered.
fn current_turn(known: &Step, moved: &Move) -> Option<u32> {
    let last = known.turns.as_deref().map_or(0, Turns::last);
    match (&moved.answered, &known.call) {
        (Some(_), Some(call)) if call.turn == last + 1 => Some(last + 1),
        (None, None) if known.turns.is_some() => Some(last),
        _ => None,
    }
}
