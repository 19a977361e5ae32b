//! The parts of an answer under construction, and the fragments of them that the listener has not
//! received yet.

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

/// Maximum bytes of text, reasoning, tool arguments and native fields of one answer.
const BYTES_LIMIT: usize = 8 << 20;
/// Maximum tool calls of one answer.
const TOOLS_LIMIT: usize = 128;
/// Maximum parts of one answer.
const PARTS_LIMIT: usize = 4096;
/// Name of the tool by which a provider without structured output is made to answer in a schema:
/// the tool's arguments are the answer.
pub(super) const ANSWER_TOOL: &str = "convergio_answer";

/// The answer exceeds a limit that no honest answer reaches.
pub(super) struct TooLarge;

/// The parts of an answer under construction. Fragments are handed out part by part, in whatever
/// order the provider interleaves its pieces.
#[derive(Default)]
pub(super) struct Drafts {
    /// All parts begun so far, in order.
    drafts: Vec<Draft>,
    /// True if the next piece must begin a new part even if the last one is of its kind.
    is_apart: bool,
    /// Index of the part whose fragments are being handed out.
    at: usize,
    /// Index of the part that is the answer in a schema.
    answer: Option<usize>,
    /// Index of the first part of the provider's current item.
    item: usize,
    /// Number of tool calls.
    calls: usize,
    /// Bytes of content received, for the limit.
    bytes: usize,
}

/// One part under construction.
struct Draft {
    part: Part,
    /// The provider's index by which later pieces of the part refer to it.
    key: Option<u64>,
    /// The id that the provider gave a tool call. It may repeat another call's id, which the part's
    /// own id never does.
    provider_id: String,
    /// JSON text of a native block's input, as received so far.
    input: String,
    /// True once no more of the part can come.
    is_closed: bool,
    /// Fragments not handed out yet.
    notes: Vec<(LiveKind, String)>,
    /// Bytes of the fragments handed out: the offset of the next one.
    note_bytes: u64,
}

impl Draft {
    /// Queues a fragment. Text continues the last fragment of its kind; native fields are JSON
    /// objects and must stay apart.
    fn note(&mut self, kind: LiveKind, text: &str) {
        match self.notes.last_mut() {
            Some((last, said)) if *last == kind && !matches!(kind, LiveKind::Native(_)) => {
                said.push_str(text);
            }
            _ => self.notes.push((kind, text.to_owned())),
        }
    }

    /// Returns whether the next part may be handed out: nothing more of this one is expected. A
    /// tool call without an end mark counts as over once its arguments are valid JSON.
    fn is_over(&self) -> bool {
        match &self.part {
            Part::ToolCall(call) => self.is_closed || is_json(&call.arguments),
            Part::Native(_) => self.is_closed,
            _ => true,
        }
    }

    /// Returns whether the part is a tool call whose name has not arrived.
    fn is_nameless(&self) -> bool {
        matches!(&self.part, Part::ToolCall(call) if call.name.is_empty() && !self.is_closed)
    }

    /// Closes the part. Empty arguments become `{}`; a native block gets its input and is handed
    /// out whole.
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
                // Fields merged so far are superseded: the listener gets the finished block once.
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

/// Returns the kind of arguments fragments. Id and name are filled in when they are handed out: the
/// name may arrive later.
fn arguments_kind() -> LiveKind {
    LiveKind::ToolArguments { id: String::new(), name: String::new() }
}

/// Generates a unique id for a tool call, for providers that give none or repeat one.
fn call_id() -> String {
    format!("call_{}", Uuid::now_v7().simple())
}

impl Drafts {
    /// Checks the parts against their limits.
    ///
    /// # Errors
    /// There are too many bytes, parts or tool calls.
    pub(super) fn check(&self) -> Result<(), TooLarge> {
        let is_within = self.bytes <= BYTES_LIMIT
            && self.drafts.len() <= PARTS_LIMIT
            && self.calls <= TOOLS_LIMIT;
        if is_within { Ok(()) } else { Err(TooLarge) }
    }

    /// Counts bytes that are collected outside of the parts.
    pub(super) fn add_bytes(&mut self, bytes: usize) {
        self.bytes += bytes;
    }

    /// Returns whether a part is an answer in a schema, by the answer tool.
    pub(super) fn is_in_schema(&self) -> bool {
        self.answer.is_some()
    }

    /// Makes the next piece begin a new part, even if the last part is of its kind.
    pub(super) fn separate(&mut self) {
        self.is_apart = true;
    }

    /// Begins a part with initial content; `key` is the provider's index of it.
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

    /// Returns the newest part if the next piece may continue it.
    fn last(&mut self) -> Option<&mut Draft> {
        self.drafts.last_mut().filter(|_| !self.is_apart)
    }

    fn newest_mut(&mut self) -> Option<&mut Draft> {
        self.drafts.last_mut()
    }

    /// Appends text to the current text part, or to a new one.
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

    /// Appends reasoning to the current reasoning part, or to a new one.
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

    /// Appends to the signature of the current reasoning part, with which its maker recognises it
    /// later.
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

    /// Ensures that the newest part is a reasoning part.
    pub(super) fn continue_thought(&mut self) {
        if !matches!(self.last(), Some(Draft { part: Part::Thinking(_), .. })) {
            self.open(Part::Thinking(ThinkingPart::default()), None);
            self.note_begin(LiveKind::Thinking);
        }
    }

    /// Ensures that the newest part is a text part.
    pub(super) fn continue_text(&mut self) {
        if !matches!(self.last(), Some(Draft { part: Part::Text(_), .. })) {
            self.open(Part::text(""), None);
            self.note_begin(LiveKind::Text);
        }
    }

    /// Queues an empty fragment, which tells listeners that a part begins.
    fn note_begin(&mut self, kind: LiveKind) {
        if let Some(draft) = self.newest_mut() {
            draft.note(kind, "");
        }
    }

    /// Ensures that the newest part is a reasoning part with exactly these native fields.
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

    /// Appends text with which the model declines to answer.
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

    /// Begins a tool call; the answer tool begins the answer in a schema instead. A missing or
    /// repeated id is replaced by a unique one, because results refer to calls by id.
    pub(super) fn begin_call(&mut self, key: Option<u64>, id: &str, name: &str) {
        if name == ANSWER_TOOL {
            self.open(Part::text(""), key);
            // The model "calls" the answer tool: its arguments are shown and stored as text.
            self.answer = Some(self.drafts.len() - 1);
            return;
        }
        let provider_id = id.to_owned();
        let id = match id {
            "" => call_id(),
            // Some servers repeat an id within an answer.
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

    /// Returns whether a tool call has this id already.
    fn has_call(&self, id: &str) -> bool {
        let is = |draft: &Draft| matches!(&draft.part, Part::ToolCall(call) if call.id == id);
        self.drafts.iter().any(is)
    }

    /// Returns the index of the latest tool call that satisfies `is`, given its key and the id by
    /// which the provider knows it.
    pub(super) fn find_call(&self, is: impl Fn(Option<u64>, &str) -> bool) -> Option<usize> {
        self.drafts.iter().rposition(|draft| match &draft.part {
            Part::ToolCall(_) => is(draft.key, &draft.provider_id),
            _ => false,
        })
    }

    /// Returns the tool call at an index, if the part there is one.
    pub(super) fn call_at(&self, place: usize) -> Option<&ToolCall> {
        match &self.drafts.get(place)?.part {
            Part::ToolCall(call) => Some(call),
            _ => None,
        }
    }

    /// Returns whether the newest part is a reasoning part that may continue.
    pub(super) fn is_open_thought(&mut self) -> bool {
        matches!(self.last(), Some(Draft { part: Part::Thinking(_), .. }))
    }

    /// Returns whether a part is reasoning without a signature or native fields.
    pub(super) fn is_unsigned_thought(&self, place: Option<usize>) -> bool {
        let draft = place.and_then(|place| self.drafts.get(place));
        matches!(draft.map(|draft| &draft.part), Some(Part::Thinking(part))
            if part.signature.is_empty() && part.native.is_none())
    }

    /// Sets the name of a tool call that began without one.
    pub(super) fn name_call(&mut self, place: usize, name: &str) {
        if let Some(Draft { part: Part::ToolCall(call), .. }) = self.drafts.get_mut(place)
            && call.name.is_empty()
        {
            name.clone_into(&mut call.name);
            self.bytes += name.len();
        }
    }

    /// Begins a new item of the provider: later pieces start new parts.
    pub(super) fn begin_item(&mut self) {
        // Fields of the item arrive at its end and belong to the parts begun since.
        self.item = self.drafts.len();
        self.is_apart = true;
    }

    /// Returns the indices of the current item's parts.
    pub(super) fn item(&self) -> std::ops::Range<usize> {
        self.item..self.drafts.len()
    }

    /// Returns the index of the newest part.
    pub(super) fn newest(&self) -> Option<usize> {
        self.drafts.len().checked_sub(1)
    }

    /// Returns the index of the latest part with this key; providers reuse keys.
    pub(super) fn keyed(&self, key: Option<u64>) -> Option<usize> {
        key.and_then(|_| self.drafts.iter().rposition(|draft| draft.key == key))
    }

    /// Appends a piece of a tool call's arguments, of a native block's input, or of the answer in a
    /// schema.
    pub(super) fn write_arguments(&mut self, place: Option<usize>, text: &str) {
        self.bytes += text.len();
        // Pieces of the answer tool's arguments are the text of the schema answer.
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

    /// Returns the arguments of a tool call, or the answer in a schema, as received so far.
    pub(super) fn arguments(&self, place: Option<usize>) -> &str {
        match place.and_then(|place| self.drafts.get(place)).map(|draft| &draft.part) {
            Some(Part::ToolCall(call)) => &call.arguments,
            Some(Part::Text(part)) => &part.text,
            _ => "",
        }
    }

    /// Begins a block that only the provider's interface has. It may grow until it is closed.
    pub(super) fn open_native(&mut self, interface: Interface, block: Value, key: Option<u64>) {
        self.bytes += size(&block);
        self.open(Part::Native(NativePart { interface, block }), key);
    }

    /// Appends a complete block that only the provider's interface has.
    pub(super) fn add_native(&mut self, interface: Interface, block: Value) {
        self.open_native(interface, block, None);
        self.close(self.newest());
    }

    /// Closes a part; the next piece begins another.
    pub(super) fn close(&mut self, place: Option<usize>) {
        if let Some(draft) = place.and_then(|place| self.drafts.get_mut(place)) {
            draft.close();
        }
        self.is_apart = true;
    }

    /// Closes all parts, when the model has stopped. An empty answer in a schema becomes `{}`.
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

    /// Merges fields of a part that only the interface has. `delta` is the fragment for the
    /// listener; the fields themselves if it is null.
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
            // A native block is handed out whole when it is closed: no fragment is queued.
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

    /// Returns the fragments not handed out yet. A later part waits until the earlier one is over,
    /// so that listeners receive the parts one after the other.
    pub(super) fn fresh(&mut self, tokens_out: u64) -> Vec<Piece> {
        let mut pieces = Vec::new();
        let newest = self.newest();
        while let Some(draft) = self.drafts.get_mut(self.at) {
            // Listeners cannot show a call without its tool: the name arrives with one of the next
            // pieces.
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
            // The newest part may still grow, so the cursor stays on it.
            if newest == Some(self.at) || !draft.is_over() {
                break;
            }
            self.at += 1;
        }
        pieces
    }

    /// Returns the number of tool calls.
    pub(super) fn calls(&self) -> usize {
        self.calls
    }

    /// Returns everything written so far, to estimate its tokens.
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

    /// Returns the finished parts. Beside an answer in a schema all other text is dropped: callers
    /// parse the text as JSON.
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

/// Returns the slot for a part's native fields, if its kind has one.
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
