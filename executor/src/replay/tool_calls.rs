//! Checks of tool calls, recomputed: the agent's permissions and argument schemas over the calls
//! that the model requested.

use convergio_domain::chat::ChatReply;
use convergio_domain::graph::manifest::NodeWork;
use convergio_domain::id::StepId;
use convergio_domain::run::ToolCallNumber;
use convergio_domain::run::event::{ModelCallCompleted, ToolCallDenied, ToolCallFailed};
use convergio_domain::stream::Seq;

use super::progress::{Divergence, Replay};
use crate::step::{CallFate, TurnAgent, judge_tool_call};

impl Replay {
    /// Judges the tool calls that a model's answer requests; they are compared as their events
    /// follow.
    pub(super) fn judge_requested_calls(&mut self, call: &ModelCallCompleted) {
        let Some(answer) = call.answer else { return };
        let node = self.graph.find_node(&call.step.node);
        let turn_agent = node.and_then(|node| TurnAgent::from_work(&node.work, call.step.item));
        // The answer of a plan node is a proposed graph; it calls no tools.
        let is_plan = node.is_some_and(|node| matches!(node.work, NodeWork::Plan(_)));
        let Some(turn_agent) = turn_agent.filter(|_| !is_plan) else { return };
        let bytes = self.payloads.get(&answer).and_then(Option::as_ref);
        let reply = bytes.and_then(|bytes| serde_json::from_slice::<ChatReply>(bytes).ok());
        let Some(reply) = reply else {
            // A verdict on an earlier turn must not be compared with this turn's calls.
            self.turn_verdicts.remove(&call.step);
            self.skipped_decisions += 1;
            return;
        };
        let verdicts = reply
            .tool_calls
            .iter()
            .map(|call| judge_tool_call(turn_agent.as_agent(), call))
            .collect();
        self.turn_verdicts.insert(call.step.clone(), (call.turn, verdicts));
    }

    /// Compares the verdict on a call that was made or queued.
    pub(super) fn check_call_made(
        &mut self,
        seq: Seq,
        call: (&StepId, ToolCallNumber),
        name: &str,
    ) -> Result<(), Box<Divergence>> {
        self.compare_verdict(seq, call, CallFate::Made, Some(name))
    }

    /// Compares the verdict on a call that was denied.
    pub(super) fn check_call_denied(
        &mut self,
        seq: Seq,
        denied: &ToolCallDenied,
    ) -> Result<(), Box<Divergence>> {
        self.compare_verdict(
            seq,
            (&denied.step, denied.tool_call),
            CallFate::Denied,
            Some(&denied.name),
        )
    }

    /// Compares the verdict on a failed call, unless it failed after it was made.
    pub(super) fn check_call_failed(
        &mut self,
        seq: Seq,
        failed: &ToolCallFailed,
    ) -> Result<(), Box<Divergence>> {
        let turns = self.state.steps.get(&failed.step).and_then(|step| step.turns.as_deref());
        match turns.and_then(|turns| turns.find_call(failed.tool_call)) {
            Some(_) => Ok(()),
            None => {
                self.compare_verdict(seq, (&failed.step, failed.tool_call), CallFate::Wrong, None)
            }
        }
    }

    /// Compares the recorded fate of a call with those that its verdict allows.
    fn compare_verdict(
        &mut self,
        seq: Seq,
        (step, call_no): (&StepId, ToolCallNumber),
        fate: CallFate,
        name: Option<&str>,
    ) -> Result<(), Box<Divergence>> {
        let turn = self.turn_verdicts.get(step).filter(|(turn, _)| *turn == call_no.turn);
        let Some((_, verdicts)) = turn else { return Ok(()) };
        self.decisions += 1;
        let computed = verdicts.get(call_no.call as usize);
        if computed.is_some_and(|computed| computed.allows_fate(fate, name)) {
            return Ok(());
        }
        let recorded = match name {
            Some(name) => format!("{fate}: {name}"),
            None => fate.to_string(),
        };
        let computed = computed.map_or_else(|| "no such call".to_owned(), ToString::to_string);
        let aspect = "the verdict on a tool call";
        Err(Box::new(Divergence { seq, step: Some(step.clone()), aspect, recorded, computed }))
    }
}
