//! Progress of a reply, part by part and byte by byte. Live notes, which may be lost, and the final
//! reply from the log become one sequence of events without gaps or repeats.

use convergio_domain::chat::{
    ChatInterface, MessagePart, NativeFields, RefusalPart, TextPart, ThinkingPart, ToolCall,
};
use convergio_domain::json::read_json;
use convergio_domain::json_merge::merge_piece;
use convergio_eventstore::{LiveKind, LiveNote};
use serde_json::{Value, json};

/// The kind of a part, known when it begins.
#[derive(Debug, Clone, PartialEq)]
pub(super) enum PartStart {
    Text,
    Thinking,
    Refusal,
    ToolCall {
        id: String,
        name: String,
    },
    /// A part that arrives in one piece.
    Whole(Box<MessagePart>),
}

/// An event of the part in progress.
#[derive(Debug, Clone, PartialEq)]
pub(super) enum PartEvent {
    /// The part begins, without content yet.
    Begin(PartStart),
    /// The part grows: text, thought, refusal or arguments.
    Piece(String),
    /// Fields of the part that only one interface has.
    Native(ChatInterface, Value),
    /// The part is complete. From notes it holds what was reported; from the log it is the recorded
    /// part.
    End(Box<MessagePart>),
}

/// The reported parts are no prefix of the recorded reply.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct ReplyMismatch;

/// The part in progress.
#[derive(Debug)]
struct OpenPart {
    start: PartStart,
    text: String,
    signature: String,
    native: Option<NativeFields>,
    /// Bytes of its notes of any kind; the next note's offset must equal it.
    note_bytes: u64,
}

/// The progress of a reply as reported so far.
#[derive(Debug, Default)]
pub(super) struct ReplyProgress {
    /// Completed parts, as far as they were reported.
    closed_parts: Vec<MessagePart>,
    open_part: Option<OpenPart>,
    /// True once a note was missed: the rest then comes from the log.
    has_missed_note: bool,
}

impl OpenPart {
    fn new(start: PartStart) -> Self {
        Self { start, text: String::new(), signature: String::new(), native: None, note_bytes: 0 }
    }

    /// Merges fields that only one interface has.
    fn add_fields(&mut self, interface: ChatInterface, delta: &Value) {
        let mut fields = delta.clone();
        // Anthropic's deltas carry their own `type`, and a single citation each.
        let kind = delta["type"].as_str().unwrap_or_default();
        if interface == ChatInterface::Anthropic && kind.ends_with("_delta") {
            fields = match (kind, fields) {
                ("citations_delta", delta) => json!({"citations": [delta["citation"]]}),
                (_, Value::Object(mut fields)) => {
                    fields.remove("type");
                    Value::Object(fields)
                }
                (_, fields) => fields,
            };
        }
        let own_fields = self.native.take().filter(|native| native.interface == interface);
        let mut all = Value::Object(own_fields.map(|native| native.fields).unwrap_or_default());
        merge_piece(&mut all, fields);
        // The merge of two objects is one.
        if let Value::Object(all) = all {
            self.native = NativeFields::from_fields(interface, all);
        }
    }

    /// Builds the part as reported so far.
    fn to_part(&self) -> MessagePart {
        let (text, native) = (self.text.clone(), self.native.clone());
        match &self.start {
            PartStart::Text => MessagePart::Text(TextPart { text, native, ..TextPart::default() }),
            PartStart::Thinking => {
                let signature = self.signature.clone();
                MessagePart::Thinking(ThinkingPart { text, signature, native })
            }
            PartStart::Refusal => MessagePart::Refusal(RefusalPart { text, native }),
            PartStart::ToolCall { id, name } => {
                let (id, name, arguments) = (id.clone(), name.clone(), text);
                MessagePart::ToolCall(ToolCall {
                    id,
                    name,
                    arguments,
                    native,
                    ..ToolCall::default()
                })
            }
            PartStart::Whole(part) => (**part).clone(),
        }
    }
}

/// Returns the kind and text of a part that grows piece by piece; `None` for parts that arrive
/// whole.
fn streamed_text(part: &MessagePart) -> Option<(PartStart, &str)> {
    match part {
        MessagePart::Text(TextPart { text, .. }) => Some((PartStart::Text, text)),
        MessagePart::Thinking(ThinkingPart { text, .. }) => Some((PartStart::Thinking, text)),
        MessagePart::Refusal(RefusalPart { text, .. }) => Some((PartStart::Refusal, text)),
        MessagePart::ToolCall(ToolCall { id, name, arguments, .. }) => {
            let (id, name) = (id.clone(), name.clone());
            Some((PartStart::ToolCall { id, name }, arguments))
        }
        _ => None,
    }
}

fn part_start(part: &MessagePart) -> PartStart {
    streamed_text(part).map_or_else(|| PartStart::Whole(Box::new(part.clone())), |(start, _)| start)
}

/// True if a reported part agrees with the recorded one. Signatures and native fields are not
/// compared: notes may lack them.
fn matches_part(heard: &MessagePart, whole: &MessagePart) -> bool {
    match (streamed_text(heard), streamed_text(whole)) {
        (Some((heard, one)), Some((whole, other))) => heard == whole && one == other,
        (None, None) => heard == whole,
        _ => false,
    }
}

impl ReplyProgress {
    /// True if anything has been reported, so that no new attempt can be streamed.
    pub(super) fn has_begun(&self) -> bool {
        self.open_part.is_some() || !self.closed_parts.is_empty()
    }

    /// Returns the events of a note. After the first gap all further notes are ignored.
    pub(super) fn apply_note(&mut self, note: LiveNote) -> Vec<PartEvent> {
        let mut events = Vec::new();
        if !self.has_missed_note && self.push_note_events(note, &mut events).is_none() {
            self.has_missed_note = true;
        }
        events
    }

    /// Appends the events of a note; `None` if it does not continue what was reported.
    fn push_note_events(&mut self, note: LiveNote, events: &mut Vec<PartEvent>) -> Option<()> {
        let start = match note.kind {
            LiveKind::Call | LiveKind::Begin { .. } => return Some(()),
            LiveKind::Signature => {
                // Of some thoughts the provider sends the signature only.
                if !self.is_open(note.part) {
                    self.begin_part(note.part, &PartStart::Thinking, events)?;
                }
                let open = self.open_part_at(note.part, note.offset)?;
                open.note_bytes += note.text.len() as u64;
                open.signature.push_str(&note.text);
                return Some(());
            }
            LiveKind::Native(interface) => {
                let delta = read_json(note.text.as_bytes()).ok()?;
                let open = self.open_part_at(note.part, note.offset)?;
                open.note_bytes += note.text.len() as u64;
                open.add_fields(interface, &delta);
                events.push(PartEvent::Native(interface, delta));
                return Some(());
            }
            LiveKind::Whole => {
                let part: MessagePart = read_json(note.text.as_bytes()).ok()?;
                // The part is closed right away: nothing of it can follow.
                self.begin_part(note.part, &part_start(&part), events)?;
                self.push_whole_part(&part, events);
                return Some(());
            }
            LiveKind::Text => PartStart::Text,
            LiveKind::Thinking => PartStart::Thinking,
            LiveKind::Refusal => PartStart::Refusal,
            LiveKind::ToolArguments { id, name } => PartStart::ToolCall { id, name },
        };
        if !self.is_open(note.part) {
            self.begin_part(note.part, &start, events)?;
        }
        // A note of another kind for the same part is a gap like a missing one.
        let open = self.open_part_at(note.part, note.offset).filter(|open| open.start == start)?;
        open.note_bytes += note.text.len() as u64;
        open.text.push_str(&note.text);
        if !note.text.is_empty() {
            events.push(PartEvent::Piece(note.text));
        }
        Some(())
    }

    fn is_open(&self, part_index: u32) -> bool {
        self.open_part.is_some() && self.closed_parts.len() as u64 == u64::from(part_index)
    }

    /// Returns the open part if it has this index and exactly `bytes` were reported of it.
    fn open_part_at(&mut self, part_index: u32, bytes: u64) -> Option<&mut OpenPart> {
        let is_it = self.is_open(part_index);
        self.open_part.as_mut().filter(|open| is_it && open.note_bytes == bytes)
    }

    /// Begins the part of an index, which must be the next one; completes the open part before.
    fn begin_part(
        &mut self,
        part_index: u32,
        start: &PartStart,
        events: &mut Vec<PartEvent>,
    ) -> Option<()> {
        let next = self.closed_parts.len() + usize::from(self.open_part.is_some());
        if next as u64 != u64::from(part_index) {
            return None;
        }
        self.close_part(events);
        events.push(PartEvent::Begin(start.clone()));
        self.open_part = Some(OpenPart::new(start.clone()));
        Some(())
    }

    /// Completes the open part at once by a whole part.
    fn push_whole_part(&mut self, part: &MessagePart, events: &mut Vec<PartEvent>) {
        let Some(open) = &mut self.open_part else { return };
        if let Some((_, text)) = streamed_text(part) {
            open.text.push_str(text);
            if !text.is_empty() {
                events.push(PartEvent::Piece(text.to_owned()));
            }
        }
        // A whole part grows no more.
        self.open_part = None;
        self.closed_parts.push(part.clone());
        events.push(PartEvent::End(Box::new(part.clone())));
    }

    /// Completes the open part with what was reported of it.
    fn close_part(&mut self, events: &mut Vec<PartEvent>) {
        let Some(mut open) = self.open_part.take() else { return };
        let is_call = matches!(open.start, PartStart::ToolCall { .. });
        if is_call && open.text.is_empty() {
            // No arguments mean an empty object; clients parse the text as JSON.
            open.text.push_str("{}");
            events.push(PartEvent::Piece("{}".to_owned()));
        }
        let part = open.to_part();
        self.closed_parts.push(part.clone());
        events.push(PartEvent::End(Box::new(part)));
    }

    /// Returns the events for everything of the recorded reply that was not reported.
    ///
    /// # Errors
    /// [`ReplyMismatch`] if the reported parts are no prefix of the reply.
    pub(super) fn finish_parts(
        &mut self,
        parts: Vec<MessagePart>,
    ) -> Result<Vec<PartEvent>, ReplyMismatch> {
        let closed_count = self.closed_parts.len();
        let are_same = parts.len() >= closed_count
            && self
                .closed_parts
                .iter()
                .zip(&parts)
                .all(|(heard, whole)| matches_part(heard, whole));
        if !are_same {
            return Err(ReplyMismatch);
        }
        let mut events = Vec::new();
        for part in parts.into_iter().skip(closed_count) {
            // The first of the remaining parts may be reported in part.
            match self.open_part.take() {
                Some(open) => events.extend(remaining_events(&open, &part)?),
                None => {
                    events.push(PartEvent::Begin(part_start(&part)));
                    if let Some((_, text)) =
                        streamed_text(&part).filter(|(_, text)| !text.is_empty())
                    {
                        events.push(PartEvent::Piece(text.to_owned()));
                    }
                }
            }
            self.closed_parts.push(part.clone());
            events.push(PartEvent::End(Box::new(part)));
        }
        match self.open_part.take() {
            // A part began and nothing came of it; the recorded reply leaves it out.
            Some(open) if open.text.is_empty() && open.signature.is_empty() => {
                events.push(PartEvent::End(Box::new(open.to_part())));
                Ok(events)
            }
            Some(_) => Err(ReplyMismatch),
            None => Ok(events),
        }
    }
}

/// Returns the events for the rest of a partly reported part.
fn remaining_events(open: &OpenPart, part: &MessagePart) -> Result<Vec<PartEvent>, ReplyMismatch> {
    let (start, text) = streamed_text(part).ok_or(ReplyMismatch)?;
    let remaining_text = text.strip_prefix(open.text.as_str()).ok_or(ReplyMismatch)?;
    if start != open.start {
        return Err(ReplyMismatch);
    }
    Ok(if remaining_text.is_empty() {
        Vec::new()
    } else {
        vec![PartEvent::Piece(remaining_text.to_owned())]
    })
}

#[cfg(test)]
mod tests {
    use convergio_domain::chat::{ChatInterface, MessagePart, NativePart, ThinkingPart, ToolCall};
    use convergio_eventstore::{LiveKind, LiveNote};
    use proptest::prelude::{Strategy, any, prop, prop_assert_eq, prop_oneof, proptest};
    use serde_json::json;

    use super::{PartEvent, ReplyMismatch, ReplyProgress, streamed_text};

    fn note(part: usize, kind: LiveKind, offset: usize, text: &str) -> LiveNote {
        let (part, offset) = (u32::try_from(part).expect("few"), offset as u64);
        LiveNote { kind, part, offset, text: text.to_owned(), ..LiveNote::default() }
    }

    /// The notes of an answer, `step` letters at a time.
    fn notes(parts: &[MessagePart], step: usize) -> Vec<LiveNote> {
        let mut notes = Vec::new();
        for (place, part) in parts.iter().enumerate() {
            let kind = match part {
                MessagePart::Text(_) => LiveKind::Text,
                MessagePart::Thinking(_) => LiveKind::Thinking,
                MessagePart::ToolCall(ToolCall { id, name, .. }) => {
                    LiveKind::ToolArguments { id: id.clone(), name: name.clone() }
                }
                part => {
                    let json = serde_json::to_string(part).expect("JSON");
                    notes.push(note(place, LiveKind::Whole, 0, &json));
                    continue;
                }
            };
            let text = streamed_text(part).expect("spoken").1;
            let letters: Vec<char> = text.chars().collect();
            let mut offset = 0;
            for piece in letters.chunks(step) {
                let piece: String = piece.iter().collect();
                notes.push(note(place, kind.clone(), offset, &piece));
                offset += piece.len();
            }
            if let MessagePart::Thinking(ThinkingPart { signature, .. }) = part {
                notes.push(note(place, LiveKind::Signature, offset, signature));
            }
        }
        notes
    }

    /// The parts, put together again from what was told of them.
    fn built_parts(events: &[PartEvent]) -> Vec<(String, MessagePart)> {
        let (mut parts, mut text) = (Vec::new(), None);
        for event in events {
            match event {
                PartEvent::Begin(_) => {
                    assert_eq!(text.replace(String::new()), None, "one at a time");
                }
                PartEvent::Piece(piece) => text.as_mut().expect("begun").push_str(piece),
                PartEvent::Native(..) => {}
                PartEvent::End(part) => {
                    parts.push((text.take().expect("begun"), (**part).clone()));
                }
            }
        }
        assert_eq!(text, None, "all end");
        parts
    }

    fn part() -> impl Strategy<Value = MessagePart> {
        let text = || proptest::string::string_regex("\\PC{1,12}").expect("a pattern");
        prop_oneof![
            text().prop_map(MessagePart::from_text),
            (text(), text()).prop_map(|(text, signature)| {
                MessagePart::Thinking(ThinkingPart { text, signature, native: None })
            }),
            text().prop_map(|text| MessagePart::ToolCall(ToolCall {
                id: "c".into(),
                name: "t".into(),
                arguments: json!({"a": text}).to_string(),
                ..ToolCall::default()
            })),
            text().prop_map(|data| MessagePart::Native(NativePart {
                interface: ChatInterface::Anthropic,
                block: json!({"type": "redacted_thinking", "data": data}),
            })),
        ]
    }

    proptest! {
        #[test]
        fn whatever_was_heard_the_answer_is_told_once_and_whole(
            parts in prop::collection::vec(part(), 0..8),
            step in 1_usize..5,
            heard in 0_usize..60,
            skips in any::<bool>(),
        ) {
            let mut progress = ReplyProgress::default();
            let notes = notes(&parts, step);
            let begun = usize::from(skips && notes.len() > 1);
            let mut events = Vec::new();
            for note in notes.into_iter().skip(begun).take(heard) {
                events.extend(progress.apply_note(note));
            }
            events.extend(progress.finish_parts(parts.clone()).expect("they fit"));
            let texts = |part: &MessagePart| {
                streamed_text(part).map_or("", |(_, text)| text).to_owned()
            };
            let expected: Vec<_> = parts.iter().map(|part| (texts(part), part.clone())).collect();
            prop_assert_eq!(built_parts(&events), expected);
        }
    }

    #[test]
    fn what_does_not_fit_is_no_clean_end() {
        let mut progress = ReplyProgress::default();
        progress.apply_note(note(0, LiveKind::Text, 0, "hello"));
        assert_eq!(
            progress.finish_parts(vec![MessagePart::from_text("good-bye")]),
            Err(ReplyMismatch)
        );
    }

    #[test]
    fn arguments_that_nobody_wrote_are_an_empty_object() {
        let mut progress = ReplyProgress::default();
        let kind = LiveKind::ToolArguments { id: "c".into(), name: "t".into() };
        progress.apply_note(note(0, kind, 0, ""));
        let events = progress.apply_note(note(1, LiveKind::Text, 0, "a"));
        assert_eq!(events[0], PartEvent::Piece("{}".into()));
    }
}
