//! Decodes nodes that run a graph within the run: a registered one, or one that a model proposes.

use serde_json::{Map, Value};

use super::decode_agent::decode_agent_base;
use super::decode_toolbox;
use super::decoder::{ManifestDecoder, MapFields, Mentions};
use super::manifest::{Grants, PlanNode, SubGraph};
use super::yaml::{YamlKind, YamlTree};
use crate::id::{GraphVersion, Name};
use crate::run::Budget;

/// Proposals of a plan if the manifest sets no limit.
const DEFAULT_PLAN_TURNS: u64 = 3;

/// Decodes `graph: {name, version, inputs, budget}` or `graph: NAME`.
pub(super) fn decode_sub_graph(
    decoder: &mut ManifestDecoder<'_>,
    tree: &YamlTree,
    path: &str,
    mentions: &mut Mentions,
) -> Option<SubGraph> {
    if !matches!(tree.kind, YamlKind::Map(_)) {
        let name = decoder.decode_parsed::<Name>(tree, path)?.to_string();
        let inputs = Value::Object(Map::new());
        return Some(SubGraph { name, version: None, inputs, budget: None });
    }
    let mut fields = decoder.map_fields(tree, path)?;
    let name = match fields.take_field("name") {
        Some(tree) => decoder.decode_parsed::<Name>(tree, &fields.field_path("name")),
        None => {
            decoder.add_error(
                tree,
                &fields.field_path("name"),
                "missing: the graph's name, as `name: brief`",
            );
            None
        }
    };
    let version = fields.take_field("version");
    let version = version
        .and_then(|t| decoder.decode_parsed::<GraphVersion>(t, &fields.field_path("version")));
    let inputs = decode_inputs(decoder, &mut fields, mentions);
    let budget = decode_optional_budget(decoder, &mut fields);
    decoder.reject_unknown_fields(&fields);
    Some(SubGraph { name: name?.to_string(), version, inputs, budget })
}

/// Decodes `plan: {model, system, prompt, max_tokens, max_turns, inputs, budget, tools, memory,
/// ...}`.
pub(super) fn decode_plan(
    decoder: &mut ManifestDecoder<'_>,
    tree: &YamlTree,
    path: &str,
    mentions: &mut Mentions,
) -> Option<PlanNode> {
    let mut fields = decoder.map_fields(tree, path)?;
    let agent = decode_agent_base(decoder, tree, &mut fields, mentions, None);
    let max_turns = fields.take_field("max_turns");
    let max_turns =
        max_turns.and_then(|t| decoder.decode_number(t, &fields.field_path("max_turns"), 1, 100));
    let max_turns = u32::try_from(max_turns.unwrap_or(DEFAULT_PLAN_TURNS)).unwrap_or(1);
    let inputs = decode_inputs(decoder, &mut fields, mentions);
    let budget = decode_optional_budget(decoder, &mut fields);
    let grants = decode_grants(decoder, &mut fields, mentions);
    decoder.reject_unknown_fields(&fields);
    Some(PlanNode { agent: agent?, max_turns, inputs, budget, grants })
}

/// Decodes `tools` and `memory: {subject}` of a plan.
fn decode_grants(
    decoder: &mut ManifestDecoder<'_>,
    fields: &mut MapFields<'_>,
    mentions: &mut Mentions,
) -> Grants {
    let tools = fields.take_field("tools");
    let tools = tools.and_then(|tree| {
        decode_toolbox::decode_tool_refs(decoder, tree, &fields.field_path("tools"))
    });
    let memory = fields.take_field("memory").and_then(|tree| {
        let mut fields = decoder.map_fields(tree, &fields.field_path("memory"))?;
        let subject = decode_toolbox::decode_memory_subject(decoder, tree, &mut fields, mentions);
        decoder.reject_unknown_fields(&fields);
        subject
    });
    Grants { tools: tools.unwrap_or_default(), memory_subject: memory }
}

fn decode_inputs(
    decoder: &mut ManifestDecoder<'_>,
    fields: &mut MapFields<'_>,
    mentions: &mut Mentions,
) -> Value {
    let empty = Value::Object(Map::new());
    let Some(tree) = fields.take_field("inputs") else { return empty };
    let path = fields.field_path("inputs");
    if !matches!(tree.kind, YamlKind::Map(_)) {
        decoder.add_error(tree, &path, format!("must be a map of inputs, is {}", tree.kind_name()));
        return empty;
    }
    decoder.add_template_refs(tree, &path, mentions);
    tree.to_value()
}

fn decode_optional_budget(
    decoder: &mut ManifestDecoder<'_>,
    fields: &mut MapFields<'_>,
) -> Option<Budget> {
    let tree = fields.take_field("budget")?;
    // A child run without a limit of its own is bounded by what its parent has left.
    Some(decoder.decode_budget(tree, &fields.field_path("budget"), Budget::UNBOUND))
}
