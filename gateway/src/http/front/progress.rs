//! Progress of a reply, part by part and byte by byte. Live notes, which may be lost, and the final
//! reply from the log become one sequence of events without gaps or repeats.

use convergio_domain::chat::{
    Interface, NativeFields, Part, RefusalPart, TextPart, ThinkingPart, ToolCall,
};
use convergio_domain::json::read_json;
use convergio_domain::json_piece::merge;
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
    Whole(Box<Part>),
}

/// An event of the part in progress.
#[derive(Debug, Clone, PartialEq)]
pub(super) enum PartEvent {
    /// The part begins, without content yet.
    Begin(PartStart),
    /// The part grows: text, thought, refusal or arguments.
    Piece(String),
    /// Fields of the part that only one interface has.
    Native(Interface, Value),
    /// The part is complete. From notes it holds what was reported; from the log it is the recorded
    /// part.
    End(Box<Part>),
}

/// The reported parts are no prefix of the recorded reply.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Gap;

/// The part in progress.
#[derive(Debug)]
struct Open {
    start: PartStart,
    text: String,
    signature: String,
    native: Option<NativeFields>,
    /// Bytes of its notes of any kind; the next note's offset must equal it.
    bytes: u64,
}

/// The progress of a reply as reported so far.
#[derive(Debug, Default)]
pub(super) struct Progress {
    /// Completed parts, as far as they were reported.
    closed: Vec<Part>,
    open: Option<Open>,
    /// True once a note was missed: the rest then comes from the log.
    is_lost: bool,
}

impl Open {
    fn new(start: PartStart) -> Self {
        Self { start, text: String::new(), signature: String::new(), native: None, bytes: 0 }
    }

    /// Merges fields that only one interface has.
    fn add_fields(&mut self, interface: Interface, delta: &Value) {
        let mut fields = delta.clone();
        // Anthropic's deltas carry their own `type`, and a single citation each.
        let kind = delta["type"].as_str().unwrap_or_default();
        if interface == Interface::Anthropic && kind.ends_with("_delta") {
            fields = match (kind, fields) {
                ("citations_delta", delta) => json!({"citations": [delta["citation"]]}),
                (_, Value::Object(mut fields)) => {
                    fields.remove("type");
                    Value::Object(fields)
                }
                (_, fields) => fields,
            };
        }
        let known = self.native.take().filter(|native| native.interface == interface);
        let mut all = Value::Object(known.map(|native| native.fields).unwrap_or_default());
        merge(&mut all, fields);
        // The merge of two objects is one.
        if let Value::Object(all) = all {
            self.native = NativeFields::of(interface, all);
        }
    }

    /// Builds the part as reported so far.
    fn part(&self) -> Part {
        let (text, native) = (self.text.clone(), self.native.clone());
        match &self.start {
            PartStart::Text => Part::Text(TextPart { text, native, ..TextPart::default() }),
            PartStart::Thinking => {
                let signature = self.signature.clone();
                Part::Thinking(ThinkingPart { text, signature, native })
            }
            PartStart::Refusal => Part::Refusal(RefusalPart { text, native }),
            PartStart::ToolCall { id, name } => {
                let (id, name, arguments) = (id.clone(), name.clone(), text);
                Part::ToolCall(ToolCall { id, name, arguments, native, ..ToolCall::default() })
            }
            PartStart::Whole(part) => (**part).clone(),
        }
    }
}

/// Returns the kind and text of a part that grows piece by piece; `None` for parts that arrive
/// whole.
fn spoken(part: &Part) -> Option<(PartStart, &str)> {
    match part {
        Part::Text(TextPart { text, .. }) => Some((PartStart::Text, text)),
        Part::Thinking(ThinkingPart { text, .. }) => Some((PartStart::Thinking, text)),
        Part::Refusal(RefusalPart { text, .. }) => Some((PartStart::Refusal, text)),
        Part::ToolCall(ToolCall { id, name, arguments, .. }) => {
            let (id, name) = (id.clone(), name.clone());
            Some((PartStart::ToolCall { id, name }, arguments))
        }
        _ => None,
    }
}

fn start_of(part: &Part) -> PartStart {
    spoken(part).map_or_else(|| PartStart::Whole(Box::new(part.clone())), |(start, _)| start)
}

/// True if a reported part agrees with the recorded one. Signatures and native fields are not
/// compared: notes may lack them.
fn fits(heard: &Part, whole: &Part) -> bool {
    match (spoken(heard), spoken(whole)) {
        (Some((heard, one)), Some((whole, other))) => heard == whole && one == other,
        (None, None) => heard == whole,
        _ => false,
    }
}

impl Progress {
    /// True if anything has been reported, so that no new attempt can be streamed.
    pub(super) fn has_begun(&self) -> bool {
        self.open.is_some() || !self.closed.is_empty()
    }

    /// Returns the events of a note. After the first gap all further notes are ignored.
    pub(super) fn hear(&mut self, note: LiveNote) -> Vec<PartEvent> {
        let mut events = Vec::new();
        if !self.is_lost && self.take(note, &mut events).is_none() {
            self.is_lost = true;
        }
        events
    }

    /// Appends the events of a note; `None` if it does not continue what was reported.
    fn take(&mut self, note: LiveNote, events: &mut Vec<PartEvent>) -> Option<()> {
        let start = match note.kind {
            LiveKind::Call | LiveKind::Begin { .. } => return Some(()),
            LiveKind::Signature => {
                // Of some thoughts the provider sends the signature only.
                if !self.is_open(note.part) {
                    self.begin(note.part, &PartStart::Thinking, events)?;
                }
                let open = self.open_at(note.part, note.offset)?;
                open.bytes += note.text.len() as u64;
                open.signature.push_str(&note.text);
                return Some(());
            }
            LiveKind::Native(interface) => {
                let delta = read_json(note.text.as_bytes()).ok()?;
                let open = self.open_at(note.part, note.offset)?;
                open.bytes += note.text.len() as u64;
                open.add_fields(interface, &delta);
                events.push(PartEvent::Native(interface, delta));
                return Some(());
            }
            LiveKind::Whole => {
                let part: Part = read_json(note.text.as_bytes()).ok()?;
                // The part is closed right away: nothing of it can follow.
                self.begin(note.part, &start_of(&part), events)?;
                self.fill(&part, events);
                return Some(());
            }
            LiveKind::Text => PartStart::Text,
            LiveKind::Thinking => PartStart::Thinking,
            LiveKind::Refusal => PartStart::Refusal,
            LiveKind::ToolArguments { id, name } => PartStart::ToolCall { id, name },
        };
        if !self.is_open(note.part) {
            self.begin(note.part, &start, events)?;
        }
        // A note of another kind for the same part is a gap like a missing one.
        let open = self.open_at(note.part, note.offset).filter(|open| open.start == start)?;
        open.bytes += note.text.len() as u64;
        open.text.push_str(&note.text);
        if !note.text.is_empty() {
            events.push(PartEvent::Piece(note.text));
        }
        Some(())
    }

    fn is_open(&self, place: u32) -> bool {
        self.open.is_some() && self.closed.len() as u64 == u64::from(place)
    }

    /// Returns the open part if it has this index and exactly `bytes` were reported of it.
    fn open_at(&mut self, place: u32, bytes: u64) -> Option<&mut Open> {
        let is_it = self.is_open(place);
        self.open.as_mut().filter(|open| is_it && open.bytes == bytes)
    }

    /// Begins the part of an index, which must be the next one; completes the open part before.
    fn begin(&mut self, place: u32, start: &PartStart, events: &mut Vec<PartEvent>) -> Option<()> {
        let next = self.closed.len() + usize::from(self.open.is_some());
        if next as u64 != u64::from(place) {
            return None;
        }
        self.close(events);
        events.push(PartEvent::Begin(start.clone()));
        self.open = Some(Open::new(start.clone()));
        Some(())
    }

    /// Completes the open part at once by a whole part.
    fn fill(&mut self, part: &Part, events: &mut Vec<PartEvent>) {
        let Some(open) = &mut self.open else { return };
        if let Some((_, text)) = spoken(part) {
            open.text.push_str(text);
            if !text.is_empty() {
                events.push(PartEvent::Piece(text.to_owned()));
            }
        }
        // A whole part grows no more.
        self.open = None;
        self.closed.push(part.clone());
        events.push(PartEvent::End(Box::new(part.clone())));
    }

    /// Completes the open part with what was reported of it.
    fn close(&mut self, events: &mut Vec<PartEvent>) {
        let Some(mut open) = self.open.take() else { return };
        let is_call = matches!(open.start, PartStart::ToolCall { .. });
        if is_call && open.text.is_empty() {
            // No arguments mean an empty object; clients parse the text as JSON.
            open.text.push_str("{}");
            events.push(PartEvent::Piece("{}".to_owned()));
        }
        let part = open.part();
        self.closed.push(part.clone());
        events.push(PartEvent::End(Box::new(part)));
    }

    /// Returns the events for everything of the recorded reply that was not reported.
    ///
    /// # Errors
    /// [`ReplyMismatch`] if the reported parts are no prefix of the reply.
    pub(super) fn finish(&mut self, parts: Vec<Part>) -> Result<Vec<PartEvent>, Gap> {
        let heard = self.closed.len();
        let are_same = parts.len() >= heard
            && self.closed.iter().zip(&parts).all(|(heard, whole)| fits(heard, whole));
        if !are_same {
            return Err(Gap);
        }
        let mut events = Vec::new();
        for part in parts.into_iter().skip(heard) {
            // The first of the remaining parts may be reported in part.
            match self.open.take() {
                Some(open) => events.extend(rest(&open, &part)?),
                None => {
                    events.push(PartEvent::Begin(start_of(&part)));
                    if let Some((_, text)) = spoken(&part).filter(|(_, text)| !text.is_empty()) {
                        events.push(PartEvent::Piece(text.to_owned()));
                    }
                }
            }
            self.closed.push(part.clone());
            events.push(PartEvent::End(Box::new(part)));
        }
        match self.open.take() {
            // A part began and nothing came of it; the recorded reply leaves it out.
            Some(open) if open.text.is_empty() && open.signature.is_empty() => {
                events.push(PartEvent::End(Box::new(open.part())));
                Ok(events)
            }
            Some(_) => Err(Gap),
            None => Ok(events),
        }
    }
}

/// Returns the events for the rest of a partly reported part.
fn rest(open: &Open, part: &Part) -> Result<Vec<PartEvent>, Gap> {
    let (start, text) = spoken(part).ok_or(Gap)?;
    let rest = text.strip_prefix(open.text.as_str()).ok_or(Gap)?;
    if start != open.start {
        return Err(Gap);
    }
    Ok(if rest.is_empty() { Vec::new() } else { vec![PartEvent::Piece(rest.to_owned())] })
}

#[cfg(test)]
mod tests {
    use convergio_domain::chat::{Interface, NativePart, Part, ThinkingPart, ToolCall};
    use convergio_eventstore::{LiveKind, LiveNote};
    use proptest::prelude::{Strategy, any, prop, prop_assert_eq, prop_oneof, proptest};
    use serde_json::json;

    use super::{Gap, PartEvent, Progress, spoken};

    fn note(part: usize, kind: LiveKind, offset: usize, text: &str) -> LiveNote {
        let (part, offset) = (u32::try_from(part).expect("few"), offset as u64);
        LiveNote { kind, part, offset, text: text.to_owned(), ..LiveNote::default() }
    }

    /// The notes of an answer, `step` letters at a time.
    fn notes(parts: &[Part], step: usize) -> Vec<LiveNote> {
        let mut notes = Vec::new();
        for (place, part) in parts.iter().enumerate() {
            let kind = match part {
                Part::Text(_) => LiveKind::Text,
                Part::Thinking(_) => LiveKind::Thinking,
                Part::ToolCall(ToolCall { id, name, .. }) => {
                    LiveKind::ToolArguments { id: id.clone(), name: name.clone() }
                }
                part => {
                    let json = serde_json::to_string(part).expect("JSON");
                    notes.push(note(place, LiveKind::Whole, 0, &json));
                    continue;
                }
            };
            let text = spoken(part).expect("spoken").1;
            let letters: Vec<char> = text.chars().collect();
            let mut offset = 0;
            for piece in letters.chunks(step) {
                let piece: String = piece.iter().collect();
                notes.push(note(place, kind.clone(), offset, &piece));
                offset += piece.len();
            }
            if let Part::Thinking(ThinkingPart { signature, .. }) = part {
                notes.push(note(place, LiveKind::Signature, offset, signature));
            }
        }
        notes
    }

    /// The parts, put together again from what was told of them.
    fn built_parts(events: &[PartEvent]) -> Vec<(String, Part)> {
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

    fn part() -> impl Strategy<Value = Part> {
        let text = || proptest::string::string_regex("\\PC{1,12}").expect("a pattern");
        prop_oneof![
            text().prop_map(Part::text),
            (text(), text()).prop_map(|(text, signature)| {
                Part::Thinking(ThinkingPart { text, signature, native: None })
            }),
            text().prop_map(|text| Part::ToolCall(ToolCall {
                id: "c".into(),
                name: "t".into(),
                arguments: json!({"a": text}).to_string(),
                ..ToolCall::default()
            })),
            text().prop_map(|data| Part::Native(NativePart {
                interface: Interface::Anthropic,
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
            let mut progress = Progress::default();
            let notes = notes(&parts, step);
            let begun = usize::from(skips && notes.len() > 1);
            let mut events = Vec::new();
            for note in notes.into_iter().skip(begun).take(heard) {
                events.extend(progress.hear(note));
            }
            events.extend(progress.finish(parts.clone()).expect("they fit"));
            let texts = |part: &Part| spoken(part).map_or("", |(_, text)| text).to_owned();
            let expected: Vec<_> = parts.iter().map(|part| (texts(part), part.clone())).collect();
            prop_assert_eq!(built_parts(&events), expected);
        }
    }

    #[test]
    fn what_does_not_fit_is_no_clean_end() {
        let mut progress = Progress::default();
        progress.hear(note(0, LiveKind::Text, 0, "hello"));
        assert_eq!(progress.finish(vec![Part::text("good-bye")]), Err(Gap));
    }

    #[test]
    fn arguments_that_nobody_wrote_are_an_empty_object() {
        let mut progress = Progress::default();
        let kind = LiveKind::ToolArguments { id: "c".into(), name: "t".into() };
        progress.hear(note(0, kind, 0, ""));
        let events = progress.hear(note(1, LiveKind::Text, 0, "a"));
        assert_eq!(events[0], PartEvent::Piece("{}".into()));
    }
}
