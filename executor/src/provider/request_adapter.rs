//! Adapting a request to what an interface supports. Unsupported fields are left out and named, or
//! the call fails before anything is sent; `ChatField::support_at` is the one table that decides.

use std::collections::{BTreeMap, BTreeSet};

use convergio_domain::chat::{
    ChatField, ChatInterface, ChatMessage, ChatRequest, FieldSupport, FilePart, ImagePart,
    ImageUrlPart, MessagePart, MessageRole, NATIVE_FIELDS, NativeFields, ThinkingPart, ToolChoice,
    ToolResultPart,
};
use serde_json::{Value, json};

use super::error::{ModelError, REQUEST_UNSUPPORTED};
use super::scrub;

/// Least limit of an answer that OpenAI's responses API accepts.
const RESPONSES_LEAST_TOKENS: u32 = 16;

/// Fields that were left out of a request.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(super) struct LeftOutFields {
    /// The fields that the provider does not support.
    pub(super) fields: Vec<ChatField>,
    /// Names of the left-out fields that only another interface has.
    pub(super) native_names: Vec<&'static str>,
}

/// The provider for which requests are adapted.
pub(super) struct RequestAdapter<'a> {
    pub(super) provider: &'a str,
    pub(super) interface: ChatInterface,
    /// Decides for each field whether the provider keeps, lacks or refuses it.
    pub(super) support: &'a dyn Fn(ChatField) -> FieldSupport,
}

/// Decisions about the fields of a request so far.
struct FieldDecisions<'a> {
    fit: &'a RequestAdapter<'a>,
    left_out: BTreeSet<ChatField>,
    /// Names of fields that only another interface has. Only known names: others may be anything
    /// that a caller wrote.
    native_names: BTreeSet<&'static str>,
    /// The first field that cannot be left out.
    refused: Option<ChatField>,
}

impl FieldDecisions<'_> {
    /// Returns whether a field must not be sent: the request has it and the provider does not
    /// support it. Notes the field as left out or refused.
    fn must_drop(&mut self, field: ChatField, is_there: bool) -> bool {
        match (self.fit.support)(field) {
            // Absent fields are decided first, so that they are never noted.
            _ if !is_there => return false,
            FieldSupport::Kept => return false,
            FieldSupport::LeftOut => _ = self.left_out.insert(field),
            FieldSupport::Refused => self.refused = self.refused.or(Some(field)),
        }
        true
    }

    /// Notes the fields of a part that only another interface has.
    fn note_foreign_fields(&mut self, native: Option<&NativeFields>) {
        let foreign = native.filter(|native| native.interface != self.fit.interface);
        self.must_drop(ChatField::ForeignFields, foreign.is_some());
        let names = foreign.iter().flat_map(|native| native.fields.keys());
        let known_names =
            names.filter_map(|name| NATIVE_FIELDS.iter().find(|known| *known == name));
        self.native_names.extend(known_names);
    }
}

impl RequestAdapter<'_> {
    /// Returns the request without the fields that the provider does not support, and which they
    /// are.
    ///
    /// # Errors
    /// `request.unsupported`: a field cannot be left out without changing the answer.
    pub(super) fn adapt_request(
        &self,
        mut request: ChatRequest,
    ) -> Result<(ChatRequest, LeftOutFields), ModelError> {
        let (left_out, native_names) = (BTreeSet::new(), BTreeSet::new());
        let mut fields = FieldDecisions { fit: self, left_out, native_names, refused: None };
        adapt_settings(&mut request, &mut fields);
        adapt_tools(&mut request, &mut fields);
        // By the calls of the whole conversation, before its messages are adapted one by one.
        name_tool_results(&mut request.messages);
        adapt_messages(&mut request, &mut fields);
        if let Some(field) = fields.refused {
            let (provider, name) = (self.provider, field.name());
            let message =
                format!("{provider} does not take `{name}`: leave it out or ask another model");
            let error = ModelError::new(REQUEST_UNSUPPORTED, false, message);
            return Err(ModelError { param: Some(name), ..error });
        }
        let native_names = fields.native_names.into_iter().collect();
        Ok((request, LeftOutFields { fields: fields.left_out.into_iter().collect(), native_names }))
    }
}

fn adapt_settings(request: &mut ChatRequest, fields: &mut FieldDecisions<'_>) {
    if fields.fit.interface == ChatInterface::OpenAiResponses
        && request.max_tokens.is_some_and(|limit| limit < RESPONSES_LEAST_TOKENS)
    {
        request.max_tokens = Some(RESPONSES_LEAST_TOKENS);
        fields.left_out.insert(ChatField::MaxTokens);
    }
    // `output_format` is the older name of what the schema holds already: nothing is lost without
    // it.
    let has_other_fields =
        |native: &&NativeFields| native.fields.keys().any(|name| name != "output_format");
    fields.note_foreign_fields(request.native.as_ref().filter(has_other_fields));
    if fields.must_drop(ChatField::Temperature, request.temperature.is_some()) {
        request.temperature = None;
    }
    if fields.must_drop(ChatField::TopP, request.top_p.is_some()) {
        request.top_p = None;
    }
    if fields.must_drop(ChatField::Seed, request.seed.is_some()) {
        request.seed = None;
    }
    if fields.must_drop(ChatField::Effort, request.effort.is_some()) {
        request.effort = None;
    }
    if fields.must_drop(ChatField::Stop, !request.stop.is_empty()) {
        request.stop.clear();
    }
    if fields.must_drop(ChatField::Schema, request.schema.is_some()) {
        request.schema = None;
    }
    if let (true, Some(spec)) = (request.schema.is_some(), &mut request.schema_spec) {
        if fields.must_drop(ChatField::SchemaName, spec.name.is_some()) {
            spec.name = None;
        }
        if fields.must_drop(ChatField::SchemaDescription, spec.description.is_some()) {
            spec.description = None;
        }
        if fields.must_drop(ChatField::SchemaStrict, spec.strict.is_some()) {
            spec.strict = None;
        }
    }
    if fields.must_drop(ChatField::JsonObject, request.json_object) {
        request.json_object = false;
    }
    if fields.must_drop(ChatField::ToolChoice, !request.tool_choice.is_auto()) {
        request.tool_choice = ToolChoice::Auto;
    }
    // Options at their neutral value may go without being named: the answer stays the same.
    request.options.retain(|field, value| {
        let is_neutral = field.is_neutral(value);
        let is_kept = (fields.fit.support)(*field) == FieldSupport::Kept;
        !value.is_null() && (is_kept || !fields.must_drop(*field, !is_neutral) && !is_neutral)
    });
    if let Some(tier) = request.options.get_mut(&ChatField::ServiceTier) {
        translate_default_tier(tier, fields.fit.interface);
    }
}

/// Translates the name of the default service tier, which Anthropic calls otherwise.
fn translate_default_tier(tier: &mut Value, interface: ChatInterface) {
    match interface {
        ChatInterface::Anthropic if *tier == "default" => *tier = json!("standard_only"),
        ChatInterface::Anthropic => {}
        _ if *tier == "standard_only" => *tier = json!("default"),
        _ => {}
    }
}

/// Refuses URLs with a host name without a dot. A server on this machine would fetch them by a name
/// of its own network, which callers must not reach through it.
///
/// # Errors
/// `request.invalid`; the message names the host.
pub(super) fn check_fetched_hosts(request: &ChatRequest) -> Result<(), ModelError> {
    fn fetched_urls(part: &MessagePart) -> Vec<&str> {
        match part {
            MessagePart::ImageUrl(ImageUrlPart { url, .. }) => vec![url],
            MessagePart::File(FilePart { url: Some(url), .. }) => vec![url],
            MessagePart::ToolResult(ToolResultPart { parts, .. }) => {
                parts.iter().flat_map(fetched_urls).collect()
            }
            _ => Vec::new(),
        }
    }
    let mut hosts =
        request.messages.iter().flat_map(|message| &message.parts).flat_map(fetched_urls).map(
            |url| {
                let rest = url.split_once("://").map_or(url, |(_, rest)| rest);
                // The authority alone; a port or user name has no dot either way.
                rest.split(['/', '?', '#']).next().unwrap_or_default()
            },
        );
    let Some(host) = hosts.find(|host| !host.contains('.')) else { return Ok(()) };
    let message = format!(
        "`{}` may be a machine of the model server's own network: send the bytes in its place",
        scrub::clean_name(host, 100)
    );
    let error = ModelError::new("request.invalid", false, message);
    Err(ModelError { param: Some("image_url"), ..error })
}

fn adapt_tools(request: &mut ChatRequest, fields: &mut FieldDecisions<'_>) {
    for tool in &mut request.tools {
        if fields.must_drop(ChatField::ToolStrict, tool.strict.is_some()) {
            tool.strict = None;
        }
        fields.must_drop(ChatField::CacheControl, tool.cache_control.is_some());
        fields.note_foreign_fields(tool.native.as_ref());
    }
    let interface = fields.fit.interface;
    let count = request.native_tools.len();
    request.native_tools.retain(|tool| tool.interface == interface);
    // Tools that a provider runs itself exist at that provider only.
    if request.native_tools.len() < count {
        match (fields.fit.support)(ChatField::HostedTools) {
            FieldSupport::Refused => _ = fields.must_drop(ChatField::HostedTools, true),
            _ => _ = fields.left_out.insert(ChatField::HostedTools),
        }
    }
    let has_tools = !request.tools.is_empty() || !request.native_tools.is_empty();
    // Anthropic's setting for parallel calls is part of a tool choice other than `none`.
    let has_place = has_tools && request.tool_choice != ToolChoice::None;
    if interface == ChatInterface::Anthropic
        && !has_place
        && let Some(value) = request.options.remove(&ChatField::ParallelToolCalls)
        && !ChatField::ParallelToolCalls.is_neutral(&value)
    {
        fields.left_out.insert(ChatField::ParallelToolCalls);
    }
    if !has_tools && matches!(request.tool_choice, ToolChoice::Required | ToolChoice::Named(_)) {
        // Without any tool a forced choice would be ignored, and the model would answer in text.
        fields.refused = fields.refused.or(Some(ChatField::ToolChoice));
    }
}

/// Adds to tool results the names of their tools: interfaces without call ids match results by
/// name.
fn name_tool_results(messages: &mut [ChatMessage]) {
    let mut names: BTreeMap<String, String> = BTreeMap::new();
    for part in messages.iter_mut().flat_map(|message| &mut message.parts) {
        match part {
            MessagePart::ToolCall(call) => _ = names.insert(call.id.clone(), call.name.clone()),
            MessagePart::ToolResult(ToolResultPart { id, name, .. }) if name.is_empty() => {
                if let Some(known) = names.get(id) {
                    known.clone_into(name);
                }
            }
            _ => {}
        }
    }
}

fn adapt_messages(request: &mut ChatRequest, fields: &mut FieldDecisions<'_>) {
    let is_stored = request.options.get(&ChatField::Store) == Some(&json!(true));
    let door = request.door;
    let interface = fields.fit.interface;
    for message in &mut request.messages {
        if fields.must_drop(ChatField::MessageName, message.name.is_some()) {
            message.name = None;
        }
        fields.note_foreign_fields(message.native.as_ref());
        let (mut thoughts, part_count) = (0, message.parts.len());
        message.parts.retain(|part| {
            let is_foreign = matches!(part, MessagePart::Thinking(thinking)
                if !can_send_thought(thinking, interface, door, is_stored));
            thoughts += usize::from(is_foreign);
            !is_foreign
        });
        fields.must_drop(ChatField::ForeignThinking, message.parts.len() < part_count);
        for part in &mut message.parts {
            adapt_part(part, fields);
        }
    }
    let is_system = |message: &ChatMessage| {
        matches!(message.role, MessageRole::System | MessageRole::Developer)
    };
    let leading = request.messages.iter().take_while(|message| is_system(message)).count();
    let is_in_place = request.messages.iter().skip(leading).any(is_system);
    if fields.must_drop(ChatField::SystemInPlace, is_in_place) {
        // The sort is stable: both groups keep their order.
        request.messages.sort_by_key(|message| !is_system(message));
    }
}

fn adapt_part(part: &mut MessagePart, fields: &mut FieldDecisions<'_>) {
    fields.must_drop(ChatField::CacheControl, part.cache_control().is_some());
    match part {
        MessagePart::Text(part) => fields.note_foreign_fields(part.native.as_ref()),
        MessagePart::Image(ImagePart { detail, native, .. })
        | MessagePart::ImageUrl(ImageUrlPart { detail, native, .. }) => {
            fields.note_foreign_fields(native.as_ref());
            if fields.must_drop(ChatField::ImageDetail, detail.is_some()) {
                *detail = None;
            }
        }
        MessagePart::File(file) => {
            fields.note_foreign_fields(file.native.as_ref());
            // The part stays: a dialect without documents does not write it.
            fields.must_drop(ChatField::Documents, true);
            adapt_file(file, fields);
        }
        MessagePart::Audio(audio) => {
            fields.note_foreign_fields(audio.native.as_ref());
            fields.must_drop(ChatField::AudioInput, true);
        }
        MessagePart::ToolCall(call) => fields.note_foreign_fields(call.native.as_ref()),
        MessagePart::ToolResult(result) => {
            fields.note_foreign_fields(result.native.as_ref());
            if fields.must_drop(ChatField::ResultError, result.is_error) {
                result.is_error = false;
            }
            result.parts.iter_mut().for_each(|part| adapt_part(part, fields));
        }
        MessagePart::Native(native) => {
            fields.must_drop(ChatField::ForeignPart, native.interface != fields.fit.interface);
        }
        MessagePart::Refusal(part) => fields.note_foreign_fields(part.native.as_ref()),
        MessagePart::Thinking(_) => {}
    }
}

/// Refuses documents that would have to be fetched: OpenAI's chat completions accept only bytes and
/// text.
fn adapt_file(file: &FilePart, fields: &mut FieldDecisions<'_>) {
    let is_fetched = file.data.is_none() && file.text.is_none() && file.url.is_some();
    if is_fetched && fields.fit.interface == ChatInterface::OpenAiChat {
        fields.refused = fields.refused.or(Some(ChatField::Documents));
    }
}

/// Returns whether reasoning may be sent to an interface. Its maker must get it back unchanged;
/// others would reject its signature.
fn can_send_thought(
    thinking: &ThinkingPart,
    interface: ChatInterface,
    door: Option<ChatInterface>,
    is_stored: bool,
) -> bool {
    let signer = (!thinking.signature.is_empty()).then_some(ChatInterface::Anthropic);
    let native = thinking.native.as_ref();
    match native.map(|native| native.interface).or(signer) {
        // Without storage at the provider, a reasoning item is accepted only with its encrypted
        // content.
        Some(ChatInterface::OpenAiResponses) if interface == ChatInterface::OpenAiResponses => {
            let encrypted = native.and_then(|native| native.fields.get("encrypted_content"));
            is_stored || encrypted.is_some_and(|sealed| sealed.is_string())
        }
        Some(maker) => maker == interface,
        // Unsigned reasoning is plain text: interfaces that accept text as reasoning may have it.
        None => match interface {
            ChatInterface::OpenAiChat | ChatInterface::Ollama => true,
            ChatInterface::Anthropic => door == Some(ChatInterface::Anthropic),
            _ => false,
        },
    }
}

#[cfg(test)]
mod tests {
    use convergio_domain::chat::{
        ChatField, ChatInterface, ChatMessage, ChatRequest, ChatToolSpec, FieldSupport,
        ImageUrlPart, MessagePart, MessageRole, ToolChoice,
    };
    use serde_json::json;

    use super::{RequestAdapter, check_fetched_hosts, translate_default_tier};

    #[test]
    fn parallel_calls_without_a_place_at_anthropic_are_left_out_by_name() {
        let tool = || vec![ChatToolSpec::new("t", "", json!({"type": "object"}))];
        for (tools, tool_choice, parallel, is_named) in [
            (tool(), ToolChoice::None, false, true),
            (tool(), ToolChoice::None, true, false),
            (tool(), ToolChoice::Required, false, false),
            (Vec::new(), ToolChoice::Auto, false, true),
        ] {
            let mut request =
                ChatRequest { tools, tool_choice, ..ChatRequest::from_prompt("m", "p") };
            request.options.insert(ChatField::ParallelToolCalls, json!(parallel));
            let case = format!("{request:?}");
            let support = |_| FieldSupport::Kept;
            let interface = ChatInterface::Anthropic;
            let adapter = RequestAdapter { provider: "p", interface, support: &support };
            let (_, left_out) = adapter.adapt_request(request).expect("all is kept");
            let expected = is_named.then_some(ChatField::ParallelToolCalls);
            assert_eq!(left_out.fields, Vec::from_iter(expected), "{case}");
        }
    }

    #[test]
    fn a_server_near_us_is_led_to_no_name_of_its_own_network() {
        for (url, is_taken) in [
            ("https://example.com/a.png", true),
            ("https://printer/a.png", false),
            ("https://vault:8200/v1", false),
        ] {
            let image = ImageUrlPart { url: url.to_owned(), ..ImageUrlPart::default() };
            let messages =
                vec![ChatMessage::new(MessageRole::User, vec![MessagePart::ImageUrl(image)])];
            let request = ChatRequest { messages, ..ChatRequest::default() };
            let checked = check_fetched_hosts(&request);
            assert_eq!(checked.is_ok(), is_taken, "{url}: {checked:?}");
        }
    }

    #[test]
    fn the_usual_tier_has_the_name_of_its_interface() {
        for (interface, tier, expected) in [
            (ChatInterface::Anthropic, "default", "standard_only"),
            (ChatInterface::OpenAiChat, "standard_only", "default"),
            (ChatInterface::OpenAiResponses, "flex", "flex"),
            (ChatInterface::Anthropic, "auto", "auto"),
        ] {
            let mut tier = json!(tier);
            translate_default_tier(&mut tier, interface);
            assert_eq!(tier, expected);
        }
    }
}
