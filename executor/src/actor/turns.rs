//! Agents that go in turns: an answer that requests tools becomes tool calls, and their results
//! become the next model call. Each is in the log before the next begins.

use std::sync::Arc;
use std::time::Duration;

use convergio_domain::chat::{ChatReply, ToolCall};
use convergio_domain::failure::{Detail, FailureReport, UnsealedFailure};
use convergio_domain::graph::manifest::{Node, RECALL_TOOL, SPAWN_TOOL};
use convergio_domain::id::StepId;
use convergio_domain::json::read_json;
use convergio_domain::payload::Purpose;
use convergio_domain::run::{
    Answered, Budget, CallNo, Intent, Next, Told, ToolOutcome, ToolState, Turns,
};
use convergio_domain::time::Span;
use serde_json::Value;

use super::asking::{Asker, Moving};
use super::children::{Callee, Wanted};
use super::effect::{Done, DoneResult, Launch, Work, completed, not_json};
use super::places::PlaceKind;
use super::plan::Plan;
use super::prepare::{Prepared, TIMEOUT};
use super::proposals::UNBOUND;
use super::toolbox::{Bad, Good, Target, Tools};
use super::{Actor, ActorError};
use crate::memory::is_memory;
use crate::outputs::{Extra, OutputError};

/// Maximum events of one update within a step.
const MOVE_EVENTS: usize = 2;

/// Place of a tool call: its step, attempt and number.
#[derive(Clone)]
pub(super) struct At {
    pub(super) step: StepId,
    pub(super) attempt: u32,
    pub(super) call: CallNo,
}

/// A tool call that becomes a child run.
pub(super) struct RunCall {
    /// Name of the tool; `None` if the log has the call's intent already.
    pub(super) name: Option<String>,
    pub(super) target: Target,
    pub(super) inputs: Value,
}

impl Plan {
    fn moving(&mut self, step: &StepId, attempt: u32) -> &mut Moving {
        self.moving.entry(step.clone()).or_insert_with(|| Moving {
            moved: convergio_domain::run::Move::of(step.clone(), attempt),
            reply: None,
            results: Vec::new(),
        })
    }

    /// Returns the answer of a turn that this commit holds.
    pub(super) fn reply(&self, step: &StepId) -> Option<&Arc<ChatReply>> {
        self.moving.get(step)?.reply.as_ref()
    }

    /// Adds the result of a tool call that completed or was denied.
    pub(super) fn told(&mut self, at: &At, outcome: ToolOutcome, result: Value) {
        self.room.add_events(MOVE_EVENTS);
        let is_error = outcome != ToolOutcome::Completed;
        let value = Arc::new(result);
        let slot = self.store_value(&value, Purpose::Output);
        let moving = self.moving(&at.step, at.attempt);
        moving.moved.told.push(Told { at: at.call, outcome, result: slot });
        moving.results.push((at.call, Value::clone(&value), is_error));
    }

    /// Adds a failed tool call. The text that the model reads is also the detail of the failure.
    pub(super) fn tool_failed(&mut self, at: &At, error: UnsealedFailure, text: String) {
        self.room.add_events(MOVE_EVENTS);
        let value = Value::String(text);
        let slot = self.store_value(&Arc::new(value.clone()), Purpose::Output);
        // The report shares the payload of the result instead of storing the text twice.
        let error = error.map_detail(|_| None);
        let error = FailureReport { detail: Some(Detail::New(slot)), ..error };
        let outcome = ToolOutcome::Failed(error);
        let moving = self.moving(&at.step, at.attempt);
        moving.moved.told.push(Told { at: at.call, outcome, result: slot });
        moving.results.push((at.call, value, true));
    }

    pub(super) fn begin_tool(&mut self, at: &At, name: String) {
        self.next(at, Next::Tool { at: at.call, name }, None);
    }

    /// Adds a tool call whose child run waits for capacity.
    pub(super) fn queue_tool(&mut self, at: &At, name: String) {
        self.next(at, Next::QueuedTool { at: at.call, name }, None);
    }

    pub(super) fn next(&mut self, at: &At, next: Next, launch: Option<Launch>) {
        self.room.add_events(MOVE_EVENTS);
        // An intent and its launch belong together: the launch follows the intent's commit.
        self.moving(&at.step, at.attempt).moved.next.push(next);
        if let Some(launch) = launch {
            self.add_launch(launch);
        }
    }

    /// Returns whether every call of the step's last turn has a result with this commit.
    fn is_turn_over(&self, step: &StepId, turns: Option<&Turns>) -> bool {
        let Some(Moving { moved, .. }) = self.moving.get(step) else {
            return turns.is_some_and(Turns::is_complete);
        };
        let is_told = |at: &CallNo| moved.told.iter().any(|told| told.at == *at);
        let is_open = |next: &Next| match next {
            Next::Tool { at, .. } | Next::QueuedTool { at, .. } => !is_told(at),
            Next::Begin(_) => false,
        };
        // A new answer in this commit replaces the recorded turn as the last one.
        let known = turns.filter(|_| moved.answered.is_none());
        let is_over = |turns: &Turns| {
            let turn = turns.last();
            let at = |call: &u32| CallNo { turn, call: *call };
            turns.calls().iter().all(|(call, state)| state.is_ended() || is_told(&at(call)))
        };
        !moved.next.iter().any(is_open) && known.is_none_or(is_over)
    }
}

impl Actor {
    /// Applies a result, which may belong to a turn of an agent.
    pub(super) async fn progress(&mut self, plan: &mut Plan, done: Done) -> Result<(), ActorError> {
        plan.taken += 1;
        let graph = Arc::clone(&self.graph);
        let Some(node) = graph.find_node(&done.step.node) else { return Ok(()) };
        let asker = Asker::of(&node.work, done.step.item);
        match (asker, done.at, &done.result) {
            (Some(asker), None, DoneResult::Answered(reply)) => {
                let reply = reply.clone();
                self.answered(plan, &done, reply, asker).await
            }
            (Some(_), None, DoneResult::TurnOver) => {
                let call = CallNo { turn: 0, call: 0 };
                let at = At { step: done.step, attempt: done.attempt, call };
                self.after_calls(plan, &at).await
            }
            (Some(asker), Some(call), _) => {
                let at = At { step: done.step.clone(), attempt: done.attempt, call };
                self.tool_ended(plan, at, done.result, asker).await
            }
            (_, _, DoneResult::Yielded(Some(reference))) => {
                // The value is loaded here because the plan's other methods are not async.
                let value = self.outputs.open(*reference).await?;
                let result = DoneResult::Opened(Some((*reference, value)));
                plan.take(&self.graph, &self.run.state, &Done { result, ..done });
                Ok(())
            }
            _ => {
                plan.take(&self.graph, &self.run.state, &done);
                Ok(())
            }
        }
    }

    /// Handles a model's answer of a turn: the final answer concludes the step, requested tools are
    /// called.
    async fn answered(
        &mut self,
        plan: &mut Plan,
        done: &Done,
        reply: Box<ChatReply>,
        asker: Asker<'_>,
    ) -> Result<(), ActorError> {
        let agent = match asker {
            Asker::Plan(node) => return self.proposed(plan, done, reply, node).await,
            Asker::Agent(agent) => agent,
        };
        if reply.tool_calls.is_empty() {
            let result = yielded(reply.text, agent.schema.is_some());
            plan.take(&self.graph, &self.run.state, &Done { result, ..done.clone() });
            return Ok(());
        }
        let asked = reply.tool_calls.len();
        // Counted before the answer is recorded: it would count its own calls otherwise.
        let before = self.turns(&done.step).map_or(0, Turns::call_count);
        let mut at = self.take_answer(plan, done, reply);
        if let Some(error) = asker.too_many(before + asked, asked) {
            self.give_up(plan, &at, error);
            return Ok(());
        }
        let tools = match self.tools(agent.toolbox.as_ref()).await {
            Ok(tools) => tools,
            Err(error @ (OutputError::Log(_) | OutputError::Evaluation(_))) => {
                return Err(error.into());
            }
            Err(OutputError::Failure(error)) => {
                self.give_up(plan, &at, error);
                return Ok(());
            }
        };
        let Some(reply) = plan.reply(&at.step).cloned() else { return Ok(()) };
        for (number, call) in (0_u32..).zip(&reply.tool_calls) {
            at.call.call = number;
            self.call(plan, &at, call, &tools, asker, asked).await?;
        }
        self.after_calls(plan, &at).await
    }

    /// Records an answer after which the step goes on; returns the place of its first call.
    pub(super) fn take_answer(
        &mut self,
        plan: &mut Plan,
        done: &Done,
        reply: Box<ChatReply>,
    ) -> At {
        let turn = self.turns(&done.step).map_or(0, Turns::last) + 1;
        let value = serde_json::to_value(&reply).unwrap_or_default();
        let answer = plan.store_value(&Arc::new(value), Purpose::Output);
        let moving = plan.moving(&done.step, done.attempt);
        moving.moved.answered = done.call.clone().map(|call| Answered { call, answer });
        moving.reply = Some(Arc::from(reply));
        let call = CallNo { turn, call: 0 };
        At { step: done.step.clone(), attempt: done.attempt, call }
    }

    fn turns(&self, step: &StepId) -> Option<&Turns> {
        self.run.state.steps.get(step)?.turns.as_deref()
    }

    /// Handles one requested call: denies it, fails it, launches it or begins its child run.
    async fn call(
        &mut self,
        plan: &mut Plan,
        at: &At,
        call: &ToolCall,
        tools: &Tools,
        asker: Asker<'_>,
        asked: usize,
    ) -> Result<(), ActorError> {
        let good = match tools.check(call) {
            Ok(good) => good,
            Err(Bad::Denied { name }) => {
                let text = "you have no permission to call this tool".into();
                plan.told(at, ToolOutcome::Denied { name }, text);
                return Ok(());
            }
            Err(Bad::Wrong { error, text }) => {
                plan.tool_failed(at, *error, text);
                return Ok(());
            }
        };
        let (name, target, inputs) = match good {
            // The subject is rendered at call time, so the check cannot be part of `AgentTools`.
            Good::Builtin { name, args } => {
                if self.is_of_another(&at.step, asker, &name, &args).await? {
                    let text = "you remember nothing of others: use your own subject".into();
                    plan.told(at, ToolOutcome::Denied { name }, text);
                    return Ok(());
                }
                let launch = self.tool_launch(at, name.clone(), args);
                plan.next(at, Next::Tool { at: at.call, name }, Some(launch));
                return Ok(());
            }
            Good::Run { name, target, inputs } => (name, *target, inputs),
            Good::Spawn { args, .. } => {
                match self.spawned(asker.agent().toolbox.as_ref(), &args).await {
                    Ok((target, inputs)) => (SPAWN_TOOL.to_owned(), target, inputs),
                    Err(error @ (OutputError::Log(_) | OutputError::Evaluation(_))) => {
                        return Err(error.into());
                    }
                    Err(OutputError::Failure(error)) => {
                        let text = error.full_text().to_owned();
                        plan.tool_failed(at, error, text);
                        return Ok(());
                    }
                }
            }
        };
        // The budget is checked later; only the number of open child runs limits here.
        if plan.places.has_place(PlaceKind::ChildRun) {
            let call = RunCall { name: Some(name), target, inputs };
            self.spawn(plan, at, call, asker, asked).await?;
        } else {
            plan.queue_tool(at, name);
        }
        Ok(())
    }

    /// Returns whether a memory call names another subject than the one that the manifest grants.
    async fn is_of_another(
        &mut self,
        step: &StepId,
        asker: Asker<'_>,
        name: &str,
        args: &Value,
    ) -> Result<bool, ActorError> {
        let Some(memory) = asker.agent().memory.as_ref().filter(|_| is_memory(name)) else {
            return Ok(false);
        };
        // Everything that the subject's template names had ended before the agent began.
        let scope = self.scope_of(step, &Extra::default()).await?;
        let own = self.recall_args(memory, &asker.agent().prompt, &scope).await?;
        Ok(args["subject"] != own["subject"])
    }

    /// Begins the child run of a tool call. A failure to prepare it becomes the call's result,
    /// which the model reads.
    pub(super) async fn spawn(
        &mut self,
        plan: &mut Plan,
        at: &At,
        call: RunCall,
        asker: Asker<'_>,
        asked: usize,
    ) -> Result<(), ActorError> {
        let RunCall { name, target, inputs } = call;
        let callee = Callee {
            graph: target.graph,
            version: target.version.clone(),
            manifest: &target.compiled.graph,
            agent: target.agent,
            is_new: false,
        };
        let left = Some(self.time_left(&at.step));
        let wanted = Wanted {
            step: at.step.clone(),
            attempt: at.attempt,
            at: Some(at.call),
            inputs,
            budget: Budget { wall: left, deadline: left, ..UNBOUND },
            // Every call of the turn may be a run; one share stays for the agent itself.
            shares: asked as u64 + 1,
            privacy: asker.agent().privacy,
        };
        match self.child(plan, &callee, wanted).await {
            Ok((intent, launch)) => {
                if let Some(name) = name {
                    plan.begin_tool(at, name);
                }
                plan.next(at, Next::Begin(Intent::Child(intent)), Some(launch));
            }
            Err(OutputError::Failure(error)) => {
                let text = error.full_text().to_owned();
                plan.tool_failed(at, error, text);
            }
            Err(error) => return Err(error.into()),
        }
        Ok(())
    }

    fn tool_launch(&self, at: &At, name: String, args: Value) -> Launch {
        let timeout = self.timeout(&at.step);
        let work = Work::Tool { name, args };
        Launch { step: at.step.clone(), attempt: at.attempt, at: Some(at.call), timeout, work }
    }

    /// Returns the time that remains to a step that goes in turns, in milliseconds.
    pub(super) fn time_left(&self, step: &StepId) -> Span {
        let now = self.shared.now();
        let passed_ms = self.turns(step).map_or(0, |turns| now.since(turns.began).0);
        let timeout_ms = u64::try_from(self.timeout(step).as_millis()).unwrap_or(u64::MAX);
        Span(timeout_ms.saturating_sub(passed_ms))
    }

    fn timeout(&self, step: &StepId) -> Duration {
        let timeout = self.graph.find_node(&step.node).and_then(|node: &Node| node.timeout);
        Duration::from_millis(timeout.unwrap_or(TIMEOUT).0)
    }

    /// Handles the end of a tool call.
    async fn tool_ended(
        &mut self,
        plan: &mut Plan,
        at: At,
        result: DoneResult,
        asker: Asker<'_>,
    ) -> Result<(), ActorError> {
        let (outcome, value) = match result {
            DoneResult::Completed(value) => {
                (ToolOutcome::Completed, value.as_deref().cloned().unwrap_or(Value::Null))
            }
            DoneResult::Yielded(reference) => {
                let opened = match reference {
                    Some(reference) => Some((reference, self.outputs.open(reference).await?)),
                    None => None,
                };
                // The output of a proposed graph is the output of its plan node; no further turn
                // follows.
                if matches!(asker, Asker::Plan(_)) {
                    let at = Done {
                        step: at.step,
                        attempt: at.attempt,
                        at: None,
                        call: None,
                        result: DoneResult::Opened(opened),
                    };
                    plan.take(&self.graph, &self.run.state, &at);
                    return Ok(());
                }
                let value = opened.map_or(Value::Null, |(_, value)| Value::clone(&value));
                (ToolOutcome::Completed, value)
            }
            DoneResult::Failed(error) => {
                let text = format!("{}: {}", error.code, self.failure_text(&error).await?);
                plan.tool_failed(&at, error, text);
                return self.after_calls(plan, &at).await;
            }
            // The call was interrupted; whoever resumes the run makes it again.
            _ => return Ok(()),
        };
        plan.told(&at, outcome, value);
        self.after_calls(plan, &at).await
    }

    /// Loads the full text of a failure; if that was erased, its message must do.
    async fn failure_text(&mut self, error: &UnsealedFailure) -> Result<String, ActorError> {
        if let Some(Detail::Known(reference)) = error.detail {
            match self.outputs.open(reference).await {
                Ok(text) => return Ok(text.as_str().unwrap_or(&error.message).to_owned()),
                Err(OutputError::Failure(_erased)) => {}
                Err(error) => return Err(error.into()),
            }
        }
        Ok(error.full_text().to_owned())
    }

    /// Calls the model again once every tool call of the turn has ended, unless a limit is reached.
    pub(super) async fn after_calls(&mut self, plan: &mut Plan, at: &At) -> Result<(), ActorError> {
        let graph = Arc::clone(&self.graph);
        let Some(node) = graph.find_node(&at.step.node) else { return Ok(()) };
        let Some(asker) = Asker::of(&node.work, at.step.item) else { return Ok(()) };
        let turns = self.turns(&at.step).cloned();
        if !plan.is_turn_over(&at.step, turns.as_ref()) {
            return Ok(());
        }
        // Without capacity the step is collected again as `ToolsAnswered`, see `inbox`.
        if !self.may_start() || !plan.places.has_place(PlaceKind::ModelCall) {
            self.waiting.insert(at.step.clone());
            return Ok(());
        }
        let mut turns = turns.unwrap_or_else(|| unbegun(self.shared.now()));
        let moving = plan.moving.remove(&at.step);
        let answered = moving.as_ref().and_then(|moving| moving.moved.answered.as_ref());
        // The usage of an answer in this commit is not folded yet, but counts against the limits.
        if let Some(usage) = answered.and_then(|answered| answered.call.usage.as_ref()) {
            turns.tokens = turns.tokens.saturating_add(usage.tokens());
        }
        let asked = turns.last() + u32::from(answered.is_some());
        let timeout = self.timeout(&at.step);
        let now = self.shared.now();
        let left = timeout.saturating_sub(Duration::from_millis(now.since(turns.began).0));
        let next = match asker.exhausted(&turns, asked, timeout, now) {
            Some(error) => Err(OutputError::Failure(error)),
            None => {
                // Both are moved out for the call, which needs them beside the whole plan.
                let extra = std::mem::take(&mut plan.extra);
                let who = (&at.step, at.attempt);
                let next = self.ask_turn(plan, who, asker, left, &extra, moving.as_ref()).await;
                plan.extra = extra;
                next
            }
        };
        if let Some(moving) = moving {
            plan.moving.insert(at.step.clone(), moving);
        }
        match next {
            Ok((intent, launch)) => plan.next(at, Next::Begin(intent), Some(launch)),
            Err(error @ (OutputError::Log(_) | OutputError::Evaluation(_))) => {
                return Err(error.into());
            }
            Err(OutputError::Failure(error)) => self.give_up(plan, at, error),
        }
        Ok(())
    }

    /// Fails the step; what its turns did stays in the log.
    fn give_up(&self, plan: &mut Plan, at: &At, error: UnsealedFailure) {
        let (step, attempt) = (at.step.clone(), at.attempt);
        let result = DoneResult::Failed(error);
        let done = Done { step, attempt, at: None, result, call: None };
        plan.take(&self.graph, &self.run.state, &done);
    }

    /// Prepares the start of a step that goes in turns, or its next attempt, which continues the
    /// turns.
    pub(super) async fn begin_turns(
        &mut self,
        plan: &mut Plan,
        (step, attempt): (&StepId, u32),
        asker: Asker<'_>,
        extra: &Extra,
    ) -> Result<Prepared, OutputError> {
        let timeout = self.timeout(step);
        let at = |call| At { step: step.clone(), attempt, call };
        let Some(turns) = self.turns(step).cloned() else {
            let Some(memory) = &asker.agent().memory else {
                let who = (step, attempt);
                let (intent, launch) =
                    self.ask_turn(plan, who, asker, timeout, extra, None).await?;
                return Ok(Prepared::Start { intent, launches: vec![launch] });
            };
            // The first effect of an agent with memory is the recall, as call 0 of turn 0.
            let scope = self.scope_of(step, extra).await?;
            let args = self.recall_args(memory, &asker.agent().prompt, &scope).await?;
            let call = CallNo { turn: 0, call: 0 };
            let launch = self.tool_launch(&at(call), RECALL_TOOL.to_owned(), args);
            let intent = Intent::CallTool { at: call, name: RECALL_TOOL.to_owned() };
            return Ok(Prepared::Start { intent, launches: vec![launch] });
        };
        if turns.is_complete() {
            // A new attempt does not reset the limits of the turns.
            if let Some(error) = asker.exhausted(&turns, turns.last(), timeout, self.shared.now()) {
                return Err(OutputError::Failure(error));
            }
            let who = (step, attempt);
            let (intent, launch) = self.ask_turn(plan, who, asker, timeout, extra, None).await?;
            return Ok(Prepared::Start { intent, launches: vec![launch] });
        }
        let launches = self.lost_calls(step, attempt, &turns, asker, extra).await?;
        Ok(Prepared::Start { intent: Intent::Compute, launches })
    }

    /// Launches the calls again whose executor died. They keep their numbers and thus their
    /// idempotency keys.
    async fn lost_calls(
        &mut self,
        step: &StepId,
        attempt: u32,
        turns: &Turns,
        asker: Asker<'_>,
        extra: &Extra,
    ) -> Result<Vec<Launch>, OutputError> {
        let turn = turns.last();
        let lost = turns.calls().iter().filter(|(_, call)| **call == ToolState::Intended);
        let lost: Vec<u32> = lost.map(|(call, _)| *call).collect();
        // No turn was answered yet: the lost call is the recall before the first turn.
        let Some(answered) = turns.done.last() else {
            let Some(memory) = &asker.agent().memory else { return Ok(Vec::new()) };
            let scope = self.scope_of(step, extra).await?;
            let args = self.recall_args(memory, &asker.agent().prompt, &scope).await?;
            let at = At { step: step.clone(), attempt, call: CallNo { turn: 0, call: 0 } };
            return Ok(vec![self.tool_launch(&at, RECALL_TOOL.to_owned(), args)]);
        };
        let reply = self.reply(answered.answer).await?;
        let tools = self.tools(asker.agent().toolbox.as_ref()).await?;
        let mut launches = Vec::new();
        for call in lost {
            let asked = reply.tool_calls.get(call as usize);
            if let Some(Ok(Good::Builtin { name, args })) = asked.map(|asked| tools.check(asked)) {
                let at = At { step: step.clone(), attempt, call: CallNo { turn, call } };
                launches.push(self.tool_launch(&at, name, args));
            }
        }
        Ok(launches)
    }
}

fn unbegun(now: convergio_domain::time::Timestamp) -> Turns {
    Turns { began: now, opening: Default::default(), done: Vec::new(), tokens: 0 }
}

/// Builds the step's outcome from the agent's last answer.
fn yielded(text: String, is_json: bool) -> DoneResult {
    if !is_json {
        return completed(Value::String(text));
    }
    match read_json(text.as_bytes()) {
        Ok(value) => completed(value),
        Err(error) => DoneResult::Failed(not_json(&error)),
    }
}
