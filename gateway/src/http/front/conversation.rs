//! A conversation as it is read, turn by turn.

use std::collections::HashMap;

use convergio_domain::chat::{Message, NativeFields, Part, Role, ToolCall, ToolResultPart};

/// Messages of one request at most.
pub(super) const MESSAGES_LIMIT: usize = 4096;
/// Items of one request at most, where each tool call is one of its own.
pub(super) const ITEMS_LIMIT: usize = 1 << 16;
/// Parts of one message at most.
pub(super) const PARTS_LIMIT: usize = 1 << 16;
/// Tools of one request at most.
pub(super) const TOOLS_LIMIT: usize = 1024;

/// The turns so far, and the names of the tools that were called in them.
#[derive(Default)]
pub(super) struct Conversation {
    messages: Vec<Message>,
    names: HashMap<String, String>,
    /// Whether the last turn grows by what is said next in the same role.
    is_open: bool,
}

impl Conversation {
    /// One that goes on from turns.
    pub(super) fn after(messages: Vec<Message>) -> Self {
        let mut conversation = Self::default();
        for message in messages {
            conversation.push(message);
        }
        conversation
    }

    /// A turn, whole.
    pub(super) fn push(&mut self, message: Message) {
        message.parts.iter().for_each(|part| self.learn(part));
        self.messages.push(message);
        self.is_open = false;
    }

    /// A part of a turn that others of the same role may stand in too: the results of tools that
    /// were called together, the items of one answer.
    pub(super) fn add(&mut self, role: Role, part: Part) {
        self.learn(&part);
        match self.messages.last_mut() {
            Some(last) if self.is_open && last.role == role => last.parts.push(part),
            _ => self.messages.push(Message::new(role, vec![part])),
        }
        self.is_open = true;
    }

    /// What a tool answered, with the tool's name.
    pub(super) fn add_result(&mut self, mut result: ToolResultPart) {
        if result.name.is_empty() {
            result.name = self.tool_name(&result.id);
        }
        self.add(Role::User, Part::ToolResult(result));
    }

    /// The name of the tool that a call asked for.
    pub(super) fn tool_name(&self, id: &str) -> String {
        self.names.get(id).cloned().unwrap_or_default()
    }

    fn learn(&mut self, part: &Part) {
        if let Part::ToolCall(ToolCall { id, name, .. }) = part {
            self.names.insert(id.clone(), name.clone());
        }
    }

    /// The part before the end, in the turn that is open for this role.
    pub(super) fn last_part(&mut self, role: Role) -> Option<&mut Part> {
        let last = self.messages.last_mut().filter(|last| last.role == role)?;
        last.parts.last_mut()
    }

    /// Says of the last turn, if it is of this role, what only its interface can say.
    pub(super) fn set_native(&mut self, role: Role, native: NativeFields) {
        if let Some(last) = self.messages.last_mut().filter(|last| last.role == role) {
            last.native = Some(native);
            // What comes next is another answer.
            self.is_open = false;
        }
    }

    pub(super) fn is_empty(&self) -> bool {
        self.messages.is_empty()
    }

    pub(super) fn into_messages(self) -> Vec<Message> {
        self.messages
    }
}

#[cfg(test)]
mod tests {
    use convergio_domain::chat::{Message, Part, Role, ToolCall, ToolResultPart};

    use super::Conversation;

    #[test]
    fn results_of_tools_stand_together_and_know_their_names() {
        let mut conversation = Conversation::default();
        let call = |id: &str| {
            let (id, name) = (id.to_owned(), format!("tool_{id}"));
            Part::ToolCall(ToolCall { id, name, ..ToolCall::default() })
        };
        conversation.push(Message::new(Role::Assistant, vec![call("a"), call("b")]));
        for id in ["a", "b"] {
            conversation.add_result(ToolResultPart { id: id.into(), ..ToolResultPart::default() });
        }
        conversation.push(Message::text(Role::User, "thanks"));
        let messages = conversation.into_messages();
        assert_eq!(messages.len(), 3);
        let names = messages[1].parts.iter().map(|part| match part {
            Part::ToolResult(result) => result.name.as_str(),
            _ => "",
        });
        assert_eq!(names.collect::<Vec<_>>(), ["tool_a", "tool_b"]);
    }
}
