//! The parts of an answer under construction, and the fragments of them that the listener has not
//! received yet.

use convergio_domain::chat::{
    ChatInterface, MessagePart, NativeFields, NativePart, RefusalPart, TextPart, ThinkingPart,
    ToolCall,
};
use convergio_domain::json_merge::merge_piece;
use convergio_eventstore::LiveKind;
use serde::de::IgnoredAny;
use serde_json::{Map, Value, json};
use uuid::Uuid;

use super::json_size::approximate_size;
use super::model_provider::AnswerPiece;

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
pub(super) struct AnswerTooLarge;

/// The parts of an answer under construction. Fragments are handed out part by part, in whatever
/// order the provider interleaves its pieces.
#[derive(Default)]
pub(super) struct AnswerParts {
    /// All parts begun so far, in order.
    drafts: Vec<PartDraft>,
    /// True if the next piece must begin a new part even if the last one is of its kind.
    starts_new_part: bool,
    /// Index of the part whose fragments are being handed out.
    current: usize,
    /// Index of the part that is the answer in a schema.
    schema_answer: Option<usize>,
    /// Index of the first part of the provider's current item.
    item_start: usize,
    /// Number of tool calls.
    call_count: usize,
    /// Bytes of content received, for the limit.
    byte_count: usize,
}

/// One part under construction.
struct PartDraft {
    part: MessagePart,
    /// The provider's index by which later pieces of the part refer to it.
    key: Option<u64>,
    /// The id that the provider gave a tool call. It may repeat another call's id, which the part's
    /// own id never does.
    provider_id: String,
    /// JSON text of a native block's input, as received so far.
    native_input: String,
    /// True once no more of the part can come.
    is_closed: bool,
    /// Fragments not handed out yet.
    queued_fragments: Vec<(LiveKind, String)>,
    /// Bytes of the fragments handed out: the offset of the next one.
    sent_bytes: u64,
}

impl PartDraft {
    /// Queues a fragment. Text continues the last fragment of its kind; native fields are JSON
    /// objects and must stay apart.
    fn queue_fragment(&mut self, kind: LiveKind, text: &str) {
        match self.queued_fragments.last_mut() {
            Some((last, text_so_far)) if *last == kind && !matches!(kind, LiveKind::Native(_)) => {
                text_so_far.push_str(text);
            }
            _ => self.queued_fragments.push((kind, text.to_owned())),
        }
    }

    /// Returns whether the next part may be handed out: nothing more of this one is expected. A
    /// tool call without an end mark counts as over once its arguments are valid JSON.
    fn is_complete(&self) -> bool {
        match &self.part {
            MessagePart::ToolCall(call) => self.is_closed || is_json(&call.arguments),
            MessagePart::Native(_) => self.is_closed,
            _ => true,
        }
    }

    /// Returns whether the part is a tool call whose name has not arrived.
    fn is_nameless(&self) -> bool {
        matches!(&self.part, MessagePart::ToolCall(call) if call.name.is_empty() && !self.is_closed)
    }

    /// Closes the part. Empty arguments become `{}`; a native block gets its input and is handed
    /// out whole.
    fn close_part(&mut self) {
        if std::mem::replace(&mut self.is_closed, true) {
            return;
        }
        match &mut self.part {
            MessagePart::ToolCall(call) if call.arguments.trim().is_empty() => {
                call.arguments.push_str("{}");
                self.queue_fragment(arguments_kind(), "{}");
            }
            MessagePart::Native(native) => {
                let input = std::mem::take(&mut self.native_input);
                if let Ok(input) = serde_json::from_str::<Value>(&input)
                    && let Value::Object(block) = &mut native.block
                {
                    block.insert("input".to_owned(), input);
                }
                // Fields merged so far are superseded: the listener gets the finished block once.
                let whole = json!(self.part).to_string();
                self.queued_fragments.clear();
                self.queue_fragment(LiveKind::Whole, &whole);
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
fn generate_call_id() -> String {
    format!("call_{}", Uuid::now_v7().simple())
}

impl AnswerParts {
    /// Checks the parts against their limits.
    ///
    /// # Errors
    /// There are too many bytes, parts or tool calls.
    pub(super) fn check_limits(&self) -> Result<(), AnswerTooLarge> {
        let is_within = self.byte_count <= BYTES_LIMIT
            && self.drafts.len() <= PARTS_LIMIT
            && self.call_count <= TOOLS_LIMIT;
        if is_within { Ok(()) } else { Err(AnswerTooLarge) }
    }

    /// Counts bytes that are collected outside of the parts.
    pub(super) fn add_bytes(&mut self, bytes: usize) {
        self.byte_count += bytes;
    }

    /// Returns whether a part is an answer in a schema, by the answer tool.
    pub(super) fn is_in_schema(&self) -> bool {
        self.schema_answer.is_some()
    }

    /// Makes the next piece begin a new part, even if the last part is of its kind.
    pub(super) fn force_new_part(&mut self) {
        self.starts_new_part = true;
    }

    /// Begins a part with initial content; `key` is the provider's index of it.
    pub(super) fn open_part(&mut self, part: MessagePart, key: Option<u64>) {
        self.starts_new_part = false;
        self.drafts.push(PartDraft {
            part,
            key,
            provider_id: String::new(),
            native_input: String::new(),
            is_closed: false,
            queued_fragments: Vec::new(),
            sent_bytes: 0,
        });
    }

    /// Returns the newest part if the next piece may continue it.
    fn last_continuable(&mut self) -> Option<&mut PartDraft> {
        self.drafts.last_mut().filter(|_| !self.starts_new_part)
    }

    fn newest_part_mut(&mut self) -> Option<&mut PartDraft> {
        self.drafts.last_mut()
    }

    /// Appends text to the current text part, or to a new one.
    pub(super) fn push_text(&mut self, text: &str) {
        self.byte_count += text.len();
        self.continue_text();
        if let Some(draft) = self.newest_part_mut()
            && let MessagePart::Text(part) = &mut draft.part
        {
            part.text.push_str(text);
            draft.queue_fragment(LiveKind::Text, text);
        }
    }

    /// Appends reasoning to the current reasoning part, or to a new one.
    pub(super) fn push_thinking(&mut self, text: &str) {
        self.byte_count += text.len();
        self.continue_thought();
        if let Some(draft) = self.newest_part_mut()
            && let MessagePart::Thinking(part) = &mut draft.part
        {
            part.text.push_str(text);
            draft.queue_fragment(LiveKind::Thinking, text);
        }
    }

    /// Appends to the signature of the current reasoning part, with which its maker recognises it
    /// later.
    pub(super) fn push_signature(&mut self, text: &str) {
        if text.is_empty() {
            return;
        }
        self.byte_count += text.len();
        self.continue_thought();
        if let Some(draft) = self.newest_part_mut()
            && let MessagePart::Thinking(part) = &mut draft.part
        {
            part.signature.push_str(text);
            draft.queue_fragment(LiveKind::Signature, text);
        }
    }

    /// Ensures that the newest part is a reasoning part.
    pub(super) fn continue_thought(&mut self) {
        if !matches!(
            self.last_continuable(),
            Some(PartDraft { part: MessagePart::Thinking(_), .. })
        ) {
            self.open_part(MessagePart::Thinking(ThinkingPart::default()), None);
            self.queue_part_begin(LiveKind::Thinking);
        }
    }

    /// Ensures that the newest part is a text part.
    pub(super) fn continue_text(&mut self) {
        if !matches!(self.last_continuable(), Some(PartDraft { part: MessagePart::Text(_), .. })) {
            self.open_part(MessagePart::from_text(""), None);
            self.queue_part_begin(LiveKind::Text);
        }
    }

    /// Queues an empty fragment, which tells listeners that a part begins.
    fn queue_part_begin(&mut self, kind: LiveKind) {
        if let Some(draft) = self.newest_part_mut() {
            draft.queue_fragment(kind, "");
        }
    }

    /// Ensures that the newest part is a reasoning part with exactly these native fields.
    pub(super) fn continue_native_thought(&mut self, native: Option<NativeFields>) {
        let is_same_thought = |part: &MessagePart| match part {
            MessagePart::Thinking(part) => part.native == native,
            _ => false,
        };
        if !self.last_continuable().is_some_and(|draft| is_same_thought(&draft.part)) {
            let note = native.as_ref().map(|it| (it.interface, json!(it.fields).to_string()));
            self.open_part(
                MessagePart::Thinking(ThinkingPart { native, ..ThinkingPart::default() }),
                None,
            );
            self.queue_part_begin(LiveKind::Thinking);
            if let (Some((interface, fields)), Some(draft)) = (note, self.newest_part_mut()) {
                draft.queue_fragment(LiveKind::Native(interface), &fields);
            }
        }
    }

    /// Appends text with which the model declines to answer.
    pub(super) fn push_refusal(&mut self, text: &str) {
        self.byte_count += text.len();
        if !matches!(self.last_continuable(), Some(PartDraft { part: MessagePart::Refusal(_), .. }))
        {
            self.open_part(MessagePart::Refusal(RefusalPart::default()), None);
        }
        if let Some(draft) = self.newest_part_mut()
            && let MessagePart::Refusal(part) = &mut draft.part
        {
            part.text.push_str(text);
            draft.queue_fragment(LiveKind::Refusal, text);
        }
    }

    /// Begins a tool call; the answer tool begins the answer in a schema instead. A missing or
    /// repeated id is replaced by a unique one, because results refer to calls by id.
    pub(super) fn begin_tool_call(&mut self, key: Option<u64>, id: &str, name: &str) {
        if name == ANSWER_TOOL {
            self.open_part(MessagePart::from_text(""), key);
            // The model "calls" the answer tool: its arguments are shown and stored as text.
            self.schema_answer = Some(self.drafts.len() - 1);
            return;
        }
        let provider_id = id.to_owned();
        let id = match id {
            "" => generate_call_id(),
            // Some servers repeat an id within an answer.
            _ if self.has_call_id(id) => generate_call_id(),
            _ => id.to_owned(),
        };
        self.byte_count += id.len() + name.len();
        self.call_count += 1;
        let call = ToolCall { id, name: name.to_owned(), ..ToolCall::default() };
        self.open_part(MessagePart::ToolCall(call), key);
        if let Some(draft) = self.newest_part_mut() {
            draft.provider_id = provider_id;
            draft.queue_fragment(arguments_kind(), "");
        }
    }

    /// Returns whether a tool call has this id already.
    fn has_call_id(&self, id: &str) -> bool {
        let has_id =
            |draft: &PartDraft| matches!(&draft.part, MessagePart::ToolCall(call) if call.id == id);
        self.drafts.iter().any(has_id)
    }

    /// Returns the index of the latest tool call that satisfies `is`, given its key and the id by
    /// which the provider knows it.
    pub(super) fn find_tool_call(
        &self,
        matches_call: impl Fn(Option<u64>, &str) -> bool,
    ) -> Option<usize> {
        self.drafts.iter().rposition(|draft| match &draft.part {
            MessagePart::ToolCall(_) => matches_call(draft.key, &draft.provider_id),
            _ => false,
        })
    }

    /// Returns the tool call at an index, if the part there is one.
    pub(super) fn tool_call_at(&self, place: usize) -> Option<&ToolCall> {
        match &self.drafts.get(place)?.part {
            MessagePart::ToolCall(call) => Some(call),
            _ => None,
        }
    }

    /// Returns whether the newest part is a reasoning part that may continue.
    pub(super) fn is_open_thought(&mut self) -> bool {
        matches!(self.last_continuable(), Some(PartDraft { part: MessagePart::Thinking(_), .. }))
    }

    /// Returns whether a part is reasoning without a signature or native fields.
    pub(super) fn is_unsigned_thought(&self, place: Option<usize>) -> bool {
        let draft = place.and_then(|place| self.drafts.get(place));
        matches!(draft.map(|draft| &draft.part), Some(MessagePart::Thinking(part))
            if part.signature.is_empty() && part.native.is_none())
    }

    /// Sets the name of a tool call that began without one.
    pub(super) fn set_call_name(&mut self, place: usize, name: &str) {
        if let Some(PartDraft { part: MessagePart::ToolCall(call), .. }) =
            self.drafts.get_mut(place)
            && call.name.is_empty()
        {
            name.clone_into(&mut call.name);
            self.byte_count += name.len();
        }
    }

    /// Begins a new item of the provider: later pieces start new parts.
    pub(super) fn begin_item(&mut self) {
        // Fields of the item arrive at its end and belong to the parts begun since.
        self.item_start = self.drafts.len();
        self.starts_new_part = true;
    }

    /// Returns the indices of the current item's parts.
    pub(super) fn item_range(&self) -> std::ops::Range<usize> {
        self.item_start..self.drafts.len()
    }

    /// Returns the index of the newest part.
    pub(super) fn newest_index(&self) -> Option<usize> {
        self.drafts.len().checked_sub(1)
    }

    /// Returns the index of the latest part with this key; providers reuse keys.
    pub(super) fn index_of_key(&self, key: Option<u64>) -> Option<usize> {
        key.and_then(|_| self.drafts.iter().rposition(|draft| draft.key == key))
    }

    /// Appends a piece of a tool call's arguments, of a native block's input, or of the answer in a
    /// schema.
    pub(super) fn push_arguments(&mut self, place: Option<usize>, text: &str) {
        self.byte_count += text.len();
        // Pieces of the answer tool's arguments are the text of the schema answer.
        let is_answer = place.is_some() && place == self.schema_answer;
        let Some(draft) = place.and_then(|place| self.drafts.get_mut(place)) else { return };
        match &mut draft.part {
            MessagePart::ToolCall(call) => {
                call.arguments.push_str(text);
                draft.queue_fragment(arguments_kind(), text);
            }
            MessagePart::Native(_) => draft.native_input.push_str(text),
            MessagePart::Text(part) if is_answer => {
                part.text.push_str(text);
                draft.queue_fragment(LiveKind::Text, text);
            }
            _ => {}
        }
    }

    /// Returns the arguments of a tool call, or the answer in a schema, as received so far.
    pub(super) fn arguments_at(&self, place: Option<usize>) -> &str {
        match place.and_then(|place| self.drafts.get(place)).map(|draft| &draft.part) {
            Some(MessagePart::ToolCall(call)) => &call.arguments,
            Some(MessagePart::Text(part)) => &part.text,
            _ => "",
        }
    }

    /// Begins a block that only the provider's interface has. It may grow until it is closed.
    pub(super) fn open_native(&mut self, interface: ChatInterface, block: Value, key: Option<u64>) {
        self.byte_count += approximate_size(&block);
        self.open_part(MessagePart::Native(NativePart { interface, block }), key);
    }

    /// Appends a complete block that only the provider's interface has.
    pub(super) fn add_native(&mut self, interface: ChatInterface, block: Value) {
        self.open_native(interface, block, None);
        self.close_part_at(self.newest_index());
    }

    /// Closes a part; the next piece begins another.
    pub(super) fn close_part_at(&mut self, place: Option<usize>) {
        if let Some(draft) = place.and_then(|place| self.drafts.get_mut(place)) {
            draft.close_part();
        }
        self.starts_new_part = true;
    }

    /// Closes all parts, when the model has stopped. An empty answer in a schema becomes `{}`.
    pub(super) fn close_all(&mut self) {
        self.drafts.iter_mut().for_each(PartDraft::close_part);
        if let Some(draft) = self.schema_answer.and_then(|place| self.drafts.get_mut(place))
            && let MessagePart::Text(part) = &mut draft.part
            && part.text.trim().is_empty()
        {
            part.text.push_str("{}");
            draft.queue_fragment(LiveKind::Text, "{}");
        }
    }

    /// Merges fields of a part that only the interface has. `delta` is the fragment for the
    /// listener; the fields themselves if it is null.
    pub(super) fn merge_native_fields(
        &mut self,
        place: Option<usize>,
        interface: ChatInterface,
        fields: Map<String, Value>,
        delta: &Value,
    ) {
        let Some(draft) = place.and_then(|place| self.drafts.get_mut(place)) else { return };
        if fields.is_empty() {
            return;
        }
        self.byte_count += fields.values().map(approximate_size).sum::<usize>();
        let note = if delta.is_null() { json!(fields).to_string() } else { delta.to_string() };
        if let MessagePart::Native(NativePart { block, .. }) = &mut draft.part {
            // A native block is handed out whole when it is closed: no fragment is queued.
            merge_piece(block, Value::Object(fields));
            return;
        }
        if let Some(native) = native_fields_mut(&mut draft.part) {
            let empty_fields = || NativeFields { interface, fields: Map::new() };
            let mut merged =
                Value::Object(std::mem::take(&mut native.get_or_insert_with(empty_fields).fields));
            merge_piece(&mut merged, Value::Object(fields));
            if let Value::Object(all) = merged {
                *native = NativeFields::from_fields(interface, all);
            }
            draft.queue_fragment(LiveKind::Native(interface), &note);
        }
    }

    /// Returns the fragments not handed out yet. A later part waits until the earlier one is over,
    /// so that listeners receive the parts one after the other.
    pub(super) fn take_new_pieces(&mut self, tokens_out: u64) -> Vec<AnswerPiece> {
        let mut pieces = Vec::new();
        let newest = self.newest_index();
        while let Some(draft) = self.drafts.get_mut(self.current) {
            // Listeners cannot show a call without its tool: the name arrives with one of the next
            // pieces.
            if draft.is_nameless() {
                break;
            }
            let part = u32::try_from(self.current).unwrap_or(u32::MAX);
            for (mut kind, text) in draft.queued_fragments.drain(..) {
                if let (LiveKind::ToolArguments { id, name }, MessagePart::ToolCall(call)) =
                    (&mut kind, &draft.part)
                {
                    (*id, *name) = (call.id.clone(), call.name.clone());
                }
                let offset = draft.sent_bytes;
                draft.sent_bytes += text.len() as u64;
                pieces.push(AnswerPiece { kind, part, offset, text, tokens_out });
            }
            // The newest part may still grow, so the cursor stays on it.
            if newest == Some(self.current) || !draft.is_complete() {
                break;
            }
            self.current += 1;
        }
        pieces
    }

    /// Returns the number of tool calls.
    pub(super) fn tool_call_count(&self) -> usize {
        self.call_count
    }

    /// Returns everything written so far, to estimate its tokens.
    pub(super) fn all_text(&self) -> String {
        let texts = self.drafts.iter().map(|draft| match &draft.part {
            MessagePart::Text(TextPart { text, .. })
            | MessagePart::Refusal(RefusalPart { text, .. })
            | MessagePart::Thinking(ThinkingPart { text, .. }) => text.clone(),
            MessagePart::ToolCall(call) => call.arguments.clone(),
            MessagePart::Native(native) => native.block.to_string(),
            _ => String::new(),
        });
        texts.collect()
    }

    /// Returns the finished parts. Beside an answer in a schema all other text is dropped: callers
    /// parse the text as JSON.
    pub(super) fn into_parts(self) -> Vec<MessagePart> {
        let answer = self.schema_answer;
        let parts = self.drafts.into_iter().map(|draft| draft.part).enumerate();
        let is_part_kept = |place: usize, part: &MessagePart| match part {
            MessagePart::Text(_) => answer.is_none_or(|answer| answer == place),
            _ => true,
        };
        parts.filter(|(place, part)| is_part_kept(*place, part)).map(|(_, part)| part).collect()
    }
}

/// Returns the slot for a part's native fields, if its kind has one.
fn native_fields_mut(part: &mut MessagePart) -> Option<&mut Option<NativeFields>> {
    match part {
        MessagePart::Text(part) => Some(&mut part.native),
        MessagePart::Thinking(part) => Some(&mut part.native),
        MessagePart::ToolCall(call) => Some(&mut call.native),
        MessagePart::Image(part) => Some(&mut part.native),
        MessagePart::Refusal(part) => Some(&mut part.native),
        _ => None,
    }
}

#[cfg(test)]
mod tests;
