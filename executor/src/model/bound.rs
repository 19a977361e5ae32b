//! How many tokens a request can have at most, so that what is held for a call is never too little.
//! A byte-level tokenizer makes no more than one token of a byte; pictures and files are bounded by
//! what providers document.

use convergio_domain::chat::{
    AudioPart, ChatRequest, FilePart, ModelService, NativePart, Part, RefusalPart, TextPart,
    ThinkingPart, ToolCall, ToolResultPart,
};
use convergio_domain::metering::CallBound;

use super::service::recording_bytes;

/// Tokens by which a chat's form encloses a message, a part or a tool, at most.
const FRAME_TOKENS: u64 = 16;
/// Tokens by which providers explain to their models that there are tools, at most.
const TOOLS_FRAME_TOKENS: u64 = 1_000;
/// Tokens of a picture at most, at the closest look.
const IMAGE_TOKENS: u64 = 10_000;
/// The same for the small models of OpenAI that count pictures many times over.
const DEAR_IMAGE_TOKENS: u64 = 50_000;
/// Tokens of a file for each byte of its base64 at most: its pages are read as texts and as
/// pictures.
const FILE_TOKENS_PER_BYTE: u64 = 4;
/// Tokens of a file that the provider fetches itself, at most: a whole context.
const FETCHED_TOKENS: u64 = 1_000_000;
/// Milliseconds of a recording for each of its bytes at most: a thousand bits a second, a fraction
/// of what the sparest codecs of speech take.
const AUDIO_MS_PER_BYTE: u64 = 8;
/// Tokens of an answer of a model of which nothing is known, at most.
const UNKNOWN_ANSWER_TOKENS: u32 = 131_072;

/// What a request to a model can use at most.
pub(crate) fn bound_of(
    request: &ChatRequest,
    model: &str,
    max_output_tokens: Option<u32>,
) -> CallBound {
    let output = request.max_tokens.or(max_output_tokens).unwrap_or(UNKNOWN_ANSWER_TOKENS);
    let output_tokens = u64::from(output);
    if let Some(service) = &request.service {
        return service_bound(service, output_tokens);
    }
    let input_tokens = input_bound(request, model);
    CallBound { input_tokens, output_tokens, ..CallBound::default() }
}

/// What a service can use at most. A recording is heard as no more tokens than it has bytes, and
/// has no more words; no format of sound takes less than a byte for so many milliseconds.
fn service_bound(service: &ModelService, output_tokens: u64) -> CallBound {
    match service {
        ModelService::Embed { texts, .. } => {
            let texts = texts.iter().map(|text| FRAME_TOKENS + bytes(text));
            let input_tokens = texts.fold(0, u64::saturating_add);
            CallBound { input_tokens, ..CallBound::default() }
        }
        ModelService::Transcribe { data, prompt, .. } => {
            let recording = recording_bytes(data);
            let prompt = FRAME_TOKENS + prompt.as_deref().map_or(0, bytes);
            CallBound {
                input_tokens: recording.saturating_add(prompt),
                output_tokens: output_tokens.min(recording),
                audio_ms: recording.saturating_mul(AUDIO_MS_PER_BYTE),
                characters: 0,
            }
        }
        ModelService::Speak { text, .. } => {
            CallBound { characters: text.chars().count() as u64, ..CallBound::default() }
        }
    }
}

/// Tokens that are sent at most.
fn input_bound(request: &ChatRequest, model: &str) -> u64 {
    let image = if model.contains("4o-mini") { DEAR_IMAGE_TOKENS } else { IMAGE_TOKENS };
    let messages = request.messages.iter().map(|message| {
        let parts: u64 = message.parts.iter().map(|part| part_bound(part, image)).sum();
        FRAME_TOKENS + parts + message.name.as_deref().map_or(0, bytes)
    });
    let tools = request.tools.iter().map(|tool| {
        let texts = bytes(&tool.name) + bytes(&tool.description);
        FRAME_TOKENS + texts + bytes(&tool.parameters.to_string())
    });
    let native_tools = request.native_tools.iter().map(native_bound);
    let has_tools = !request.tools.is_empty() || !request.native_tools.is_empty();
    let frame = if has_tools { TOOLS_FRAME_TOKENS } else { FRAME_TOKENS };
    let schema =
        request.schema.as_ref().map_or(0, |schema| TOOLS_FRAME_TOKENS + bytes(&schema.to_string()));
    let system = request.system.as_deref().map_or(0, bytes);
    let extra = bytes(&serde_json::Value::from(request.extra_body.clone()).to_string());
    let all = messages.chain(tools).chain(native_tools).fold(0_u64, u64::saturating_add);
    all.saturating_add(frame + schema + system + extra)
}

fn part_bound(part: &Part, image: u64) -> u64 {
    let tokens = match part {
        Part::Text(TextPart { text, .. }) | Part::Refusal(RefusalPart { text, .. }) => bytes(text),
        Part::Thinking(ThinkingPart { text, signature, native }) => {
            let native = native.as_ref().map_or(0, |native| {
                bytes(&serde_json::Value::from(native.fields.clone()).to_string())
            });
            bytes(text) + bytes(signature) + native
        }
        Part::Image(_) | Part::ImageUrl(_) => image,
        Part::File(file) => file_bound(file),
        Part::Audio(AudioPart { data, .. }) => bytes(data),
        Part::ToolCall(ToolCall { id, name, arguments, .. }) => {
            bytes(id) + bytes(name) + bytes(arguments)
        }
        Part::ToolResult(ToolResultPart { id, name, text, parts, .. }) => {
            let parts = parts.iter().map(|part| part_bound(part, image));
            bytes(id) + bytes(name) + bytes(text) + parts.fold(0, u64::saturating_add)
        }
        Part::Native(native) => native_bound(native),
    };
    tokens.saturating_add(FRAME_TOKENS)
}

fn file_bound(file: &FilePart) -> u64 {
    let data = file.data.as_deref().map_or(0, bytes).saturating_mul(FILE_TOKENS_PER_BYTE);
    let text = file.text.as_deref().map_or(0, bytes);
    let fetched = if file.url.is_some() { FETCHED_TOKENS } else { 0 };
    data.saturating_add(text).saturating_add(fetched)
}

fn native_bound(native: &NativePart) -> u64 {
    FRAME_TOKENS + bytes(&native.block.to_string())
}

fn bytes(text: &str) -> u64 {
    text.len() as u64
}

#[cfg(test)]
mod tests {
    use convergio_domain::chat::{ChatRequest, ImagePart, Message, ModelService, Part, Role};

    use super::{DEAR_IMAGE_TOKENS, IMAGE_TOKENS, bound_of};

    #[test]
    fn a_text_has_no_more_tokens_than_bytes() {
        let text = "é1 2 3".repeat(1_000);
        let request = ChatRequest::prompt("m", text.as_str());
        let bound = bound_of(&request, "m", None);
        assert!((7_000..7_100).contains(&bound.input_tokens), "{}", bound.input_tokens);
    }

    #[test]
    fn an_answer_is_bounded_by_the_caller_or_else_by_the_model() {
        let request = ChatRequest::prompt("m", "hi");
        assert_eq!(bound_of(&request, "m", Some(9)).output_tokens, 9);
        let request = ChatRequest { max_tokens: Some(20), ..request };
        assert_eq!(bound_of(&request, "m", Some(9)).output_tokens, 20);
    }

    #[test]
    fn a_service_is_bounded_by_what_it_is_billed_by() {
        let bound = |service| {
            let request = ChatRequest { service: Some(service), ..ChatRequest::default() };
            bound_of(&request, "m", Some(1_000))
        };
        let texts = vec!["é".to_owned(), "1 2 3".to_owned()];
        let embed = bound(ModelService::Embed { texts, dimensions: None });
        assert_eq!((embed.input_tokens, embed.tokens()), (7 + 2 * 16, 7 + 2 * 16));
        let speak = bound(ModelService::Speak {
            text: "Grüße".into(),
            voice: "v".into(),
            format: "mp3".into(),
        });
        assert_eq!((speak.characters, speak.tokens()), (5, 0));
        let hear = bound(ModelService::Transcribe {
            file_name: "a.wav".into(),
            media_type: "audio/wav".into(),
            data: "AAAA".repeat(1_000),
            language: None,
            prompt: Some("Oslo".into()),
        });
        assert_eq!((hear.input_tokens, hear.output_tokens), (3_000 + 16 + 4, 1_000));
        assert_eq!(hear.audio_ms, 24_000);
    }

    #[test]
    fn a_picture_is_bounded_by_its_model() {
        let image = Part::Image(ImagePart { data: "aGk=".into(), ..ImagePart::default() });
        let messages = vec![Message::new(Role::User, vec![image])];
        let request = ChatRequest { messages, ..ChatRequest::default() };
        for (model, least) in [("gpt-5", IMAGE_TOKENS), ("gpt-4o-mini", DEAR_IMAGE_TOKENS)] {
            let tokens = bound_of(&request, model, None).input_tokens;
            assert!((least..least + 100).contains(&tokens), "{model}: {tokens}");
        }
    }
}
