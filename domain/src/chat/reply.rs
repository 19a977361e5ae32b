//! The whole answer of a model.

use serde::{Deserialize, Serialize};
use serde_json::Value;

use super::part::{
    ChatInterface, MessagePart, NativeFields, RefusalPart, TextPart, ThinkingPart, ToolCall,
};
use super::service::ServiceReply;
use crate::billing::Usage;

/// A whole answer of a model: the output of a step that sent a whole request.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
pub struct ChatReply {
    /// Concatenated text parts.
    pub text: String,
    /// Concatenated reasoning, if the provider reveals it.
    #[serde(default, skip_serializing_if = "String::is_empty")]
    pub thinking: String,
    /// Provider's signature of the reasoning.
    #[serde(default, skip_serializing_if = "String::is_empty")]
    pub signature: String,
    /// Tools that the model calls, in order.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub tool_calls: Vec<ToolCall>,
    /// The answer part by part, in order. Empty if it is at most one reasoning part, one text and
    /// the tool calls, in this order: then [`ChatReply::ordered_parts`] rebuilds it.
    #[serde(default, skip_serializing_if = "Vec::is_empty", rename = "parts")]
    pub stored_parts: Vec<MessagePart>,
    /// Reason for the end: `stop`, `length`, `tool_calls`, `content_filter`, `pause`, or the
    /// provider's own word if it is none of these.
    pub finish: String,
    /// Reason for the end in the provider's own word.
    #[serde(default, skip_serializing_if = "String::is_empty")]
    pub native_finish: String,
    /// The stop sequence that ended the answer.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub stop_sequence: Option<String>,
    /// Service tier that served the call, in the provider's word.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub service_tier: Option<String>,
    /// Interface of the provider; absent in answers stored by earlier versions.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub interface: Option<ChatInterface>,
    /// Fields of the answer that only the provider's interface has.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub native: Option<NativeFields>,
    /// Result of a service that was requested in place of an answer.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub service: Option<ServiceReply>,
    /// Name of the provider that answered.
    pub provider: String,
    /// Name of the model that answered, as the provider reports it.
    pub model: String,
    /// Quantities by meter, for billing.
    pub usage: Usage,
    /// True if the provider reported the usage; false if it is estimated.
    pub confirmed: bool,
    /// Usage block of the provider, unchanged.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub raw_usage: Option<Value>,
}

impl ChatReply {
    /// Returns the answer part by part, in order.
    pub fn ordered_parts(&self) -> Vec<MessagePart> {
        if !self.stored_parts.is_empty() {
            return self.stored_parts.clone();
        }
        let thinking = ThinkingPart {
            text: self.thinking.clone(),
            signature: self.signature.clone(),
            native: None,
        };
        // A signature without text is kept: the provider wants it back.
        let is_thought = !thinking.text.is_empty() || !thinking.signature.is_empty();
        let thinking = is_thought.then_some(MessagePart::Thinking(thinking));
        let text = (!self.text.is_empty()).then(|| MessagePart::from_text(self.text.clone()));
        let calls = self.tool_calls.iter().cloned().map(MessagePart::ToolCall);
        thinking.into_iter().chain(text).chain(calls).collect()
    }

    /// Sets the parts of the answer, and the fields that sum them up.
    pub fn set_parts(&mut self, parts: Vec<MessagePart>) {
        (self.text, self.thinking, self.signature) = Default::default();
        self.tool_calls.clear();
        self.stored_parts.clear();
        for part in &parts {
            match part {
                MessagePart::Text(TextPart { text, .. }) => self.text.push_str(text),
                MessagePart::Thinking(ThinkingPart { text, signature, .. }) => {
                    self.thinking.push_str(text);
                    signature.clone_into(&mut self.signature);
                }
                MessagePart::ToolCall(call) => self.tool_calls.push(call.clone()),
                _ => {}
            }
            // The usual order is rebuilt from the other fields: storing it would double every
            // answer.
        }
        if self.ordered_parts() != parts {
            self.stored_parts = parts;
        }
    }

    /// Returns the model's words for refusing to answer; empty if it did not refuse.
    pub fn refusal_text(&self) -> String {
        let words = self.stored_parts.iter().filter_map(|part| match part {
            MessagePart::Refusal(RefusalPart { text, .. }) => Some(text.as_str()),
            _ => None,
        });
        words.collect()
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::{ChatReply, MessagePart, ThinkingPart, ToolCall};

    fn thinking(text: &str, signature: &str) -> MessagePart {
        let (text, signature) = (text.to_owned(), signature.to_owned());
        MessagePart::Thinking(ThinkingPart { text, signature, native: None })
    }

    fn call() -> MessagePart {
        let arguments = "{}".to_owned();
        MessagePart::ToolCall(ToolCall {
            id: "c".into(),
            name: "t".into(),
            arguments,
            ..Default::default()
        })
    }

    #[test]
    fn the_usual_order_is_not_stored_twice() {
        let parts = vec![thinking("hm", "s"), MessagePart::from_text("a"), call()];
        let mut reply = ChatReply::default();
        reply.set_parts(parts.clone());
        assert!(reply.stored_parts.is_empty());
        assert_eq!(reply.ordered_parts(), parts);
    }

    #[test]
    fn any_other_order_comes_back() {
        let orders = [
            vec![MessagePart::from_text("a"), MessagePart::from_text("b")],
            vec![thinking("a", "1"), call(), thinking("b", "2"), call()],
            vec![call(), MessagePart::from_text("a")],
            vec![],
        ];
        for parts in orders {
            let mut reply = ChatReply::default();
            reply.set_parts(parts.clone());
            let stored = serde_json::to_vec(&reply).expect("it is JSON");
            let reply: ChatReply = serde_json::from_slice(&stored).expect("it is a reply");
            assert_eq!(reply.ordered_parts(), parts);
        }
    }

    #[test]
    fn an_answer_of_an_earlier_program_is_read() {
        let stored = json!({"text": "t", "thinking": "h", "signature": "s", "finish": "stop",
            "tool_calls": [{"id": "c", "name": "t", "arguments": "{}"}], "provider": "p",
            "model": "m", "usage": {}, "confirmed": true});
        let reply: ChatReply = serde_json::from_value(stored).expect("it is a reply");
        assert_eq!(
            reply.ordered_parts(),
            vec![thinking("h", "s"), MessagePart::from_text("t"), call()]
        );
    }
}
