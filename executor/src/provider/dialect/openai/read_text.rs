//! Pieces of a stream of chat completions that are some text and nothing else: read without
//! building their tree, which costs several times as much.

use std::borrow::Cow;

use serde::Deserialize;
use serde::de::IgnoredAny;
use serde_json::Value;

use crate::provider::answer::AnswerBuilder;

/// A piece with one choice. Fields of the piece and of the choice that are not here say nothing of
/// the answer, as in `read`.
#[derive(Deserialize)]
struct TextPiece<'a> {
    #[serde(borrow, default)]
    model: Option<PieceText<'a>>,
    #[serde(borrow, default)]
    service_tier: Option<PieceText<'a>>,
    #[serde(default)]
    error: Option<IgnoredAny>,
    #[serde(default)]
    usage: Option<IgnoredAny>,
    #[serde(borrow)]
    choices: [TextChoice<'a>; 1],
}

#[derive(Deserialize)]
struct TextChoice<'a> {
    #[serde(borrow)]
    delta: TextDelta<'a>,
    #[serde(default)]
    finish_reason: Option<IgnoredAny>,
}

/// Any other field of the delta has a meaning, or is kept as the provider's own.
#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct TextDelta<'a> {
    #[serde(default, rename = "role")]
    _role: Option<IgnoredAny>,
    #[serde(default)]
    refusal: Option<IgnoredAny>,
    #[serde(borrow)]
    content: Cow<'a, str>,
}

/// Text that is borrowed where it has no escapes.
#[derive(Deserialize)]
struct PieceText<'a>(#[serde(borrow)] Cow<'a, str>);

/// Reads a piece of only text; returns false, and has read nothing, for every other piece.
pub(super) fn read_text_piece(piece: &str, answer: &mut AnswerBuilder) -> bool {
    let Ok(TextPiece { model, service_tier, error, usage, choices: [choice] }) =
        serde_json::from_str(piece)
    else {
        return false;
    };
    let TextDelta { refusal, content, .. } = choice.delta;
    if [error, usage, choice.finish_reason, refusal].iter().any(Option::is_some) {
        return false;
    }
    answer.push_text(&content);
    answer.set_model_name(model.as_ref().map_or("", |model| &model.0));
    if let Some(tier) = service_tier {
        answer.set_service_tier(&Value::from(tier.0));
    }
    true
}

#[cfg(test)]
mod tests {
    use bytes::Bytes;
    use convergio_domain::chat::ChatInterface;
    use serde_json::{Value, json};

    use super::super::read::read_choice;
    use super::{AnswerBuilder, read_text_piece};
    use crate::provider::model_provider::ChatAnswer;
    use crate::provider::usage::from_openai;

    /// Returns the answer of a piece with its times left out.
    fn answer_of(read: impl FnOnce(&mut AnswerBuilder)) -> ChatAnswer {
        let mut answer = AnswerBuilder::new();
        read(&mut answer);
        let answer = answer.into_answer(ChatInterface::OpenAiChat, &Bytes::new(), from_openai);
        ChatAnswer { duration_ms: 0, first_token_ms: None, ..answer }
    }

    fn piece(delta: &Value) -> Value {
        json!({"id": "c", "object": "chat.completion.chunk", "created": 1, "model": "m-1",
            "service_tier": "flex", "system_fingerprint": null, "obfuscation": "x",
            "choices": [{"index": 0, "delta": delta, "logprobs": null, "finish_reason": null}]})
    }

    #[test]
    fn text_is_read_as_from_the_tree() {
        for delta in [
            json!({"content": "Paris"}),
            json!({"role": "assistant", "content": "", "refusal": null}),
            json!({"content": "a \"quote\", an \u{e9} and\na line"}),
        ] {
            let piece = piece(&delta);
            let fast = answer_of(|answer| assert!(read_text_piece(&piece.to_string(), answer)));
            let tree = answer_of(|answer| read_choice(&piece, "delta", answer));
            assert_eq!(fast, tree, "{delta}");
        }
    }

    #[test]
    fn whatever_else_is_said_is_left_to_the_tree() {
        let text = json!({"content": "x"});
        let mut others = vec![
            piece(&json!({"content": null, "reasoning_content": "hm"})),
            piece(&json!({"content": "x", "reasoning": "hm"})),
            piece(&json!({"content": "x", "refusal": "no"})),
            piece(&json!({"content": [{"type": "text", "text": "x"}]})),
            piece(&json!({"tool_calls": []})),
            piece(&json!({"content": "x", "provider_extra": 1})),
            json!({"choices": []}),
            json!({"error": {"message": "x"}}),
            json!([]),
        ];
        for (name, value) in [("usage", json!({"prompt_tokens": 1})), ("error", json!("x"))] {
            let mut other = piece(&text);
            other[name] = value;
            others.push(other);
        }
        let mut finished = piece(&text);
        finished["choices"][0]["finish_reason"] = json!("stop");
        others.push(finished);
        for other in others {
            let read = |answer: &mut AnswerBuilder| {
                assert!(!read_text_piece(&other.to_string(), answer), "{other}");
            };
            assert_eq!(answer_of(read), answer_of(|_| {}), "{other}");
        }
    }
}
