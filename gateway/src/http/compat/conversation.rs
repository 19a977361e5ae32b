//! Builds a conversation from the messages or items of a request.

use std::collections::HashMap;

use convergio_domain::chat::{
    ChatMessage, MessagePart, MessageRole, NativeFields, ToolCall, ToolResultPart,
};

/// Maximum messages of a request.
pub(super) const MESSAGES_LIMIT: usize = 4096;
/// Maximum items of a request, where each tool call is an item of its own.
pub(super) const ITEMS_LIMIT: usize = 1 << 16;
/// Maximum parts of a message.
pub(super) const PARTS_LIMIT: usize = 1 << 16;
/// Maximum tools of a request.
pub(super) const TOOLS_LIMIT: usize = 1024;

/// The messages so far, and the names of the tools called in them.
#[derive(Default)]
pub(super) struct Conversation {
    messages: Vec<ChatMessage>,
    /// Tool names by call id: results name only the call.
    tool_names: HashMap<String, String>,
    /// True if the next part of the same role joins the last message.
    is_turn_open: bool,
}

impl Conversation {
    /// Continues from earlier messages.
    pub(super) fn from_messages(messages: Vec<ChatMessage>) -> Self {
        let mut conversation = Self::default();
        for message in messages {
            conversation.push(message);
        }
        conversation
    }

    /// Adds a whole message.
    pub(super) fn push(&mut self, message: ChatMessage) {
        message.parts.iter().for_each(|part| self.record_tool_name(part));
        self.messages.push(message);
        self.is_turn_open = false;
    }

    /// Adds a part that may share a message with its neighbours of the same role: results of
    /// parallel tool calls, or the items of one reply.
    pub(super) fn add_part(&mut self, role: MessageRole, part: MessagePart) {
        self.record_tool_name(&part);
        // Anthropic requires the results of parallel calls in one message.
        match self.messages.last_mut() {
            Some(last) if self.is_turn_open && last.role == role => last.parts.push(part),
            _ => self.messages.push(ChatMessage::new(role, vec![part])),
        }
        self.is_turn_open = true;
    }

    /// Adds a tool's result under the tool's name.
    pub(super) fn add_result(&mut self, mut result: ToolResultPart) {
        if result.name.is_empty() {
            result.name = self.tool_name(&result.id);
        }
        self.add_part(MessageRole::User, MessagePart::ToolResult(result));
    }

    /// Returns the name of the tool that a call invoked; empty if unknown.
    pub(super) fn tool_name(&self, id: &str) -> String {
        self.tool_names.get(id).cloned().unwrap_or_default()
    }

    fn record_tool_name(&mut self, part: &MessagePart) {
        if let MessagePart::ToolCall(ToolCall { id, name, .. }) = part {
            self.tool_names.insert(id.clone(), name.clone());
        }
    }

    /// Returns the last part of the last message, if that has this role.
    pub(super) fn last_part(&mut self, role: MessageRole) -> Option<&mut MessagePart> {
        let last = self.messages.last_mut().filter(|last| last.role == role)?;
        last.parts.last_mut()
    }

    /// Sets the native fields of the last message, if that has this role.
    pub(super) fn set_native(&mut self, role: MessageRole, native: NativeFields) {
        if let Some(last) = self.messages.last_mut().filter(|last| last.role == role) {
            last.native = Some(native);
            // What follows is another reply, even in the same role.
            self.is_turn_open = false;
        }
    }

    pub(super) fn is_empty(&self) -> bool {
        self.messages.is_empty()
    }

    pub(super) fn into_messages(self) -> Vec<ChatMessage> {
        self.messages
    }
}

#[cfg(test)]
mod tests {
    use convergio_domain::chat::{ChatMessage, MessagePart, MessageRole, ToolCall, ToolResultPart};

    use super::Conversation;

    #[test]
    fn results_of_tools_stand_together_and_know_their_names() {
        let mut conversation = Conversation::default();
        let call = |id: &str| {
            let (id, name) = (id.to_owned(), format!("tool_{id}"));
            MessagePart::ToolCall(ToolCall { id, name, ..ToolCall::default() })
        };
        conversation.push(ChatMessage::new(MessageRole::Assistant, vec![call("a"), call("b")]));
        for id in ["a", "b"] {
            conversation.add_result(ToolResultPart { id: id.into(), ..ToolResultPart::default() });
        }
        conversation.push(ChatMessage::from_text(MessageRole::User, "thanks"));
        let messages = conversation.into_messages();
        assert_eq!(messages.len(), 3);
        let names = messages[1].parts.iter().map(|part| match part {
            MessagePart::ToolResult(result) => result.name.as_str(),
            _ => "",
        });
        assert_eq!(names.collect::<Vec<_>>(), ["tool_a", "tool_b"]);
    }
}
