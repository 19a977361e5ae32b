//! Every field of a request at every interface: kept at its place, left out and named, or refused
//! by name; never neither.

use convergio_domain::chat::{
    AudioPart, ChatField, ChatInterface, ChatMessage, ChatRequest, ChatToolSpec, FieldSupport,
    FilePart, ImagePart, MessagePart, MessageRole, NativeFields, NativePart, SchemaSpec, TextPart,
    ThinkingPart, ToolCall, ToolChoice, ToolResultPart,
};
use convergio_executor::provider::{
    EncodedRequest, HttpProvider, Provider, ProviderApi, ProviderConfig, Secret,
};
use convergio_kernel_c::{KernelPlatform, ProviderClass};
use serde_json::{Value, json};

use super::{KEY, weather};

fn config(interface: ChatInterface) -> ProviderConfig {
    let key = || Secret::new(KEY);
    let google = |api| ProviderConfig { api, ..ProviderConfig::for_gemini(key()) };
    match interface {
        ChatInterface::OpenAiChat => ProviderConfig::for_openai(key()),
        ChatInterface::OpenAiResponses => ProviderConfig {
            api: ProviderApi::OpenAiResponses,
            ..ProviderConfig::for_openai(key())
        },
        // The first version takes sampling parameters.
        ChatInterface::Anthropic => ProviderConfig {
            api: ProviderApi::Anthropic { version: "2023-06-01".into() },
            ..ProviderConfig::for_anthropic(key())
        },
        ChatInterface::Gemini => google(ProviderApi::Gemini),
        ChatInterface::GeminiInteractions => google(ProviderApi::GeminiInteractions),
        ChatInterface::Ollama => {
            let url = "http://127.0.0.1:11434";
            ProviderConfig::without_key("local", url, ProviderClass::Local, KernelPlatform::Ollama)
        }
    }
}

fn write(
    interface: ChatInterface,
    request: ChatRequest,
) -> Result<EncodedRequest, Option<&'static str>> {
    let provider = HttpProvider::new(config(interface)).expect("a valid configuration");
    provider.write_request(request).map_err(|error| {
        assert_eq!((error.code, error.retryable), ("request.unsupported", false));
        error.param
    })
}

fn body(interface: ChatInterface, request: ChatRequest) -> Value {
    let written = write(interface, request).expect("it is taken");
    serde_json::from_slice(&written.body).expect("JSON")
}

fn tool() -> ChatToolSpec {
    ChatToolSpec::new("weather", "", json!({"type": "object"}))
}

fn plain() -> ChatRequest {
    ChatRequest::from_prompt("m", "p")
}

fn optional(field: ChatField, value: Value) -> ChatRequest {
    ChatRequest { options: [(field, value)].into(), ..plain() }
}

/// A request that has the field, outside of its messages.
fn asking(field: ChatField, interface: ChatInterface) -> ChatRequest {
    let tools = || vec![tool()];
    match field {
        ChatField::Temperature => ChatRequest { temperature: Some(0.625), ..plain() },
        ChatField::TopP => ChatRequest { top_p: Some(0.625), ..plain() },
        ChatField::Seed => ChatRequest { seed: Some(4711), ..plain() },
        ChatField::MaxTokens => ChatRequest { max_tokens: Some(4711), ..plain() },
        ChatField::SchemaName | ChatField::SchemaDescription | ChatField::SchemaStrict => {
            let is = |other: ChatField| field == other;
            let spec = SchemaSpec {
                name: is(ChatField::SchemaName).then(|| "canary".to_owned()),
                description: is(ChatField::SchemaDescription).then(|| "canary".to_owned()),
                strict: is(ChatField::SchemaStrict).then_some(true),
            };
            let schema = Some(json!({"type": "object"}));
            ChatRequest { schema, schema_spec: Some(spec), ..plain() }
        }
        ChatField::Stop => ChatRequest { stop: vec!["canary".into()], ..plain() },
        ChatField::Effort => ChatRequest { effort: Some("canary".into()), ..plain() },
        ChatField::ToolChoice => {
            let tool_choice = ToolChoice::Named("weather".into());
            ChatRequest { tool_choice, tools: tools(), ..plain() }
        }
        ChatField::JsonObject => ChatRequest { json_object: true, ..plain() },
        ChatField::Schema => ChatRequest {
            schema: Some(json!({"type": "object", "title": "canary"})),
            schema_spec: Some(SchemaSpec::default()),
            ..plain()
        },
        ChatField::ToolStrict => {
            ChatRequest { tools: vec![ChatToolSpec { strict: Some(true), ..tool() }], ..plain() }
        }
        ChatField::HostedTools => {
            let interface = match interface {
                ChatInterface::OpenAiResponses => interface,
                _ => ChatInterface::Anthropic,
            };
            let native_tools = vec![NativePart { interface, block: json!({"type": "canary"}) }];
            ChatRequest { native_tools, ..plain() }
        }
        ChatField::ParallelToolCalls => {
            ChatRequest { tools: tools(), ..optional(field, json!(false)) }
        }
        ChatField::Store => optional(field, json!(true)),
        field => in_messages(field, interface).unwrap_or_else(|| optional(field, json!("canary"))),
    }
}

/// A request that has the field in its messages.
fn in_messages(field: ChatField, interface: ChatInterface) -> Option<ChatRequest> {
    let foreign = if interface == ChatInterface::Gemini {
        ChatInterface::Ollama
    } else {
        ChatInterface::Gemini
    };
    let fields = || {
        NativeFields::from_fields(foreign, [("canary".to_owned(), json!(1))].into_iter().collect())
    };
    let mut request = plain();
    let part = match field {
        ChatField::MessageName => {
            request.messages[0].name = Some("canary".into());
            return Some(request);
        }
        ChatField::SystemInPlace => {
            request.messages.push(ChatMessage::from_text(MessageRole::System, "canary"));
            return Some(request);
        }
        ChatField::ImageDetail => MessagePart::Image(ImagePart {
            detail: Some("canary".into()),
            data: "aGk=".into(),
            media_type: "image/png".into(),
            ..ImagePart::default()
        }),
        ChatField::CacheControl => MessagePart::Text(TextPart {
            text: "t".into(),
            cache_control: Some(json!({"type": "canary"})),
            native: None,
        }),
        ChatField::ForeignThinking => MessagePart::Thinking(ThinkingPart {
            text: "canary".into(),
            native: fields(),
            ..ThinkingPart::default()
        }),
        ChatField::Documents => MessagePart::File(FilePart {
            media_type: "application/pdf".into(),
            data: Some("canary".into()),
            ..FilePart::default()
        }),
        ChatField::AudioInput => MessagePart::Audio(AudioPart {
            format: "wav".into(),
            data: "canary".into(),
            native: None,
        }),
        ChatField::ResultError => MessagePart::ToolResult(ToolResultPart {
            text: "t".into(),
            is_error: true,
            ..ToolResultPart::default()
        }),
        ChatField::ForeignFields => MessagePart::Text(TextPart {
            text: "t".into(),
            native: fields(),
            ..TextPart::default()
        }),
        ChatField::ForeignPart => {
            MessagePart::Native(NativePart { interface: foreign, block: json!({"type": "canary"}) })
        }
        _ => return None,
    };
    request.messages[0].parts.push(part);
    Some(request)
}

/// What stands in the body only because of the field.
fn sign_of(field: ChatField, interface: ChatInterface) -> &'static str {
    match field {
        ChatField::Temperature | ChatField::TopP => "0.625",
        ChatField::Seed | ChatField::MaxTokens => "4711",
        ChatField::SchemaStrict => "\"strict\":true",
        ChatField::ResultError => "error",
        ChatField::ToolChoice => match interface {
            ChatInterface::Gemini => "allowedFunctionNames",
            ChatInterface::GeminiInteractions => "allowed_tools",
            _ => "tool_choice",
        },
        ChatField::ParallelToolCalls => "parallel_tool",
        ChatField::JsonObject => "json",
        ChatField::ToolStrict => "\"strict\":true",
        ChatField::Store => "\"store\":true",
        _ => "canary",
    }
}

/// What becomes of a field at an interface.
fn fate(field: ChatField, interface: ChatInterface) -> FieldSupport {
    let sign = sign_of(field, interface);
    match write(interface, asking(field, interface)) {
        Ok(written) => {
            let body = String::from_utf8(written.body.to_vec()).expect("text");
            let stands = body.contains(sign)
                || written.headers.iter().any(|(_, value)| value.contains(sign));
            let is_told = written.left_out.contains(&field);
            let stays = field == ChatField::SystemInPlace && is_told;
            assert_ne!(stands && !stays, is_told, "{field:?} at {interface:?}: {body}");
            assert!(written.left_out.iter().all(|left_out| *left_out == field));
            if is_told { FieldSupport::LeftOut } else { FieldSupport::Kept }
        }
        Err(param) => {
            assert_eq!(param, Some(field.name()), "{interface:?}");
            FieldSupport::Refused
        }
    }
}

#[test]
fn a_field_is_kept_told_or_refused_as_the_table_says() {
    for interface in ChatInterface::ALL {
        for field in ChatField::ALL {
            assert_eq!(
                fate(*field, interface),
                field.support_at(interface),
                "{field:?} {interface:?}"
            );
        }
    }
}

#[test]
fn two_fields_are_treated_as_each_of_them() {
    for interface in ChatInterface::ALL {
        for (one, other) in ChatField::ALL.iter().zip(&ChatField::ALL[1..]) {
            let mut request = asking(*one, interface);
            let more = asking(*other, interface);
            request.options.extend(more.options);
            request.tools.extend(more.tools);
            request.messages.extend(more.messages);
            let fields = [one, other].map(|field| fate(*field, interface));
            match write(interface, request) {
                Ok(_) => assert!(!fields[0].eq(&FieldSupport::Refused), "{one:?} {other:?}"),
                Err(param) => {
                    let names = [one.name(), other.name()];
                    assert!(param.is_some_and(|param| names.contains(&param)), "{param:?}");
                }
            }
        }
    }
}

#[test]
fn the_newest_version_of_anthropics_interface_takes_no_sampling() {
    let newest = ProviderConfig::for_anthropic(Secret::new(KEY));
    let provider = HttpProvider::new(newest).expect("a valid configuration");
    let request = ChatRequest { temperature: Some(0.5), ..ChatRequest::from_prompt("m", "p") };
    let written = provider.write_request(request.clone()).expect("it is taken");
    assert_eq!(written.left_out, [ChatField::Temperature]);
    let request = ChatRequest { options: [(ChatField::TopK, json!(5))].into(), ..request };
    assert_eq!(provider.write_request(request).expect_err("refused").param, Some("top_k"));
}

#[test]
fn values_that_say_nothing_ask_nothing_of_a_provider() {
    let options = [
        (ChatField::FrequencyPenalty, json!(0)),
        (ChatField::LogitBias, json!({})),
        (ChatField::ParallelToolCalls, json!(true)),
        (ChatField::Truncation, json!("disabled")),
    ];
    let request = ChatRequest { options: options.into(), ..ChatRequest::from_prompt("m", "p") };
    let written = write(ChatInterface::GeminiInteractions, request).expect("it is taken");
    assert_eq!(written.left_out, []);
    let body = String::from_utf8(written.body.to_vec()).expect("text");
    assert!(!body.contains("penalty") && !body.contains("truncation"), "{body}");
}

#[test]
fn no_limit_is_invented_and_where_one_is_demanded_it_is_the_models_own() {
    let asked = |model: &str| ChatRequest::from_prompt(model, "p");
    for interface in ChatInterface::ALL {
        let body = body(interface, asked("m")).to_string();
        let is_limited = body.contains("max") || body.contains("num_predict");
        assert_eq!(is_limited, interface == ChatInterface::Anthropic, "{body}");
    }
    for (model, most) in [
        ("claude-sonnet-4-6", 64_000),
        ("claude-opus-4-1-20250805", 32_000),
        ("claude-3-5-haiku-latest", 8_192),
        ("claude-opus-5-5", 128_000),
    ] {
        assert_eq!(body(ChatInterface::Anthropic, asked(model))["max_tokens"], most, "{model}");
    }
}

fn result(parts: Vec<MessagePart>) -> MessagePart {
    let (id, name) = ("call_1".to_owned(), String::new());
    MessagePart::ToolResult(ToolResultPart { id, name, parts, ..ToolResultPart::default() })
}

#[test]
fn a_picture_of_a_tool_reaches_every_model() {
    let image = MessagePart::Image(ImagePart {
        media_type: "image/png".into(),
        data: "aGk=".into(),
        ..ImagePart::default()
    });
    let messages = vec![
        ChatMessage::from_text(MessageRole::User, "look"),
        ChatMessage::new(
            MessageRole::Assistant,
            vec![MessagePart::ToolCall(weather("call_1").remove(0))],
        ),
        ChatMessage::new(
            MessageRole::User,
            vec![result(vec![MessagePart::from_text("done"), image.clone()])],
        ),
        ChatMessage::new(MessageRole::User, vec![result(vec![image])]),
        ChatMessage::from_text(MessageRole::User, "and?"),
    ];
    let request = ChatRequest { messages, ..ChatRequest::from_prompt("m", "p") };
    for interface in ChatInterface::ALL {
        let body = body(interface, request.clone());
        let text = body.to_string();
        assert_eq!(text.matches("aGk=").count(), 2, "{interface:?}: {text}");
        if interface == ChatInterface::OpenAiChat {
            let messages = body["messages"].as_array().expect("messages");
            let roles: Vec<&str> =
                messages.iter().map(|message| message["role"].as_str().expect("a role")).collect();
            assert_eq!(roles, ["user", "assistant", "tool", "tool", "user"]);
            assert_eq!(messages[4]["content"][2]["text"], "and?");
        }
        if interface == ChatInterface::Gemini {
            let response = &body["contents"][2]["parts"][0]["functionResponse"];
            assert_eq!(response["name"], "weather", "it is known by the call");
        }
    }
}

#[test]
fn an_empty_text_says_nothing_where_it_would_be_refused() {
    let call = MessagePart::ToolCall(weather("call_1").remove(0));
    let messages = vec![
        ChatMessage::from_text(MessageRole::User, "weather?"),
        ChatMessage::new(MessageRole::Assistant, vec![MessagePart::from_text(""), call]),
        ChatMessage::new(MessageRole::Assistant, vec![MessagePart::from_text("")]),
        ChatMessage::from_text(MessageRole::User, "go on"),
    ];
    let request = ChatRequest { messages, ..ChatRequest::from_prompt("m", "p") };
    for interface in
        [ChatInterface::Anthropic, ChatInterface::Gemini, ChatInterface::GeminiInteractions]
    {
        let text = body(interface, request.clone()).to_string();
        assert!(!text.contains("\"text\":\"\"") && !text.contains("[]"), "{text}");
        assert!(!text.contains("\"content\":\"\""), "{text}");
    }
    let body = body(ChatInterface::OpenAiChat, request);
    assert_eq!(body["messages"][1]["content"], Value::Null);
}

#[test]
fn instructions_stand_where_they_stood() {
    let messages = vec![
        ChatMessage::from_text(MessageRole::System, "one"),
        ChatMessage::from_text(MessageRole::User, "hi"),
        ChatMessage::from_text(MessageRole::System, "two"),
        ChatMessage::from_text(MessageRole::User, "go on"),
    ];
    let request = ChatRequest { messages, ..ChatRequest::from_prompt("m", "p") };
    let written = write(ChatInterface::Anthropic, request.clone()).expect("it is taken");
    let beta = ("anthropic-beta", "mid-conversation-system-2026-04-07".to_owned());
    assert_eq!(written.headers, [beta]);
    let anthropic = body(ChatInterface::Anthropic, request.clone());
    assert_eq!(anthropic["system"], "one");
    assert_eq!(anthropic["messages"][1], json!({"role": "system", "content": "two"}));
    let gemini = write(ChatInterface::Gemini, request.clone()).expect("it is taken");
    assert_eq!(gemini.left_out, [ChatField::SystemInPlace]);
    let gemini = body(ChatInterface::Gemini, request.clone());
    let parts = json!([{"text": "one"}, {"text": "two"}]);
    assert_eq!(gemini["systemInstruction"]["parts"], parts);
    let responses = body(ChatInterface::OpenAiResponses, request);
    assert_eq!(responses["instructions"], "one");
    assert_eq!(responses["input"][1]["role"], "system");
}

#[test]
fn marks_of_the_cache_stand_on_every_block_of_anthropics() {
    let mark = || Some(json!({"type": "ephemeral", "ttl": "1h"}));
    let text = |text: &str| {
        MessagePart::Text(TextPart { text: text.into(), cache_control: mark(), native: None })
    };
    let call =
        convergio_domain::chat::ToolCall { cache_control: mark(), ..weather("call_1").remove(0) };
    let answer = ToolResultPart {
        id: "call_1".into(),
        parts: vec![text("inner")],
        cache_control: mark(),
        ..ToolResultPart::default()
    };
    let request = ChatRequest {
        messages: vec![
            ChatMessage::new(
                MessageRole::System,
                vec![MessagePart::from_text("s"), text("marked")],
            ),
            ChatMessage::new(MessageRole::User, vec![text("u")]),
            ChatMessage::new(MessageRole::Assistant, vec![MessagePart::ToolCall(call)]),
            ChatMessage::new(MessageRole::User, vec![MessagePart::ToolResult(answer)]),
        ],
        tools: vec![ChatToolSpec { cache_control: mark(), ..tool() }],
        options: [(ChatField::CacheControl, json!({"type": "ephemeral"}))].into(),
        ..ChatRequest::from_prompt("m", "p")
    };
    let body = body(ChatInterface::Anthropic, request);
    assert_eq!(body.to_string().matches("\"1h\"").count(), 6, "{body}");
    assert_eq!(body["cache_control"], json!({"type": "ephemeral"}));
    assert_eq!(body["system"][0], json!({"type": "text", "text": "s"}));
}

#[test]
fn a_limit_that_is_too_small_is_raised_and_told() {
    let request = ChatRequest { max_tokens: Some(1), ..plain() };
    let written = write(ChatInterface::OpenAiResponses, request).expect("it is taken");
    assert_eq!(written.left_out, [ChatField::MaxTokens]);
    let body: Value = serde_json::from_slice(&written.body).expect("JSON");
    assert_eq!(body["max_output_tokens"], 16);
}

#[test]
fn a_tool_that_must_be_called_and_is_not_there_is_refused() {
    for tool_choice in [ToolChoice::Required, ToolChoice::Named("weather".into())] {
        for interface in ChatInterface::ALL {
            let request = ChatRequest { tool_choice: tool_choice.clone(), ..plain() };
            let refused = write(interface, request).expect_err("there is no tool");
            assert_eq!(refused, Some("tool_choice"));
        }
    }
}

#[test]
fn fields_of_one_interface_are_told_by_name_if_they_are_known() {
    for (field, name) in [("citations", "citations"), ("somebody's words", "fields_of_another")] {
        let fields = [(field.to_owned(), json!(1))].into_iter().collect();
        let native = NativeFields::from_fields(ChatInterface::Anthropic, fields);
        let mut request = plain();
        let text = TextPart { text: "t".into(), native, ..TextPart::default() };
        request.messages[0].parts.push(MessagePart::Text(text));
        let written = write(ChatInterface::Gemini, request).expect("it is taken");
        assert_eq!(written.left_out_names(), [name]);
    }
}

#[test]
fn ids_of_calls_that_differ_go_on_to_differ() {
    let call = |id: &str| {
        let (id, name, arguments) = (id.to_owned(), "weather".to_owned(), "{}".to_owned());
        MessagePart::ToolCall(ToolCall { id, name, arguments, ..ToolCall::default() })
    };
    let mut request = plain();
    request
        .messages
        .push(ChatMessage::new(MessageRole::Assistant, vec![call("a:1"), call("a/1"), call("b")]));
    let body = body(ChatInterface::Anthropic, request);
    let ids = [0, 1, 2].map(|place| body["messages"][1]["content"][place]["id"].clone());
    assert_eq!(ids, [json!("a_3a_1"), json!("a_2f_1"), json!("b")]);
}
