//! Decoding of agents: nodes that call a model.

use super::decode_toolbox;
use super::decoder::{ManifestDecoder, MapFields, Mentions, decode_template};
use super::manifest::Agent;
use super::yaml::YamlTree;

/// Most tokens of an answer if the manifest sets no limit.
const DEFAULT_MAX_TOKENS: u32 = 512;
/// Fields of an agent that a whole request has itself.
const REQUEST_FIELDS: [&str; 5] = ["model", "system", "max_tokens", "temperature", "schema"];

/// Decodes a node that calls a model, with its tools and its memory.
pub(super) fn decode_agent(
    decoder: &mut ManifestDecoder<'_>,
    tree: &YamlTree,
    path: &str,
    mentions: &mut Mentions,
) -> Option<Agent> {
    let mut fields = decoder.map_fields(tree, path)?;
    let request = decode_request(decoder, &mut fields, mentions);
    let agent = decode_agent_base(decoder, tree, &mut fields, mentions, request);
    let schema = fields
        .take_field("schema")
        .map(|tree| decoder.decode_schema(tree, &fields.field_path("schema")));
    let toolbox = decode_toolbox::decode_toolbox(decoder, &mut fields);
    let memory = decode_toolbox::decode_memory(decoder, &mut fields, mentions);
    decoder.reject_unknown_fields(&fields);
    let agent = Agent { schema, toolbox, memory, ..agent? };
    if agent.has_turns() && agent.request.is_some() {
        let message = "`tools` and `memory` belong to an agent with a `prompt`";
        decoder.add_error(tree, &fields.field_path("request"), message);
    }
    Some(agent)
}

/// Decodes what every agent has: its model, its prompts and the limits of one call. A whole request
/// replaces the prompt.
pub(super) fn decode_agent_base(
    decoder: &mut ManifestDecoder<'_>,
    tree: &YamlTree,
    fields: &mut MapFields<'_>,
    mentions: &mut Mentions,
    request: Option<String>,
) -> Option<Agent> {
    let model = fields
        .take_field("model")
        .and_then(|tree| decoder.decode_text(tree, &fields.field_path("model")));
    let system = fields
        .take_field("system")
        .and_then(|t| decode_template(decoder, t, &fields.field_path("system"), mentions));
    let prompt = match (fields.take_field("prompt"), &request) {
        (Some(tree), None) => {
            decode_template(decoder, tree, &fields.field_path("prompt"), mentions)
        }
        (None, Some(_)) => Some(String::new()),
        (Some(tree), Some(_)) => {
            let message = "`prompt` and `request` exclude each other: a request has its prompts";
            decoder.add_error(tree, &fields.field_path("request"), message);
            None
        }
        (None, None) => {
            decoder.add_error(
                tree,
                &fields.field_path("prompt"),
                "missing: an agent needs a prompt",
            );
            None
        }
    };
    let privacy = fields.take_field("privacy");
    let privacy =
        privacy.and_then(|tree| decoder.decode_parsed(tree, &fields.field_path("privacy")));
    let max_tokens = fields.take_field("max_tokens");
    let max_tokens = max_tokens
        .and_then(|t| decoder.decode_number(t, &fields.field_path("max_tokens"), 1, 32_768));
    let max_tokens = max_tokens.and_then(|n| u32::try_from(n).ok()).unwrap_or(DEFAULT_MAX_TOKENS);
    let temperature = fields.take_field("temperature").and_then(|tree| {
        let value = tree.to_value().as_f64().filter(|value| (0.0..=2.0).contains(value));
        if value.is_none() {
            decoder.add_error(
                tree,
                &fields.field_path("temperature"),
                "must be a number from 0 to 2",
            );
        }
        value
    });
    Some(Agent {
        model: model.unwrap_or_else(|| "auto".into()),
        system,
        prompt: prompt?,
        request,
        privacy: privacy.unwrap_or_default(),
        max_tokens,
        temperature,
        schema: None,
        toolbox: None,
        memory: None,
    })
}

/// Decodes a whole request in place of a prompt.
fn decode_request(
    decoder: &mut ManifestDecoder<'_>,
    fields: &mut MapFields<'_>,
    mentions: &mut Mentions,
) -> Option<String> {
    let tree = fields.take_field("request")?;
    for field in REQUEST_FIELDS {
        if let Some(beside) = fields.peek_field(field) {
            let message =
                format!("`{field}` beside a request is not used: write it into the request");
            decoder.add_error(beside, &fields.field_path(field), message);
        }
    }
    decode_template(decoder, tree, &fields.field_path("request"), mentions)
}
