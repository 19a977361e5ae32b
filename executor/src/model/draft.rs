//! The parts of an answer as they grow, and what nobody has heard of them yet.

use convergio_domain::chat::{
    Interface, NativeFields, NativePart, Part, RefusalPart, TextPart, ThinkingPart, ToolCall,
};
use convergio_domain::json_piece::merge;
use convergio_eventstore::LiveKind;
use serde::de::IgnoredAny;
use serde_json::{Map, Value, json};
use uuid::Uuid;

use super::chat::Piece;
use super::json_piece::size;

/// Bytes of text, thought, arguments and whatever else at most.
const BYTES_LIMIT: usize = 8 << 20;
/// Tools that one answer may ask for.
const TOOLS_LIMIT: usize = 128;
/// Parts of one answer.
const PARTS_LIMIT: usize = 4096;
/// The tool by which a provider without structured output is made to answer in a schema.
pub(super) const ANSWER_TOOL: &str = "convergio_answer";

/// More than any honest answer.
pub(super) struct TooLarge;

/// The parts of an answer under way. Notes of them come part by part, whatever the order in which
/// the provider sends their pieces.
#[derive(Default)]
pub(super) struct Drafts {
    drafts: Vec<Draft>,
    /// Whether the next piece begins a part of its own.
    is_apart: bool,
    /// The part whose pieces are told now.
    at: usize,
    /// The part that is the answer in a schema.
    answer: Option<usize>,
    /// Where the parts of the provider's item begin.
    item: usize,
    /// Calls of tools.
    calls: usize,
    bytes: usize,
}

struct Draft {
    part: Part,
    /// What the provider's further pieces of the part are recognised by.
    key: Option<u64>,
    /// The id that the provider gave a call, which may be another's too.
    provider_id: String,
    /// The input of a block that is the provider's own, as far as it has come.
    input: String,
    is_closed: bool,
    notes: Vec<(LiveKind, String)>,
    /// Bytes of the notes that were told.
    note_bytes: u64,
}

impl Draft {
    fn note(&mut self, kind: LiveKind, text: &str) {
        match self.notes.last_mut() {
            Some((last, said)) if *last == kind && !matches!(kind, LiveKind::Native(_)) => {
                said.push_str(text);
            }
            _ => self.notes.push((kind, text.to_owned())),
        }
    }

    /// Whether nothing more of the part will come, if another one has begun.
    fn is_over(&self) -> bool {
        match &self.part {
            Part::ToolCall(call) => self.is_closed || is_json(&call.arguments),
            Part::Native(_) => self.is_closed,
            _ => true,
        }
    }

    /// Whether it is a call whose tool is not known yet.
    fn is_nameless(&self) -> bool {
        matches!(&self.part, Part::ToolCall(call) if call.name.is_empty() && !self.is_closed)
    }

    /// Nothing more of the part comes.
    fn close(&mut self) {
        if std::mem::replace(&mut self.is_closed, true) {
            return;
        }
        match &mut self.part {
            Part::ToolCall(call) if call.arguments.trim().is_empty() => {
                call.arguments.push_str("{}");
                self.note(arguments_kind(), "{}");
            }
            Part::Native(native) => {
                let input = std::mem::take(&mut self.input);
                if let Ok(input) = serde_json::from_str::<Value>(&input)
                    && let Value::Object(block) = &mut native.block
                {
                    block.insert("input".to_owned(), input);
                }
                let whole = json!(self.part).to_string();
                self.notes.clear();
                self.note(LiveKind::Whole, &whole);
            }
            _ => {}
        }
    }
}

fn is_json(text: &str) -> bool {
    serde_json::from_str::<IgnoredAny>(text).is_ok()
}

/// Which tool it is stands there when it is told.
fn arguments_kind() -> LiveKind {
    LiveKind::ToolArguments { id: String::new(), name: String::new() }
}

/// An id for a call of a provider that gives none: no other call has it.
fn call_id() -> String {
    format!("call_{}", Uuid::now_v7().simple())
}

impl Drafts {
    /// Whether what was taken in is within its limits.
    pub(super) fn check(&self) -> Result<(), TooLarge> {
        let is_within = self.bytes <= BYTES_LIMIT
            && self.drafts.len() <= PARTS_LIMIT
            && self.calls <= TOOLS_LIMIT;
        if is_within { Ok(()) } else { Err(TooLarge) }
    }

    /// Counts bytes that are kept elsewhere.
    pub(super) fn add_bytes(&mut self, bytes: usize) {
        self.bytes += bytes;
    }

    /// Whether there is an answer in a schema.
    pub(super) fn is_in_schema(&self) -> bool {
        self.answer.is_some()
    }

    /// The next piece begins a part of its own, though the one before is of its kind.
    pub(super) fn separate(&mut self) {
        self.is_apart = true;
    }

    /// Begins a part, whatever is in it.
    pub(super) fn open(&mut self, part: Part, key: Option<u64>) {
        self.is_apart = false;
        self.drafts.push(Draft {
            part,
            key,
            provider_id: String::new(),
            input: String::new(),
            is_closed: false,
            notes: Vec::new(),
            note_bytes: 0,
        });
    }

    fn last(&mut self) -> Option<&mut Draft> {
        self.drafts.last_mut().filter(|_| !self.is_apart)
    }

    fn newest_mut(&mut self) -> Option<&mut Draft> {
        self.drafts.last_mut()
    }

    /// A piece of text.
    pub(super) fn say(&mut self, text: &str) {
        self.bytes += text.len();
        self.continue_text();
        if let Some(draft) = self.newest_mut()
            && let Part::Text(part) = &mut draft.part
        {
            part.text.push_str(text);
            draft.note(LiveKind::Text, text);
        }
    }

    /// A piece of a thought.
    pub(super) fn think(&mut self, text: &str) {
        self.bytes += text.len();
        self.continue_thought();
        if let Some(draft) = self.newest_mut()
            && let Part::Thinking(part) = &mut draft.part
        {
            part.text.push_str(text);
            draft.note(LiveKind::Thinking, text);
        }
    }

    /// A piece of the provider's mark of the thought.
    pub(super) fn sign(&mut self, text: &str) {
        if text.is_empty() {
            return;
        }
        self.bytes += text.len();
        self.continue_thought();
        if let Some(draft) = self.newest_mut()
            && let Part::Thinking(part) = &mut draft.part
        {
            part.signature.push_str(text);
            draft.note(LiveKind::Signature, text);
        }
    }

    /// Goes on with a thought, or begins one.
    pub(super) fn continue_thought(&mut self) {
        if !matches!(self.last(), Some(Draft { part: Part::Thinking(_), .. })) {
            self.open(Part::Thinking(ThinkingPart::default()), None);
            self.note_begin(LiveKind::Thinking);
        }
    }

    /// Goes on with a text, or begins one.
    pub(super) fn continue_text(&mut self) {
        if !matches!(self.last(), Some(Draft { part: Part::Text(_), .. })) {
            self.open(Part::text(""), None);
            self.note_begin(LiveKind::Text);
        }
    }

    /// Who listens hears that a part begins before anything is told of it.
    fn note_begin(&mut self, kind: LiveKind) {
        if let Some(draft) = self.newest_mut() {
            draft.note(kind, "");
        }
    }

    /// Goes on with a thought that the interface marks so, or begins one.
    pub(super) fn continue_thought_of(&mut self, native: Option<NativeFields>) {
        let is_it = |part: &Part| matches!(part, Part::Thinking(part) if part.native == native);
        if !self.last().is_some_and(|draft| is_it(&draft.part)) {
            let note = native.as_ref().map(|it| (it.interface, json!(it.fields).to_string()));
            self.open(Part::Thinking(ThinkingPart { native, ..ThinkingPart::default() }), None);
            self.note_begin(LiveKind::Thinking);
            if let (Some((interface, fields)), Some(draft)) = (note, self.newest_mut()) {
                draft.note(LiveKind::Native(interface), &fields);
            }
        }
    }

    /// A piece of the words with which the model refuses.
    pub(super) fn refuse(&mut self, text: &str) {
        self.bytes += text.len();
        if !matches!(self.last(), Some(Draft { part: Part::Refusal(_), .. })) {
            self.open(Part::Refusal(RefusalPart::default()), None);
        }
        if let Some(draft) = self.newest_mut()
            && let Part::Refusal(part) = &mut draft.part
        {
            part.text.push_str(text);
            draft.note(LiveKind::Refusal, text);
        }
    }

    /// Begins a call of a tool.
    pub(super) fn begin_call(&mut self, key: Option<u64>, id: &str, name: &str) {
        if name == ANSWER_TOOL {
            self.open(Part::text(""), key);
            self.answer = Some(self.drafts.len() - 1);
            return;
        }
        let provider_id = id.to_owned();
        let id = match id {
            "" => call_id(),
            _ if self.has_call(id) => call_id(),
            _ => id.to_owned(),
        };
        self.bytes += id.len() + name.len();
        self.calls += 1;
        let call = ToolCall { id, name: name.to_owned(), ..ToolCall::default() };
        self.open(Part::ToolCall(call), key);
        if let Some(draft) = self.newest_mut() {
            draft.provider_id = provider_id;
            draft.note(arguments_kind(), "");
        }
    }

    /// Whether a call has this id already.
    fn has_call(&self, id: &str) -> bool {
        let is = |draft: &Draft| matches!(&draft.part, Part::ToolCall(call) if call.id == id);
        self.drafts.iter().any(is)
    }

    /// The place of the latest call of which this is true, by its key and the id that it was given.
    pub(super) fn find_call(&self, is: impl Fn(Option<u64>, &str) -> bool) -> Option<usize> {
        self.drafts.iter().rposition(|draft| match &draft.part {
            Part::ToolCall(_) => is(draft.key, &draft.provider_id),
            _ => false,
        })
    }

    /// The call at a place.
    pub(super) fn call_at(&self, place: usize) -> Option<&ToolCall> {
        match &self.drafts.get(place)?.part {
            Part::ToolCall(call) => Some(call),
            _ => None,
        }
    }

    /// Whether the newest part is a thought that goes on.
    pub(super) fn is_open_thought(&mut self) -> bool {
        matches!(self.last(), Some(Draft { part: Part::Thinking(_), .. }))
    }

    /// Whether a part is a thought that has no mark.
    pub(super) fn is_unsigned_thought(&self, place: Option<usize>) -> bool {
        let draft = place.and_then(|place| self.drafts.get(place));
        matches!(draft.map(|draft| &draft.part), Some(Part::Thinking(part))
            if part.signature.is_empty() && part.native.is_none())
    }

    /// The name of a call that began without one.
    pub(super) fn name_call(&mut self, place: usize, name: &str) {
        if let Some(Draft { part: Part::ToolCall(call), .. }) = self.drafts.get_mut(place)
            && call.name.is_empty()
        {
            name.clone_into(&mut call.name);
            self.bytes += name.len();
        }
    }

    /// What comes next is of another item of the provider's.
    pub(super) fn begin_item(&mut self) {
        self.item = self.drafts.len();
        self.is_apart = true;
    }

    /// The places of the parts of the item.
    pub(super) fn item(&self) -> std::ops::Range<usize> {
        self.item..self.drafts.len()
    }

    /// The place of the newest part.
    pub(super) fn newest(&self) -> Option<usize> {
        self.drafts.len().checked_sub(1)
    }

    /// The place of the latest part with this key.
    pub(super) fn keyed(&self, key: Option<u64>) -> Option<usize> {
        key.and_then(|_| self.drafts.iter().rposition(|draft| draft.key == key))
    }

    /// A piece of the arguments of a call, or of the input of a block.
    pub(super) fn write_arguments(&mut self, place: Option<usize>, text: &str) {
        self.bytes += text.len();
        let is_answer = place.is_some() && place == self.answer;
        let Some(draft) = place.and_then(|place| self.drafts.get_mut(place)) else { return };
        match &mut draft.part {
            Part::ToolCall(call) => {
                call.arguments.push_str(text);
                draft.note(arguments_kind(), text);
            }
            Part::Native(_) => draft.input.push_str(text),
            Part::Text(part) if is_answer => {
                part.text.push_str(text);
                draft.note(LiveKind::Text, text);
            }
            _ => {}
        }
    }

    /// The arguments of a call, or the answer in a schema, as far as they have come.
    pub(super) fn arguments(&self, place: Option<usize>) -> &str {
        match place.and_then(|place| self.drafts.get(place)).map(|draft| &draft.part) {
            Some(Part::ToolCall(call)) => &call.arguments,
            Some(Part::Text(part)) => &part.text,
            _ => "",
        }
    }

    /// A block that is the provider's own. More of it may come, until it is closed.
    pub(super) fn open_native(&mut self, interface: Interface, block: Value, key: Option<u64>) {
        self.bytes += size(&block);
        self.open(Part::Native(NativePart { interface, block }), key);
    }

    /// A block that is the provider's own, and whole.
    pub(super) fn add_native(&mut self, interface: Interface, block: Value) {
        self.open_native(interface, block, None);
        self.close(self.newest());
    }

    /// Nothing more comes of a part, and what comes next is another.
    pub(super) fn close(&mut self, place: Option<usize>) {
        if let Some(draft) = place.and_then(|place| self.drafts.get_mut(place)) {
            draft.close();
        }
        self.is_apart = true;
    }

    /// The model has stopped: nothing more comes of any part.
    pub(super) fn close_all(&mut self) {
        self.drafts.iter_mut().for_each(Draft::close);
        if let Some(draft) = self.answer.and_then(|place| self.drafts.get_mut(place))
            && let Part::Text(part) = &mut draft.part
            && part.text.trim().is_empty()
        {
            part.text.push_str("{}");
            draft.note(LiveKind::Text, "{}");
        }
    }

    /// Fields of a part that only the interface has. `delta` is what a listener is told of them:
    /// the fields themselves where it is null.
    pub(super) fn add_fields(
        &mut self,
        place: Option<usize>,
        interface: Interface,
        fields: Map<String, Value>,
        delta: &Value,
    ) {
        let Some(draft) = place.and_then(|place| self.drafts.get_mut(place)) else { return };
        if fields.is_empty() {
            return;
        }
        self.bytes += fields.values().map(size).sum::<usize>();
        let note = if delta.is_null() { json!(fields).to_string() } else { delta.to_string() };
        if let Part::Native(NativePart { block, .. }) = &mut draft.part {
            merge(block, Value::Object(fields));
            return;
        }
        if let Some(native) = native_of(&mut draft.part) {
            let none = || NativeFields { interface, fields: Map::new() };
            let mut all =
                Value::Object(std::mem::take(&mut native.get_or_insert_with(none).fields));
            merge(&mut all, Value::Object(fields));
            if let Value::Object(all) = all {
                *native = NativeFields::of(interface, all);
            }
            draft.note(LiveKind::Native(interface), &note);
        }
    }

    /// What nobody has heard yet. Parts come one after the other.
    pub(super) fn fresh(&mut self, tokens_out: u64) -> Vec<Piece> {
        let mut pieces = Vec::new();
        let newest = self.newest();
        while let Some(draft) = self.drafts.get_mut(self.at) {
            if draft.is_nameless() {
                break;
            }
            let part = u32::try_from(self.at).unwrap_or(u32::MAX);
            for (mut kind, text) in draft.notes.drain(..) {
                if let (LiveKind::ToolArguments { id, name }, Part::ToolCall(call)) =
                    (&mut kind, &draft.part)
                {
                    (*id, *name) = (call.id.clone(), call.name.clone());
                }
                let offset = draft.note_bytes;
                draft.note_bytes += text.len() as u64;
                pieces.push(Piece { kind, part, offset, text, tokens_out });
            }
            if newest == Some(self.at) || !draft.is_over() {
                break;
            }
            self.at += 1;
        }
        pieces
    }

    /// How many calls of tools there are.
    pub(super) fn calls(&self) -> usize {
        self.calls
    }

    /// All that was written so far, for an estimate of its tokens.
    pub(super) fn all_text(&self) -> String {
        let texts = self.drafts.iter().map(|draft| match &draft.part {
            Part::Text(TextPart { text, .. })
            | Part::Refusal(RefusalPart { text, .. })
            | Part::Thinking(ThinkingPart { text, .. }) => text.clone(),
            Part::ToolCall(call) => call.arguments.clone(),
            Part::Native(native) => native.block.to_string(),
            _ => String::new(),
        });
        texts.collect()
    }

    /// The parts. An answer in a schema is the only text.
    pub(super) fn into_parts(self) -> Vec<Part> {
        let answer = self.answer;
        let parts = self.drafts.into_iter().map(|draft| draft.part).enumerate();
        let is_kept = |place: usize, part: &Part| match part {
            Part::Text(_) => answer.is_none_or(|answer| answer == place),
            _ => true,
        };
        parts.filter(|(place, part)| is_kept(*place, part)).map(|(_, part)| part).collect()
    }
}

fn native_of(part: &mut Part) -> Option<&mut Option<NativeFields>> {
    match part {
        Part::Text(part) => Some(&mut part.native),
        Part::Thinking(part) => Some(&mut part.native),
        Part::ToolCall(call) => Some(&mut call.native),
        Part::Image(part) => Some(&mut part.native),
        Part::Refusal(part) => Some(&mut part.native),
        _ => None,
    }
}

#[cfg(test)]
mod tests;
