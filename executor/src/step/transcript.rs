//! The conversation of a model call in a turn: the prompts of the manifest, then all answers and
//! tool results so far, read from the log.

use std::time::Duration;

use convergio_domain::chat::{
    ChatInterface, ChatMessage, ChatReply, ChatRequest, MessagePart, MessageRole, NativeFields,
    ToolResultPart,
};
use convergio_domain::expr::ExprScope;
use convergio_domain::graph::manifest::{Agent, AgentMemory, Grants};
use convergio_domain::id::StepId;
use convergio_domain::payload::PayloadRef;
use convergio_domain::platform_text;
use convergio_domain::run::{StepIntent, ToolCallNumber, ToolCallState};
use serde_json::{Value, json};

use super::agent::TurnAgent;
use super::model_call::ModelCallSpec;
use super::planner::Planner;
use super::proposals;
use crate::outputs::{OutputError, UncommittedOutcomes};
use crate::plan::{CommitPlan, EffectLaunch, OutputFormat, PendingTurn, new_failure};

/// Maximum bytes of a tool result that a model reads; the rest is cut.
const TOOL_RESULT_BYTES_LIMIT: usize = 32 << 10;

impl Planner<'_> {
    /// Prepares the next model call of a step that goes in turns.
    pub(super) async fn prepare_turn(
        &mut self,
        plan: &mut CommitPlan,
        (step, attempt): (&StepId, u32),
        turn_agent: TurnAgent<'_>,
        timeout: Duration,
        uncommitted: &UncommittedOutcomes,
        pending_turn: Option<&PendingTurn>,
    ) -> Result<(StepIntent, EffectLaunch), OutputError> {
        let scope = self.template_scope(step, uncommitted).await?;
        let agent = turn_agent.as_agent();
        let mut request = self.render_request(agent, &scope).await?;
        let tools = self.resolve_tools(agent.toolbox.as_ref()).await?;
        request.tools = tools.tool_specs();
        let grants = match turn_agent {
            TurnAgent::Plan(node) => Some(self.render_grants(step, node, uncommitted).await?),
            TurnAgent::Agent(_) => None,
        };
        add_instructions(&mut request, turn_agent, grants.as_ref());
        let turn = self.add_transcript(&mut request, step, pending_turn).await? + 1;
        let node = self.graph.find_node(&step.node);
        let is_repeatable = node.is_some_and(|node| node.retry.max > 1);
        let output_format = OutputFormat::TurnReply;
        let call_spec =
            ModelCallSpec { step, attempt, turn, timeout, output_format, is_repeatable };
        self.prepare_model_call(plan, request, call_spec).await
    }

    /// Renders the arguments of the memory recall before the first turn.
    pub(super) async fn recall_arguments(
        &self,
        memory: &AgentMemory,
        prompt: &str,
        scope: &ExprScope,
    ) -> Result<Value, OutputError> {
        let query = memory.query.as_deref().unwrap_or(prompt);
        let mut texts = self.render_texts(&[memory.subject.as_str(), query], scope).await?;
        let (query, subject) = (texts.pop(), texts.pop());
        Ok(json!({"subject": subject, "query": query, "tokens": memory.max_tokens}))
    }

    /// Appends the conversation so far; returns the number of the last turn.
    async fn add_transcript(
        &mut self,
        request: &mut ChatRequest,
        step: &StepId,
        pending_turn: Option<&PendingTurn>,
    ) -> Result<u32, OutputError> {
        let turns = self.run.state.steps.get(step).and_then(|step| step.turns.clone());
        // Results of this commit have no payload reference yet.
        let pending_results = pending_turn.map_or(&[][..], |moving| &moving.results);
        let mut last = 0;
        if let Some(turns) = turns.as_deref() {
            let opening = self.load_tool_results(turns.opening.iter(), 0, pending_results).await?;
            add_memories(request, &opening);
            for turn in &turns.done {
                last += 1;
                let reply: ChatReply = self.load_reply(turn.answer).await?;
                let results =
                    self.load_tool_results(turn.calls.iter(), last, pending_results).await?;
                let messages = turn_messages(&reply, last, &results, &request.messages);
                request.messages.extend(messages);
            }
        }
        if let Some(reply) = pending_turn.and_then(|moving| moving.reply.as_deref()) {
            last += 1;
            let results = self.load_tool_results([].into_iter(), last, pending_results).await?;
            let messages = turn_messages(reply, last, &results, &request.messages);
            request.messages.extend(messages);
        }
        Ok(last)
    }

    /// Loads the tool results of a turn: those in the log, and those of this commit.
    async fn load_tool_results<'a>(
        &mut self,
        calls: impl Iterator<Item = (&'a u32, &'a ToolCallState)>,
        turn: u32,
        pending_results: &[(ToolCallNumber, Value, bool)],
    ) -> Result<Vec<(u32, String, bool)>, OutputError> {
        let mut results = Vec::new();
        for (call, state) in calls {
            if let ToolCallState::Ended { result, is_error } = state {
                let value = self.caches.outputs.load_value(*result).await?;
                results.push((*call, tool_result_text(&value), *is_error));
            }
        }
        let fresh = pending_results.iter().filter(|(at, ..)| at.turn == turn);
        results.extend(
            fresh.map(|(at, value, is_error)| (at.call, tool_result_text(value), *is_error)),
        );
        // Tools end in any order; providers expect results in the order of their calls.
        results.sort_by_key(|(call, ..)| *call);
        Ok(results)
    }

    /// Loads a turn's answer from the log.
    pub(super) async fn load_reply(
        &mut self,
        reference: PayloadRef,
    ) -> Result<ChatReply, OutputError> {
        let value = self.caches.outputs.load_value(reference).await?;
        serde_json::from_value(Value::clone(&value)).map_err(|error| {
            let message = platform_text!("the stored answer cannot be read");
            OutputError::Failure(new_failure("internal", message).with_cause(error))
        })
    }
}

/// Adds instructions to the system prompt that the manifest does not write itself.
fn add_instructions(request: &mut ChatRequest, turn_agent: TurnAgent<'_>, grants: Option<&Grants>) {
    let instructions = match turn_agent {
        TurnAgent::Plan(_) => grants.map(proposals::plan_instructions),
        // Not as the request's schema: that would bind every answer, and those that call tools have
        // none.
        TurnAgent::Agent(Agent { schema: Some(schema), toolbox: Some(_), .. }) => {
            request.schema = None;
            Some(format!(
                "When you are done, answer with JSON alone that fits this schema: {schema}"
            ))
        }
        TurnAgent::Agent(_) => None,
    };
    if let Some(more) = instructions {
        append_system_prompt(request, &more);
    }
}

fn append_system_prompt(request: &mut ChatRequest, addition: &str) {
    let system = request.system.take().filter(|system| !system.is_empty());
    request.system =
        Some(system.map_or_else(|| addition.to_owned(), |s| format!("{s}\n\n{addition}")));
}

/// Appends the recalled memories to the system prompt.
fn add_memories(request: &mut ChatRequest, opening: &[(u32, String, bool)]) {
    let texts = opening.iter().filter(|(_, text, is_error)| !is_error && text != "[]");
    let texts: Vec<&str> = texts.map(|(_, text, _)| text.as_str()).collect();
    if !texts.is_empty() {
        append_system_prompt(request, &format!("What you remember:\n{}", texts.join("\n")));
    }
}

/// Builds the messages of a turn: the model's answer, part by part in its order, then the tool
/// results. `earlier_messages` is the conversation so far.
fn turn_messages(
    reply: &ChatReply,
    turn: u32,
    results: &[(u32, String, bool)],
    earlier_messages: &[ChatMessage],
) -> Vec<ChatMessage> {
    let mut assistant_parts = reply.ordered_parts();
    let mut calls = Vec::new();
    // Ids must be unique within the conversation, whichever provider gave them.
    for part in &mut assistant_parts {
        if let MessagePart::ToolCall(call) = part {
            // Some servers number the calls of each answer from zero, others leave the id empty.
            if call.id.is_empty() || has_call(earlier_messages, &call.id) {
                call.id = format!("call_{turn}_{}", calls.len());
            }
            calls.push((call.id.clone(), call.name.clone()));
        }
    }
    let tool_result_part = |(number, text, is_error): &(u32, String, bool)| {
        let Some((id, name)) = calls.get(*number as usize) else {
            return MessagePart::from_text(text);
        };
        MessagePart::ToolResult(ToolResultPart {
            id: id.clone(),
            name: name.clone(),
            text: text.clone(),
            is_error: *is_error,
            ..ToolResultPart::default()
        })
    };
    let tool_results: Vec<MessagePart> = results.iter().map(tool_result_part).collect();
    let mut messages = vec![
        ChatMessage {
            native: native_fields_to_resend(reply),
            ..ChatMessage::new(MessageRole::Assistant, assistant_parts)
        },
        ChatMessage::new(MessageRole::User, tool_results),
    ];
    // Some providers reject a message without parts.
    messages.retain(|message| !message.parts.is_empty());
    messages
}

fn has_call(messages: &[ChatMessage], id: &str) -> bool {
    let mut parts = messages.iter().flat_map(|message| &message.parts);
    parts.any(|part| matches!(part, MessagePart::ToolCall(call) if call.id == id))
}

/// Returns the provider fields to send back with the answer: reasoning that has no part of its own.
fn native_fields_to_resend(reply: &ChatReply) -> Option<NativeFields> {
    const SENT_BACK: [&str; 2] = ["extra_content", "reasoning_details"];
    let native = reply.native.as_ref()?;
    let fields = native.fields.iter().filter(|(name, _)| SENT_BACK.contains(&name.as_str()));
    let fields = fields.map(|(name, value)| (name.clone(), value.clone())).collect();
    (native.interface == ChatInterface::OpenAiChat)
        .then(|| NativeFields::from_fields(native.interface, fields))
        .flatten()
}

/// Returns a tool result as a model reads it: a string as it is, else JSON, cut at the limit.
fn tool_result_text(value: &Value) -> String {
    let mut text = match value {
        Value::String(text) => text.clone(),
        other => other.to_string(),
    };
    if text.len() > TOOL_RESULT_BYTES_LIMIT {
        let bytes = text.len();
        let mut end = TOOL_RESULT_BYTES_LIMIT;
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
        ChatInterface, ChatMessage, ChatReply, MessagePart, MessageRole, NativeFields, NativePart,
        ThinkingPart, ToolCall,
    };
    use serde_json::{Value, json};

    use super::turn_messages;

    fn call(id: &str) -> MessagePart {
        let (id, name, arguments) = (id.to_owned(), "t".to_owned(), "{}".to_owned());
        MessagePart::ToolCall(ToolCall { id, name, arguments, ..ToolCall::default() })
    }

    fn thinking(signature: &str) -> MessagePart {
        let (text, signature) = ("hm".to_owned(), signature.to_owned());
        MessagePart::Thinking(ThinkingPart { text, signature, native: None })
    }

    fn reply(parts: Vec<MessagePart>) -> ChatReply {
        let mut reply = ChatReply::default();
        reply.set_parts(parts);
        reply
    }

    #[test]
    fn a_turn_goes_back_part_by_part() {
        let block = json!({"type": "redacted_thinking", "data": "x"});
        let redacted =
            MessagePart::Native(NativePart { interface: ChatInterface::Anthropic, block });
        let parts =
            vec![thinking("1"), redacted, thinking("2"), call("a"), MessagePart::from_text("t")];
        let results = [(0, "42".to_owned(), false)];
        let messages = turn_messages(&reply(parts.clone()), 1, &results, &[]);
        assert_eq!(messages[0].parts, parts);
        let MessagePart::ToolResult(result) = &messages[1].parts[0] else { panic!("{messages:?}") };
        assert_eq!((result.id.as_str(), result.text.as_str()), ("a", "42"));
    }

    #[test]
    fn an_id_that_was_there_before_becomes_another() {
        let before = [ChatMessage::new(MessageRole::Assistant, vec![call("call_0")])];
        let results = [(0, "42".to_owned(), false)];
        let messages = turn_messages(&reply(vec![call("call_0")]), 2, &results, &before);
        let MessagePart::ToolCall(call) = &messages[0].parts[0] else { panic!("{messages:?}") };
        let MessagePart::ToolResult(result) = &messages[1].parts[0] else { panic!("{messages:?}") };
        assert_eq!((call.id.as_str(), result.id.as_str()), ("call_2_0", "call_2_0"));
    }

    #[test]
    fn only_what_carries_thoughts_goes_back_with_the_turn() {
        let Value::Object(fields) = json!({"reasoning_details": [1], "annotations": [2]}) else {
            panic!("an object")
        };
        let native = NativeFields::from_fields(ChatInterface::OpenAiChat, fields);
        let reply = ChatReply { native, ..reply(vec![MessagePart::from_text("t")]) };
        let native = turn_messages(&reply, 1, &[], &[]).remove(0).native.expect("it goes back");
        assert_eq!(Value::Object(native.fields), json!({"reasoning_details": [1]}));
    }
}
