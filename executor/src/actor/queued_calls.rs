//! Tool calls whose child runs wait for capacity. They begin, in order, as soon as there is some.

use std::sync::Arc;

use convergio_domain::chat::ChatReply;
use convergio_domain::graph::manifest::Agent;
use convergio_domain::id::StepId;
use convergio_domain::platform_text;
use convergio_domain::run::CallNo;

use super::asking::Asker;
use super::effect::failure;
use super::places::PlaceKind;
use super::plan::Plan;
use super::toolbox::{Bad, Good};
use super::turns::{At, RunCall};
use super::{Actor, ActorError};
use crate::outputs::OutputError;

impl Actor {
    /// Tracks the queued calls of a step anew from the state.
    pub(super) fn note_queued_calls(&mut self, step: &StepId) {
        let known = self.run.state.steps.get(step).filter(|known| known.is_under_way());
        let turns = known.and_then(|known| known.turns.as_deref());
        let queued: Vec<CallNo> =
            turns.into_iter().flat_map(|turns| turns.queued_calls()).collect();
        self.queued_calls.retain(|(other, _)| other != step);
        self.queued_calls.extend(queued.into_iter().map(|call| (step.clone(), call)));
    }

    /// Begins the child runs of queued calls, as far as there is capacity.
    pub(super) async fn begin_queued_calls(&mut self, plan: &mut Plan) -> Result<(), ActorError> {
        for (step, call) in self.queued_calls.clone() {
            if plan.is_over() || plan.room.is_full() || !plan.places.has_place(PlaceKind::ChildRun)
            {
                break;
            }
            // A step that an earlier result of this commit concluded needs its calls no more.
            let is_concluded = plan.advance.outcomes.iter().any(|outcome| outcome.step == step);
            let attempt = self.run.state.steps.get(&step).map(|known| known.attempt);
            if let Some(attempt) = attempt.filter(|_| !is_concluded) {
                self.begin_queued_call(plan, At { step, attempt, call }).await?;
            }
        }
        Ok(())
    }

    async fn begin_queued_call(&mut self, plan: &mut Plan, at: At) -> Result<(), ActorError> {
        let graph = Arc::clone(&self.graph);
        let Some(node) = graph.find_node(&at.step.node) else { return Ok(()) };
        let Some(asker) = Asker::of(&node.work, at.step.item) else { return Ok(()) };
        let turns = self.run.state.steps.get(&at.step).and_then(|known| known.turns.as_deref());
        let Some(answer) = turns.and_then(|turns| turns.done.last()).map(|turn| turn.answer) else {
            return Ok(());
        };
        let reply = match self.reply(answer).await {
            Ok(reply) => reply,
            Err(error @ (OutputError::Log(_) | OutputError::Evaluation(_))) => {
                return Err(error.into());
            }
            Err(OutputError::Failure(error)) => {
                let text = error.full_text().to_owned();
                plan.tool_failed(&at, error, text);
                return self.after_calls(plan, &at).await;
            }
        };
        match asker {
            Asker::Plan(node) => self.run_queued_proposal(plan, &at, node, &reply.text).await?,
            Asker::Agent(agent) => self.run_queued_call(plan, &at, agent, &reply).await?,
        }
        self.after_calls(plan, &at).await
    }

    /// Begins the child run of an agent's queued call. What it names may have changed since it was
    /// checked.
    async fn run_queued_call(
        &mut self,
        plan: &mut Plan,
        at: &At,
        agent: &Agent,
        reply: &ChatReply,
    ) -> Result<(), ActorError> {
        let Some(call) = reply.tool_calls.get(at.call.call as usize) else { return Ok(()) };
        let checked = match self.tools(agent.toolbox.as_ref()).await {
            Ok(tools) => tools.check(call),
            Err(error @ (OutputError::Log(_) | OutputError::Evaluation(_))) => {
                return Err(error.into());
            }
            Err(OutputError::Failure(error)) => {
                let text = error.full_text().to_owned();
                Err(Bad::Wrong { error: Box::new(error), text })
            }
        };
        let run_call = match checked {
            Ok(Good::Run { target, inputs, .. }) => {
                Ok(RunCall { name: None, target: *target, inputs })
            }
            Ok(Good::Spawn { args, .. }) => match self.spawned(agent.toolbox.as_ref(), &args).await
            {
                Ok((target, inputs)) => Ok(RunCall { name: None, target, inputs }),
                Err(error @ (OutputError::Log(_) | OutputError::Evaluation(_))) => {
                    return Err(error.into());
                }
                Err(OutputError::Failure(error)) => Err(error),
            },
            Err(Bad::Wrong { error, text }) => Err(error.with_detail(text)),
            Ok(Good::Builtin { name, .. }) | Err(Bad::Denied { name }) => {
                let message = platform_text!("the tool runs nothing any more");
                let detail = format!("`{name}` runs nothing any more");
                Err(failure("tool.unknown", message).with_detail(detail))
            }
        };
        match run_call {
            Ok(run_call) => {
                let asked = reply.tool_calls.len();
                self.spawn(plan, at, run_call, Asker::Agent(agent), asked).await?;
            }
            Err(error) => {
                let text = error.full_text().to_owned();
                plan.tool_failed(at, error, text);
            }
        }
        Ok(())
    }
}
