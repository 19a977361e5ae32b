//! What a model answered.

use serde::{Deserialize, Serialize};
use serde_json::Value;

use super::part::{Interface, NativeFields, Part, RefusalPart, TextPart, ThinkingPart, ToolCall};
use super::service::ServiceReply;
use crate::metering::Usage;

/// What a model answered, whole: the output of a step that was given a whole request.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
pub struct ChatReply {
    /// The text.
    pub text: String,
    /// What the model thought aloud, when the provider tells.
    #[serde(default, skip_serializing_if = "String::is_empty")]
    pub thinking: String,
    /// The provider's mark of the thought.
    #[serde(default, skip_serializing_if = "String::is_empty")]
    pub signature: String,
    /// Tools that it asks for.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub tool_calls: Vec<ToolCall>,
    /// The answer part by part, in its order; empty when it is no more than one thought, one text
    /// and the tools, in this order: see [`ChatReply::parts`].
    #[serde(default, skip_serializing_if = "Vec::is_empty", rename = "parts")]
    pub stored_parts: Vec<Part>,
    /// Why it stopped: `stop`, `length`, `tool_calls`, `content_filter`, `pause`, or the provider's
    /// own word when it is none of these.
    pub finish: String,
    /// Why it stopped, in the provider's own word.
    #[serde(default, skip_serializing_if = "String::is_empty")]
    pub native_finish: String,
    /// The text at which it stopped, of those that the caller named.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub stop_sequence: Option<String>,
    /// The tier that served the call, by the provider's word.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub service_tier: Option<String>,
    /// The interface of the provider; absent in answers of earlier programs.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub interface: Option<Interface>,
    /// What only the provider's interface can say of the answer as a whole.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub native: Option<NativeFields>,
    /// What came of a service that was asked for in place of an answer.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub service: Option<ServiceReply>,
    /// The provider's name.
    pub provider: String,
    /// The model, by its own word.
    pub model: String,
    /// Quantities in disjoint classes.
    pub usage: Usage,
    /// False when the quantities are our estimate.
    pub confirmed: bool,
    /// The provider's usage block, as it came.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub raw_usage: Option<Value>,
}

impl ChatReply {
    /// The answer part by part, in its order.
    pub fn parts(&self) -> Vec<Part> {
        if !self.stored_parts.is_empty() {
            return self.stored_parts.clone();
        }
        let thinking = ThinkingPart {
            text: self.thinking.clone(),
            signature: self.signature.clone(),
            native: None,
        };
        let is_thought = !thinking.text.is_empty() || !thinking.signature.is_empty();
        let thinking = is_thought.then_some(Part::Thinking(thinking));
        let text = (!self.text.is_empty()).then(|| Part::text(self.text.clone()));
        let calls = self.tool_calls.iter().cloned().map(Part::ToolCall);
        thinking.into_iter().chain(text).chain(calls).collect()
    }

    /// Puts the parts of an answer in; what sums them up is filled from them.
    pub fn set_parts(&mut self, parts: Vec<Part>) {
        (self.text, self.thinking, self.signature) = Default::default();
        self.tool_calls.clear();
        self.stored_parts.clear();
        for part in &parts {
            match part {
                Part::Text(TextPart { text, .. }) => self.text.push_str(text),
                Part::Thinking(ThinkingPart { text, signature, .. }) => {
                    self.thinking.push_str(text);
                    signature.clone_into(&mut self.signature);
                }
                Part::ToolCall(call) => self.tool_calls.push(call.clone()),
                _ => {}
            }
        }
        if self.parts() != parts {
            self.stored_parts = parts;
        }
    }

    /// Why the model does not answer, in its words; empty when it does.
    pub fn refusal(&self) -> String {
        let words = self.stored_parts.iter().filter_map(|part| match part {
            Part::Refusal(RefusalPart { text, .. }) => Some(text.as_str()),
            _ => None,
        });
        words.collect()
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::{ChatReply, Part, ThinkingPart, ToolCall};

    fn thinking(text: &str, signature: &str) -> Part {
        let (text, signature) = (text.to_owned(), signature.to_owned());
        Part::Thinking(ThinkingPart { text, signature, native: None })
    }

    fn call() -> Part {
        let arguments = "{}".to_owned();
        Part::ToolCall(ToolCall {
            id: "c".into(),
            name: "t".into(),
            arguments,
            ..Default::default()
        })
    }

    #[test]
    fn the_usual_order_is_not_stored_twice() {
        let parts = vec![thinking("hm", "s"), Part::text("a"), call()];
        let mut reply = ChatReply::default();
        reply.set_parts(parts.clone());
        assert!(reply.stored_parts.is_empty());
        assert_eq!(reply.parts(), parts);
    }

    #[test]
    fn any_other_order_comes_back() {
        let orders = [
            vec![Part::text("a"), Part::text("b")],
            vec![thinking("a", "1"), call(), thinking("b", "2"), call()],
            vec![call(), Part::text("a")],
            vec![],
        ];
        for parts in orders {
            let mut reply = ChatReply::default();
            reply.set_parts(parts.clone());
            let stored = serde_json::to_vec(&reply).expect("it is JSON");
            let reply: ChatReply = serde_json::from_slice(&stored).expect("it is a reply");
            assert_eq!(reply.parts(), parts);
        }
    }

    #[test]
    fn an_answer_of_an_earlier_program_is_read() {
        let stored = json!({"text": "t", "thinking": "h", "signature": "s", "finish": "stop",
            "tool_calls": [{"id": "c", "name": "t", "arguments": "{}"}], "provider": "p",
            "model": "m", "usage": {}, "confirmed": true});
        let reply: ChatReply = serde_json::from_value(stored).expect("it is a reply");
        assert_eq!(reply.parts(), vec![thinking("h", "s"), Part::text("t"), call()]);
    }
}
