//! What of a request an interface takes: the rest is left out and named, or the call fails before
//! anything is sent. One table says which: [`ChatField::support`].

use std::collections::{BTreeMap, BTreeSet};

use convergio_domain::chat::{
    ChatField, ChatRequest, FieldSupport, FilePart, ImagePart, ImageUrlPart, Interface, Message,
    NATIVE_FIELDS, NativeFields, Part, Role, ThinkingPart, ToolChoice, ToolResultPart,
};
use serde_json::{Value, json};

use super::error::{ModelError, UNSUPPORTED};
use super::scrub;

/// OpenAI's responses refuse to answer in fewer tokens.
const RESPONSES_LEAST_TOKENS: u32 = 16;

/// What a provider does without.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(super) struct LeftOut {
    /// The fields.
    pub(super) fields: Vec<ChatField>,
    /// The names of those that only another interface has.
    pub(super) native_names: Vec<&'static str>,
}

/// Whose request it is made fit for.
pub(super) struct Fit<'a> {
    pub(super) provider: &'a str,
    pub(super) interface: Interface,
    pub(super) support: &'a dyn Fn(ChatField) -> FieldSupport,
}

/// What came of the fields so far.
struct Fields<'a> {
    fit: &'a Fit<'a>,
    left_out: BTreeSet<ChatField>,
    /// The names of fields that only another interface has, as far as they are known.
    native_names: BTreeSet<&'static str>,
    refused: Option<ChatField>,
}

impl Fields<'_> {
    /// Whether the request has a field and the provider does not take it.
    fn drops(&mut self, field: ChatField, is_there: bool) -> bool {
        match (self.fit.support)(field) {
            _ if !is_there => return false,
            FieldSupport::Kept => return false,
            FieldSupport::LeftOut => _ = self.left_out.insert(field),
            FieldSupport::Refused => self.refused = self.refused.or(Some(field)),
        }
        true
    }

    /// Names the fields that only another interface has.
    fn note_native(&mut self, native: Option<&NativeFields>) {
        let foreign = native.filter(|native| native.interface != self.fit.interface);
        self.drops(ChatField::ForeignFields, foreign.is_some());
        let names = foreign.iter().flat_map(|native| native.fields.keys());
        let known = names.filter_map(|name| NATIVE_FIELDS.iter().find(|known| *known == name));
        self.native_names.extend(known);
    }
}

impl Fit<'_> {
    /// The request without what the provider does not take, and what that is: of fields that only
    /// another interface has, the names as well.
    ///
    /// # Errors
    /// There is a field without which the answer would be another.
    pub(super) fn apply(
        &self,
        mut request: ChatRequest,
    ) -> Result<(ChatRequest, LeftOut), ModelError> {
        let (left_out, native_names) = (BTreeSet::new(), BTreeSet::new());
        let mut fields = Fields { fit: self, left_out, native_names, refused: None };
        fit_settings(&mut request, &mut fields);
        fit_tools(&mut request, &mut fields);
        name_results(&mut request.messages);
        fit_messages(&mut request, &mut fields);
        if let Some(field) = fields.refused {
            let (provider, name) = (self.provider, field.name());
            let message =
                format!("{provider} does not take `{name}`: leave it out or ask another model");
            let error = ModelError::new(UNSUPPORTED, false, message);
            return Err(ModelError { param: Some(name), ..error });
        }
        let native_names = fields.native_names.into_iter().collect();
        Ok((request, LeftOut { fields: fields.left_out.into_iter().collect(), native_names }))
    }
}

fn fit_settings(request: &mut ChatRequest, fields: &mut Fields<'_>) {
    if fields.fit.interface == Interface::OpenAiResponses
        && request.max_tokens.is_some_and(|limit| limit < RESPONSES_LEAST_TOKENS)
    {
        request.max_tokens = Some(RESPONSES_LEAST_TOKENS);
        fields.left_out.insert(ChatField::MaxTokens);
    }
    // The older name of what is kept as the schema says nothing more.
    let is_more = |native: &&NativeFields| native.fields.keys().any(|name| name != "output_format");
    fields.note_native(request.native.as_ref().filter(is_more));
    if fields.drops(ChatField::Temperature, request.temperature.is_some()) {
        request.temperature = None;
    }
    if fields.drops(ChatField::TopP, request.top_p.is_some()) {
        request.top_p = None;
    }
    if fields.drops(ChatField::Seed, request.seed.is_some()) {
        request.seed = None;
    }
    if fields.drops(ChatField::Effort, request.effort.is_some()) {
        request.effort = None;
    }
    if fields.drops(ChatField::Stop, !request.stop.is_empty()) {
        request.stop.clear();
    }
    if fields.drops(ChatField::Schema, request.schema.is_some()) {
        request.schema = None;
    }
    if let (true, Some(spec)) = (request.schema.is_some(), &mut request.schema_spec) {
        if fields.drops(ChatField::SchemaName, spec.name.is_some()) {
            spec.name = None;
        }
        if fields.drops(ChatField::SchemaDescription, spec.description.is_some()) {
            spec.description = None;
        }
        if fields.drops(ChatField::SchemaStrict, spec.strict.is_some()) {
            spec.strict = None;
        }
    }
    if fields.drops(ChatField::JsonObject, request.json_object) {
        request.json_object = false;
    }
    if fields.drops(ChatField::ToolChoice, !request.tool_choice.is_auto()) {
        request.tool_choice = ToolChoice::Auto;
    }
    request.options.retain(|field, value| {
        let is_neutral = field.is_neutral(value);
        let is_kept = (fields.fit.support)(*field) == FieldSupport::Kept;
        !value.is_null() && (is_kept || !fields.drops(*field, !is_neutral) && !is_neutral)
    });
    if let Some(tier) = request.options.get_mut(&ChatField::ServiceTier) {
        name_usual_tier(tier, fields.fit.interface);
    }
}

/// The usual tier of service has another name at Anthropic.
fn name_usual_tier(tier: &mut Value, interface: Interface) {
    match interface {
        Interface::Anthropic if *tier == "default" => *tier = json!("standard_only"),
        Interface::Anthropic => {}
        _ if *tier == "standard_only" => *tier = json!("default"),
        _ => {}
    }
}

/// Refuses addresses that a server near us would fetch by a name of its own network.
///
/// # Errors
/// There is one; the message says where it leads to.
pub(super) fn check_fetched_hosts(request: &ChatRequest) -> Result<(), ModelError> {
    fn urls(part: &Part) -> Vec<&str> {
        match part {
            Part::ImageUrl(ImageUrlPart { url, .. }) => vec![url],
            Part::File(FilePart { url: Some(url), .. }) => vec![url],
            Part::ToolResult(ToolResultPart { parts, .. }) => parts.iter().flat_map(urls).collect(),
            _ => Vec::new(),
        }
    }
    let mut hosts =
        request.messages.iter().flat_map(|message| &message.parts).flat_map(urls).map(|url| {
            let rest = url.split_once("://").map_or(url, |(_, rest)| rest);
            rest.split(['/', '?', '#']).next().unwrap_or_default()
        });
    let Some(host) = hosts.find(|host| !host.contains('.')) else { return Ok(()) };
    let message = format!(
        "`{}` may be a machine of the model server's own network: send the bytes in its place",
        scrub::name(host, 100)
    );
    let error = ModelError::new("request.invalid", false, message);
    Err(ModelError { param: Some("image_url"), ..error })
}

fn fit_tools(request: &mut ChatRequest, fields: &mut Fields<'_>) {
    for tool in &mut request.tools {
        if fields.drops(ChatField::ToolStrict, tool.strict.is_some()) {
            tool.strict = None;
        }
        fields.drops(ChatField::CacheControl, tool.cache_control.is_some());
        fields.note_native(tool.native.as_ref());
    }
    let interface = fields.fit.interface;
    let count = request.native_tools.len();
    request.native_tools.retain(|tool| tool.interface == interface);
    if request.native_tools.len() < count {
        match (fields.fit.support)(ChatField::HostedTools) {
            FieldSupport::Refused => _ = fields.drops(ChatField::HostedTools, true),
            _ => _ = fields.left_out.insert(ChatField::HostedTools),
        }
    }
    let has_tools = !request.tools.is_empty() || !request.native_tools.is_empty();
    if !has_tools && matches!(request.tool_choice, ToolChoice::Required | ToolChoice::Named(_)) {
        // There is nothing to choose from: the model would answer in words.
        fields.refused = fields.refused.or(Some(ChatField::ToolChoice));
    }
}

/// Interfaces that know no ids want the name of the tool with its answer.
fn name_results(messages: &mut [Message]) {
    let mut names: BTreeMap<String, String> = BTreeMap::new();
    for part in messages.iter_mut().flat_map(|message| &mut message.parts) {
        match part {
            Part::ToolCall(call) => _ = names.insert(call.id.clone(), call.name.clone()),
            Part::ToolResult(ToolResultPart { id, name, .. }) if name.is_empty() => {
                if let Some(known) = names.get(id) {
                    known.clone_into(name);
                }
            }
            _ => {}
        }
    }
}

fn fit_messages(request: &mut ChatRequest, fields: &mut Fields<'_>) {
    let is_stored = request.options.get(&ChatField::Store) == Some(&json!(true));
    let door = request.door;
    let interface = fields.fit.interface;
    for message in &mut request.messages {
        if fields.drops(ChatField::MessageName, message.name.is_some()) {
            message.name = None;
        }
        fields.note_native(message.native.as_ref());
        let (mut thoughts, kept) = (0, message.parts.len());
        message.parts.retain(|part| {
            let is_foreign = matches!(part, Part::Thinking(thinking)
                if !is_own(thinking, interface, door, is_stored));
            thoughts += usize::from(is_foreign);
            !is_foreign
        });
        fields.drops(ChatField::ForeignThinking, message.parts.len() < kept);
        for part in &mut message.parts {
            fit_part(part, fields);
        }
    }
    let is_system = |message: &Message| matches!(message.role, Role::System | Role::Developer);
    let leading = request.messages.iter().take_while(|message| is_system(message)).count();
    let is_in_place = request.messages.iter().skip(leading).any(is_system);
    if fields.drops(ChatField::SystemInPlace, is_in_place) {
        // The sort is a stable one.
        request.messages.sort_by_key(|message| !is_system(message));
    }
}

fn fit_part(part: &mut Part, fields: &mut Fields<'_>) {
    fields.drops(ChatField::CacheControl, part.cache_control().is_some());
    match part {
        Part::Text(part) => fields.note_native(part.native.as_ref()),
        Part::Image(ImagePart { detail, native, .. })
        | Part::ImageUrl(ImageUrlPart { detail, native, .. }) => {
            fields.note_native(native.as_ref());
            if fields.drops(ChatField::ImageDetail, detail.is_some()) {
                *detail = None;
            }
        }
        Part::File(file) => {
            fields.note_native(file.native.as_ref());
            fields.drops(ChatField::Documents, true);
            fit_file(file, fields);
        }
        Part::Audio(audio) => {
            fields.note_native(audio.native.as_ref());
            fields.drops(ChatField::AudioInput, true);
        }
        Part::ToolCall(call) => fields.note_native(call.native.as_ref()),
        Part::ToolResult(result) => {
            fields.note_native(result.native.as_ref());
            if fields.drops(ChatField::ResultError, result.is_error) {
                result.is_error = false;
            }
            result.parts.iter_mut().for_each(|part| fit_part(part, fields));
        }
        Part::Native(native) => {
            fields.drops(ChatField::ForeignPart, native.interface != fields.fit.interface);
        }
        Part::Refusal(part) => fields.note_native(part.native.as_ref()),
        Part::Thinking(_) => {}
    }
}

/// OpenAI's chat completions fetch no documents.
fn fit_file(file: &FilePart, fields: &mut Fields<'_>) {
    let is_fetched = file.data.is_none() && file.text.is_none() && file.url.is_some();
    if is_fetched && fields.fit.interface == Interface::OpenAiChat {
        fields.refused = fields.refused.or(Some(ChatField::Documents));
    }
}

/// Whether a thought may go to an interface: its maker gets it back unchanged, others would refuse
/// its mark.
fn is_own(
    thinking: &ThinkingPart,
    interface: Interface,
    door: Option<Interface>,
    is_stored: bool,
) -> bool {
    let signed = (!thinking.signature.is_empty()).then_some(Interface::Anthropic);
    let native = thinking.native.as_ref();
    match native.map(|native| native.interface).or(signed) {
        // What is not stored is found again only if it is sent whole.
        Some(Interface::OpenAiResponses) if interface == Interface::OpenAiResponses => {
            let sealed = native.and_then(|native| native.fields.get("encrypted_content"));
            is_stored || sealed.is_some_and(|sealed| sealed.is_string())
        }
        Some(maker) => maker == interface,
        None => match interface {
            Interface::OpenAiChat | Interface::Ollama => true,
            Interface::Anthropic => door == Some(Interface::Anthropic),
            _ => false,
        },
    }
}

#[cfg(test)]
mod tests {
    use convergio_domain::chat::{ChatRequest, ImageUrlPart, Interface, Message, Part, Role};
    use serde_json::json;

    use super::{check_fetched_hosts, name_usual_tier};

    #[test]
    fn a_server_near_us_is_led_to_no_name_of_its_own_network() {
        for (url, is_taken) in [
            ("https://example.com/a.png", true),
            ("https://printer/a.png", false),
            ("https://vault:8200/v1", false),
        ] {
            let image = ImageUrlPart { url: url.to_owned(), ..ImageUrlPart::default() };
            let messages = vec![Message::new(Role::User, vec![Part::ImageUrl(image)])];
            let request = ChatRequest { messages, ..ChatRequest::default() };
            let checked = check_fetched_hosts(&request);
            assert_eq!(checked.is_ok(), is_taken, "{url}: {checked:?}");
        }
    }

    #[test]
    fn the_usual_tier_has_the_name_of_its_interface() {
        for (interface, tier, expected) in [
            (Interface::Anthropic, "default", "standard_only"),
            (Interface::OpenAiChat, "standard_only", "default"),
            (Interface::OpenAiResponses, "flex", "flex"),
            (Interface::Anthropic, "auto", "auto"),
        ] {
            let mut tier = json!(tier);
            name_usual_tier(&mut tier, interface);
            assert_eq!(tier, expected);
        }
    }
}
