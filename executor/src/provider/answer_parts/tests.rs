//! Laws of the parts of an answer and of the fragments handed out of them.

use std::collections::BTreeMap;

use convergio_domain::chat::{ChatInterface, MessagePart};
use convergio_eventstore::LiveKind;
use proptest::prelude::{Just, Strategy, prop, prop_assert, prop_assert_eq, prop_oneof, proptest};
use serde_json::json;

use super::{AnswerParts, AnswerPiece};

/// One thing that a provider may send, or a listener's turn.
#[derive(Debug, Clone)]
enum Act {
    Say(String),
    Think(String),
    Sign(String),
    Refuse(String),
    Call(u64),
    Arguments(u64, String),
    Native,
    Separate,
    Tell,
}

fn act() -> impl Strategy<Value = Act> {
    let text = || "[a-zé]{0,5}";
    prop_oneof![
        text().prop_map(Act::Say),
        text().prop_map(Act::Think),
        text().prop_map(Act::Sign),
        text().prop_map(Act::Refuse),
        (0..3_u64).prop_map(Act::Call),
        (0..3_u64, prop_oneof!["\\{\"a\":", "1\\}", ""])
            .prop_map(|(key, text)| Act::Arguments(key, text)),
        Just(Act::Native),
        Just(Act::Separate),
        Just(Act::Tell),
    ]
}

fn perform(drafts: &mut AnswerParts, act: Act, pieces: &mut Vec<AnswerPiece>) {
    match act {
        Act::Say(text) if !text.is_empty() => drafts.push_text(&text),
        Act::Think(text) if !text.is_empty() => drafts.push_thinking(&text),
        Act::Sign(text) => drafts.push_signature(&text),
        Act::Refuse(text) if !text.is_empty() => drafts.push_refusal(&text),
        Act::Say(_) | Act::Think(_) | Act::Refuse(_) => {}
        Act::Call(key) => drafts.begin_tool_call(Some(key), "", "t"),
        Act::Arguments(key, text) => drafts.push_arguments(drafts.index_of_key(Some(key)), &text),
        Act::Native => drafts.add_native(ChatInterface::Anthropic, json!({"type": "x"})),
        Act::Separate => drafts.force_new_part(),
        Act::Tell => pieces.extend(drafts.take_new_pieces(0)),
    }
}

/// Joins the fragments of the kinds that `is_of` selects.
fn join(pieces: &[AnswerPiece], is_of: impl Fn(&LiveKind) -> bool) -> String {
    pieces.iter().filter(|it| is_of(&it.kind)).map(|it| it.text.as_str()).collect()
}

fn fits(part: &MessagePart, pieces: &[AnswerPiece]) -> bool {
    match part {
        MessagePart::Text(part) => join(pieces, |kind| *kind == LiveKind::Text) == part.text,
        MessagePart::Refusal(part) => join(pieces, |kind| *kind == LiveKind::Refusal) == part.text,
        MessagePart::Thinking(part) => {
            join(pieces, |kind| *kind == LiveKind::Thinking) == part.text
                && join(pieces, |kind| *kind == LiveKind::Signature) == part.signature
        }
        MessagePart::ToolCall(call) => {
            let kind = LiveKind::ToolArguments { id: call.id.clone(), name: call.name.clone() };
            join(pieces, |it| *it == kind) == call.arguments
        }
        part => {
            let whole = join(pieces, |kind| *kind == LiveKind::Whole);
            serde_json::from_str::<MessagePart>(&whole).is_ok_and(|whole| whole == *part)
        }
    }
}

proptest! {
    #[test]
    fn parts_are_told_whole_and_one_after_the_other(
        acts in prop::collection::vec(act(), 0..40),
    ) {
        let (mut drafts, mut pieces) = (AnswerParts::default(), Vec::new());
        // Providers do not continue arguments that are complete: such acts are skipped.
        for act in acts {
            let is_late = matches!(&act, Act::Arguments(key, _)
                if drafts.arguments_at(drafts.index_of_key(Some(*key))).ends_with('}'));
            if !is_late {
                perform(&mut drafts, act, &mut pieces);
            }
        }
        drafts.close_all();
        pieces.extend(drafts.take_new_pieces(0));
        prop_assert!(pieces.is_sorted_by_key(|piece| piece.part));
        let mut by_part: BTreeMap<u32, Vec<AnswerPiece>> = BTreeMap::new();
        for piece in pieces {
            let known = by_part.entry(piece.part).or_default();
            let bytes: usize = known.iter().map(|piece| piece.text.len()).sum();
            prop_assert_eq!(piece.offset, bytes as u64);
            known.push(piece);
        }
        for (place, part) in drafts.into_parts().iter().enumerate() {
            let pieces = by_part.get(&u32::try_from(place).expect("few"));
            let pieces = pieces.expect("there are pieces of it");
            prop_assert!(fits(part, pieces), "{:?} {:?}", part, pieces);
        }
    }
}
