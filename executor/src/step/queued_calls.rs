//! Tool calls whose child runs wait for capacity. They begin, in order, as soon as there is some.

use convergio_domain::chat::ChatReply;
use convergio_domain::graph::manifest::Agent;
use convergio_domain::platform_text;

use super::agent::TurnAgent;
use super::agent_tools::{AllowedCall, RejectedCall};
use super::planner::Planner;
use super::turns::ChildRunCall;
use crate::error::ActorError;
use crate::outputs::OutputError;
use crate::plan::{CommitPlan, ToolCallAt, new_failure};

impl Planner<'_> {
    /// Begins the child run of a queued call, now that it has capacity.
    pub(crate) async fn begin_queued_call(
        &mut self,
        plan: &mut CommitPlan,
        call_at: ToolCallAt,
    ) -> Result<(), ActorError> {
        let graph = self.graph;
        let Some(node) = graph.find_node(&call_at.step.node) else { return Ok(()) };
        let Some(turn_agent) = TurnAgent::from_work(&node.work, call_at.step.item) else {
            return Ok(());
        };
        let turns =
            self.run.state.steps.get(&call_at.step).and_then(|known| known.turns.as_deref());
        let Some(answer) = turns.and_then(|turns| turns.done.last()).map(|turn| turn.answer) else {
            return Ok(());
        };
        let reply = match self.load_reply(answer).await {
            Ok(reply) => reply,
            Err(error @ (OutputError::Log(_) | OutputError::Evaluation(_))) => {
                return Err(error.into());
            }
            Err(OutputError::Failure(error)) => {
                let text = error.full_text().to_owned();
                plan.add_tool_failure(&call_at, error, text);
                return self.continue_turn(plan, &call_at).await;
            }
        };
        match turn_agent {
            TurnAgent::Plan(node) => {
                self.run_queued_proposal(plan, &call_at, node, &reply.text).await?;
            }
            TurnAgent::Agent(agent) => self.run_queued_call(plan, &call_at, agent, &reply).await?,
        }
        self.continue_turn(plan, &call_at).await
    }

    /// Begins the child run of an agent's queued call. What it names may have changed since it was
    /// checked.
    async fn run_queued_call(
        &mut self,
        plan: &mut CommitPlan,
        call_at: &ToolCallAt,
        agent: &Agent,
        reply: &ChatReply,
    ) -> Result<(), ActorError> {
        let Some(call) = reply.tool_calls.get(call_at.call.call as usize) else { return Ok(()) };
        let checked = match self.resolve_tools(agent.toolbox.as_ref()).await {
            Ok(tools) => tools.check_call(call),
            Err(error @ (OutputError::Log(_) | OutputError::Evaluation(_))) => {
                return Err(error.into());
            }
            Err(OutputError::Failure(error)) => {
                let text = error.full_text().to_owned();
                Err(RejectedCall::Wrong { error: Box::new(error), text })
            }
        };
        let run_call = match checked {
            Ok(AllowedCall::Run { target, inputs, .. }) => {
                Ok(ChildRunCall { name: None, target: *target, inputs })
            }
            Ok(AllowedCall::Spawn { args, .. }) => {
                match self.resolve_spawn(agent.toolbox.as_ref(), &args).await {
                    Ok((target, inputs)) => Ok(ChildRunCall { name: None, target, inputs }),
                    Err(error @ (OutputError::Log(_) | OutputError::Evaluation(_))) => {
                        return Err(error.into());
                    }
                    Err(OutputError::Failure(error)) => Err(error),
                }
            }
            Err(RejectedCall::Wrong { error, text }) => Err(error.with_detail(text)),
            Ok(AllowedCall::Builtin { name, .. }) | Err(RejectedCall::Denied { name }) => {
                let message = platform_text!("the tool runs nothing any more");
                let detail = format!("`{name}` runs nothing any more");
                Err(new_failure("tool.unknown", message).with_detail(detail))
            }
        };
        match run_call {
            Ok(run_call) => {
                let call_count = reply.tool_calls.len();
                self.begin_child_call(plan, call_at, run_call, TurnAgent::Agent(agent), call_count)
                    .await?;
            }
            Err(error) => {
                let text = error.full_text().to_owned();
                plan.add_tool_failure(call_at, error, text);
            }
        }
        Ok(())
    }
}
