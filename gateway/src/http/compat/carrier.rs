//! Carriers: what only another interface understands (encrypted thoughts, native fields) passes
//! through a dialect in a field that its clients treat as opaque and send back.

use base64::Engine;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use convergio_domain::chat::{
    AudioPart, ChatInterface, ChatReply, ImagePart, MessagePart, NativeFields, NativePart,
    RefusalPart, TextPart, ToolCall,
};
use convergio_domain::json::read_json;
use serde::{Deserialize, Serialize};
use serde_json::{Map, Value};

use super::field_table::FieldPath;
use super::refusal::CompatRefusal;

/// Prefix of every packed carrier.
const CARRIER_PREFIX: &str = "cvg1.";
/// Maximum characters of a packed carrier.
const PACKED_LENGTH_LIMIT: usize = 12 << 20;
/// Fields that would turn a block into another one, or make a provider fetch a URL.
const FORBIDDEN_FIELDS: [&str; 7] =
    ["type", "role", "source", "image_url", "file_url", "url", "input_audio"];
/// Fields of a whole reply that must go back to their maker.
const MESSAGE_FIELDS: [&str; 3] = ["annotations", "extra_content", "reasoning_details"];
/// Maximum parts of a reply whose order a carrier records.
const SLOTS_LIMIT: usize = 8192;
/// Block types that the dialects parse and check themselves; a carrier must not smuggle them past
/// the checks.
const CHECKED_BLOCKS: [&str; 8] = [
    "image",
    "document",
    "image_url",
    "input_image",
    "input_file",
    "file",
    "tool_result",
    "function_call_output",
];

/// The content of a carrier.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case", deny_unknown_fields)]
pub(super) enum Carrier {
    /// A part in its place.
    Part(MessagePart),
    /// Fields of the part after this place.
    Next(NativeFields),
    /// Fields of the part before this place.
    Previous(NativeFields),
    /// Fields of the whole reply.
    Message(NativeFields),
    /// Order of a reply's parts, for dialects that join all texts into one.
    Order(Vec<PartSlot>),
}

/// The place of a part in a reply.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub(super) enum PartSlot {
    /// A text of so many bytes.
    Text(usize),
    /// A refusal of so many bytes.
    Refusal(usize),
    /// The thought that the message shows in words.
    Thought,
    /// The next tool call in the message.
    Call,
    /// A part that a carrier holds.
    Carried,
}

impl Carrier {
    /// Packs the carrier as text.
    pub(super) fn pack_text(&self) -> String {
        let json = serde_json::to_vec(self).unwrap_or_default();
        format!("{CARRIER_PREFIX}{}", URL_SAFE_NO_PAD.encode(json))
    }

    /// Unpacks a carrier; `None` if the text is none of ours. Its author need not be authenticated,
    /// because a carrier can say no more than the request could without it.
    ///
    /// # Errors
    /// The text has the prefix and is no allowed carrier.
    pub(super) fn unpack_text(
        text: &str,
        path: FieldPath<'_>,
    ) -> Result<Option<Self>, CompatRefusal> {
        let Some(packed) = text.strip_prefix(CARRIER_PREFIX) else { return Ok(None) };
        let read = || {
            let json = URL_SAFE_NO_PAD.decode(packed).ok()?;
            read_json::<Self>(&json).ok()
        };
        // The text is the caller's: bound it before it is decoded.
        let carrier = if packed.len() > PACKED_LENGTH_LIMIT { None } else { read() };
        match carrier.filter(Self::is_allowed) {
            Some(carrier) => Ok(Some(carrier)),
            None => Err(path.refuse("begins as what this server writes, and is not")),
        }
    }

    // The place where forged carriers are stopped: no URL, no block that a dialect would have
    // checked.
    fn is_allowed(&self) -> bool {
        match self {
            // A thought keeps its own `type` and `role`; the other names could lead a provider to a
            // URL.
            Self::Part(MessagePart::Thinking(thinking)) => thinking
                .native
                .as_ref()
                .is_none_or(|native| !has_any_field(&native.fields, &FORBIDDEN_FIELDS[2..])),
            Self::Part(MessagePart::Native(NativePart { block, .. })) => {
                let kind = block["type"].as_str().unwrap_or_default();
                block.is_object() && !CHECKED_BLOCKS.contains(&kind)
            }
            // Images and audio that a model made: bytes and nothing else.
            Self::Part(
                MessagePart::Image(ImagePart { native: None, .. })
                | MessagePart::Audio(AudioPart { native: None, .. }),
            ) => true,
            Self::Part(_) => false,
            Self::Next(native) | Self::Previous(native) => {
                !has_any_field(&native.fields, &FORBIDDEN_FIELDS)
            }
            // OpenAI's chat interface is the only one with such fields.
            Self::Message(native) => {
                let is_known = |name: &String| MESSAGE_FIELDS.contains(&name.as_str());
                native.interface == ChatInterface::OpenAiChat && native.fields.keys().all(is_known)
            }
            Self::Order(slots) => slots.len() <= SLOTS_LIMIT,
        }
    }
}

fn has_any_field(fields: &Map<String, Value>, names: &[&str]) -> bool {
    names.iter().any(|name| fields.contains_key(*name))
}

/// Returns the native fields of a part that a dialect's interface cannot express.
pub(super) fn foreign_fields(
    part: &MessagePart,
    own_interface: ChatInterface,
) -> Option<&NativeFields> {
    match part {
        MessagePart::Text(TextPart { native, .. })
        | MessagePart::Refusal(RefusalPart { native, .. })
        | MessagePart::ToolCall(ToolCall { native, .. }) => {
            native.as_ref().filter(|native| native.interface != own_interface)
        }
        _ => None,
    }
}

/// Returns the carrier of fields that belong to the whole reply and that a dialect's interface
/// cannot express.
pub(super) fn message_carrier(reply: &ChatReply) -> Option<Carrier> {
    let native = reply.native.as_ref();
    let native = native.filter(|native| native.interface == ChatInterface::OpenAiChat)?;
    let fields = native.fields.iter().filter(|(name, _)| MESSAGE_FIELDS.contains(&name.as_str()));
    let fields = fields.map(|(name, value)| (name.clone(), value.clone())).collect();
    NativeFields::from_fields(ChatInterface::OpenAiChat, fields).map(Carrier::Message)
}

/// Attaches carried fields to a part, unless it has native fields of its own.
pub(super) fn attach_fields(fields: NativeFields, part: &mut MessagePart) {
    if let MessagePart::Text(TextPart { native, .. })
    | MessagePart::Refusal(RefusalPart { native, .. })
    | MessagePart::ToolCall(ToolCall { native, .. }) = part
        && native.is_none()
    {
        *native = Some(fields);
    }
}

/// Reassembles parts from a list in which carriers are interspersed.
#[derive(Default)]
pub(super) struct CarrierUnpacker {
    /// Fields for the next part.
    next_fields: Option<NativeFields>,
    /// Fields of the whole reply.
    pub(super) message_fields: Option<NativeFields>,
}

impl CarrierUnpacker {
    /// Adds a part; fields carried before it become its own.
    pub(super) fn add_part(&mut self, mut part: MessagePart) -> MessagePart {
        if let Some(fields) = self.next_fields.take() {
            attach_fields(fields, &mut part);
        }
        part
    }

    /// Adds a carrier; returns the part that it holds, if it holds one.
    pub(super) fn add_carrier(
        &mut self,
        carrier: Carrier,
        previous: Option<&mut MessagePart>,
    ) -> Option<MessagePart> {
        match carrier {
            Carrier::Part(part) => return Some(part),
            Carrier::Next(fields) => self.next_fields = Some(fields),
            Carrier::Message(fields) => self.message_fields = Some(fields),
            // Only chat completions lose the order of parts.
            Carrier::Order(_) => {}
            Carrier::Previous(fields) => {
                if let Some(previous) = previous {
                    attach_fields(fields, previous);
                }
            }
        }
        None
    }
}

#[cfg(test)]
mod tests {
    use convergio_domain::chat::{
        ChatInterface, MessagePart, NativeFields, NativePart, ThinkingPart,
    };
    use proptest::prelude::{
        Strategy, prop_assert, prop_assert_eq, prop_assume, prop_oneof, proptest,
    };
    use serde_json::{Map, Value, json};

    use super::super::field_table::FieldPath;
    use super::{CARRIER_PREFIX, Carrier};

    fn text() -> impl Strategy<Value = String> {
        proptest::string::string_regex("\\PC{0,40}").expect("a pattern")
    }

    fn interface() -> impl Strategy<Value = ChatInterface> {
        proptest::sample::select(&ChatInterface::ALL[..])
    }

    fn fields() -> impl Strategy<Value = NativeFields> {
        (interface(), text(), text()).prop_map(|(interface, name, value)| {
            let fields = Map::from_iter([(format!("x{name}"), Value::String(value))]);
            NativeFields { interface, fields }
        })
    }

    fn carrier() -> impl Strategy<Value = Carrier> {
        let thinking = (text(), text(), proptest::option::of(fields())).prop_map(
            |(text, signature, native)| {
                Carrier::Part(MessagePart::Thinking(ThinkingPart { text, signature, native }))
            },
        );
        let native = (interface(), text()).prop_map(|(interface, data)| {
            let block = json!({"type": "redacted_thinking", "data": data});
            Carrier::Part(MessagePart::Native(NativePart { interface, block }))
        });
        let next = fields().prop_map(Carrier::Next);
        prop_oneof![thinking, native, next, fields().prop_map(Carrier::Previous)]
    }

    proptest! {
        #[test]
        fn what_is_carried_comes_out_as_it_went_in(carrier in carrier()) {
            let unpacked = Carrier::unpack_text(&carrier.pack_text(), FieldPath::ROOT);
            prop_assert_eq!(unpacked.expect("it is one"), Some(carrier));
        }

        #[test]
        fn other_texts_are_left_alone(text in text()) {
            prop_assume!(!text.starts_with(CARRIER_PREFIX));
            let unpacked = Carrier::unpack_text(&text, FieldPath::ROOT);
            prop_assert!(unpacked.expect("it is none").is_none());
        }

        #[test]
        fn broken_carriers_are_refused(text in text()) {
            let broken = format!("{CARRIER_PREFIX}{text}");
            prop_assert!(Carrier::unpack_text(&broken, FieldPath::ROOT).is_err());
        }
    }

    #[test]
    fn a_forged_carrier_leads_no_provider_anywhere() {
        let inside = "http://169.254.169.254/";
        let block = json!({"type": "image", "source": {"type": "url", "url": inside}});
        let image = NativePart { interface: ChatInterface::Anthropic, block: block.clone() };
        let Value::Object(fields) = block else { panic!("an object") };
        let fields = NativeFields { interface: ChatInterface::Anthropic, fields };
        let url = convergio_domain::chat::ImageUrlPart { url: inside.into(), ..Default::default() };
        for carrier in [
            Carrier::Part(MessagePart::Native(image)),
            Carrier::Next(fields),
            Carrier::Part(MessagePart::ImageUrl(url)),
        ] {
            assert!(
                Carrier::unpack_text(&carrier.pack_text(), FieldPath::ROOT).is_err(),
                "{carrier:?}"
            );
        }
    }
}
