//! Checks of tool calls, recomputed: the agent's permissions and argument schemas over the calls
//! that the model requested.

use std::collections::BTreeMap;

use convergio_domain::chat::ChatReply;
use convergio_domain::event::{run, turn};
use convergio_domain::graph::manifest::Work;
use convergio_domain::id::StepId;
use convergio_domain::run::CallNo;
use convergio_domain::stream::Seq;

use super::{Divergence, Replay};
use crate::actor::{Asker, Fate, Judged, judged};

/// Verdicts on the calls of each step's last turn, with the number of that turn.
pub(super) type Verdicts = BTreeMap<StepId, (u32, Vec<Judged>)>;

impl Replay {
    /// Judges the tool calls that a model's answer requests; they are compared as their events
    /// follow.
    pub(super) fn asked(&mut self, call: &run::ModelCallCompleted) {
        let Some(answer) = call.answer else { return };
        let node = self.graph.find_node(&call.step.node);
        let asker = node.and_then(|node| Asker::of(&node.work, call.step.item));
        // The answer of a plan node is a proposed graph; it calls no tools.
        let is_plan = node.is_some_and(|node| matches!(node.work, Work::Plan(_)));
        let Some(asker) = asker.filter(|_| !is_plan) else { return };
        let bytes = self.payloads.get(&answer).and_then(Option::as_ref);
        let reply = bytes.and_then(|bytes| serde_json::from_slice::<ChatReply>(bytes).ok());
        let Some(reply) = reply else {
            // A verdict on an earlier turn must not be compared with this turn's calls.
            self.verdicts.remove(&call.step);
            self.unknown += 1;
            return;
        };
        let judged = reply.tool_calls.iter().map(|call| judged(asker.agent(), call)).collect();
        self.verdicts.insert(call.step.clone(), (call.turn, judged));
    }

    /// Compares the verdict on a call that was made or queued.
    pub(super) fn call_made(
        &mut self,
        seq: Seq,
        call: (&StepId, CallNo),
        name: &str,
    ) -> Result<(), Box<Divergence>> {
        self.judge(seq, call, Fate::Made, Some(name))
    }

    /// Compares the verdict on a call that was denied.
    pub(super) fn call_denied(
        &mut self,
        seq: Seq,
        denied: &turn::ToolCallDenied,
    ) -> Result<(), Box<Divergence>> {
        self.judge(seq, (&denied.step, denied.at), Fate::Denied, Some(&denied.name))
    }

    /// Compares the verdict on a failed call, unless it failed after it was made.
    pub(super) fn call_failed(
        &mut self,
        seq: Seq,
        failed: &turn::ToolCallFailed,
    ) -> Result<(), Box<Divergence>> {
        let turns = self.state.steps.get(&failed.step).and_then(|step| step.turns.as_deref());
        match turns.and_then(|turns| turns.call(failed.at)) {
            Some(_) => Ok(()),
            None => self.judge(seq, (&failed.step, failed.at), Fate::Wrong, None),
        }
    }

    /// Compares the recorded fate of a call with those that its verdict allows.
    fn judge(
        &mut self,
        seq: Seq,
        (step, at): (&StepId, CallNo),
        fate: Fate,
        name: Option<&str>,
    ) -> Result<(), Box<Divergence>> {
        let turn = self.verdicts.get(step).filter(|(turn, _)| *turn == at.turn);
        let Some((_, judged)) = turn else { return Ok(()) };
        self.decisions += 1;
        let computed = judged.get(at.call as usize);
        if computed.is_some_and(|computed| computed.allows(fate, name)) {
            return Ok(());
        }
        let recorded = match name {
            Some(name) => format!("{fate}: {name}"),
            None => fate.to_string(),
        };
        let computed = computed.map_or_else(|| "no such call".to_owned(), ToString::to_string);
        let what = "the verdict on a tool call";
        Err(Box::new(Divergence { seq, step: Some(step.clone()), what, recorded, computed }))
    }
}
