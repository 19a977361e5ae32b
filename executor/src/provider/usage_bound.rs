//! Worst-case usage of a call, so that its budget hold is never too small. A byte-level tokenizer
//! makes at most one token of a byte; pictures and files are bounded by what providers document.

use convergio_domain::billing::CallBound;
use convergio_domain::chat::{
    AudioPart, ChatRequest, FilePart, MessagePart, ModelService, NativePart, RefusalPart, TextPart,
    ThinkingPart, ToolCall, ToolResultPart,
};

use super::service::recording_bytes;

/// Maximum tokens that a chat template adds to a message, a part or a tool.
const FRAME_TOKENS: u64 = 16;
/// Maximum tokens with which a provider introduces tools or a schema to its model.
const TOOLS_FRAME_TOKENS: u64 = 1_000;
/// Maximum tokens of a picture at the highest level of detail.
const IMAGE_TOKENS: u64 = 10_000;
/// Maximum tokens of a picture for the small OpenAI models that multiply picture tokens.
const DEAR_IMAGE_TOKENS: u64 = 50_000;
/// Maximum tokens of a file per byte of its base64: its pages are read both as text and as
/// pictures.
const FILE_TOKENS_PER_BYTE: u64 = 4;
/// Maximum tokens of a file that the provider fetches by its URL: a whole context window.
const FETCHED_TOKENS: u64 = 1_000_000;
/// Maximum milliseconds of a recording per byte. This is one kilobit per second, a fraction of what
/// the most economical speech codecs need.
const AUDIO_MS_PER_BYTE: u64 = 8;
/// Maximum tokens of an answer of a model whose output limit is unknown.
const UNKNOWN_ANSWER_TOKENS: u32 = 131_072;

/// Returns the most that a request to `model` can use. `max_output_tokens` is the model's own
/// limit, which counts when the request names none.
pub(crate) fn call_bound(
    request: &ChatRequest,
    model: &str,
    max_output_tokens: Option<u32>,
) -> CallBound {
    let output_limit = request.max_tokens.or(max_output_tokens).unwrap_or(UNKNOWN_ANSWER_TOKENS);
    let output_tokens = u64::from(output_limit);
    if let Some(service) = &request.service {
        return service_bound(service, output_tokens);
    }
    let input_tokens = input_bound(request, model);
    CallBound { input_tokens, output_tokens, ..CallBound::default() }
}

/// Returns the most that a service can use. A recording has at most as many input tokens as bytes,
/// and its transcript at most as many output tokens.
fn service_bound(service: &ModelService, output_tokens: u64) -> CallBound {
    match service {
        ModelService::Embed { texts, .. } => {
            let texts = texts.iter().map(|text| FRAME_TOKENS + byte_length(text));
            let input_tokens = texts.fold(0, u64::saturating_add);
            CallBound { input_tokens, ..CallBound::default() }
        }
        ModelService::Transcribe { data, prompt, .. } => {
            let recording = recording_bytes(data);
            let prompt = FRAME_TOKENS + prompt.as_deref().map_or(0, byte_length);
            CallBound {
                input_tokens: recording.saturating_add(prompt),
                // Words are spoken more slowly than codecs produce bytes.
                output_tokens: output_tokens.min(recording),
                audio_ms: recording.saturating_mul(AUDIO_MS_PER_BYTE),
                characters: 0,
            }
        }
        ModelService::Speak { text, .. } => {
            // Speech is billed by characters alone, so there is no bound on tokens.
            CallBound { characters: text.chars().count() as u64, ..CallBound::default() }
        }
    }
}

/// Maximum input tokens of a chat request.
fn input_bound(request: &ChatRequest, model: &str) -> u64 {
    let image_tokens = if model.contains("4o-mini") { DEAR_IMAGE_TOKENS } else { IMAGE_TOKENS };
    let messages = request.messages.iter().map(|message| {
        let parts: u64 = message.parts.iter().map(|part| part_bound(part, image_tokens)).sum();
        FRAME_TOKENS + parts + message.name.as_deref().map_or(0, byte_length)
    });
    let tools = request.tools.iter().map(|tool| {
        let texts = byte_length(&tool.name) + byte_length(&tool.description);
        FRAME_TOKENS + texts + byte_length(&tool.parameters.to_string())
    });
    let native_tools = request.native_tools.iter().map(native_bound);
    let has_tools = !request.tools.is_empty() || !request.native_tools.is_empty();
    // Providers describe tools to their models in a system prompt of their own.
    let frame = if has_tools { TOOLS_FRAME_TOKENS } else { FRAME_TOKENS };
    let schema = request
        .schema
        .as_ref()
        .map_or(0, |schema| TOOLS_FRAME_TOKENS + byte_length(&schema.to_string()));
    let system = request.system.as_deref().map_or(0, byte_length);
    // Unknown fields may carry prompt text, so their bytes count as tokens too.
    let extra = byte_length(&serde_json::Value::from(request.extra_body.clone()).to_string());
    let all = messages.chain(tools).chain(native_tools).fold(0_u64, u64::saturating_add);
    all.saturating_add(frame + schema + system + extra)
}

/// Maximum input tokens of one part; `image_tokens` is the bound of a picture.
fn part_bound(part: &MessagePart, image_tokens: u64) -> u64 {
    let tokens = match part {
        MessagePart::Text(TextPart { text, .. })
        | MessagePart::Refusal(RefusalPart { text, .. }) => byte_length(text),
        MessagePart::Thinking(ThinkingPart { text, signature, native }) => {
            let native = native.as_ref().map_or(0, |native| {
                byte_length(&serde_json::Value::from(native.fields.clone()).to_string())
            });
            byte_length(text) + byte_length(signature) + native
        }
        // Pictures are scaled by the provider: their bytes say nothing about their tokens.
        MessagePart::Image(_) | MessagePart::ImageUrl(_) => image_tokens,
        MessagePart::File(file) => file_bound(file),
        MessagePart::Audio(AudioPart { data, .. }) => byte_length(data),
        MessagePart::ToolCall(ToolCall { id, name, arguments, .. }) => {
            byte_length(id) + byte_length(name) + byte_length(arguments)
        }
        MessagePart::ToolResult(ToolResultPart { id, name, text, parts, .. }) => {
            let parts = parts.iter().map(|part| part_bound(part, image_tokens));
            byte_length(id)
                + byte_length(name)
                + byte_length(text)
                + parts.fold(0, u64::saturating_add)
        }
        MessagePart::Native(native) => native_bound(native),
    };
    tokens.saturating_add(FRAME_TOKENS)
}

/// Maximum input tokens of a document, whichever of its sources the provider reads.
fn file_bound(file: &FilePart) -> u64 {
    // The sources are added although a provider reads only one of them: a bound may be too high.
    let data = file.data.as_deref().map_or(0, byte_length).saturating_mul(FILE_TOKENS_PER_BYTE);
    let text = file.text.as_deref().map_or(0, byte_length);
    let fetched_tokens = if file.url.is_some() { FETCHED_TOKENS } else { 0 };
    data.saturating_add(text).saturating_add(fetched_tokens)
}

fn native_bound(native: &NativePart) -> u64 {
    FRAME_TOKENS + byte_length(&native.block.to_string())
}

fn byte_length(text: &str) -> u64 {
    text.len() as u64
}

#[cfg(test)]
mod tests {
    use convergio_domain::chat::{
        ChatMessage, ChatRequest, ImagePart, MessagePart, MessageRole, ModelService,
    };

    use super::{DEAR_IMAGE_TOKENS, IMAGE_TOKENS, call_bound};

    #[test]
    fn a_text_has_no_more_tokens_than_bytes() {
        let text = "é1 2 3".repeat(1_000);
        let request = ChatRequest::from_prompt("m", text.as_str());
        let bound = call_bound(&request, "m", None);
        assert!((7_000..7_100).contains(&bound.input_tokens), "{}", bound.input_tokens);
    }

    #[test]
    fn an_answer_is_bounded_by_the_caller_or_else_by_the_model() {
        let request = ChatRequest::from_prompt("m", "hi");
        assert_eq!(call_bound(&request, "m", Some(9)).output_tokens, 9);
        let request = ChatRequest { max_tokens: Some(20), ..request };
        assert_eq!(call_bound(&request, "m", Some(9)).output_tokens, 20);
    }

    #[test]
    fn a_service_is_bounded_by_what_it_is_billed_by() {
        let bound = |service| {
            let request = ChatRequest { service: Some(service), ..ChatRequest::default() };
            call_bound(&request, "m", Some(1_000))
        };
        let texts = vec!["é".to_owned(), "1 2 3".to_owned()];
        let embed = bound(ModelService::Embed { texts, dimensions: None });
        assert_eq!((embed.input_tokens, embed.total_tokens()), (7 + 2 * 16, 7 + 2 * 16));
        let speak = bound(ModelService::Speak {
            text: "Grüße".into(),
            voice: "v".into(),
            format: "mp3".into(),
        });
        assert_eq!((speak.characters, speak.total_tokens()), (5, 0));
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
        let image = MessagePart::Image(ImagePart { data: "aGk=".into(), ..ImagePart::default() });
        let messages = vec![ChatMessage::new(MessageRole::User, vec![image])];
        let request = ChatRequest { messages, ..ChatRequest::default() };
        for (model, least) in [("gpt-5", IMAGE_TOKENS), ("gpt-4o-mini", DEAR_IMAGE_TOKENS)] {
            let tokens = call_bound(&request, model, None).input_tokens;
            assert!((least..least + 100).contains(&tokens), "{model}: {tokens}");
        }
    }
}
