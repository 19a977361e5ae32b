//! Agents that go in turns: an answer that requests tools becomes tool calls, and their results
//! become the next model call. Each is in the log before the next begins.

use std::sync::Arc;
use std::time::Duration;

use convergio_domain::chat::{ChatReply, ToolCall};
use convergio_domain::failure::{FailureDetail, UnsealedFailure};
use convergio_domain::graph::manifest::{GraphNode, RECALL_TOOL, SPAWN_TOOL};
use convergio_domain::id::StepId;
use convergio_domain::json::read_json;
use convergio_domain::payload::PayloadPurpose;
use convergio_domain::run::{
    AgentTurns, Budget, StepIntent, ToolCallNumber, ToolCallState, ToolOutcome, TurnAnswer,
    TurnIntent,
};
use convergio_domain::time::Span;
use serde_json::Value;

use super::agent::TurnAgent;
use super::agent_tools::{AgentTools, AllowedCall, ChildTarget, RejectedCall};
use super::planner::Planner;
use super::prepare::DEFAULT_TIMEOUT;
use super::sub_run::{ChildGraph, ChildSpec};
use crate::error::ActorError;
use crate::memory::is_memory_tool;
use crate::outputs::{OutputError, UncommittedOutcomes};
use crate::plan::{
    CapacityKind, CommitPlan, EffectLaunch, EffectOutcome, EffectResult, EffectWork, PreparedStep,
    ToolCallAt, completed_outcome, invalid_json_answer,
};

/// A tool call that becomes a child run.
pub(super) struct ChildRunCall {
    /// Name of the tool; `None` if the log has the call's intent already.
    pub(super) name: Option<String>,
    pub(super) target: ChildTarget,
    pub(super) inputs: Value,
}

impl Planner<'_> {
    /// Applies a result, which may belong to a turn of an agent.
    pub(crate) async fn apply_result(
        &mut self,
        plan: &mut CommitPlan,
        result: EffectResult,
    ) -> Result<(), ActorError> {
        plan.result_count += 1;
        let graph = self.graph;
        let Some(node) = graph.find_node(&result.step.node) else { return Ok(()) };
        let turn_agent = TurnAgent::from_work(&node.work, result.step.item);
        match (turn_agent, result.tool_call, &result.outcome) {
            (Some(asker), None, EffectOutcome::TurnAnswered(reply)) => {
                let reply = reply.clone();
                self.handle_answer(plan, &result, reply, asker).await
            }
            (Some(_), None, EffectOutcome::ToolsAnswered) => {
                let call = ToolCallNumber { turn: 0, call: 0 };
                let call_at = ToolCallAt { step: result.step, attempt: result.attempt, call };
                self.continue_turn(plan, &call_at).await
            }
            (Some(asker), Some(call), _) => {
                let call_at =
                    ToolCallAt { step: result.step.clone(), attempt: result.attempt, call };
                self.handle_tool_result(plan, call_at, result.outcome, asker).await
            }
            (_, _, EffectOutcome::ChildYielded(Some(reference))) => {
                // The value is loaded here because the plan's other methods are not async.
                let value = self.caches.outputs.load_own_value(*reference).await?;
                let outcome = EffectOutcome::ChildOutputLoaded(Some((*reference, value)));
                plan.add_result(self.graph, &self.run.state, &EffectResult { outcome, ..result });
                Ok(())
            }
            _ => {
                plan.add_result(self.graph, &self.run.state, &result);
                Ok(())
            }
        }
    }

    /// Handles a model's answer of a turn: the final answer concludes the step, requested tools are
    /// called.
    async fn handle_answer(
        &mut self,
        plan: &mut CommitPlan,
        result: &EffectResult,
        reply: Box<ChatReply>,
        turn_agent: TurnAgent<'_>,
    ) -> Result<(), ActorError> {
        let agent = match turn_agent {
            TurnAgent::Plan(node) => return self.handle_proposal(plan, result, reply, node).await,
            TurnAgent::Agent(agent) => agent,
        };
        if reply.tool_calls.is_empty() {
            let outcome = final_outcome(reply.text, agent.schema.is_some());
            plan.add_result(
                self.graph,
                &self.run.state,
                &EffectResult { outcome, ..result.clone() },
            );
            return Ok(());
        }
        let call_count = reply.tool_calls.len();
        // Counted before the answer is recorded: it would count its own calls otherwise.
        let earlier_calls = self.step_turns(&result.step).map_or(0, AgentTurns::call_count);
        let mut call_at = self.record_answer(plan, result, reply);
        let limits = turn_agent.turn_limits();
        let all_calls = earlier_calls + call_count;
        if let Some(error) = limits.and_then(|it| it.check_call_count(all_calls, call_count)) {
            self.fail_step(plan, &call_at, error);
            return Ok(());
        }
        let tools = match self.resolve_tools(agent.toolbox.as_ref()).await {
            Ok(tools) => tools,
            Err(error @ (OutputError::Log(_) | OutputError::Evaluation(_))) => {
                return Err(error.into());
            }
            Err(OutputError::Failure(error)) => {
                self.fail_step(plan, &call_at, error);
                return Ok(());
            }
        };
        let Some(reply) = plan.pending_reply(&call_at.step).cloned() else { return Ok(()) };
        for (number, call) in (0_u32..).zip(&reply.tool_calls) {
            call_at.call.call = number;
            self.handle_tool_call(plan, &call_at, call, &tools, turn_agent, call_count).await?;
        }
        self.continue_turn(plan, &call_at).await
    }

    /// Records an answer after which the step goes on; returns the place of its first call.
    pub(super) fn record_answer(
        &mut self,
        plan: &mut CommitPlan,
        result: &EffectResult,
        reply: Box<ChatReply>,
    ) -> ToolCallAt {
        let turn = self.step_turns(&result.step).map_or(0, AgentTurns::last_turn) + 1;
        let value = serde_json::to_value(&reply).unwrap_or_default();
        let answer = plan.store_value(&Arc::new(value), PayloadPurpose::Output);
        let pending_turn = plan.pending_turn_mut(&result.step, result.attempt);
        pending_turn.update.answer =
            result.call_report.clone().map(|call| TurnAnswer { call, answer });
        pending_turn.reply = Some(Arc::from(reply));
        let call = ToolCallNumber { turn, call: 0 };
        ToolCallAt { step: result.step.clone(), attempt: result.attempt, call }
    }

    fn step_turns(&self, step: &StepId) -> Option<&AgentTurns> {
        self.run.state.steps.get(step)?.turns.as_deref()
    }

    /// Handles one requested call: denies it, fails it, launches it or begins its child run.
    async fn handle_tool_call(
        &mut self,
        plan: &mut CommitPlan,
        call_at: &ToolCallAt,
        call: &ToolCall,
        tools: &AgentTools,
        turn_agent: TurnAgent<'_>,
        call_count: usize,
    ) -> Result<(), ActorError> {
        let allowed_call = match tools.check_call(call) {
            Ok(good) => good,
            Err(RejectedCall::Denied { name }) => {
                let text = "you have no permission to call this tool".into();
                plan.add_tool_result(call_at, ToolOutcome::Denied { name }, text);
                return Ok(());
            }
            Err(RejectedCall::Wrong { error, text }) => {
                plan.add_tool_failure(call_at, *error, text);
                return Ok(());
            }
        };
        let (name, target, inputs) = match allowed_call {
            // The subject is rendered at call time, so the check cannot be part of `AgentTools`.
            AllowedCall::Builtin { name, args } => {
                if self.is_foreign_memory(&call_at.step, turn_agent, &name, &args).await? {
                    let text = "you remember nothing of others: use your own subject".into();
                    plan.add_tool_result(call_at, ToolOutcome::Denied { name }, text);
                    return Ok(());
                }
                let launch = self.tool_launch(call_at, name.clone(), args);
                plan.add_intent(
                    call_at,
                    TurnIntent::Tool { tool_call: call_at.call, name },
                    Some(launch),
                );
                return Ok(());
            }
            AllowedCall::Run { name, target, inputs } => (name, *target, inputs),
            AllowedCall::Spawn { args, .. } => {
                match self.resolve_spawn(turn_agent.as_agent().toolbox.as_ref(), &args).await {
                    Ok((target, inputs)) => (SPAWN_TOOL.to_owned(), target, inputs),
                    Err(error @ (OutputError::Log(_) | OutputError::Evaluation(_))) => {
                        return Err(error.into());
                    }
                    Err(OutputError::Failure(error)) => {
                        let text = error.full_text().to_owned();
                        plan.add_tool_failure(call_at, error, text);
                        return Ok(());
                    }
                }
            }
        };
        // The budget is checked later; only the number of open child runs limits here.
        if plan.capacity.has_capacity(CapacityKind::ChildRun) {
            let call = ChildRunCall { name: Some(name), target, inputs };
            self.begin_child_call(plan, call_at, call, turn_agent, call_count).await?;
        } else {
            plan.add_queued_tool(call_at, name);
        }
        Ok(())
    }

    /// Returns whether a memory call names another subject than the one that the manifest grants.
    async fn is_foreign_memory(
        &mut self,
        step: &StepId,
        turn_agent: TurnAgent<'_>,
        name: &str,
        args: &Value,
    ) -> Result<bool, ActorError> {
        let Some(memory) = turn_agent.as_agent().memory.as_ref().filter(|_| is_memory_tool(name))
        else {
            return Ok(false);
        };
        // Everything that the subject's template names had ended before the agent began.
        let scope = self.template_scope(step, &UncommittedOutcomes::default()).await?;
        let expected = self.recall_arguments(memory, &turn_agent.as_agent().prompt, &scope).await?;
        Ok(args["subject"] != expected["subject"])
    }

    /// Begins the child run of a tool call. A failure to prepare it becomes the call's result,
    /// which the model reads.
    pub(super) async fn begin_child_call(
        &mut self,
        plan: &mut CommitPlan,
        call_at: &ToolCallAt,
        call: ChildRunCall,
        turn_agent: TurnAgent<'_>,
        call_count: usize,
    ) -> Result<(), ActorError> {
        let ChildRunCall { name, target, inputs } = call;
        let callee = ChildGraph {
            graph: target.graph,
            version: target.version.clone(),
            manifest: &target.compiled.graph,
            agent: target.agent,
            is_new: false,
        };
        let time_left = Some(self.time_left(&call_at.step));
        let child_spec = ChildSpec {
            step: call_at.step.clone(),
            attempt: call_at.attempt,
            tool_call: Some(call_at.call),
            inputs,
            budget: Budget { wall: time_left, deadline: time_left, ..Budget::UNBOUND },
            // Every call of the turn may be a run; one share stays for the agent itself.
            budget_shares: call_count as u64 + 1,
            privacy: turn_agent.as_agent().privacy,
        };
        match self.prepare_child(plan, &callee, child_spec).await {
            Ok((intent, launch)) => {
                if let Some(name) = name {
                    plan.add_tool_intent(call_at, name);
                }
                plan.add_intent(
                    call_at,
                    TurnIntent::Begin(StepIntent::CreateChild(intent)),
                    Some(launch),
                );
            }
            Err(OutputError::Failure(error)) => {
                let text = error.full_text().to_owned();
                plan.add_tool_failure(call_at, error, text);
            }
            Err(error) => return Err(error.into()),
        }
        Ok(())
    }

    fn tool_launch(&self, call_at: &ToolCallAt, name: String, args: Value) -> EffectLaunch {
        let timeout = self.step_timeout(&call_at.step);
        let work = EffectWork::Tool { name, args };
        EffectLaunch {
            step: call_at.step.clone(),
            attempt: call_at.attempt,
            tool_call: Some(call_at.call),
            timeout,
            work,
        }
    }

    /// Returns the time that remains to a step that goes in turns, in milliseconds.
    pub(super) fn time_left(&self, step: &StepId) -> Span {
        let now = self.shared.current_time();
        let passed_ms = self.step_turns(step).map_or(0, |turns| now.span_since(turns.began).0);
        let timeout_ms = u64::try_from(self.step_timeout(step).as_millis()).unwrap_or(u64::MAX);
        Span(timeout_ms.saturating_sub(passed_ms))
    }

    fn step_timeout(&self, step: &StepId) -> Duration {
        let timeout = self.graph.find_node(&step.node).and_then(|node: &GraphNode| node.timeout);
        Duration::from_millis(timeout.unwrap_or(DEFAULT_TIMEOUT).0)
    }

    /// Handles the end of a tool call.
    async fn handle_tool_result(
        &mut self,
        plan: &mut CommitPlan,
        call_at: ToolCallAt,
        result: EffectOutcome,
        turn_agent: TurnAgent<'_>,
    ) -> Result<(), ActorError> {
        let (outcome, value) = match result {
            EffectOutcome::Completed(value) => {
                (ToolOutcome::Completed, value.as_deref().cloned().unwrap_or(Value::Null))
            }
            EffectOutcome::ChildYielded(reference) => {
                let loaded = match reference {
                    Some(reference) => {
                        Some((reference, self.caches.outputs.load_own_value(reference).await?))
                    }
                    None => None,
                };
                // The output of a proposed graph is the output of its plan node; no further turn
                // follows.
                if matches!(turn_agent, TurnAgent::Plan(_)) {
                    let result = EffectResult {
                        step: call_at.step,
                        attempt: call_at.attempt,
                        tool_call: None,
                        call_report: None,
                        outcome: EffectOutcome::ChildOutputLoaded(loaded),
                    };
                    plan.add_result(self.graph, &self.run.state, &result);
                    return Ok(());
                }
                let value = loaded.map_or(Value::Null, |(_, value)| Value::clone(&value));
                (ToolOutcome::Completed, value)
            }
            EffectOutcome::Failed(error) => {
                let text = format!("{}: {}", error.code, self.failure_text(&error).await?);
                plan.add_tool_failure(&call_at, error, text);
                return self.continue_turn(plan, &call_at).await;
            }
            // The call was interrupted; whoever resumes the run makes it again.
            _ => return Ok(()),
        };
        plan.add_tool_result(&call_at, outcome, value);
        self.continue_turn(plan, &call_at).await
    }

    /// Loads the full text of a failure; if that was erased, its message must do.
    async fn failure_text(&mut self, error: &UnsealedFailure) -> Result<String, ActorError> {
        if let Some(FailureDetail::Known(reference)) = error.detail {
            match self.caches.outputs.load_own_value(reference).await {
                Ok(text) => return Ok(text.as_str().unwrap_or(&error.message).to_owned()),
                Err(OutputError::Failure(_erased)) => {}
                Err(error) => return Err(error.into()),
            }
        }
        Ok(error.full_text().to_owned())
    }

    /// Calls the model again once every tool call of the turn has ended, unless a limit is reached.
    pub(super) async fn continue_turn(
        &mut self,
        plan: &mut CommitPlan,
        call_at: &ToolCallAt,
    ) -> Result<(), ActorError> {
        let graph = self.graph;
        let Some(node) = graph.find_node(&call_at.step.node) else { return Ok(()) };
        let Some(turn_agent) = TurnAgent::from_work(&node.work, call_at.step.item) else {
            return Ok(());
        };
        let turns = self.step_turns(&call_at.step).cloned();
        if !plan.is_turn_over(&call_at.step, turns.as_ref()) {
            return Ok(());
        }
        // Without capacity the step is collected again as `ToolsAnswered`, see `inbox`.
        if !plan.can_start_steps || !plan.capacity.has_capacity(CapacityKind::ModelCall) {
            plan.postponed_turns.push(call_at.step.clone());
            return Ok(());
        }
        let mut turns = turns.unwrap_or_else(|| new_turns(self.shared.current_time()));
        let pending_turn = plan.pending_turns.remove(&call_at.step);
        let pending_answer = pending_turn.as_ref().and_then(|moving| moving.update.answer.as_ref());
        // The usage of an answer in this commit is not folded yet, but counts against the limits.
        if let Some(usage) = pending_answer.and_then(|answered| answered.call.usage.as_ref()) {
            turns.tokens = turns.tokens.saturating_add(usage.total_tokens());
        }
        let answered_turns = turns.last_turn() + u32::from(pending_answer.is_some());
        let timeout = self.step_timeout(&call_at.step);
        let now = self.shared.current_time();
        let time_left =
            timeout.saturating_sub(Duration::from_millis(now.span_since(turns.began).0));
        let limits = turn_agent.turn_limits();
        let next_call = match limits
            .and_then(|it| it.find_exhausted_limit(&turns, answered_turns, timeout, now))
        {
            Some(error) => Err(OutputError::Failure(error)),
            None => {
                // Both are moved out for the call, which needs them beside the whole plan.
                let uncommitted = std::mem::take(&mut plan.uncommitted);
                let step_attempt = (&call_at.step, call_at.attempt);
                let next = self
                    .prepare_turn(
                        plan,
                        step_attempt,
                        turn_agent,
                        time_left,
                        &uncommitted,
                        pending_turn.as_ref(),
                    )
                    .await;
                plan.uncommitted = uncommitted;
                next
            }
        };
        if let Some(moving) = pending_turn {
            plan.pending_turns.insert(call_at.step.clone(), moving);
        }
        match next_call {
            Ok((intent, launch)) => {
                plan.add_intent(call_at, TurnIntent::Begin(intent), Some(launch));
            }
            Err(error @ (OutputError::Log(_) | OutputError::Evaluation(_))) => {
                return Err(error.into());
            }
            Err(OutputError::Failure(error)) => self.fail_step(plan, call_at, error),
        }
        Ok(())
    }

    /// Fails the step; what its turns did stays in the log.
    fn fail_step(&self, plan: &mut CommitPlan, call_at: &ToolCallAt, error: UnsealedFailure) {
        let (step, attempt) = (call_at.step.clone(), call_at.attempt);
        let outcome = EffectOutcome::Failed(error);
        let result = EffectResult { step, attempt, tool_call: None, outcome, call_report: None };
        plan.add_result(self.graph, &self.run.state, &result);
    }

    /// Prepares the start of a step that goes in turns, or its next attempt, which continues the
    /// turns.
    pub(super) async fn prepare_turns(
        &mut self,
        plan: &mut CommitPlan,
        (step, attempt): (&StepId, u32),
        turn_agent: TurnAgent<'_>,
        uncommitted: &UncommittedOutcomes,
    ) -> Result<PreparedStep, OutputError> {
        let timeout = self.step_timeout(step);
        let call_at = |call| ToolCallAt { step: step.clone(), attempt, call };
        let Some(turns) = self.step_turns(step).cloned() else {
            let Some(memory) = &turn_agent.as_agent().memory else {
                let step_attempt = (step, attempt);
                let (intent, launch) = self
                    .prepare_turn(plan, step_attempt, turn_agent, timeout, uncommitted, None)
                    .await?;
                return Ok(PreparedStep::Start { intent, launches: vec![launch] });
            };
            // The first effect of an agent with memory is the recall, as call 0 of turn 0.
            let scope = self.template_scope(step, uncommitted).await?;
            let args = self.recall_arguments(memory, &turn_agent.as_agent().prompt, &scope).await?;
            let call = ToolCallNumber { turn: 0, call: 0 };
            let launch = self.tool_launch(&call_at(call), RECALL_TOOL.to_owned(), args);
            let intent = StepIntent::CallTool { tool_call: call, name: RECALL_TOOL.to_owned() };
            return Ok(PreparedStep::Start { intent, launches: vec![launch] });
        };
        if turns.is_complete() {
            // A new attempt does not reset the limits of the turns.
            let (limits, now) = (turn_agent.turn_limits(), self.shared.current_time());
            if let Some(error) = limits
                .and_then(|it| it.find_exhausted_limit(&turns, turns.last_turn(), timeout, now))
            {
                return Err(OutputError::Failure(error));
            }
            let step_attempt = (step, attempt);
            let (intent, launch) = self
                .prepare_turn(plan, step_attempt, turn_agent, timeout, uncommitted, None)
                .await?;
            return Ok(PreparedStep::Start { intent, launches: vec![launch] });
        }
        let launches =
            self.relaunch_lost_calls(step, attempt, &turns, turn_agent, uncommitted).await?;
        Ok(PreparedStep::Start { intent: StepIntent::Compute, launches })
    }

    /// Launches the calls again whose executor died. They keep their numbers and thus their
    /// idempotency keys.
    async fn relaunch_lost_calls(
        &mut self,
        step: &StepId,
        attempt: u32,
        turns: &AgentTurns,
        turn_agent: TurnAgent<'_>,
        uncommitted: &UncommittedOutcomes,
    ) -> Result<Vec<EffectLaunch>, OutputError> {
        let turn = turns.last_turn();
        let lost_calls =
            turns.last_turn_calls().iter().filter(|(_, call)| **call == ToolCallState::Intended);
        let call_numbers: Vec<u32> = lost_calls.map(|(call, _)| *call).collect();
        // No turn was answered yet: the lost call is the recall before the first turn.
        let Some(last_turn) = turns.done.last() else {
            let Some(memory) = &turn_agent.as_agent().memory else { return Ok(Vec::new()) };
            let scope = self.template_scope(step, uncommitted).await?;
            let args = self.recall_arguments(memory, &turn_agent.as_agent().prompt, &scope).await?;
            let call_at = ToolCallAt {
                step: step.clone(),
                attempt,
                call: ToolCallNumber { turn: 0, call: 0 },
            };
            return Ok(vec![self.tool_launch(&call_at, RECALL_TOOL.to_owned(), args)]);
        };
        let reply = self.load_reply(last_turn.answer).await?;
        let tools = self.resolve_tools(turn_agent.as_agent().toolbox.as_ref()).await?;
        let mut launches = Vec::new();
        for call in call_numbers {
            let tool_call = reply.tool_calls.get(call as usize);
            if let Some(Ok(AllowedCall::Builtin { name, args })) =
                tool_call.map(|asked| tools.check_call(asked))
            {
                let call_at =
                    ToolCallAt { step: step.clone(), attempt, call: ToolCallNumber { turn, call } };
                launches.push(self.tool_launch(&call_at, name, args));
            }
        }
        Ok(launches)
    }
}

fn new_turns(now: convergio_domain::time::Timestamp) -> AgentTurns {
    AgentTurns { began: now, opening: Default::default(), done: Vec::new(), tokens: 0 }
}

/// Builds the step's outcome from the agent's last answer.
fn final_outcome(text: String, is_json: bool) -> EffectOutcome {
    if !is_json {
        return completed_outcome(Value::String(text));
    }
    match read_json(text.as_bytes()) {
        Ok(value) => completed_outcome(value),
        Err(error) => EffectOutcome::Failed(invalid_json_answer(&error)),
    }
}
