//! The conversation of a model call in a turn: the prompts of the manifest, then all answers and
//! tool results so far, read from the log.

use std::sync::Arc;
use std::time::Duration;

use convergio_domain::chat::{
    ChatReply, ChatRequest, Interface, Message, NativeFields, Part, Role, ToolResultPart,
};
use convergio_domain::expr::Scope;
use convergio_domain::failure::UnsealedFailure;
use convergio_domain::graph::manifest::{
    Agent, Grants, Memory, Plan as PlanNode, TurnLimits, Work,
};
use convergio_domain::id::StepId;
use convergio_domain::payload::PayloadRef;
use convergio_domain::platform_text;
use convergio_domain::run::{CallNo, Intent, Move, ToolState, Turns};
use convergio_domain::time::Timestamp;
use serde_json::{Value, json};

use super::Actor;
use super::calling::Calling;
use super::effect::{Answers, Launch, failure};
use super::plan::Plan;
use super::proposals;
use crate::outputs::{Extra, OutputError};

/// Maximum tool calls of one turn.
const AT_ONCE_LIMIT: usize = 24;
/// Maximum bytes of a tool result that a model reads; the rest is cut.
const TOLD_LIMIT: usize = 32 << 10;

/// Update of a step within the commit in preparation.
pub(super) struct Moving {
    pub(super) moved: Move,
    /// The turn's answer, if it is in this commit.
    pub(super) reply: Option<Arc<ChatReply>>,
    /// Tool results in this commit with their call numbers; true for failures.
    pub(super) results: Vec<(CallNo, Value, bool)>,
}

/// The agent of a step that goes in turns.
#[derive(Clone, Copy)]
pub(crate) enum Asker<'a> {
    /// An agent with tools or memory.
    Agent(&'a Agent),
    /// An agent that proposes graphs, of a plan node.
    Plan(&'a PlanNode),
}

impl<'a> Asker<'a> {
    /// Returns the agent of a step's work; `None` if the step does not go in turns.
    pub(crate) fn of(work: &'a Work, item: Option<u32>) -> Option<Self> {
        use convergio_domain::graph::manifest::MapWork;
        match (work, item) {
            (Work::Agent(agent), None) => Some(Self::Agent(agent)),
            (Work::Plan(plan), None) => Some(Self::Plan(plan)),
            (Work::Map(map), Some(_)) => match &map.work {
                MapWork::Agent(agent) => Some(Self::Agent(agent)),
                MapWork::Tool(_) => None,
            },
            _ => None,
        }
        .filter(|asker| asker.limits().is_some())
    }

    pub(crate) fn agent(self) -> &'a Agent {
        match self {
            Self::Agent(agent) => agent,
            Self::Plan(plan) => &plan.agent,
        }
    }

    /// Returns the limits of the agent; `None` if it does not go in turns.
    fn limits(self) -> Option<TurnLimits> {
        match self {
            Self::Agent(agent) => {
                // Memory without tools still needs a turn for the recall.
                let of_memory = agent.memory.as_ref().map(|_| TurnLimits::default());
                agent.toolbox.as_ref().map(|toolbox| toolbox.limits).or(of_memory)
            }
            Self::Plan(plan) => {
                Some(TurnLimits { max_turns: plan.max_turns, ..TurnLimits::default() })
            }
        }
    }

    /// Returns the failure of the first limit that is reached: turns, tokens or time.
    pub(super) fn exhausted(
        self,
        turns: &Turns,
        asked: u32,
        timeout: Duration,
        now: Timestamp,
    ) -> Option<UnsealedFailure> {
        let limits = self.limits().unwrap_or_default();
        let spent_ms = now.since(turns.began).0;
        let message = if asked >= limits.max_turns {
            match self {
                Self::Agent(_) => {
                    platform_text!("no answer in {} turns: raise max_turns", asked)
                }
                Self::Plan(_) => {
                    platform_text!("no valid graph in {} proposals: raise max_turns", asked)
                }
            }
        } else if turns.tokens >= limits.max_total_tokens {
            let (used, limit) = (turns.tokens, limits.max_total_tokens);
            platform_text!("{} tokens are used, max_total_tokens is {}", used, limit)
        } else if u128::from(spent_ms) >= timeout.as_millis() {
            platform_text!("no answer in {} ms: raise the node's timeout", spent_ms)
        } else {
            return None;
        };
        Some(failure("agent.limit", message))
    }

    /// Returns the failure of too many tool calls, in all or in one turn.
    pub(super) fn too_many(self, calls: usize, at_once: usize) -> Option<UnsealedFailure> {
        let limit = self.limits().unwrap_or_default().max_tool_calls;
        if at_once > AT_ONCE_LIMIT {
            let message =
                platform_text!("{} tool calls in one turn: at most {}", at_once, AT_ONCE_LIMIT);
            return Some(failure("agent.limit", message));
        }
        let message =
            platform_text!("{} tool calls are asked for: max_tool_calls is {}", calls, limit);
        (calls > limit as usize).then(|| failure("agent.limit", message))
    }
}

impl Actor {
    /// Prepares the next model call of a step that goes in turns.
    pub(super) async fn ask_turn(
        &mut self,
        plan: &mut Plan,
        (step, attempt): (&StepId, u32),
        asker: Asker<'_>,
        timeout: Duration,
        extra: &Extra,
        moving: Option<&Moving>,
    ) -> Result<(Intent, Launch), OutputError> {
        let scope = self.scope_of(step, extra).await?;
        let agent = asker.agent();
        let mut request = self.asked(agent, &scope).await?;
        let tools = self.tools(agent.toolbox.as_ref()).await?;
        request.tools = tools.specs();
        let grants = match asker {
            Asker::Plan(node) => Some(self.plan_grants(step, node, extra).await?),
            Asker::Agent(_) => None,
        };
        frame(&mut request, asker, grants.as_ref());
        let turn = self.transcript(&mut request, step, moving).await? + 1;
        let node = self.graph.find_node(&step.node);
        let is_repeatable = node.is_some_and(|node| node.retry.max > 1);
        let answers = Answers::Turn;
        let calling = Calling { step, attempt, turn, timeout, answers, is_repeatable };
        self.model_call(plan, request, calling).await
    }

    /// Renders the arguments of the memory recall before the first turn.
    pub(super) async fn recall_args(
        &self,
        memory: &Memory,
        prompt: &str,
        scope: &Scope,
    ) -> Result<Value, OutputError> {
        let query = memory.query.as_deref().unwrap_or(prompt);
        let mut texts = self.render_texts(&[memory.subject.as_str(), query], scope).await?;
        let (query, subject) = (texts.pop(), texts.pop());
        Ok(json!({"subject": subject, "query": query, "tokens": memory.max_tokens}))
    }

    /// Appends the conversation so far; returns the number of the last turn.
    async fn transcript(
        &mut self,
        request: &mut ChatRequest,
        step: &StepId,
        moving: Option<&Moving>,
    ) -> Result<u32, OutputError> {
        let turns = self.run.state.steps.get(step).and_then(|step| step.turns.clone());
        // Results of this commit have no payload reference yet.
        let fresh = moving.map_or(&[][..], |moving| &moving.results);
        let mut last = 0;
        if let Some(turns) = turns.as_deref() {
            let opening = self.results(turns.opening.iter(), 0, fresh).await?;
            remember(request, &opening);
            for turn in &turns.done {
                last += 1;
                let reply: ChatReply = self.reply(turn.answer).await?;
                let results = self.results(turn.calls.iter(), last, fresh).await?;
                let messages = said(&reply, last, &results, &request.messages);
                request.messages.extend(messages);
            }
        }
        if let Some(reply) = moving.and_then(|moving| moving.reply.as_deref()) {
            last += 1;
            let results = self.results([].into_iter(), last, fresh).await?;
            let messages = said(reply, last, &results, &request.messages);
            request.messages.extend(messages);
        }
        Ok(last)
    }

    /// Loads the tool results of a turn: those in the log, and those of this commit.
    async fn results<'a>(
        &mut self,
        calls: impl Iterator<Item = (&'a u32, &'a ToolState)>,
        turn: u32,
        fresh: &[(CallNo, Value, bool)],
    ) -> Result<Vec<(u32, String, bool)>, OutputError> {
        let mut results = Vec::new();
        for (call, state) in calls {
            if let ToolState::Ended { result, is_error } = state {
                let value = self.outputs.recall(*result).await?;
                results.push((*call, told(&value), *is_error));
            }
        }
        let fresh = fresh.iter().filter(|(at, ..)| at.turn == turn);
        results.extend(fresh.map(|(at, value, is_error)| (at.call, told(value), *is_error)));
        // Tools end in any order; providers expect results in the order of their calls.
        results.sort_by_key(|(call, ..)| *call);
        Ok(results)
    }

    /// Loads a turn's answer from the log.
    pub(super) async fn reply(&mut self, reference: PayloadRef) -> Result<ChatReply, OutputError> {
        let value = self.outputs.recall(reference).await?;
        serde_json::from_value(Value::clone(&value)).map_err(|error| {
            let message = platform_text!("the stored answer cannot be read");
            OutputError::Failure(failure("internal", message).with_cause(error))
        })
    }
}

/// Adds instructions to the system prompt that the manifest does not write itself.
fn frame(request: &mut ChatRequest, asker: Asker<'_>, grants: Option<&Grants>) {
    let more = match asker {
        Asker::Plan(_) => grants.map(proposals::instructions),
        // Not as the request's schema: that would bind every answer, and those that call tools have
        // none.
        Asker::Agent(Agent { schema: Some(schema), toolbox: Some(_), .. }) => {
            request.schema = None;
            Some(format!(
                "When you are done, answer with JSON alone that fits this schema: {schema}"
            ))
        }
        Asker::Agent(_) => None,
    };
    if let Some(more) = more {
        add_to_system(request, &more);
    }
}

fn add_to_system(request: &mut ChatRequest, more: &str) {
    let system = request.system.take().filter(|system| !system.is_empty());
    request.system = Some(system.map_or_else(|| more.to_owned(), |s| format!("{s}\n\n{more}")));
}

/// Appends the recalled memories to the system prompt.
fn remember(request: &mut ChatRequest, opening: &[(u32, String, bool)]) {
    let texts = opening.iter().filter(|(_, text, is_error)| !is_error && text != "[]");
    let texts: Vec<&str> = texts.map(|(_, text, _)| text.as_str()).collect();
    if !texts.is_empty() {
        add_to_system(request, &format!("What you remember:\n{}", texts.join("\n")));
    }
}

/// Builds the messages of a turn: the model's answer, part by part in its order, then the tool
/// results. `earlier_messages` is the conversation so far.
fn said(
    reply: &ChatReply,
    turn: u32,
    results: &[(u32, String, bool)],
    before: &[Message],
) -> Vec<Message> {
    let mut parts = reply.parts();
    let mut calls = Vec::new();
    // Ids must be unique within the conversation, whichever provider gave them.
    for part in &mut parts {
        if let Part::ToolCall(call) = part {
            // Some servers number the calls of each answer from zero, others leave the id empty.
            if call.id.is_empty() || has_call(before, &call.id) {
                call.id = format!("call_{turn}_{}", calls.len());
            }
            calls.push((call.id.clone(), call.name.clone()));
        }
    }
    let answer = |(number, text, is_error): &(u32, String, bool)| {
        let Some((id, name)) = calls.get(*number as usize) else { return Part::text(text) };
        Part::ToolResult(ToolResultPart {
            id: id.clone(),
            name: name.clone(),
            text: text.clone(),
            is_error: *is_error,
            ..ToolResultPart::default()
        })
    };
    let answers: Vec<Part> = results.iter().map(answer).collect();
    let mut messages = vec![
        Message { native: native_of(reply), ..Message::new(Role::Assistant, parts) },
        Message::new(Role::User, answers),
    ];
    // Some providers reject a message without parts.
    messages.retain(|message| !message.parts.is_empty());
    messages
}

fn has_call(messages: &[Message], id: &str) -> bool {
    let mut parts = messages.iter().flat_map(|message| &message.parts);
    parts.any(|part| matches!(part, Part::ToolCall(call) if call.id == id))
}

/// Returns the provider fields to send back with the answer: reasoning that has no part of its own.
fn native_of(reply: &ChatReply) -> Option<NativeFields> {
    const SENT_BACK: [&str; 2] = ["extra_content", "reasoning_details"];
    let native = reply.native.as_ref()?;
    let fields = native.fields.iter().filter(|(name, _)| SENT_BACK.contains(&name.as_str()));
    let fields = fields.map(|(name, value)| (name.clone(), value.clone())).collect();
    (native.interface == Interface::OpenAiChat)
        .then(|| NativeFields::of(native.interface, fields))
        .flatten()
}

/// Returns a tool result as a model reads it: a string as it is, else JSON, cut at the limit.
fn told(value: &Value) -> String {
    let mut text = match value {
        Value::String(text) => text.clone(),
        other => other.to_string(),
    };
    if text.len() > TOLD_LIMIT {
        let bytes = text.len();
        let mut end = TOLD_LIMIT;
        // Cutting within a UTF-8 sequence would panic.
        while !text.is_char_boundary(end) {
            end -= 1;
        }
        text.truncate(end);
        text.push_str(&format!("\n(cut: {bytes} bytes in all)"));
    }
    text
}

#[cfg(test)]
mod tests {
    use convergio_domain::chat::{
        ChatReply, Interface, Message, NativeFields, NativePart, Part, Role, ThinkingPart, ToolCall,
    };
    use serde_json::{Value, json};

    use super::said;

    fn call(id: &str) -> Part {
        let (id, name, arguments) = (id.to_owned(), "t".to_owned(), "{}".to_owned());
        Part::ToolCall(ToolCall { id, name, arguments, ..ToolCall::default() })
    }

    fn thinking(signature: &str) -> Part {
        let (text, signature) = ("hm".to_owned(), signature.to_owned());
        Part::Thinking(ThinkingPart { text, signature, native: None })
    }

    fn reply(parts: Vec<Part>) -> ChatReply {
        let mut reply = ChatReply::default();
        reply.set_parts(parts);
        reply
    }

    #[test]
    fn a_turn_goes_back_part_by_part() {
        let block = json!({"type": "redacted_thinking", "data": "x"});
        let redacted = Part::Native(NativePart { interface: Interface::Anthropic, block });
        let parts = vec![thinking("1"), redacted, thinking("2"), call("a"), Part::text("t")];
        let results = [(0, "42".to_owned(), false)];
        let messages = said(&reply(parts.clone()), 1, &results, &[]);
        assert_eq!(messages[0].parts, parts);
        let Part::ToolResult(result) = &messages[1].parts[0] else { panic!("{messages:?}") };
        assert_eq!((result.id.as_str(), result.text.as_str()), ("a", "42"));
    }

    #[test]
    fn an_id_that_was_there_before_becomes_another() {
        let before = [Message::new(Role::Assistant, vec![call("call_0")])];
        let results = [(0, "42".to_owned(), false)];
        let messages = said(&reply(vec![call("call_0")]), 2, &results, &before);
        let Part::ToolCall(call) = &messages[0].parts[0] else { panic!("{messages:?}") };
        let Part::ToolResult(result) = &messages[1].parts[0] else { panic!("{messages:?}") };
        assert_eq!((call.id.as_str(), result.id.as_str()), ("call_2_0", "call_2_0"));
    }

    #[test]
    fn only_what_carries_thoughts_goes_back_with_the_turn() {
        let Value::Object(fields) = json!({"reasoning_details": [1], "annotations": [2]}) else {
            panic!("an object")
        };
        let native = NativeFields::of(Interface::OpenAiChat, fields);
        let reply = ChatReply { native, ..reply(vec![Part::text("t")]) };
        let native = said(&reply, 1, &[], &[]).remove(0).native.expect("it goes back");
        assert_eq!(Value::Object(native.fields), json!({"reasoning_details": [1]}));
    }
}
